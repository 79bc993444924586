//! A fault through a trap gate is interrupted in the stub. By the time that the handler of the interrupt returns to the
//! stub, interception has been detached.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use libtest_mimic::Trial;
use vector14::vm::RunState;
use vector14_guest_abi::window::HIDDEN;
use vector14_hook::{Access, Fault, Guest as Handle, Hook, Result, Verdict};

use crate::harness::{Guest, kvm_test, of_gate};

pub fn tests() -> Vec<Trial> {
    of_gate(vec![kvm_test("trap-gate::interrupted_in_the_stub_and_detached", detached)])
}

/// Maps the page that the guest's handler does not map. The other fault is from the handler of the interrupt.
struct Resolver(Arc<AtomicBool>);

impl Hook for Resolver {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Handle) -> Result {
        if !HIDDEN.contains(&fault.address.0) {
            self.0.store(true, SeqCst);
            return Ok(Verdict::Pass);
        }
        let frame = guest.allocate_page()?;
        guest.write_physical(frame, &[0x5a; 4096])?;
        guest.map(fault.address.page(), frame, Access::WRITE | Access::USER)?;
        Ok(Verdict::Resolve)
    }
}

fn detached() {
    let interrupted = Arc::new(AtomicBool::new(false));
    let outcome =
        Guest::new("scenario=trap-gate").hook("resolver", Resolver(Arc::clone(&interrupted))).run_beside(|vm| {
            while !interrupted.load(SeqCst) {
                assert_ne!(vm.state(), RunState::Ended);
                std::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(vm.detach(), Ok(false));
        });
    let outcome = outcome.passed();
    let verdicts = &outcome.summary.verdicts;
    assert_eq!((verdicts.resolve, verdicts.reinject), (1, 1), "{outcome}");
}
