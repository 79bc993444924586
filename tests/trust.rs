//! Hooks that take too long or never return, and failures that are configured to end the VM.

use std::backtrace::Backtrace;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use libtest_mimic::Trial;
use vector14::LOOP_LIMIT;
use vector14::chain::{NamedHook, OnError, Trust};
use vector14::summary::{Stop, Until};
use vector14_guest_abi::window::DEMAND;
use vector14_hook::{Exception, Fault, Guest as Handle, Hook, Report, Result, Verdict};

use crate::harness::{Act, Guest, Outcome, Recorder, kvm_test, panic_at};

pub fn tests() -> Vec<Trial> {
    vec![
        kvm_test("trust::over_budget", over_budget),
        kvm_test("trust::a_hook_that_loops_for_ever", loops_for_ever),
        kvm_test("trust::a_hook_that_sleeps_for_ever", sleeps_for_ever),
        kvm_test("trust::a_deadline_before_the_timeout", deadline_first),
        kvm_test("trust::a_hung_hook_that_was_replaced", hung_and_replaced),
        kvm_test("trust::on_error_stop", on_error_stop),
        kvm_test("trust::loops_again_and_again", loops_again),
    ]
}

const BUDGET: Duration = Duration::from_millis(20);

fn stop_on_error() -> Trust {
    Trust { on_error: OnError::Stop, ..Trust::DEFAULT }
}

fn hangs_after(timeout: Duration) -> Trust {
    Trust { timeout, ..Trust::DEFAULT }
}

/// Exceeds its budget at two of its faults.
struct Slow;

impl Hook for Slow {
    fn on_fault(&self, fault: &Fault, _guest: &mut dyn Handle) -> Result {
        if [3, 7].contains(&fault.sequence) {
            std::thread::sleep(10 * BUDGET);
        }
        Ok(Verdict::Pass)
    }
}

/// The VM goes on, and the hook is still asked.
fn over_budget() {
    let slow = NamedHook::new("slow", Slow).trusted(Trust { budget: BUDGET, ..Trust::DEFAULT });
    let guest = Guest::new("scenario=demand pages=10").named_hook(slow).hook("quick", Recorder::default());
    let outcome = guest.run().passed().guest_saw_what_was_reinjected();
    let [slow, quick] = &outcome.summary.hooks[..] else { panic!("{outcome}") };
    assert_eq!((slow.calls, slow.failures, slow.left_out), (10, 0, false), "{outcome}");
    assert!(slow.over_budget >= 2, "{outcome}");
    assert_eq!(quick.calls, 10, "{outcome}");
    let note = outcome.summary.notes.iter().find(|note| note.contains("`slow`")).unwrap();
    for word in ["budget of 20ms", "calls", "or more", "fault #", "at 0x10000", "vcpu 0"] {
        assert!(note.contains(word), "no `{word}`\n{outcome}");
    }
}

/// Does not return from the fault with this sequence number until it is freed.
#[derive(Clone, Default)]
struct Hangs {
    at: u64,
    freed: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
}

impl Hangs {
    fn at(sequence: u64) -> Self {
        Self { at: sequence, ..Self::default() }
    }
}

#[inline(never)]
fn an_endless_loop_of_a_test(freed: &AtomicBool) {
    while !freed.load(Relaxed) {
        std::hint::spin_loop();
    }
}

impl Hook for Hangs {
    fn on_fault(&self, fault: &Fault, _guest: &mut dyn Handle) -> Result {
        if fault.sequence == self.at {
            an_endless_loop_of_a_test(&self.freed);
        }
        Ok(Verdict::Pass)
    }

    fn on_end(&self, _guest: &mut dyn Handle) -> Report {
        self.ended.store(true, Relaxed);
        Report::default()
    }
}

/// Checks that the hung hook was detected and the VM stopped because of it. The fault that was never decided counts as
/// `stop`.
#[track_caller]
fn assert_hung(outcome: &Outcome, name: &str, faults: u64) {
    let Stop::Hook { hook, detail } = &outcome.summary.stop else { panic!("{outcome}") };
    assert_eq!((hook.as_str(), outcome.summary.stop.exit_status()), (name, 5), "{outcome}");
    assert!(detail.contains("has not returned") && detail.contains("fault #"), "{outcome}");
    assert_eq!((outcome.summary.faults.total, outcome.summary.verdicts.stop), (faults, 1), "{outcome}");
}

#[track_caller]
fn assert_noted(outcome: &Outcome, words: &[&str]) {
    let found = outcome.summary.notes.iter().any(|note| words.iter().all(|word| note.contains(word)));
    assert!(found, "no note has {words:?}\n{outcome}");
}

/// How a backtrace names a line of this file; empty if the tests were built without line tables.
fn line() -> &'static str {
    if Backtrace::force_capture().to_string().contains("trust.rs:") { "trust.rs:" } else { "" }
}

