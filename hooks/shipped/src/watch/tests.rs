//! Tests with the mock guest: what is seen, what is let through, and what is missed as the module documents.

use super::*;
use crate::tests::{fault, put_entry, swap_out};
use serde_json::{Value, json};
use vector14_hook::mock::{MockGuest, Outcome, options, read_fault};
use vector14_hook::{Access, ErrorCode, Registers};

const PAGE: u64 = 0x1_0000;
const LOAD: &[u8] = &[0x48, 0x8b, 0x07]; // mov rax, [rdi]
const STORE: &[u8] = &[0x48, 0x89, 0x07]; // mov [rdi], rax
const EXCHANGE: &[u8] = &[0xf0, 0x48, 0x0f, 0xc1, 0x07]; // lock xadd [rdi], rax

fn hook(more: Value) -> Watch {
    let mut all = json!({"ranges": [{"start": PAGE, "end": PAGE + 0x2000}]});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Watch::new(&options(all)).unwrap_or_else(|error| panic!("{error}"))
}

/// A guest with a watched page and three instructions. RDI points into the page.
fn guest() -> MockGuest {
    let mut guest = MockGuest::new(0);
    guest.load(Va(PAGE), &[0x11; 0x1000], Access::USER | Access::WRITE);
    for (rip, code) in [(0x40_0000, LOAD), (0x40_0010, STORE), (0x40_0020, EXCHANGE)] {
        guest.load(Va(rip), code, Access::USER | Access::EXECUTE);
    }
    *guest.registers_mut() = Registers { rdi: PAGE + 8, rax: 0x14, ..Registers::default() };
    guest
}

/// The faults of these instructions on a closed page.
fn load() -> Fault {
    Fault { rip: Va(0x40_0000), error_code: ErrorCode::USER | ErrorCode::PRESENT, ..read_fault(PAGE + 8) }
}

fn store() -> Fault {
    Fault { rip: Va(0x40_0010), error_code: load().error_code | ErrorCode::WRITE, ..load() }
}

fn exchange() -> Fault {
    Fault { rip: Va(0x40_0020), ..store() }
}

/// A fault at another address.
fn other() -> Fault {
    fault(0, 0x7000_0000)
}

fn is_open(guest: &MockGuest) -> bool {
    guest.translate(Va(PAGE)).is_ok_and(|now| now.access.contains(Access::USER))
}

fn pages(hook: &Watch) -> Vec<Vec<String>> {
    hook.page_table().rows
}

#[test]
fn every_access_of_a_closed_page_is_seen_and_takes_effect() {
    let (hook, mut guest) = (hook(json!({})), guest());
    guest.take(&hook, &other());
    assert!(!is_open(&guest), "closed at the first fault");
    assert_eq!(guest.take(&hook, &load()), Outcome::Skipped);
    assert_eq!(guest.registers().rax, 0x1111_1111_1111_1111);
    guest.registers_mut().rax = 0x1234;
    assert_eq!(guest.take(&hook, &store()), Outcome::Skipped);
    assert_eq!(guest.take(&hook, &load()), Outcome::Skipped);
    assert_eq!(guest.registers().rax, 0x1234);
    assert!(!is_open(&guest) && guest.flushes() == 1, "nothing was opened");
    assert_eq!(pages(&hook), [["0x10000", "2", "1", "0", "0"]]);
    let report = hook.on_end(&mut guest);
    let first = &report.tables[1].rows[1];
    assert_eq!(first[..4], ["write", "0x10008", "0x0000000000001234", "user"]);
    assert_eq!(first[6..], ["0x400010", "mov [rdi],rax"]);
    assert!(is_open(&guest), "given back at the end");
}

#[test]
fn other_instructions_open_the_page_until_the_next_fault() {
    let (hook, mut guest) = (hook(json!({})), guest());
    guest.take(&hook, &other());
    assert_eq!(guest.take(&hook, &exchange()), Outcome::Retried);
    assert!(is_open(&guest));
    // Opening a second page for the same instruction does not close the first.
    guest.take(&hook, &Fault { address: Va(0x7000_0000), ..exchange() });
    assert!(is_open(&guest));
    guest.take(&hook, &other());
    assert!(!is_open(&guest));
    assert_eq!(pages(&hook), [["0x10000", "1", "1", "0", "1"]]);
}

#[test]
fn a_page_that_the_guest_maps_at_the_first_touch_is_closed_before_the_second() {
    let (hook, mut guest) = (hook(json!({})), guest());
    guest.unmap(Va(PAGE)).unwrap();
    let absent = Fault { error_code: ErrorCode::USER, ..load() };
    assert!(matches!(guest.take(&hook, &absent), Outcome::Handled { .. }));
    // The guest maps the page. Its next instruction triggers the tripwire, is retried, and faults on the closed page.
    guest.load(Va(PAGE), &[7; 8], Access::USER);
    let code = Fault { address: load().rip, error_code: load().error_code | ErrorCode::FETCH, ..load() };
    assert_eq!(guest.take(&hook, &Fault { vcpu: 1, ..code }), Outcome::Retried);
    assert!(guest.translate(load().rip).unwrap().access.contains(Access::USER) && !is_open(&guest));
    assert_eq!(guest.take(&hook, &Fault { vcpu: 1, ..load() }), Outcome::Skipped);
    assert_eq!(pages(&hook), [["0x10000", "1", "0", "0", "0"]], "one access, seen once, on whatever vCPU");
}

