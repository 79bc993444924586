//! Runs hooks on recorded faults, without a VM or guest memory; verdicts have no effect. For trying a hook on a trace.
//!
//! A recorded fault has RIP, RSP and RFLAGS; other registers are 0. Every operation that needs the guest fails with
//! [`GuestError::NoGuest`]. A hook that returns that error fails with it, as it would in a VM.

use std::time::Duration;

use vector14_hook::paging::{Mode, Paging};
use vector14_hook::panics::{describe_panic, guarded, report_panics_of_hooks_here};
use vector14_hook::{
    Access, Code, Cr3, Fault, Guest, GuestError, GuestKind, Hook, Mapping, Pa, Registers, Report, SystemRegisters,
    Translation, Va, Verdict, Walk,
};

use crate::intercept::chain::{NamedHook, unique};

/// Hooks in the order in which they are asked, as in a VM's chain.
pub struct Replay {
    hooks: Vec<Asked>,
}

struct Asked {
    name: String,
    hook: Box<dyn Hook>,
    failed: bool,
}

/// The answer of the hooks to a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The verdict; `Pass` if all hooks passed.
    pub verdict: Verdict,
    /// The hook that decided, or failed.
    pub hook: Option<String>,
    /// Why the hook failed; it is not asked again.
    pub failure: Option<String>,
}

impl Replay {
    /// Creates a chain of hooks, which are asked in this order.
    #[must_use]
    pub fn new(hooks: Vec<NamedHook>) -> Self {
        report_panics_of_hooks_here();
        let mut asked = Vec::<Asked>::with_capacity(hooks.len());
        for NamedHook { name, hook, .. } in hooks {
            let name = unique(name, |name| asked.iter().any(|other| other.name == name));
            asked.push(Asked { name, hook, failed: false });
        }
        Self { hooks: asked }
    }

    /// Asks the hooks until one returns something other than `Pass`. A hook that panics, fails or returns an invalid
    /// verdict is not asked again, whatever its config says.
    pub fn ask(&mut self, fault: &Fault) -> Answer {
        for asked in self.hooks.iter_mut().filter(|asked| !asked.failed) {
            let mut guest = Recorded::new(&asked.name, fault);
            let failure = match guarded(|| asked.hook.on_fault(fault, &mut guest)) {
                Ok(Ok(Verdict::Pass)) => continue,
                Ok(Ok(verdict)) => match verdict.check(&PAGING) {
                    Ok(()) => return Answer { verdict, hook: Some(asked.name.clone()), failure: None },
                    Err(error) => error.to_string(),
                },
                Ok(Err(error)) => format!("failed: {error}"),
                Err(payload) => format!("panicked: {}", describe_panic(payload.as_ref())),
            };
            asked.failed = true;
            return Answer { verdict: Verdict::Reinject, hook: Some(asked.name.clone()), failure: Some(failure) };
        }
        Answer { verdict: Verdict::Pass, hook: None, failure: None }
    }

    /// Ends the hooks. Returns the name and the report of each.
    #[must_use]
    pub fn end(self) -> Vec<(String, Report)> {
        let end = |Asked { name, hook, .. }: Asked| {
            let ended = guarded(|| hook.on_end(&mut Recorded { name: &name, ..Recorded::default() }));
            let report = ended.unwrap_or_else(|payload| {
                let warning = format!("panicked at the end: {}", describe_panic(payload.as_ref()));
                Report { warnings: vec![warning], ..Report::default() }
            });
            (name, report)
        };
        self.hooks.into_iter().map(end).collect()
    }
}

/// The widest paging mode, because a trace does not record the mode.
const PAGING: Paging = Paging { cr3: Cr3(0), mode: Mode::Long { levels: 5 }, no_execute: true };

/// What a recorded fault provides of the guest.
#[derive(Default)]
struct Recorded<'a> {
    name: &'a str,
    registers: Registers,
    system: SystemRegisters,
    cr3: Cr3,
}

impl<'a> Recorded<'a> {
    fn new(name: &'a str, fault: &Fault) -> Self {
        let registers = Registers { rip: fault.rip.0, rsp: fault.rsp.0, rflags: fault.rflags, ..Registers::default() };
        Self { name, registers, system: SystemRegisters::default(), cr3: fault.cr3 }
    }
}

