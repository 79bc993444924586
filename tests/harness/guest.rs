//! Guests, mostly the tiny one, run in this process with the test's own hooks.

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

/// Deadline of a guest, unless the test sets another.
const DEADLINE: Duration = Duration::from_secs(60);

/// A guest to be run.
pub struct Guest {
    config: Config,
    hooks: Vec<NamedHook>,
}

impl Guest {
    /// The tiny guest with this command line, with every fault intercepted and no hooks.
    pub fn new(cmdline: &str) -> Self {
        Self::of(Config::tiny(cmdline))
    }

    /// A guest with this config, with every fault intercepted and no hooks. Deadline and engine are the suite's.
    pub fn of(mut config: Config) -> Self {
        config.vm.timeout = Some(DEADLINE);
        config.intercept.engine = engine();
        Self { config, hooks: Vec::new() }
    }

    /// Turns interception off.
    pub fn off(self) -> Self {
        self.engine(EngineChoice::Off)
    }

    /// Replaces the suite's engine.
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

    /// Sets the range that the stub may be placed in.
    pub fn stub(mut self, range: Range<u64>) -> Self {
        self.config.intercept.stub = Some(Va(range.start)..Va(range.end));
        self
    }

    /// Sets the filter of faults that leave the guest.
    pub fn error_code(mut self, filter: ErrorCodeFilter) -> Self {
        self.config.intercept.error_code = Some(filter);
        self
    }

    /// Appends a hook to the chain.
    pub fn hook(self, name: &str, hook: impl Hook + 'static) -> Self {
        self.boxed_hook(name, Box::new(hook))
    }

    /// Appends a hook whose type is not known at compile time.
    pub fn boxed_hook(self, name: &str, hook: Box<dyn Hook>) -> Self {
        self.named_hook(NamedHook::boxed(name, hook))
    }

    /// Appends a hook with trust settings of its own.
    pub fn named_hook(mut self, hook: NamedHook) -> Self {
        self.hooks.push(hook);
        self
    }

    /// Runs the guest to its end.
    pub fn run(self) -> Outcome {
        self.run_beside(|_| ())
    }

    /// Runs the guest to its end, and calls `act` meanwhile, in another thread.
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
            vm.run().expect("the host does not fail")
        });
        let text = String::from_utf8_lossy(&console.0.lock().unwrap()).into_owned();
        Outcome { summary, console: text }
    }
}

/// Stops the VM if the thread beside it panics, so that the test ends.
struct StopsInPanic(VmHandle);

impl Drop for StopsInPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.stop();
        }
    }
}

/// The result of a run. A failed test prints its `Display`.
pub struct Outcome {
    pub summary: Summary,
    pub console: String,
}

impl Outcome {
    /// Checks that the guest passed, and that every fault that the host saw was accounted for.
    #[track_caller]
    pub fn passed(self) -> Self {
        assert_eq!(self.summary.stop, Stop::Exit { status: 1 }, "{self}");
        self.balanced()
    }

    /// Checks that every fault that the host saw has one verdict and one exit, and that the exits add up.
    #[track_caller]
    pub fn balanced(self) -> Self {
        let Summary { faults, verdicts, exits, .. } = &self.summary;
        assert_eq!(verdicts.total(), faults.total, "{self}");
        assert_eq!(exits.fault, faults.total, "{self}");
        assert_eq!(exits.fault + exits.io + exits.mmio + exits.hlt + exits.kick + exits.other, exits.total, "{self}");
        self
    }

    /// Number of faults that the guest's own handler counted: the N in its line `faults=N ok`.
    #[track_caller]
    pub fn guest_faults(&self) -> u64 {
        self.counted_by_guest().unwrap_or_else(|| panic!("the guest gave no count\n{self}"))
    }

    /// As [`Self::guest_faults`]; `None` if the guest printed no count.
    pub fn counted_by_guest(&self) -> Option<u64> {
        let count = self.console.split("faults=").skip(1).last().and_then(|rest| rest.split_whitespace().next());
        count.and_then(|count| count.parse().ok())
    }

    /// Checks that the guest's handler saw exactly the faults that the host reinjected, and that there were faults.
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

/// Runs a scenario that needs nothing from the host twice: with interception off, and with every fault reinjected.
/// Checks that it passes and prints the same both times. In the second run, guest and host must count the same faults,
/// and the guest's tables and instructions must explain the error code of each.
#[track_caller]
pub fn off_and_on(cmdline: &str) -> Outcome {
    let off = Guest::new(cmdline).off().run().passed();
    assert_eq!(off.summary.faults.total, 0, "{off}");
    let oracle = Oracle::default();
    let on = Guest::new(cmdline).hook("oracle", oracle.clone()).run().passed().guest_saw_what_was_reinjected();
    oracle.agreed(&on);
    assert_eq!(on.console, off.console, "interception changes what the guest prints");
    on
}