fn loops_for_ever() {
    let (hangs, behind) = (Hangs::at(3), Hangs::at(u64::MAX));
    let hook = NamedHook::new("endless", hangs.clone()).trusted(hangs_after(Duration::from_millis(300)));
    let outcome = Guest::new("scenario=demand").named_hook(hook).hook("behind", behind.clone()).run().balanced();
    assert_hung(&outcome, "endless", 4);
    assert_noted(&outcome, &["endless", "fault #3", "vcpu 0", "an_endless_loop_of_a_test", line(), "on_fault"]);
    assert_noted(&outcome, &["endless", "was not ended", "fault #3"]);
    let [stuck, other] = &outcome.summary.hooks[..] else { panic!("{outcome}") };
    assert_eq!((stuck.calls, stuck.ended), (4, false), "{outcome}");
    assert_eq!((other.calls, other.ended), (3, true), "{outcome}");
    assert!(!hangs.ended.load(Relaxed) && behind.ended.load(Relaxed), "{outcome}");
    hangs.freed.store(true, Relaxed);
}

struct Sleeps;

impl Hook for Sleeps {
    fn on_fault(&self, _fault: &Fault, _guest: &mut dyn Handle) -> Result {
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
}

/// The backtrace of a hook that hangs is taken even if its thread waits in the kernel.
fn sleeps_for_ever() {
    let hook = NamedHook::new("asleep", Sleeps).trusted(hangs_after(Duration::from_millis(300)));
    let outcome = Guest::new("scenario=demand").named_hook(hook).run().balanced();
    assert_hung(&outcome, "asleep", 1);
    assert_noted(&outcome, &["asleep", "Sleeps", "on_fault", line()]);
}

/// The deadline comes before the hook's timeout: the hook is not reported as hung, and still it is not ended.
fn deadline_first() {
    let hangs = Hangs::at(2);
    let guest = Guest::new("scenario=demand").hook("endless", hangs.clone()).timeout(Duration::from_millis(300));
    let outcome = guest.run().balanced();
    assert_eq!(outcome.summary.stop, Stop::Deadline, "{outcome}");
    assert_noted(&outcome, &["endless", "was not ended", "fault #2"]);
    assert!(!hangs.ended.load(Relaxed), "{outcome}");
    hangs.freed.store(true, Relaxed);
}

/// The watchdog also sees a hook that has been replaced and is still running. The other vCPU asks the new hook.
fn hung_and_replaced() {
    let hangs = Hangs::at(10);
    let hook = NamedHook::new("endless", hangs.clone()).trusted(hangs_after(Duration::from_secs(2)));
    let guest = Guest::new("scenario=smp pages=200").vcpus(2).named_hook(hook);
    let outcome = guest.run_beside(|vm| {
        while vm.hooks()[0].calls <= 11 {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(vm.replace("endless", NamedHook::new("", Recorder::default())), Ok(1), "a vCPU is still in it");
    });
    let outcome = outcome.balanced();
    assert_hung(&outcome, "endless", outcome.summary.faults.total);
    let [hung, new] = &outcome.summary.hooks[..] else { panic!("{outcome}") };
    assert_eq!((hung.until, hung.ended), (Until::Replaced, false), "{outcome}");
    assert_eq!(hung.calls + new.calls, outcome.summary.faults.total, "{outcome}");
    hangs.freed.store(true, Relaxed);
}

struct Fails;

impl Hook for Fails {
    fn on_fault(&self, _fault: &Fault, _guest: &mut dyn Handle) -> Result {
        Err("as the test wants it".into())
    }
}

fn on_error_stop() {
    let impossible = Verdict::Raise(Exception { vector: 200, error_code: None });
    let hooks = [
        ("an error", NamedHook::new("h", Fails), "failed: as the test wants it"),
        ("a panic", NamedHook::new("h", panic_at(0)), "panicked: "),
        ("a verdict", NamedHook::new("h", Act { window: DEMAND, verdict: impossible }), "200"),
    ];
    for (what, hook, words) in hooks {
        let outcome = Guest::new("scenario=demand").named_hook(hook.trusted(stop_on_error())).run().balanced();
        let Stop::Hook { hook, detail } = &outcome.summary.stop else { panic!("{what}: {outcome}") };
        assert!(hook == "h" && detail.contains(words) && detail.contains("fault #0"), "{what}: {outcome}");
        assert_eq!((outcome.summary.faults.total, outcome.summary.verdicts.stop), (1, 1), "{what}: {outcome}");
        let [hook] = &outcome.summary.hooks[..] else { panic!("{what}: {outcome}") };
        assert_eq!((hook.failures, hook.left_out), (1, true), "{what}: {outcome}");
    }
}

/// A loop is not a failure: each loop is broken and counted, and one is reported.
fn loops_again() {
    const PAGES: u64 = 3;
    let act = Act { window: DEMAND, verdict: Verdict::Resolve };
    let guest = Guest::new(&format!("scenario=demand pages={PAGES}"));
    let outcome = guest.named_hook(NamedHook::new("stuck", act).trusted(stop_on_error())).run().passed();
    assert_eq!(outcome.summary.verdicts.resolve, PAGES * u64::from(LOOP_LIMIT), "{outcome}");
    assert_eq!(outcome.summary.verdicts.reinject, PAGES, "{outcome}");
    let [hook] = &outcome.summary.hooks[..] else { panic!("{outcome}") };
    assert_eq!((hook.loops, hook.failures, hook.left_out), (PAGES, 0, false), "{outcome}");
    let told = outcome.summary.notes.iter().filter(|note| note.contains("loop")).count();
    assert_eq!(told, 1, "{outcome}");
}
