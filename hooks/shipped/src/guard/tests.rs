//! Tests with the mock guest.

use super::*;
use crate::tests::{fault, swap_out};
use serde_json::{Value, json};
use vector14_hook::mock::{MockGuest, Outcome, options, read_fault};
use vector14_hook::{Access, ErrorCode, Va};

const PAGE: u64 = 0x1_0000;

fn hook(more: Value) -> Guard {
    let mut all = json!({"ranges": [{"start": PAGE, "end": PAGE + 0x1000}]});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Guard::new(&options(all)).unwrap_or_else(|error| panic!("{error}"))
}

fn guest() -> MockGuest {
    let mut guest = MockGuest::new(0);
    guest.load(read_fault(0).rip, &[0x48, 0x8b, 0x07], Access::USER | Access::EXECUTE);
    guest
}

/// A touch of a closed page.
fn touch() -> Fault {
    Fault { error_code: ErrorCode::USER | ErrorCode::PRESENT, ..read_fault(PAGE) }
}

#[test]
fn a_touch_raises_what_was_asked_for() {
    for (more, exception) in [
        (json!({}), Exception::general_protection(0)),
        (json!({"vector": 6}), Exception::INVALID_OPCODE),
        (json!({"action": "raise", "vector": 17}), Exception { vector: 17, error_code: Some(0) }),
    ] {
        let (hook, mut guest) = (hook(more), guest());
        assert_eq!(guest.take(&hook, &read_fault(PAGE)), Outcome::Raised(exception), "nothing is mapped");
        guest.load(Va(PAGE), &[1], Access::all());
        guest.take(&hook, &fault(0, 0x7000_0000));
        assert_eq!(guest.take(&hook, &touch()), Outcome::Raised(exception), "it is mapped, and closed");
        let report = hook.on_end(&mut guest);
        assert_eq!(report.tables[0].title, "2 touches");
        assert_eq!(report.tables[0].rows[0][7], "mov rax,[rdi]");
        assert!(report.tables[1].rows.contains(&vec!["rip".to_owned(), "0x401000".to_owned()]));
    }
}

#[test]
fn an_exception_that_the_guest_has_no_gate_for_stops_the_vm() {
    let (hook, mut guest) = (hook(json!({})), guest());
    guest.remove_gate(13);
    let Outcome::Stopped(why) = guest.take(&hook, &read_fault(PAGE)) else { panic!("it goes on") };
    assert!(why.contains("0x10000") && why.contains("0x401000") && why.contains("gate 13 is missing"), "{why}");
    assert_eq!(hook.on_end(&mut guest).tables[0].title, "1 touches");
}

#[test]
fn the_kernel_touches_nothing_unless_it_is_to_be_caught() {
    let kernel = |error_code| Fault { cs: 0x10, error_code, ..read_fault(PAGE) };
    for action in ["raise", "stop", "report"] {
        let (hook, mut guest) = (hook(json!({"action": action})), guest());
        let copy = kernel(ErrorCode::WRITE);
        assert!(matches!(guest.take(&hook, &copy), Outcome::Handled { .. }), "{action}: nothing is mapped");
        guest.load(Va(PAGE), &[1], Access::all());
        guest.take(&hook, &fault(0, 0x7000_0000));
        let raced = kernel(ErrorCode::WRITE | ErrorCode::PRESENT);
        assert!(matches!(guest.take(&hook, &raced), Outcome::Handled { .. }), "{action}: it is mapped, and closed");
        assert_eq!(hook.on_end(&mut guest), Report::default(), "{action}");
    }
    let (hook, mut guest) = (hook(json!({"catch": "all"})), guest());
    let raised = Outcome::Raised(Exception::general_protection(0));
    assert_eq!(guest.take(&hook, &kernel(ErrorCode::empty())), raised);
}

#[test]
fn a_page_that_is_swapped_out_is_touched_as_one_that_is_not_there() {
    let (hook, mut guest) = (hook(json!({"action": "report"})), guest());
    swap_out(&mut guest, Va(PAGE));
    let before = guest.walk(Va(PAGE)).unwrap();
    assert!(matches!(guest.take(&hook, &read_fault(PAGE)), Outcome::Handled { .. }));
    assert_eq!(guest.walk(Va(PAGE)).unwrap(), before);
    assert_eq!(hook.on_end(&mut guest).tables[0].title, "1 touches");
}

#[test]
fn a_touch_can_stop_the_vm() {
    let (hook, mut guest) = (hook(json!({"action": "stop"})), guest());
    let said = "read of 0x10000 by user code at 0x401000: mov rax,[rdi]".to_owned();
    assert_eq!(guest.take(&hook, &read_fault(PAGE)), Outcome::Stopped(said));
}

#[test]
fn a_touch_that_is_only_reported_goes_through() {
    let (hook, mut guest) = (hook(json!({"action": "report"})), guest());
    guest.load(Va(PAGE), &[1], Access::all());
    guest.take(&hook, &fault(0, 0x7000_0000));
    for _ in 0..2 {
        assert_eq!(guest.take(&hook, &touch()), Outcome::Retried);
        assert!(guest.translate(Va(PAGE)).unwrap().access.contains(Access::USER));
        guest.take(&hook, &fault(0, 0x7000_0000));
        assert!(!guest.translate(Va(PAGE)).unwrap().access.contains(Access::USER));
    }
    assert_eq!(hook.on_end(&mut guest).tables[0].title, "2 touches");
}

#[test]
fn a_touch_that_the_guest_maps_a_page_for_is_reported_once() {
    let (hook, mut guest) = (hook(json!({"action": "report"})), guest());
    assert!(matches!(guest.take(&hook, &read_fault(PAGE)), Outcome::Handled { .. }));
    guest.load(Va(PAGE), &[1], Access::all());
    let tripwire = Fault { address: touch().rip, error_code: touch().error_code | ErrorCode::FETCH, ..touch() };
    assert_eq!(guest.take(&hook, &tripwire), Outcome::Retried);
    assert_eq!(guest.take(&hook, &touch()), Outcome::Retried);
    assert_eq!(hook.on_end(&mut guest).tables[0].title, "1 touches");
}

#[test]
fn other_pages_are_nothing_to_it() {
    let (hook, mut guest) = (hook(json!({})), guest());
    for address in [PAGE - 1, PAGE + 0x1000] {
        assert!(matches!(guest.take(&hook, &fault(0, address)), Outcome::Handled { .. }));
    }
    assert_eq!(hook.on_end(&mut guest), Report::default());
}

#[test]
fn bad_options_are_named() {
    let ranges = json!([{"start": 0, "end": 0x1000}]);
    for (bad, key, got) in [
        (json!({"ranges": ranges, "vector": 2}), "vector", "vector 2 is not an exception"),
        (json!({"ranges": ranges, "vector": 300}), "vector", "300: must be from 0 to 31"),
        (json!({"ranges": ranges, "action": "stop", "vector": 6}), "vector", "only action"),
        (json!({"ranges": ranges, "action": "kill"}), "action", "`report`"),
    ] {
        let error = (TYPE.check)(&options(bad)).unwrap_err();
        assert_eq!(error.key.as_deref(), Some(key), "{error}");
        assert!(error.to_string().contains(got), "{error}");
    }
}
