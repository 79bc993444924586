//! The page-walk oracle: predicts the error code of each fault from the guest's page tables, control registers and
//! instruction, and compares it with the hardware's.
//!
//! `access` finds the accesses that the instruction makes; `tables` finds what the page tables allow. Neither looks at
//! the error code, and neither uses the walker under test. If prediction and hardware differ, the oracle shows both.

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
    /// The guest's PKRU while it faults. Hooks can't read it.
    pkru: u32,
    findings: Arc<Mutex<Findings>>,
}

/// Number of faults by what the oracle found, and the texts of the disagreements.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Faults with the predicted error code, on an access that the instruction makes.
    pub agreed: u64,
    /// Faults with the predicted error code, on an access that the CPU makes by itself: to a descriptor table, or to a
    /// stack that it switches to.
    pub implicit: u64,
    /// Faults with P set on accesses that the tables allow: the CPU used a stale translation. A guest need not flush a
    /// translation that gains a right.
    pub stale: u64,
    /// Faults with P clear on accesses that the tables allow by now: another vCPU has mapped the page since.
    pub raced: u64,
    /// All other faults: prediction and hardware for each.
    pub disagreements: Vec<String>,
}

impl Oracle {
    /// For a guest with protection keys.
    pub fn with_pkru(pkru: u32) -> Self {
        Self { pkru, ..Self::default() }
    }

    /// Checks that there is no disagreement and that the findings cover all faults of `outcome`, and returns them.
    #[track_caller]
    pub fn findings(&self, outcome: &Outcome) -> Findings {
        let findings = self.findings.lock().unwrap().clone();
        let Findings { agreed, implicit, stale, raced, disagreements } = &findings;
        assert!(disagreements.is_empty(), "{}\n{outcome}", disagreements.join("\n"));
        assert_eq!(agreed + implicit + stale + raced, outcome.summary.faults.total, "{outcome}");
        findings
    }

    /// Prediction and hardware for each fault on which they differ.
    pub fn disagreements(&self) -> Vec<String> {
        self.findings.lock().unwrap().disagreements.clone()
    }

    /// Checks that the oracle predicted the error code of every fault of `outcome`, each on an access that the
    /// instruction makes.
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
        // An access that no operand explains is made by the CPU itself, as a supervisor at any CPL.
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

/// The error code that an access must fault with; `None` if it is allowed.
fn predict(access: &Access, cpu: &Cpu, walk: &Walk) -> Option<ErrorCode> {
    access.ways.iter().find_map(|way| walk.predict(cpu, *way, access.by))
}

/// Describes a fault: what the hardware says, each entry of the walk, and the prediction for each access.
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
