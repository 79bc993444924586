//! A hook that panics or fails does not take the VM down: the fault is reinjected, and the hook is reported and left
//! out.

use std::time::Duration;

use libtest_mimic::Trial;
use vector14::summary::Stop;
use vector14_guest_abi::window::DEMAND;
use vector14_hook::{Fault, Guest as Handle, Hook, Result, Verdict};

use crate::harness::{Act, Guest, Recorder, kvm_test, panic_at};

pub fn tests() -> Vec<Trial> {
    vec![
        kvm_test("hook-failures::panic", panics),
        kvm_test("hook-failures::error", fails),
        kvm_test("hook-failures::a_panic_at_the_end", panics_at_the_end),
        kvm_test("hook-failures::a_hook_that_never_returns", never_returns),
        kvm_test("hook-failures::the_first_verdict_decides", first_decides),
    ]
}

fn panics() {
    let behind = Recorder::default();
    let guest = Guest::new("scenario=demand pages=20").hook("clumsy", panic_at(3)).hook("behind", behind.clone());
    let outcome = guest.run().passed().guest_saw_what_was_reinjected();
    let [clumsy, other] = &outcome.summary.hooks[..] else { panic!("{outcome}") };
    assert_eq!((clumsy.calls, clumsy.failures), (4, 1), "{outcome}");
    assert_eq!((other.calls, other.failures), (19, 0), "the others go on\n{outcome}");
    let note = &outcome.summary.notes[0];
    for word in ["clumsy", "panicked", "as the test wants it", "hooks.rs:", "fault #3", "left out"] {
        assert!(note.contains(word), "no `{word}`\n{outcome}");
    }
}

struct Fails;

impl Hook for Fails {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Handle) -> Result {
        let mut byte = [0];
        guest.read(fault.address, &mut byte)?;
        Ok(Verdict::Pass)
    }
}

fn fails() {
    let outcome =
        Guest::new("scenario=demand pages=20").hook("naive", Fails).run().passed().guest_saw_what_was_reinjected();
    assert_eq!((outcome.summary.hooks[0].calls, outcome.summary.hooks[0].failures), (1, 1), "{outcome}");
    assert!(outcome.summary.notes[0].contains("`naive` failed: virtual address 0x"), "{outcome}");
}

struct PanicsAtTheEnd;

impl Hook for PanicsAtTheEnd {
    fn on_fault(&self, _fault: &Fault, _guest: &mut dyn Handle) -> Result {
        Ok(Verdict::Pass)
    }

    fn on_end(&self, _guest: &mut dyn Handle) -> vector14_hook::Report {
        panic!("no last words")
    }
}

fn panics_at_the_end() {
    let outcome = Guest::new("scenario=demand").hook("mute", PanicsAtTheEnd).run().passed();
    assert!(outcome.summary.notes[0].contains("no last words"), "{outcome}");
}

struct NeverReturns;

impl Hook for NeverReturns {
    fn on_fault(&self, _fault: &Fault, _guest: &mut dyn Handle) -> Result {
        loop {
            std::thread::park();
        }
    }
}

/// The deadline still ends the VM, and the summary says why counts are missing.
fn never_returns() {
    let guest = Guest::new("scenario=demand").timeout(Duration::from_millis(500)).hook("stuck", NeverReturns);
    let outcome = guest.run();
    assert_eq!(outcome.summary.stop, Stop::Deadline, "{outcome}");
    assert!(outcome.summary.notes[0].contains("1 of 1 vCPUs did not stop"), "{outcome}");
}

fn first_decides() {
    let behind = Recorder::default();
    let reinject = Act { window: DEMAND, verdict: Verdict::Reinject };
    let guest = Guest::new("scenario=demand pages=5").hook("first", reinject).hook("behind", behind.clone());
    let outcome = guest.run().passed();
    assert_eq!(outcome.summary.hooks[0].calls, 5, "{outcome}");
    assert_eq!(behind.faults(), [], "{outcome}");
}
