//! The whole path of a fault: the hook is called, and its verdict is carried out as [`Verdict`] describes.

use super::MockGuest;
use crate::{ErrorCode, Exception, Fault, GuestError, Hook, Va, Verdict};

/// RFLAGS.RF: set in the image that a fault pushes, clear after an instruction has completed (SDM vol. 3B, 18.3.1.1).
const RFLAGS_RF: u64 = 1 << 16;

/// What the guest sees of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its own vector-14 handler runs.
    Handled {
        /// The address in CR2.
        address: Va,
        /// The error code that is pushed.
        error_code: ErrorCode,
    },
    /// The faulting instruction is retried.
    Retried,
    /// The guest continues after the instruction; RIP in the guest's registers is already updated.
    Skipped,
    /// The handler of this exception runs.
    Raised(Exception),
    /// The VM stops, for this reason.
    Stopped(String),
    /// The hook failed, or its verdict can't be carried out; the text says why. The guest's own handler runs with the
    /// registers as they were, as if there were no hook. A VM would disable the hook; a mock guest keeps calling it.
    LeftOut(String),
}

impl MockGuest {
    /// Calls `hook` for `fault` and carries out its verdict.
    ///
    /// Before the call, RIP, RSP, RFLAGS and the address space are set from `fault`; the other registers keep their
    /// values. Afterwards, [`Guest::registers`](crate::Guest::registers) are those with which the guest resumes.
    ///
    /// All gates exist except those removed with [`MockGuest::remove_gate`]. A panic in the hook is not caught, so that
    /// the test sees it.
    ///
    /// ```
    /// use vector14_hook::mock::{MockGuest, Outcome, write_fault};
    /// use vector14_hook::{Access, Fault, Guest, Hook, Result, Va, Verdict};
    ///
    /// /// Makes every faulting read return 42.
    /// struct FortyTwo;
    ///
    /// impl Hook for FortyTwo {
    ///     fn on_fault(&self, _fault: &Fault, guest: &mut dyn Guest) -> Result {
    ///         guest.registers_mut().rax = 42;
    ///         Ok(Verdict::Skip)
    ///     }
    /// }
    ///
    /// let mut guest = MockGuest::new(0);
    /// let fault = write_fault(0x7000);
    /// guest.load(fault.rip, &[0x48, 0x8b, 0x07], Access::USER | Access::EXECUTE); // mov rax, [rdi]
    /// assert_eq!(guest.take(&FortyTwo, &fault), Outcome::Skipped);
    /// assert_eq!((guest.registers().rax, guest.registers().rip), (42, fault.rip.0 + 3));
    /// ```
    pub fn take(&mut self, hook: &dyn Hook, fault: &Fault) -> Outcome {
        self.paging.cr3 = fault.cr3;
        (self.registers.rip, self.registers.rsp, self.registers.rflags) = (fault.rip.0, fault.rsp.0, fault.rflags);
        let before = self.registers;
        let answer = hook.on_fault(fault, self);
        self.paging.cr3 = fault.cr3;
        let outcome = match answer {
            Ok(verdict) => self.carry_out(fault, &verdict).or_else(|why| {
                let stop = hook.on_refused(fault, &why).map(Outcome::Stopped);
                stop.ok_or(why)
            }),
            Err(error) => Err(format!("failed: {error}")),
        };
        outcome.unwrap_or_else(|why| {
            self.registers = before;
            Outcome::LeftOut(why)
        })
    }

    fn carry_out(&mut self, fault: &Fault, verdict: &Verdict) -> Result<Outcome, String> {
        verdict.check(&self.paging).map_err(|error| error.to_string())?;
        let outcome = self.outcome_of(fault, verdict)?;
        let rip = Va(self.registers.rip);
        let goes_there = rip == fault.rip || self.paging.is_canonical(rip);
        goes_there
            .then_some(outcome)
            .ok_or_else(|| format!("would have the guest go on at {rip}, which is not canonical"))
    }

    fn outcome_of(&mut self, fault: &Fault, verdict: &Verdict) -> Result<Outcome, String> {
        Ok(match verdict {
            Verdict::Pass | Verdict::Reinject => {
                Outcome::Handled { address: fault.address, error_code: fault.error_code }
            }
            Verdict::ReinjectAs { address, error_code } => {
                Outcome::Handled { address: *address, error_code: *error_code }
            }
            Verdict::Resolve => Outcome::Retried,
            Verdict::Skip => {
                self.registers.rip = self.next_instruction().map_err(|error| format!("said Skip, but {error}"))?;
                self.registers.rflags &= !RFLAGS_RF;
                Outcome::Skipped
            }
            Verdict::Raise(Exception { vector, .. }) if self.missing_gates >> vector & 1 != 0 => {
                return Err(format!("said Raise, but the guest's gate {vector} is missing"));
            }
            Verdict::Raise(exception) => Outcome::Raised(*exception),
            Verdict::Stop(reason) => Outcome::Stopped(reason.clone().into_owned()),
        })
    }

    /// The address after the instruction at RIP.
    fn next_instruction(&self) -> Result<u64, GuestError> {
        let code = self.code_at(Va(self.registers.rip))?;
        let next = code.decode()?.next_ip();
        Ok(if code.bits == 64 { next } else { next & 0xffff_ffff })
    }
}
