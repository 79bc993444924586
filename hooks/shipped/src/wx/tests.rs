//! Tests with the mock guest.

use super::*;
use crate::tests::swap_out;
use serde_json::json;
use vector14_hook::mock::{MockGuest, Outcome, options, read_fault};

const PAGE: Va = Va(0x1_0000);
const ALL: Access = Access::all();

fn hook() -> Wx {
    Wx::new(&options(json!({}))).unwrap_or_else(|error| panic!("{error}"))
}

fn guest() -> MockGuest {
    let mut guest = MockGuest::new(0);
    guest.load(read_fault(0).rip, &[0x48, 0x89, 0x07], Access::USER | Access::EXECUTE);
    guest
}

fn user(address: Va, error_code: ErrorCode) -> Fault {
    Fault { error_code: error_code | ErrorCode::USER, ..read_fault(address.0) }
}

fn write() -> Fault {
    user(PAGE, ErrorCode::WRITE | ErrorCode::PRESENT)
}

fn fetch() -> Fault {
    Fault { rip: PAGE, ..user(PAGE, ErrorCode::FETCH | ErrorCode::PRESENT) }
}

fn tripwire() -> Fault {
    user(read_fault(0).rip, ErrorCode::FETCH | ErrorCode::PRESENT)
}

fn access(guest: &MockGuest) -> Access {
    guest.translate(PAGE).unwrap().access
}

/// Sets the dirty bit, as the CPU does at a write.
fn dirty(guest: &mut MockGuest) {
    let held = Held::default();
    Leaf::at(guest, &held, PAGE).unwrap().note_access(guest, &held, true);
}

/// Maps a page at its first write with these rights, as the guest would.
fn first_write(hook: &Wx, guest: &mut MockGuest, rights: Access) {
    assert!(matches!(guest.take(hook, &user(PAGE, ErrorCode::WRITE)), Outcome::Handled { .. }));
    guest.load(PAGE, &[0xc3], rights);
    assert_eq!(guest.take(hook, &Fault { vcpu: 1, ..tripwire() }), Outcome::Retried, "on whatever vCPU it goes on");
    dirty(guest);
}

#[test]
fn a_page_is_written_and_executed_in_turns_and_each_turn_is_reported() {
    let (hook, mut guest) = (hook(), guest());
    first_write(&hook, &mut guest, ALL);
    assert_eq!(access(&guest), Access::USER | Access::WRITE, "before the write is tried again");
    for _ in 0..3 {
        assert_eq!(guest.take(&hook, &fetch()), Outcome::Retried);
        assert_eq!(access(&guest), Access::USER | Access::EXECUTE);
        assert_eq!(guest.take(&hook, &write()), Outcome::Retried);
        assert_eq!(access(&guest), Access::USER | Access::WRITE);
    }
    let report = hook.on_end(&mut guest);
    assert_eq!(report.tables[0].rows, [["0x10000", "0x0", "3", "0x401000", "0x10000"]]);
    assert_eq!(report.tables[1].rows.len(), 3);
    assert_eq!(access(&guest), ALL, "given back at the end");
}

#[test]
fn a_page_that_is_never_written_is_not_reported() {
    let (hook, mut guest) = (hook(), guest());
    guest.load(PAGE, &[0xc3], ALL);
    let leaf = Leaf::at(&guest, &hook.held, PAGE).unwrap();
    assert!(leaf.exchange(&mut guest, &hook.held, &[Right::Execute], &[]));
    assert_eq!(guest.take(&hook, &fetch()), Outcome::Retried);
    assert_eq!(hook.on_end(&mut guest).tables[0].rows, Vec::<Vec<String>>::new());
}

#[test]
fn a_page_that_is_swapped_out_is_for_the_guest_s_own_handler() {
    let (hook, mut guest) = (hook(), guest());
    first_write(&hook, &mut guest, ALL);
    swap_out(&mut guest, PAGE);
    let before = guest.walk(PAGE).unwrap();
    for error_code in [ErrorCode::WRITE, ErrorCode::FETCH, ErrorCode::empty()] {
        assert!(matches!(guest.take(&hook, &user(PAGE, error_code)), Outcome::Handled { .. }), "{error_code}");
    }
    hook.on_end(&mut guest);
    assert_eq!(guest.walk(PAGE).unwrap(), before);
}

#[test]
fn a_page_that_becomes_executable_later_is_found_at_a_fault() {
    let (hook, mut guest) = (hook(), guest());
    first_write(&hook, &mut guest, Access::USER | Access::WRITE);
    guest.protect(PAGE, Access::USER | Access::EXECUTE).unwrap();
    guest.take(&hook, &user(Va(0x7000_0000), ErrorCode::empty()));
    assert_eq!(access(&guest), Access::USER);
    assert_eq!(guest.take(&hook, &fetch()), Outcome::Retried);
    assert_eq!(hook.on_end(&mut guest).tables[0].rows[0][2], "1");
}

#[test]
fn an_instruction_that_writes_to_its_own_page_gets_on() {
    let (hook, mut guest) = (hook(), guest());
    first_write(&hook, &mut guest, ALL);
    guest.take(&hook, &fetch());
    assert_eq!(guest.take(&hook, &Fault { rip: PAGE.offset(8), ..write() }), Outcome::Retried);
    assert_eq!(access(&guest), ALL);
    guest.take(&hook, &user(Va(0x7000_0000), ErrorCode::empty()));
    assert_eq!(access(&guest), Access::USER | Access::WRITE);
}

#[test]
fn faults_that_are_the_guest_s_own_go_to_its_handler() {
    let (hook, mut guest) = (hook(), guest());
    guest.load(PAGE, &[1], Access::USER);
    for fault in [write(), fetch(), user(Va(0x7000_0000), ErrorCode::empty())] {
        assert!(matches!(guest.take(&hook, &fault), Outcome::Handled { .. }), "{fault:?}");
        guest.take(&hook, &tripwire());
    }
}

#[test]
fn pages_outside_of_the_range_are_nothing_to_it() {
    let hook = Wx::new(&options(json!({"start": 0x2_0000, "end": 0x3_0000}))).unwrap_or_else(|error| panic!("{error}"));
    let mut guest = guest();
    assert!(matches!(guest.take(&hook, &user(PAGE, ErrorCode::WRITE)), Outcome::Handled { .. }));
    assert_eq!(guest.flushes(), 0);
}
