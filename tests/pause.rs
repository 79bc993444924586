//! Another thread pauses and resumes a VM, and detaches and attaches its interception.

use std::time::Duration;

use libtest_mimic::Trial;
use vector14::summary::Stop;
use vector14::vm::{HandleError, RunState, VmHandle};

use crate::harness::{Guest, kvm_test};

pub fn tests() -> Vec<Trial> {
    vec![
        kvm_test("pause", pause),
        kvm_test("pause::stop_while_paused", stop_while_paused),
        kvm_test("pause::the_deadline_waits", the_deadline_waits),
        kvm_test("pause::attach_and_detach", attach_and_detach),
        kvm_test("pause::no_engine_to_attach", no_engine),
    ]
}

/// Waits until the guest has taken another fault.
fn wait_for_faults(vm: &VmHandle) {
    let before = vm.status().faults.total;
    while vm.status().faults.total == before {
        assert_ne!(vm.state(), RunState::Ended);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Pauses the VM ten times while two vCPUs fault. As long as all stand still, no count changes.
fn pause() {
    let outcome = Guest::new("scenario=smp pages=800").vcpus(2).run_beside(|vm| {
        wait_for_faults(vm);
        let holds = vm.status().holds;
        for _ in 0..10 {
            wait_for_faults(vm);
            let standing = vm.pause().unwrap();
            assert_eq!((standing.held, standing.running), (2, 2));
            let status = vm.status();
            assert_eq!(status.state, RunState::Paused);
            assert_eq!(status.verdicts.total(), status.faults.total, "no fault is in flight");
            std::thread::sleep(Duration::from_millis(5));
            assert_eq!(vm.status().exits, status.exits);
            vm.resume().unwrap();
        }
        assert!(vm.status().holds >= holds + 10, "each pause held at least one vCPU");
    });
    outcome.passed().guest_saw_what_was_reinjected();
}

fn stop_while_paused() {
    let outcome = Guest::new("scenario=spin").run_beside(|vm| {
        vm.pause().unwrap();
        vm.stop().unwrap();
    });
    assert_eq!(outcome.summary.stop, Stop::Request, "{outcome}");
    assert_eq!(outcome.summary.stop.exit_status(), 143);
}

/// The deadline counts only the time that the guest runs.
fn the_deadline_waits() {
    const TIMEOUT: Duration = Duration::from_millis(400);
    let outcome = Guest::new("scenario=spin").timeout(TIMEOUT).run_beside(|vm| {
        vm.pause().unwrap();
        std::thread::sleep(3 * TIMEOUT);
        assert_eq!(vm.state(), RunState::Paused);
        vm.resume().unwrap();
    });
    assert_eq!(outcome.summary.stop, Stop::Deadline, "{outcome}");
}

fn attach_and_detach() {
    let outcome = Guest::new("scenario=storm count=400000").run_beside(|vm| {
        for _ in 0..5 {
            wait_for_faults(vm);
            assert_eq!(vm.detach(), Ok(false));
            // A fault in flight is still counted; once all vCPUs stand still, it has been.
            vm.pause().unwrap();
            vm.resume().unwrap();
            let (before, status) = (vm.status().faults.total, vm.status());
            assert!(!status.attached && !status.armed);
            assert_eq!(status.faults.total, before);
            assert_eq!(vm.attach(), Ok(true));
        }
        assert_eq!(vm.detach(), Ok(false));
    });
    let outcome = outcome.balanced();
    assert_eq!(outcome.summary.stop, Stop::Exit { status: 1 }, "{outcome}");
    assert!(outcome.console.contains("faults=400000 ok"), "{outcome}");
}

fn no_engine() {
    let outcome = Guest::new("scenario=spin").off().run_beside(|vm| {
        assert_eq!(vm.attach(), Err(HandleError::NoEngine));
        vm.stop().unwrap();
    });
    assert_eq!(outcome.summary.stop, Stop::Request, "{outcome}");
}
