//! A guest, most often the tiny one, run in this process with hooks of the test's own.

use std::fmt;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vector14::chain::NamedHook;
use vector14::config::{Config, EngineChoice, ErrorCodeFilter};
use vector14::outlet::Outlet;
use vector14::summary::{Stop, Summary};
use vector14::vm::{Surroundings, Vm, VmHandle};
use vector14_hook::{Hook, Va};

use super::Oracle;
use super::engine::engine;

/// No test's guest runs longer than this.
const DEADLINE: Duration = Duration::from_secs(60);

/// A guest to be run.
pub struct Guest {
    config: Config,
    hooks: Vec<NamedHook>,
}

impl Guest {
    /// The tiny guest with a command line, all of its faults intercepted, no hooks.
    pub fn new(cmdline: &str) -> Self {
        Self::of(Config::tiny(cmdline))
    }

    /// Any guest; the same holds for it.
    pub fn of(mut config: Config) -> Self {
        config.vm.timeout = Some(DEADLINE);
        config.intercept.engine = engine();
        Self { config, hooks: Vec::new() }
    }

    /// Without interception.
    pub fn off(self) -> Self {
        self.engine(EngineChoice::Off)
    }

    /// With another engine than the suite's.
    pub fn engine(mut self, engine: EngineChoice) -> Self {
        self.config.intercept.engine = engine;
        self
    }

    pub fn vcpus(mut self, vcpus: u32) -> Self {
        self.config.vm.vcpus = vcpus;
        self
    }

    /// Guest RAM, in bytes.
    pub fn memory(mut self, memory: u64) -> Self {
        self.config.vm.memory = memory;
        self
    }

    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.config.vm.timeout = Some(timeout);
        self
    }

    /// Names a range for stubs.
    pub fn stub(mut self, range: Range<u64>) -> Self {
        self.config.intercept.stub = Some(Va(range.start)..Va(range.end));
        self
    }

    /// Which faults leave the guest.
    pub fn error_code(mut self, filter: ErrorCodeFilter) -> Self {
        self.config.intercept.error_code = Some(filter);
        self
    }

    /// Puts a hook at the end of the chain.
    pub fn hook(self, name: &str, hook: impl Hook + 'static) -> Self {
        self.boxed_hook(name, Box::new(hook))
    }

    /// The same, of a hook of a kind that is not known here.
    pub fn boxed_hook(self, name: &str, hook: Box<dyn Hook>) -> Self {
        self.named_hook(NamedHook::boxed(name, hook))
    }

    /// The same, of a hook that is trusted otherwise than usual.
    pub fn named_hook(mut self, hook: NamedHook) -> Self {
        self.hooks.push(hook);
        self
    }

    /// Runs it to its end.
    pub fn run(self) -> Outcome {
        self.run_beside(|_| ())
    }

    /// Runs it to its end, and does what the test wants with it meanwhile, in another thread.
    pub fn run_beside(self, act: impl FnOnce(&VmHandle) + Send) -> Outcome {
        let console = Console::default();
        let surroundings = Surroundings::unattended(Outlet::new("the console", Box::new(console.clone())).unwrap());
        let vm = Vm::new(&self.config, self.hooks, surroundings).expect("the VM can be made");
        let ends = StopsInPanic(vm.handle());
        let summary = std::thread::scope(|scope| {
            scope.spawn(move || {
                let ends = ends;
                act(&ends.0);
            });
            vm.run().expect("the host is well")
        });
        let text = String::from_utf8_lossy(&console.0.lock().unwrap()).into_owned();
        Outcome { summary, console: text }
    }
}

/// Ends the VM where the thread beside it panics: the test is over.
struct StopsInPanic(VmHandle);

impl Drop for StopsInPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.stop();
        }
    }
}

/// What became of it. Its `Display` is what a failed test shows.
pub struct Outcome {
    pub summary: Summary,
    pub console: String,
}

impl Outcome {
    /// The guest ended well, and every fault that the host saw was accounted for.
    #[track_caller]
    pub fn passed(self) -> Self {
        assert_eq!(self.summary.stop, Stop::Exit { status: 1 }, "{self}");
        self.balanced()
    }

    /// Every fault that the host saw was accounted for.
    #[track_caller]
    pub fn balanced(self) -> Self {
        let Summary { faults, verdicts, exits, .. } = &self.summary;
        assert_eq!(verdicts.total(), faults.total, "{self}");
        assert_eq!(exits.fault, faults.total, "{self}");
        assert_eq!(exits.fault + exits.io + exits.mmio + exits.hlt + exits.kick + exits.other, exits.total, "{self}");
        self
    }

    /// How many faults the guest's own handler counted: the N of its line `faults=N ok`.
    #[track_caller]
    pub fn guest_faults(&self) -> u64 {
        self.counted_by_guest().unwrap_or_else(|| panic!("the guest gave no count\n{self}"))
    }

    /// The same of a guest that may not count.
    pub fn counted_by_guest(&self) -> Option<u64> {
        let count = self.console.split("faults=").skip(1).last().and_then(|rest| rest.split_whitespace().next());
        count.and_then(|count| count.parse().ok())
    }

    /// The guest's handler saw exactly the faults that the host reinjected, and there were some.
    #[track_caller]
    pub fn guest_saw_what_was_reinjected(self) -> Self {
        assert_eq!(self.guest_faults(), self.summary.verdicts.reinject, "{self}");
        assert_ne!(self.summary.faults.total, 0, "{self}");
        self
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let summary = serde_json::to_string_pretty(&self.summary).unwrap();
        write!(f, "--- console\n{}\n--- summary\n{summary}", self.console)
    }
}

#[derive(Clone, Default)]
struct Console(Arc<Mutex<Vec<u8>>>);

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs a scenario that needs nothing from the host twice: with interception off, and on with all faults reinjected.
/// It passes both times, and the second time guest and host count the same faults, and each has the error code that the
/// guest's tables and instructions account for.
#[track_caller]
pub fn off_and_on(cmdline: &str) -> Outcome {
    let off = Guest::new(cmdline).off().run().passed();
    assert_eq!(off.summary.faults.total, 0, "{off}");
    let oracle = Oracle::default();
    let on = Guest::new(cmdline).hook("oracle", oracle.clone()).run().passed().guest_saw_what_was_reinjected();
    oracle.agreed(&on);
    assert_eq!(on.console, off.console, "the guest says something else when its faults are intercepted");
    on
}