#[test]
fn what_the_guest_forbids_is_for_its_own_handler() {
    let (hook, mut guest) = (hook(json!({})), guest());
    guest.protect(Va(PAGE), Access::USER).unwrap();
    guest.take(&hook, &other());
    assert!(matches!(guest.take(&hook, &store()), Outcome::Handled { .. }));
    let mut word = [0];
    guest.read(Va(PAGE + 8), &mut word).unwrap();
    assert_eq!(word, [0x11]);
}

#[test]
fn a_page_that_is_swapped_out_is_for_the_guest_s_own_handler() {
    for options in [json!({}), json!({"access": "write"}), json!({"catch": "all"})] {
        let (hook, mut guest) = (hook(options), guest());
        guest.take(&hook, &other());
        swap_out(&mut guest, Va(PAGE));
        let before = guest.walk(Va(PAGE)).unwrap();
        for fault in [other(), Fault { error_code: ErrorCode::USER | ErrorCode::WRITE, ..store() }] {
            assert!(matches!(guest.take(&hook, &fault), Outcome::Handled { .. }));
        }
        hook.on_end(&mut guest);
        assert_eq!(guest.walk(Va(PAGE)).unwrap(), before);
    }
}

#[test]
fn an_access_outside_of_guest_memory_is_let_through_and_reported() {
    let (hook, mut guest) = (hook(json!({})), guest());
    // U/S clear with the mark that it was removed, and a frame at 1 TiB: a guest can write such an entry itself.
    put_entry(&mut guest, Va(PAGE), 1 << 53 | 1 << 40 | 0b11);
    assert_eq!(guest.take(&hook, &load()), Outcome::Retried);
    assert!(is_open(&guest));
    assert_eq!(pages(&hook), [["0x10000", "1", "0", "0", "1"]]);
    let warnings = hook.on_end(&mut guest).warnings;
    assert!(warnings.iter().any(|warning| warning.starts_with("1 accesses were not emulable")), "{warnings:?}");
}

#[test]
fn another_vcpu_may_have_given_the_right_back_already() {
    let (hook, mut guest) = (hook(json!({})), guest());
    guest.take(&hook, &other());
    let mut second = guest.clone();
    assert_eq!(guest.take(&hook, &exchange()), Outcome::Retried);
    assert_eq!(second.take(&hook, &Fault { vcpu: 1, ..exchange() }), Outcome::Retried);
}

#[test]
fn writes_alone_leave_reads_in_peace() {
    let (hook, mut guest) = (hook(json!({"access": "write"})), guest());
    guest.take(&hook, &other());
    assert_eq!(guest.translate(Va(PAGE)).unwrap().access, Access::USER);
    assert_eq!(guest.take(&hook, &store()), Outcome::Skipped);
    assert_eq!(pages(&hook), [["0x10000", "0", "1", "0", "0"]]);
}

#[test]
fn reads_alone_let_writes_through_without_a_word() {
    let (hook, mut guest) = (hook(json!({"access": "read"})), guest());
    guest.take(&hook, &other());
    assert_eq!([guest.take(&hook, &store()), guest.take(&hook, &load())], [Outcome::Skipped, Outcome::Skipped]);
    assert_eq!(pages(&hook), [["0x10000", "1", "0", "0", "0"]]);
}

#[test]
fn the_kernel_is_caught_where_that_is_wanted() {
    let (hook, mut guest) = (hook(json!({"catch": "all"})), guest());
    guest.take(&hook, &other());
    assert!(guest.translate(Va(PAGE)).is_err());
    let kernel = Fault { cs: 0x10, error_code: ErrorCode::empty(), ..load() };
    assert_eq!(guest.take(&hook, &kernel), Outcome::Retried, "SMAP may have a say: the page is opened");
    assert_eq!(pages(&hook), [["0x10000", "1", "0", "0", "1"]]);
    guest.take(&hook, &other());
    let user = Fault { error_code: ErrorCode::USER, ..load() };
    assert_eq!(guest.take(&hook, &user), Outcome::Skipped);
}

#[test]
fn one_address_space_is_not_another() {
    let (hook, mut guest) = (hook(json!({"space": "first"})), guest());
    let second = guest.new_address_space();
    guest.take(&hook, &other());
    guest.use_address_space(second);
    guest.load(Va(PAGE), &[1], Access::all());
    guest.take(&hook, &Fault { cr3: second, ..other() });
    assert!(is_open(&guest));
    assert!(matches!(guest.take(&hook, &Fault { cr3: second, ..load() }), Outcome::Retried), "it is over");
    assert_eq!(pages(&hook), Vec::<Vec<String>>::new());
}

#[test]
fn bad_options_are_named() {
    let ranges = json!([{"start": 0, "end": 0x1000}]);
    for (bad, key, got) in [
        (json!({}), None, "ranges"),
        (json!({"ranges": [{"start": 1, "end": 0x1000}]}), Some("ranges"), "0x1"),
        (json!({"ranges": ranges, "access": "rw"}), Some("access"), "`both`"),
        (json!({"ranges": ranges, "space": 0}), Some("space"), "0"),
        (json!({"ranges": ranges, "show": 10_001}), Some("show"), "10001"),
    ] {
        let error = (TYPE.check)(&options(bad)).unwrap_err();
        assert_eq!(error.key.as_deref(), key, "{error}");
        assert!(error.to_string().contains(got), "{error}");
    }
}
