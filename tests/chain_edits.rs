//! The hook chain changes while the guest faults: no fault is lost, and each hook is ended exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use libtest_mimic::Trial;
use vector14::chain::{EditError, NamedHook};
use vector14::vm::{HandleError, VmHandle};
use vector14_hook::{Fault, Guest as Handle, Hook, Report, Result, Verdict};

use crate::harness::{Guest, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![
        kvm_test("chain-edits::many_replacements", replacements),
        kvm_test("chain-edits::add_reorder_remove", add_reorder_remove),
        kvm_test("chain-edits::refusals", refusals),
    ]
}

/// Counts that all hooks of a test share.
#[derive(Default)]
struct Sums {
    calls: AtomicU64,
    ends: AtomicU64,
    calls_after_end: AtomicU64,
    hurry: AtomicBool,
}

impl Sums {
    /// Waits for the next call of a hook.
    fn wait_for_more_calls(&self) {
        let before = self.calls.load(Relaxed);
        while self.calls.load(Relaxed) == before {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Counts its calls. Each call takes 1 ms until the test sets `hurry`, so that the guest still faults while the test
/// needs faults.
#[derive(Default)]
struct Counts {
    sums: Arc<Sums>,
    ended: AtomicBool,
}

impl Counts {
    fn of(sums: &Arc<Sums>) -> Self {
        Self { sums: Arc::clone(sums), ended: AtomicBool::new(false) }
    }
}

impl Hook for Counts {
    fn on_fault(&self, _fault: &Fault, _guest: &mut dyn Handle) -> Result {
        self.sums.calls.fetch_add(1, Relaxed);
        if self.ended.load(Relaxed) {
            self.sums.calls_after_end.fetch_add(1, Relaxed);
        }
        if !self.sums.hurry.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Verdict::Pass)
    }

    fn on_end(&self, _guest: &mut dyn Handle) -> Report {
        assert!(!self.ended.swap(true, Relaxed), "ended twice");
        self.sums.ends.fetch_add(1, Relaxed);
        Report::default()
    }
}

fn replacements() {
    const REPLACEMENTS: u64 = 205;
    let sums = Arc::new(Sums::default());
    let guest = Guest::new("scenario=smp pages=600").vcpus(2).hook("counts", Counts::of(&sums));
    let outcome = guest.run_beside(|vm| {
        sums.wait_for_more_calls();
        let holds = vm.status().holds;
        for _ in 0..REPLACEMENTS {
            sums.wait_for_more_calls();
            assert_eq!(vm.replace("counts", NamedHook::new("", Counts::of(&sums))), Ok(0));
        }
        assert_eq!(vm.status().holds, holds, "no vCPU waits for a replacement");
        sums.hurry.store(true, Relaxed);
    });
    let outcome = outcome.passed().guest_saw_what_was_reinjected();
    let hooks = &outcome.summary.hooks;
    let faults = outcome.summary.faults.total;
    assert!(faults > 2 * 600, "{outcome}");
    // The summary lists the last hooks one by one, and totals the others.
    assert_eq!(hooks.len(), 17, "{outcome}");
    assert!(hooks.iter().all(|hook| hook.name == "counts" && hook.calls > 0), "{outcome}");
    let numbers: Vec<_> = hooks.iter().map(|hook| hook.number).collect();
    assert!(numbers.iter().copied().eq(REPLACEMENTS - 15..=REPLACEMENTS + 1), "{numbers:?}");
    let earlier = outcome.summary.earlier_hooks;
    assert_eq!(earlier.hooks, REPLACEMENTS - 16, "{outcome}");
    assert_eq!(hooks.iter().map(|hook| hook.calls).sum::<u64>() + earlier.calls, faults, "{outcome}");
    assert_eq!(sums.calls.load(Relaxed), faults, "{outcome}");
    assert_eq!(sums.ends.load(Relaxed), REPLACEMENTS + 1, "{outcome}");
    assert_eq!(sums.calls_after_end.load(Relaxed), 0, "{outcome}");
    assert_eq!(outcome.summary.notes, [""; 0], "{outcome}");
}

fn names(vm: &VmHandle) -> Vec<String> {
    vm.hooks().into_iter().map(|hook| hook.name).collect()
}

fn add_reorder_remove() {
    let sums = Arc::new(Sums::default());
    let guest = Guest::new("scenario=demand pages=2000").hook("a", Counts::of(&sums));
    let outcome = guest.run_beside(|vm| {
        assert_eq!(vm.add(NamedHook::new("a", Counts::of(&sums)), None), Ok("a#2".to_owned()));
        assert_eq!(vm.add(NamedHook::new("b", Counts::of(&sums)), Some(0)), Ok("b".to_owned()));
        assert_eq!(names(vm), ["b", "a", "a#2"]);
        let order = ["a#2", "b", "a"].map(str::to_owned);
        assert_eq!(vm.reorder(&order), Ok(()));
        assert_eq!(names(vm), order);
        sums.wait_for_more_calls();
        assert_eq!(vm.remove("b"), Ok(0));
        assert_eq!(sums.ends.load(Relaxed), 1);
        assert_eq!(names(vm), ["a#2", "a"]);
        sums.hurry.store(true, Relaxed);
    });
    let outcome = outcome.passed().guest_saw_what_was_reinjected();
    let names: Vec<_> = outcome.summary.hooks.iter().map(|hook| hook.name.as_str()).collect();
    assert_eq!(names, ["b", "a#2", "a"], "{outcome}");
    let [b, second, first] = &outcome.summary.hooks[..] else { panic!("{outcome}") };
    assert_eq!(first.calls, outcome.summary.faults.total, "{outcome}");
    assert!(second.calls > b.calls && b.calls > 0, "{outcome}");
    assert_eq!(sums.ends.load(Relaxed), 3, "{outcome}");
}

fn refusals() {
    let sums = Arc::new(Sums::default());
    let hook = || NamedHook::new("new", Counts::of(&sums));
    let mut ended = None;
    let guest = Guest::new("scenario=demand pages=100").hook("only", Counts::of(&sums));
    let outcome = guest.run_beside(|vm| {
        let known = "only".to_owned();
        let unknown = Err(HandleError::Edit(EditError::Unknown { name: "onyl".to_owned(), known: known.clone() }));
        assert_eq!(vm.remove("onyl"), unknown);
        assert_eq!(vm.replace("onyl", hook()), unknown);
        let position = EditError::Position { position: 2, hooks: 1 };
        assert_eq!(vm.add(hook(), Some(2)), Err(HandleError::Edit(position)));
        assert_eq!(vm.reorder(&[known.clone(), known.clone()]), Err(HandleError::Edit(EditError::Order { known })));
        ended = Some(vm.clone());
    });
    let outcome = outcome.passed();
    let ended = ended.unwrap();
    assert_eq!(ended.add(hook(), None), Err(HandleError::Edit(EditError::Ended)), "{outcome}");
    assert_eq!(ended.pause(), Err(HandleError::Ended), "{outcome}");
    assert_eq!(ended.stop(), Err(HandleError::Ended), "{outcome}");
    assert_eq!(outcome.summary.hooks.len(), 1, "{outcome}");
}