impl Guest for Recorded<'_> {
    fn registers(&self) -> &Registers {
        &self.registers
    }

    fn registers_mut(&mut self) -> &mut Registers {
        &mut self.registers
    }

    fn system_registers(&self) -> &SystemRegisters {
        &self.system
    }

    fn kind(&self) -> GuestKind {
        GuestKind::Other
    }

    fn address_space(&self) -> Cr3 {
        self.cr3
    }

    fn use_address_space(&mut self, cr3: Cr3) {
        self.cr3 = cr3;
    }

    fn walk(&self, _address: Va) -> Result<Walk, GuestError> {
        Err(GuestError::NoGuest)
    }

    fn translate(&self, _address: Va) -> Result<Translation, GuestError> {
        Err(GuestError::NoGuest)
    }

    fn read(&self, _address: Va, _buffer: &mut [u8]) -> Result<(), GuestError> {
        Err(GuestError::NoGuest)
    }

    fn write(&mut self, _address: Va, _data: &[u8]) -> Result<(), GuestError> {
        Err(GuestError::NoGuest)
    }

    fn read_physical(&self, _address: Pa, _buffer: &mut [u8]) -> Result<(), GuestError> {
        Err(GuestError::NoGuest)
    }

    fn write_physical(&mut self, _address: Pa, _data: &[u8]) -> Result<(), GuestError> {
        Err(GuestError::NoGuest)
    }

    fn compare_exchange(&mut self, _address: Pa, _current: u64, _new: u64) -> Result<bool, GuestError> {
        Err(GuestError::NoGuest)
    }

    fn allocate_page(&mut self) -> Result<Pa, GuestError> {
        Err(GuestError::NoGuest)
    }

    fn free_page(&mut self, _page: Pa) -> Result<(), GuestError> {
        Err(GuestError::NoGuest)
    }

    fn map(&mut self, _page: Va, _frame: Pa, _access: Access) -> Result<(), GuestError> {
        Err(GuestError::NoGuest)
    }

    fn unmap(&mut self, _page: Va) -> Result<Mapping, GuestError> {
        Err(GuestError::NoGuest)
    }

    fn protect(&mut self, _page: Va, _access: Access) -> Result<Mapping, GuestError> {
        Err(GuestError::NoGuest)
    }

    fn flush(&mut self) -> Result<(), GuestError> {
        Err(GuestError::NoGuest)
    }

    fn code(&self) -> Result<Code, GuestError> {
        Err(GuestError::NoGuest)
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }

    fn log(&self, message: &str) {
        tracing::info!(hook = self.name, "{message}");
    }
}

#[cfg(test)]
mod tests {
    use vector14_hook::Exception;
    use vector14_hook::mock::write_fault;

    use super::*;

    type Decide = fn(&Fault, &mut dyn Guest) -> vector14_hook::Result;

    struct Does(Decide);

    impl Hook for Does {
        fn on_fault(&self, fault: &Fault, guest: &mut dyn Guest) -> vector14_hook::Result {
            self.0(fault, guest)
        }
    }

    #[test]
    fn the_first_verdict_decides_and_who_fails_is_not_asked_again() {
        let fails = Does(|fault, guest| {
            guest.read(fault.address, &mut [0])?;
            Ok(Verdict::Skip)
        });
        let panics = Does(|_, _| panic!("as the test wants it"));
        let cannot = Does(|_, _| Ok(Verdict::Raise(Exception { vector: 2, error_code: None })));
        let decides = Does(|fault, guest| {
            assert_eq!((guest.registers().rip, guest.address_space()), (fault.rip.0, fault.cr3));
            Ok(Verdict::Resolve)
        });
        let named = [("fails", fails), ("panics", panics), ("cannot", cannot), ("decides", decides)];
        let mut replay = Replay::new(named.into_iter().map(|(name, hook)| NamedHook::new(name, hook)).collect());
        let answers: Vec<_> = (0..5).map(|_| replay.ask(&write_fault(0x1000))).collect();
        for (answer, hook, why) in [
            (&answers[0], "fails", Some("there is no guest")),
            (&answers[1], "panics", Some("as the test wants it")),
            (&answers[2], "cannot", Some("vector 2")),
            (&answers[4], "decides", None),
        ] {
            assert_eq!(answer.hook.as_deref(), Some(hook), "{answer:?}");
            assert_eq!(answer.failure.is_some(), why.is_some(), "{answer:?}");
            assert!(why.is_none_or(|why| answer.failure.as_ref().is_some_and(|said| said.contains(why))), "{answer:?}");
        }
        assert_eq!((&answers[4].verdict, &answers[0].verdict), (&Verdict::Resolve, &Verdict::Reinject));
        let names: Vec<_> = replay.end().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["fails", "panics", "cannot", "decides"]);
    }
}
