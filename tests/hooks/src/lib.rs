//! A hook that tests load as a shared library: its options select good behaviour or bad. `subject.c` is another one.

use serde::Deserialize;
use vector14_hook::{
    Access, Counter, Fault, Guest, Hook, HookType, OptionDoc, Options, OptionsError, PerVcpu, Report, Result, Table,
    Verdict,
};

vector14_hook::export!(HookType {
    name: "subject",
    summary: "does what a test asks for",
    options: &[
        OptionDoc { name: "act", value: "word", default: Some("\"pass\""), help: "what becomes of every fault" },
        OptionDoc { name: "fill", value: "0..255", default: Some("0"), help: "what a new page is filled with" },
    ],
    check: |options| options.parse::<Settings>().map(drop),
    create: |options| Ok(Box::new(Subject::new(options)?)),
});

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    act: Act,
    #[serde(default)]
    fill: u8,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Act {
    #[default]
    Pass,
    Map,
    MapAndUnmap,
    Fail,
    Panic,
    Stop,
    PanicAtCreation,
    PanicAtTheEnd,
    HangAtTheEnd,
}

struct Subject {
    settings: Settings,
    calls: PerVcpu<Counter>,
}

impl Subject {
    fn new(options: &Options) -> std::result::Result<Self, OptionsError> {
        let settings: Settings = options.parse()?;
        assert!(!matches!(settings.act, Act::PanicAtCreation), "at creation, as the test wants it");
        Ok(Self { settings, calls: PerVcpu::default() })
    }
}

impl Hook for Subject {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Guest) -> Result {
        self.calls.of(fault).add(1);
        match self.settings.act {
            Act::Pass | Act::PanicAtTheEnd | Act::HangAtTheEnd | Act::PanicAtCreation => Ok(Verdict::Pass),
            Act::Map => {
                let page = guest.allocate_page()?;
                guest.write_physical(page, &[self.settings.fill; 4096])?;
                guest.map(fault.address.page(), page, Access::WRITE | Access::USER)?;
                Ok(Verdict::Resolve)
            }
            Act::MapAndUnmap => {
                let page = guest.allocate_page()?;
                guest.map(fault.address.page(), page, Access::USER)?;
                guest.unmap(fault.address.page())?;
                guest.free_page(page)?;
                Ok(Verdict::Pass)
            }
            Act::Fail => {
                guest.read(fault.address, &mut [0])?;
                Ok(Verdict::Pass)
            }
            Act::Panic => panic!("at {}, as the test wants it", fault.address),
            Act::Stop => Ok(Verdict::Stop(format!("fault {}", fault.sequence).into())),
        }
    }

    fn on_end(&self, _guest: &mut dyn Guest) -> Report {
        assert!(!matches!(self.settings.act, Act::PanicAtTheEnd), "at the end, as the test wants it");
        if matches!(self.settings.act, Act::HangAtTheEnd) {
            eprintln!("subject: at the end");
            loop {
                std::thread::park();
            }
        }
        let calls: u64 = self.calls.iter().map(Counter::get).sum();
        let (title, columns) = ("calls".to_owned(), vec!["count".to_owned()]);
        Report { tables: vec![Table { title, columns, rows: vec![vec![calls.to_string()]] }], warnings: Vec::new() }
    }
}
