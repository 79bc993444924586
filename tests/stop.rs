//! A hook stops the VM, and the summary has its reason.

use libtest_mimic::Trial;
use vector14::summary::Stop;
use vector14_guest_abi::window::DEMAND;
use vector14_hook::Verdict;

use crate::harness::{Act, Guest, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![kvm_test("stop", stop)]
}

fn stop() {
    let act = Act { window: DEMAND.start + 0x3000..DEMAND.end, verdict: Verdict::Stop("seen enough".into()) };
    let outcome = Guest::new("scenario=demand pages=10").hook("enough", act).run().balanced();
    assert_eq!(outcome.summary.stop, Stop::Hook { hook: "enough".into(), detail: "seen enough".into() }, "{outcome}");
    assert_eq!((outcome.summary.verdicts.reinject, outcome.summary.verdicts.stop), (3, 1), "{outcome}");
    assert_eq!(outcome.summary.stop.exit_status(), 5);
}
