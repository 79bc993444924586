//! The page-walk oracle: what the error code of each fault should be, as the guest's tables, control registers and
//! instruction have it, beside what the hardware says.
//!
//! The instruction tells who accesses what and how (`access`), the tables what of that is allowed (`tables`). Neither looks
//! at the error code, and neither uses the walker that is tested. Where the two views differ, both are shown.

mod access;
mod tables;

use std::sync::{Arc, Mutex};

use vector14_hook::{ErrorCode, Fault, Guest, Hook, Result, Verdict};

use self::access::{Access, By, Way};
use self::tables::{Cpu, Walk};
use super::Outcome;

/// Judges every fault, and passes.
#[derive(Clone, Default)]
pub struct Oracle {
    /// What the guest has in PKRU while it faults: no hook sees that.
    pkru: u32,
    findings: Arc<Mutex<Findings>>,
}

/// What it has found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Faults whose error code is as predicted, of accesses that an instruction makes.
    pub agreed: u64,
    /// The same, of accesses that the CPU makes by itself: to its tables, or to a stack that it switches to.
    pub implicit: u64,
    /// Accesses that the tables allow, and did not when the CPU remembered them: P is set. A guest need not flush a
    /// translation that gains a right.
    pub stale: u64,
    /// Accesses that the tables allow by now, since another vCPU has been there: P is clear.
    pub raced: u64,
    /// The others, both views of each.
    pub disagreements: Vec<String>,
}

impl Oracle {
    /// For a guest with protection keys.
    pub fn with_pkru(pkru: u32) -> Self {
        Self { pkru, ..Self::default() }
    }

    /// What it has found, with no disagreement, and all faults of `outcome` among it.
    #[track_caller]
    pub fn findings(&self, outcome: &Outcome) -> Findings {
        let findings = self.findings.lock().unwrap().clone();
        let Findings { agreed, implicit, stale, raced, disagreements } = &findings;
        assert!(disagreements.is_empty(), "{}\n{outcome}", disagreements.join("\n"));
        assert_eq!(agreed + implicit + stale + raced, outcome.summary.faults.total, "{outcome}");
        findings
    }

    /// Both views of each fault about which there are two.
    pub fn disagreements(&self) -> Vec<String> {
        self.findings.lock().unwrap().disagreements.clone()
    }

    /// The hardware and it agree about every single fault of `outcome`, and instructions explain all.
    #[track_caller]
    pub fn agreed(&self, outcome: &Outcome) {
        assert_eq!(self.findings(outcome).agreed, outcome.summary.faults.total, "{outcome}");
    }
}

impl Hook for Oracle {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Guest) -> Result {
        let cpu = Cpu::of(guest, self.pkru);
        let walk = Walk::of(fault, &cpu, guest);
        let accesses = access::of_instruction(fault, guest);
        let findings = &mut *self.findings.lock().unwrap();
        match judge(fault, &cpu, &walk, &accesses) {
            Some(Judgement::Agreed) => findings.agreed += 1,
            Some(Judgement::Implicit) => findings.implicit += 1,
            Some(Judgement::Stale) => findings.stale += 1,
            Some(Judgement::Raced) => findings.raced += 1,
            None => findings.disagreements.push(both_views(fault, guest, &cpu, &walk, &accesses)),
        }
        Ok(Verdict::Pass)
    }
}

enum Judgement {
    Agreed,
    Implicit,
    Stale,
    Raced,
}

fn judge(fault: &Fault, cpu: &Cpu, walk: &Walk, accesses: &[Access]) -> Option<Judgement> {
    let mut explaining = accesses.iter().filter(|access| access.touches(fault.address)).peekable();
    if explaining.peek().is_none() {
        // What no operand explains, the CPU does by itself, as a supervisor whatever the CPL.
        let by_itself = [Way::Read, Way::Write].map(|way| walk.predict(cpu, way, By::Cpu));
        return by_itself.contains(&Some(fault.error_code)).then_some(Judgement::Implicit);
    }
    let predictions: Vec<_> = explaining.map(|access| predict(access, cpu, walk)).collect();
    if predictions.contains(&Some(fault.error_code)) {
        Some(Judgement::Agreed)
    } else if predictions.contains(&None) {
        let present = fault.error_code.contains(ErrorCode::PRESENT);
        Some(if present { Judgement::Stale } else { Judgement::Raced })
    } else {
        None
    }
}

/// The error code that an access must have; `None` where it is allowed.
fn predict(access: &Access, cpu: &Cpu, walk: &Walk) -> Option<ErrorCode> {
    access.ways.iter().find_map(|way| walk.predict(cpu, *way, access.by))
}

/// The walk entry by entry with what follows from it, and what the hardware says.
fn both_views(fault: &Fault, guest: &dyn Guest, cpu: &Cpu, walk: &Walk, accesses: &[Access]) -> String {
    let instruction = guest.instruction().map_or_else(|error| error.to_string(), |instruction| instruction.to_string());
    let mut text = format!(
        "fault #{} at {}, rip {}: {instruction}\n  hardware: error code {:#x} ({})\n  {cpu}\n{walk}",
        fault.sequence,
        fault.address,
        fault.rip,
        fault.error_code.bits(),
        fault.error_code
    );
    for access in accesses {
        let predicted = predict(access, cpu, walk).map_or("no fault".to_owned(), |code| format!("{:#x}", code.bits()));
        text += &format!("  {access}: {predicted}\n");
    }
    text
}
