//! `zero-fill`: backs an address window of the guest with host-owned pages, mapped at each page's first fault.
//!
//! The guest's own handler never sees these faults: an address that it would treat as bad reads as zeroes or a pattern.
//! Pages are mapped per address space: every guest address space that touches a page gets its own copy.
//!
//! In Linux guests, faults are left to the guest. Linux would find the pages at munmap, exit and fork, and report bad
//! page maps (see `Guest::map`).

use serde::Deserialize;
use vector14_hook::{
    Access, Counter, Error, ErrorCode, Fault, Guest, GuestError, GuestKind, Hook, HookType, OptionDoc, Options,
    OptionsError, Pa, PerVcpu, Report, Result, Table, Va, Verdict,
};

use crate::address::{AddressRange, Number};

pub(crate) const TYPE: HookType = HookType {
    name: "zero-fill",
    summary: "resolves faults in an address window by mapping zeroed or patterned pages there",
    options: &[
        OptionDoc { name: "start", value: "address", default: None, help: "first address of the window" },
        OptionDoc { name: "end", value: "address", default: None, help: "end of the window (exclusive)" },
        OptionDoc { name: "fill", value: "0..0xff", default: Some("0"), help: "value of every byte of a new page" },
        OptionDoc {
            name: "access",
            value: "\"r\" | \"rw\" | \"rx\" | \"rwx\"",
            default: Some("\"rw\""),
            help: "access rights of the new mapping",
        },
        OptionDoc { name: "user", value: "bool", default: Some("true"), help: "whether user mode may access it" },
    ],
    check: |options| ZeroFill::new(options).map(drop),
    create: |options| Ok(Box::new(ZeroFill::new(options)?)),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    start: Number,
    end: Number,
    #[serde(default = "zero")]
    fill: Number,
    #[serde(default)]
    access: Rights,
    #[serde(default = "yes")]
    user: bool,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Rights {
    R,
    #[default]
    Rw,
    Rx,
    Rwx,
}

struct ZeroFill {
    window: AddressRange,
    fill: u8,
    access: Access,
    counts: PerVcpu<Counts>,
}

#[derive(Default)]
struct Counts {
    mapped: Counter,
    unmappable: Counter,
    of_linux: Counter,
}

impl ZeroFill {
    fn new(options: &Options) -> std::result::Result<Self, OptionsError> {
        let Settings { start, end, fill, access, user } = options.parse()?;
        let window =
            AddressRange::of_pages(start, end).map_err(|error| OptionsError::new(error.key(), error.to_string()))?;
        let fill = u8::try_from(fill.0)
            .map_err(|_| OptionsError::new("fill", format!("fill = {:#x}: must be from 0 to 0xff", fill.0)))?;
        let user = if user { Access::USER } else { Access::empty() };
        Ok(Self { window, fill, access: access.bits() | user, counts: PerVcpu::default() })
    }
}

impl Hook for ZeroFill {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Guest) -> Result {
        if fault.error_code.contains(ErrorCode::PRESENT) || !self.window.contains(fault.address) {
            return Ok(Verdict::Pass);
        }
        let counts = self.counts.of(fault);
        if guest.kind() == GuestKind::Linux {
            counts.of_linux.add(1);
            return Ok(Verdict::Pass);
        }
        match self.fill_page(fault.address.page(), guest) {
            Ok(()) => {
                counts.mapped.add(1);
                Ok(Verdict::Resolve)
            }
            // Another vCPU mapped the page first; the retry finds it.
            Err(GuestError::AlreadyMapped(_)) => Ok(Verdict::Resolve),
            // The guest's own page tables are broken here. Leave that to its own handler.
            Err(GuestError::Malformed(_) | GuestError::OutsideMemory(_) | GuestError::NotMapped(_)) => {
                counts.unmappable.add(1);
                Ok(Verdict::Pass)
            }
            Err(error @ GuestError::PoolExhausted { .. }) => Err(self.out_of_pages(fault.address, error)),
            Err(error) => Err(error.into()),
        }
    }

    fn on_end(&self, _guest: &mut dyn Guest) -> Report {
        let mut report = Report::default();
        report.tables.push(Table {
            title: "pages mapped".to_owned(),
            columns: ["window", "fill", "pages"].map(str::to_owned).to_vec(),
            rows: vec![vec![self.window.to_string(), format!("{:#04x}", self.fill), self.mapped().to_string()]],
        });
        let of_linux = self.sum(|counts| &counts.of_linux);
        if of_linux > 0 {
            report.warnings.push(format!(
                "{of_linux} faults in {} were left to the guest: Linux reports pages in its page tables that are not its own \
                 (`BUG: Bad page map`); the hook `pager` can map pages into a process that is prepared for it",
                self.window
            ));
        }
        let unmappable = self.sum(|counts| &counts.unmappable);
        if unmappable > 0 {
            report.warnings.push(format!(
                "{unmappable} faults in {} were left to the guest: its page tables could not be walked there",
                self.window
            ));
        }
        report
    }
}

