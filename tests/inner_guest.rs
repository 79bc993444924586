//! A guest that runs a guest of its own: the inner guest's state is not taken for the guest's.

use libtest_mimic::Trial;
use vector14::config::{Config, EngineChoice};
use vector14::outlet::Outlet;
use vector14::vm::{EngineError, Surroundings, Vm, VmError};

use crate::harness::{Guest, engine, kvm_test};

const SCENARIO: &str = "scenario=inner-guest";

pub fn tests() -> Vec<Trial> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut tests = vec![kvm_test("inner-guest::hidden", hidden)];
    if cpuinfo.split_whitespace().any(|flag| flag == "svm") {
        tests.push(kvm_test("inner-guest::nested", nested));
    }
    tests
}

fn hidden() {
    let outcome = Guest::new(SCENARIO).run().balanced();
    assert!(outcome.console.contains("no AMD-V"), "{outcome}");
}

/// The engine `gate` needs a KVM that says which of the two guests an exit is from.
fn nested() {
    let mut config = Config::tiny(SCENARIO);
    (config.vm.nested, config.intercept.engine) = (true, engine());
    let nowhere = Outlet::new("the console", Box::new(std::io::sink())).unwrap();
    let made = Vm::new(&config, Vec::new(), Surroundings::unattended(nowhere));
    match made.err() {
        Some(VmError::Engine(EngineError::NestedGate)) => assert_eq!(engine(), EngineChoice::Gate),
        Some(error) => panic!("{error}"),
        None => {
            let outcome = Guest::of(config).run().passed();
            assert_eq!(outcome.guest_faults(), outcome.summary.faults.total, "{outcome}");
        }
    }
}
