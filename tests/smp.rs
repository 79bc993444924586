//! Several vCPUs fault at the same time, on different pages and on the same page.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread::sleep;
use std::time::Duration;

use libtest_mimic::Trial;
use vector14_hook::{Fault, Guest as Handle, Hook, Result, Verdict};

use crate::harness::{Guest, Oracle, Recorder, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![
        kvm_test("smp", smp),
        kvm_test("smp::eight_vcpus", eight),
        kvm_test("smp::hooks_run_on_several_vcpus_at_once", at_once),
    ]
}

fn smp() {
    Guest::new("scenario=smp").vcpus(2).off().run().passed();
    let recorder = Recorder::default();
    let oracle = Oracle::default();
    let guest = Guest::new("scenario=smp").vcpus(2).hook("recorder", recorder.clone()).hook("oracle", oracle.clone());
    let outcome = guest.run().passed().guest_saw_what_was_reinjected();
    let findings = oracle.findings(&outcome);
    assert_eq!((findings.implicit, findings.stale), (0, 0), "{outcome}");
    let mut sequences: Vec<u64> = recorder.faults().iter().map(|fault| fault.sequence).collect();
    sequences.sort_unstable();
    assert!(
        sequences.iter().copied().eq(0..outcome.summary.faults.total),
        "a sequence number is missing or repeated\n{outcome}"
    );
    for vcpu in 0..2 {
        assert!(recorder.faults().iter().any(|fault| fault.vcpu == vcpu), "no fault of vcpu {vcpu}\n{outcome}");
    }
}

fn eight() {
    Guest::new("scenario=smp").vcpus(8).run().passed().guest_saw_what_was_reinjected();
}

/// Waits until another vCPU is in the hook as well.
#[derive(Clone, Default)]
struct Meet {
    inside: Arc<AtomicU32>,
    met: Arc<AtomicBool>,
}

impl Hook for Meet {
    fn on_fault(&self, _fault: &Fault, _guest: &mut dyn Handle) -> Result {
        self.inside.fetch_add(1, SeqCst);
        for _ in 0..1000 {
            if self.inside.load(SeqCst) > 1 {
                self.met.store(true, SeqCst);
            }
            if self.met.load(SeqCst) {
                break;
            }
            sleep(Duration::from_micros(100));
        }
        self.inside.fetch_sub(1, SeqCst);
        Ok(Verdict::Pass)
    }
}

fn at_once() {
    let meet = Meet::default();
    let outcome = Guest::new("scenario=smp").vcpus(2).hook("meet", meet.clone()).run().passed();
    assert!(meet.met.load(SeqCst), "{outcome}");
}
