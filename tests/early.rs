//! Faults that only the engine `exception-bitmap` sees: those of guests that have no usable IDT, or none yet.

use libtest_mimic::Trial;
use vector14::config::EngineChoice;
use vector14::summary::Stop;
use vector14_guest_abi::window::{HIDDEN, IDT_COPY};
use vector14_hook::{Access, Fault, Guest as Handle, Hook, Result, Step, Verdict};

use crate::harness::{Act, Guest, Oracle, Outcome, Recorder, exception_bitmap_test, kvm_test, off_and_on};

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![kvm_test("early::an_idt_in_read_only_memory", || drop(off_and_on("scenario=idt-readonly")))];
    let early = [
        exception_bitmap_test("early::no_idt_for_a_fault", || absent("fault")),
        exception_bitmap_test("early::no_idt_for_another_exception", || absent("call")),
        exception_bitmap_test("early::a_fault_in_the_delivery_of_a_fault_in_the_delivery_of_a_fault", triple),
        exception_bitmap_test("early::skip_in_the_delivery_of_a_fault", skip),
        exception_bitmap_test("early::no_filler_for_a_stub", no_filler),
    ];
    tests.extend(early.into_iter().flatten());
    tests
}

fn guest(cmdline: &str) -> Guest {
    Guest::new(cmdline).engine(EngineChoice::ExceptionBitmap)
}

/// Maps the page that the guest's handler does not map.
struct Hidden;

impl Hook for Hidden {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Handle) -> Result {
        if !HIDDEN.contains(&fault.address.0) {
            return Ok(Verdict::Pass);
        }
        let frame = guest.allocate_page()?;
        guest.map(fault.address.page(), frame, Access::USER)?;
        Ok(Verdict::Resolve)
    }
}

/// Makes the IDT's page present; its page-table entry already names the frame.
struct Idt;

impl Hook for Idt {
    fn on_fault(&self, fault: &Fault, guest: &mut dyn Handle) -> Result {
        let (true, Step::Absent(leaf)) = (IDT_COPY.contains(&fault.address.0), guest.walk(fault.address)?.end()) else {
            return Ok(Verdict::Pass);
        };
        guest.compare_exchange(leaf.slot, leaf.entry, leaf.entry | 1)?;
        Ok(Verdict::Resolve)
    }
}

/// An event's gate is on an absent page, so its delivery faults: a page fault by the CPU itself. The host resolves that
/// fault, and the event is delivered.
fn absent(first: &str) {
    let recorder = Recorder::default();
    let guest = guest(&format!("scenario=idt-absent first={first}")).hook("recorder", recorder.clone());
    let oracle = Oracle::default();
    let guest = guest.hook("oracle", oracle.clone()).hook("hidden", Hidden).hook("idt", Idt);
    let outcome = guest.run().passed().guest_saw_what_was_reinjected();
    assert_eq!(oracle.findings(&outcome).implicit, 1, "{outcome}");
    let of_gate = recorder.faults().into_iter().find(|fault| IDT_COPY.contains(&fault.address.0));
    let of_gate = of_gate.unwrap_or_else(|| panic!("the IDT was not read\n{outcome}"));
    let vector = if first == "fault" { 14 } else { 6 };
    assert_eq!(of_gate.address.0, IDT_COPY.start + 16 * vector, "{outcome}");
    assert_eq!(of_gate.error_code.bits(), 0, "a read by the CPU itself\n{outcome}");
    assert!(of_gate.from_user(), "while an event of ring 3 is delivered\n{outcome}");
    assert_eq!((outcome.summary.verdicts.resolve, outcome.summary.verdicts.reinject), (2, 1), "{outcome}");
}

fn crash(outcome: &Outcome) -> &str {
    let Stop::Crash { detail } = &outcome.summary.stop else { panic!("no crash\n{outcome}") };
    detail
}

/// The delivery of a #PF faults, which makes a #DF, whose delivery faults too: a triple fault.
fn triple() {
    let outcome = guest("scenario=idt-absent").hook("hidden", Hidden).run().balanced();
    assert!(crash(&outcome).contains("triple fault"), "{outcome}");
    assert_eq!((outcome.summary.verdicts.resolve, outcome.summary.verdicts.reinject), (1, 3), "{outcome}");
}

/// A fault in the delivery of an event has no instruction to skip.
fn skip() {
    let skip = Act { window: IDT_COPY, verdict: Verdict::Skip };
    let outcome = guest("scenario=idt-absent").hook("hidden", Hidden).hook("skip", skip).run().balanced();
    assert!(crash(&outcome).contains("triple fault"), "{outcome}");
    assert!(outcome.summary.notes[0].contains("exception 14 was being delivered"), "{outcome}");
    assert_eq!(outcome.summary.verdicts.reinject, 3, "{outcome}");
}

fn no_filler() {
    let outcome = guest("scenario=no-room").run().passed().guest_saw_what_was_reinjected();
    assert_eq!(outcome.summary.notes, [""; 0], "{outcome}");
}
