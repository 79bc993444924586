//! A VM is paused and resumed, and its interception taken out and put back, from outside.

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

/// Waits for faults beyond those that there are.
fn wait_for_faults(vm: &VmHandle) {
    let before = vm.status().faults.total;
    while vm.status().faults.total == before {
        assert_ne!(vm.state(), RunState::Ended);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Again and again in the middle of faults on two vCPUs: while all stand still, nothing is counted.
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
            assert_eq!(status.verdicts.total(), status.faults.total, "no vCPU is within a fault");
            std::thread::sleep(Duration::from_millis(5));
            assert_eq!(vm.status().exits, status.exits);
            vm.resume().unwrap();
        }
        assert!(vm.status().holds >= holds + 10, "one vCPU at the least was on its way each time");
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

/// The deadline is for the time that a guest runs.
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
            // The fault that a vCPU is in, if any, is still counted: once all stand still, it has been.
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