impl ZeroFill {
    /// Maps a filled page at `page`, where nothing was mapped when the fault was raised.
    fn fill_page(&self, page: Va, guest: &mut dyn Guest) -> std::result::Result<(), GuestError> {
        if guest.translate(page).is_ok() {
            return Err(GuestError::AlreadyMapped(page));
        }
        let frame = self.take_page(guest)?;
        guest.map(page, frame, self.access).inspect_err(|_| {
            // The page was not mapped, so nobody has seen it.
            let _ = guest.free_page(frame);
        })
    }

    fn take_page(&self, guest: &mut dyn Guest) -> std::result::Result<Pa, GuestError> {
        let frame = guest.allocate_page()?;
        if self.fill != 0 {
            guest.write_physical(frame, &[self.fill; 4096])?;
        }
        Ok(frame)
    }

    fn mapped(&self) -> u64 {
        self.sum(|counts| &counts.mapped)
    }

    fn sum(&self, count: impl Fn(&Counts) -> &Counter) -> u64 {
        self.counts.iter().map(|counts| count(counts).get()).sum()
    }

    fn out_of_pages(&self, address: Va, error: GuestError) -> Error {
        let pages = self.mapped();
        format!(
            "no page for address {address} after {pages} pages of the window {}: {error}; \
             let the guest use fewer pages there, or make the window smaller",
            self.window
        )
        .into()
    }
}

impl Rights {
    const fn bits(self) -> Access {
        match self {
            Self::R => Access::empty(),
            Self::Rw => Access::WRITE,
            Self::Rx => Access::EXECUTE,
            Self::Rwx => Access::WRITE.union(Access::EXECUTE),
        }
    }
}

const fn zero() -> Number {
    Number(0)
}

const fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::fault;
    use serde_json::json;
    use std::thread;
    use vector14_hook::mock::{Method, MockGuest, Outcome, When, options};

    fn hook(more: serde_json::Value) -> ZeroFill {
        let mut all = json!({"start": "0x10000", "end": 0x20000});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ZeroFill::new(&options(all)).unwrap_or_else(|error| panic!("{error}"))
    }

    fn pages(hook: &ZeroFill) -> String {
        hook.on_end(&mut MockGuest::new(0)).tables[0].rows[0][2].clone()
    }

    #[test]
    fn a_fault_in_the_window_gets_a_filled_page() {
        for (fill, byte) in [(json!({}), 0), (json!({"fill": 0x5a}), 0x5a), (json!({"fill": "0xff"}), 0xff)] {
            let (hook, mut guest) = (hook(fill), MockGuest::new(8));
            assert_eq!(hook.on_fault(&fault(0, 0x1_2345), &mut guest).unwrap(), Verdict::Resolve);
            let mut contents = [1; 4096];
            guest.read(Va(0x1_2000), &mut contents).unwrap();
            assert_eq!(contents, [byte; 4096]);
            assert_eq!(pages(&hook), "1");
        }
    }

    #[test]
    fn the_mapping_has_the_rights_that_were_asked_for() {
        for (more, access) in [
            (json!({}), Access::WRITE | Access::USER),
            (json!({"access": "r", "user": false}), Access::empty()),
            (json!({"access": "rx"}), Access::EXECUTE | Access::USER),
            (json!({"access": "rwx"}), Access::all()),
        ] {
            let (hook, mut guest) = (hook(more), MockGuest::new(8));
            hook.on_fault(&fault(0, 0x1_0000), &mut guest).unwrap();
            assert_eq!(guest.translate(Va(0x1_0000)).unwrap().access, access);
        }
    }

    #[test]
    fn what_is_outside_or_present_is_passed_on() {
        let (hook, mut guest) = (hook(json!({})), MockGuest::new(8));
        let mut protection = fault(2, 0x1_0000);
        protection.error_code |= ErrorCode::PRESENT;
        for fault in [fault(0, 0xffff), fault(1, 0x2_0000), protection] {
            assert_eq!(hook.on_fault(&fault, &mut guest).unwrap(), Verdict::Pass);
        }
        assert_eq!(guest.pages_taken(), 0);
    }

    #[test]
    fn a_page_that_lost_the_race_goes_back_to_the_pool() {
        let (hook, mut guest) = (hook(json!({"fill": 1})), MockGuest::new(1));
        guest.fail(Method::Map, When::Always, GuestError::AlreadyMapped(Va(0x1_0000)));
        for sequence in 0..3 {
            assert_eq!(guest.take(&hook, &fault(sequence, 0x1_0000)), Outcome::Retried);
        }
        assert_eq!((guest.pages_taken(), pages(&hook).as_str()), (0, "0"));
    }

    #[test]
    fn vcpus_that_fault_together_get_one_page_an_address() {
        let (hook, guest) = (hook(json!({})), MockGuest::new(64));
        thread::scope(|scope| {
            for vcpu in 0..4 {
                let (hook, mut guest) = (&hook, guest.clone());
                scope.spawn(move || {
                    for page in (0x1_0000..0x2_0000).step_by(4096) {
                        assert_eq!(guest.take(hook, &Fault { vcpu, ..fault(0, page) }), Outcome::Retried);
                    }
                });
            }
        });
        assert_eq!((guest.pages_mapped(), pages(&hook).as_str()), (16, "16"));
        assert_eq!(guest.pages_taken(), 16);
    }

    #[test]
    fn broken_page_tables_are_the_guests_own_affair() {
        let (hook, mut guest) = (hook(json!({})), MockGuest::new(8));
        guest.fail(Method::Map, When::Always, GuestError::OutsideMemory(Pa(1 << 50)));
        assert_eq!(hook.on_fault(&fault(0, 0x1_0000), &mut guest).unwrap(), Verdict::Pass);
        assert_eq!(hook.on_end(&mut MockGuest::new(0)).warnings.len(), 1);
    }

    #[test]
    fn linux_keeps_its_faults_and_the_report_says_why() {
        let (hook, mut guest) = (hook(json!({})), MockGuest::linux(8));
        guest.load(Va(0x1_0000), &[1], Access::USER);
        for address in [0x1_1000, 0x1_2000] {
            assert_eq!(hook.on_fault(&fault(0, address), &mut guest).unwrap(), Verdict::Pass);
        }
        let warnings = hook.on_end(&mut guest).warnings;
        assert!(
            warnings.len() == 1 && warnings[0].contains("2 faults") && warnings[0].contains("Linux"),
            "{warnings:?}"
        );
        assert_eq!(guest.pages_taken(), 0);
    }

    #[test]
    fn an_empty_pool_is_an_error_that_says_what_to_do() {
        let (hook, mut guest) = (hook(json!({})), MockGuest::new(1));
        hook.on_fault(&fault(0, 0x1_0000), &mut guest).unwrap();
        let error = hook.on_fault(&fault(1, 0x1_1000), &mut guest).unwrap_err().to_string();
        assert!(error.contains("0x11000") && error.contains("1 pages") && error.contains("smaller"), "{error}");
    }

    #[test]
    fn bad_options_are_named() {
        for (bad, key, got) in [
            (json!({"start": 0x1000}), None, "end"),
            (json!({"start": 0x1001, "end": 0x3000}), Some("start"), "0x1001"),
            (json!({"start": 0x3000, "end": 0x1000}), Some("start"), "0x3000"),
            (json!({"start": 0x1000, "end": "later"}), Some("end"), "later"),
            (json!({"start": 0, "end": 0x1000, "fill": 256}), Some("fill"), "0x100"),
            (json!({"start": 0, "end": 0x1000, "access": "w"}), Some("access"), "`rwx`"),
            (json!({"start": 0, "end": 0x1000, "user": 1}), Some("user"), "boolean"),
            (json!({"start": 0, "end": 0x1000, "pages": 1}), Some("pages"), "`fill`"),
        ] {
            let error = (TYPE.check)(&options(bad)).unwrap_err();
            assert_eq!(error.key.as_deref(), key, "{error}");
            assert!(error.to_string().contains(got), "{error}");
        }
    }
}
