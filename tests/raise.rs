//! A hook raises another exception in place of the fault.

use libtest_mimic::Trial;
use serde_json::json;
use vector14::config::EngineChoice;
use vector14::summary::Stop;
use vector14_guest_abi::window::{PAGE_SIZE, RAISE};
use vector14_hook::{Exception, Verdict};

use crate::harness::{Act, Command, Guest, Outcome, exception_bitmap_test, kvm_test, of_gate};

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        kvm_test("raise", raise),
        kvm_test("raise::an_exception_without_error_code", without_error_code),
        kvm_test("raise::what_cannot_be_raised_is_reinjected", impossible),
    ];
    tests.extend(of_gate(vec![
        kvm_test("raise::a_stack_of_its_own_is_out_of_reach", out_of_reach),
        kvm_test("raise::guard_stops_the_vm_where_nothing_can_be_raised", guard_stops),
    ]));
    tests.extend(exception_bitmap_test("raise::on_a_stack_of_its_own", on_its_own_stack));
    tests.extend(exception_bitmap_test("raise::what_kvm_does_not_inject", not_injected));
    tests
}

fn run(exception: Exception) -> Outcome {
    run_guest(Guest::new("scenario=raise code=0x1234"), exception)
}

fn run_guest(guest: Guest, exception: Exception) -> Outcome {
    let act = Act { window: RAISE, verdict: Verdict::Raise(exception) };
    guest.hook("raise", act).run().balanced()
}

fn refused(outcome: &Outcome, failures: u64, why: &str) {
    assert_eq!(outcome.summary.verdicts.reinject, 1, "{outcome}");
    assert_eq!(outcome.summary.hooks[0].failures, failures, "{outcome}");
    assert!(outcome.summary.notes[0].contains(why), "{outcome}");
}

const ON_ITS_OWN_STACK: &str = "scenario=raise code=0x1234 ist=1";

/// The CPU has already gone through gate 14, to another stack, so the exception can't be raised on its own stack.
fn out_of_reach() {
    let outcome = run_guest(Guest::new(ON_ITS_OWN_STACK), Exception::general_protection(0x1234));
    refused(&outcome, 0, "runs on another stack (IST)");
}

/// The guest's gate makes the exception impossible to raise. The hook is not left out for that, and the access does not
/// go through: the VM stops.
fn guard_stops() {
    let (start, end) = (RAISE.start, RAISE.start + PAGE_SIZE);
    let config = format!(
        "[vm]\nmemory = \"64M\"\ntimeout = \"60s\"\n[boot]\nkernel = \"tiny\"\ncmdline = \"{ON_ITS_OWN_STACK}\"\n\
         [[hook]]\nname = \"guard\"\nranges = [{{ start = {start:#x}, end = {end:#x} }}]\n"
    );
    let finished = Command::run_config(&config).finish();
    let summary = finished.summary();
    assert_eq!((&summary["stop"]["reason"], &summary["stop"]["hook"]), (&json!("hook"), &json!("guard")), "{finished}");
    let detail = summary["stop"]["detail"].as_str().unwrap();
    assert!(detail.contains("guarded page touched") && detail.contains("runs on another stack (IST)"), "{finished}");
    assert_eq!((&summary["hooks"][0]["failures"], &summary["verdicts"]["stop"]), (&json!(0), &json!(1)), "{finished}");
}

fn on_its_own_stack() {
    let guest = Guest::new(ON_ITS_OWN_STACK).engine(EngineChoice::ExceptionBitmap);
    let outcome = run_guest(guest, Exception::general_protection(0x1234)).passed();
    assert_eq!(outcome.summary.verdicts.raise, 2, "{outcome}");
}

/// KVM takes an injected #BP for an INT3, whose RIP is that of the next instruction, and CPUs refuse vectors that no
/// exception has.
fn not_injected() {
    for vector in [3, 4, 9, 15, 31] {
        let guest = Guest::new("scenario=raise").engine(EngineChoice::ExceptionBitmap);
        let outcome = run_guest(guest, Exception { vector, error_code: None });
        refused(&outcome, 1, &format!("KVM can't inject vector {vector}"));
    }
}

fn raise() {
    let outcome = run(Exception::general_protection(0x1234)).passed();
    assert_ne!(outcome.summary.verdicts.raise, 0, "{outcome}");
    assert_eq!(outcome.summary.verdicts.raise, outcome.summary.faults.total, "{outcome}");
    assert_eq!(outcome.guest_faults(), 0, "{outcome}");
}

fn without_error_code() {
    // The guest expects a #GP, so this #DE is fatal. That it prints vector 0 shows that its stack is that of a #DE.
    let outcome = run(Exception { vector: 0, error_code: None });
    assert!(matches!(outcome.summary.stop, Stop::Exit { status } if status != 1), "{outcome}");
    assert_eq!(outcome.summary.verdicts.raise, 1, "{outcome}");
    assert!(outcome.console.contains("fatal exception: vector=0 "), "{outcome}");
}

fn impossible() {
    let cases = [
        (Exception { vector: 2, error_code: None }, "vector 2 is not an exception"),
        (Exception { vector: 200, error_code: None }, "vector 200 is not an exception"),
        (Exception { vector: 13, error_code: None }, "the CPU pushes one"),
        (Exception { vector: 6, error_code: Some(1) }, "the CPU pushes none"),
    ];
    for (exception, why) in cases {
        refused(&run(exception), 1, why);
    }
}
