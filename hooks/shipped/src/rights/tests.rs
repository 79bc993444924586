//! Tests with the mock guest: which rights count as removed, in the hook's entries and in the guest's own.

use super::right::ALL;
use super::*;
use crate::tests::{put_entry, swap_entry};
use vector14_hook::GuestError;
use vector14_hook::mock::{Method, MockGuest, When};

const PAGE: Va = Va(0x40_0000);

fn leaf(access: Access) -> (MockGuest, Held, Leaf) {
    let (mut guest, held) = (MockGuest::new(0), Held::default());
    guest.load(PAGE, &[1], access);
    let leaf = Leaf::at(&guest, &held, PAGE).unwrap();
    (guest, held, leaf)
}

fn entry(guest: &MockGuest) -> u64 {
    guest.walk(PAGE).unwrap().entries().last().unwrap().entry
}

#[test]
fn what_is_taken_is_gone_and_comes_back() {
    for right in ALL {
        let (mut guest, held, before) = leaf(Access::all());
        assert!(before.exchange(&mut guest, &held, &[right], &[]));
        let taken = Leaf::at(&guest, &held, PAGE).unwrap();
        assert!(taken.lacks(right) && taken.lacks_any(), "{right:?}");
        assert_eq!(taken.guests_access(), Access::all(), "{right:?}");
        assert!(guest.translate(PAGE).map(|now| now.access) != Ok(Access::all()), "{right:?}");
        assert!(taken.exchange(&mut guest, &held, &[], &[right]));
        assert_eq!(entry(&guest), before.entry.entry, "{right:?}");
    }
}

#[test]
fn what_the_guest_does_not_grant_is_not_taken() {
    let (mut guest, held, leaf) = leaf(Access::USER);
    assert!(!leaf.exchange(&mut guest, &held, &[Right::Write, Right::Execute], &[]));
    assert!(leaf.allows(ErrorCode::USER) && !leaf.allows(ErrorCode::USER | ErrorCode::WRITE));
    assert!(!leaf.allows(ErrorCode::PROTECTION_KEY));
}

#[test]
fn an_entry_that_the_guest_makes_anew_has_nothing_taken() {
    let (mut guest, held, leaf) = leaf(Access::all());
    leaf.exchange(&mut guest, &held, &[Right::User], &[]);
    guest.protect(PAGE, Access::USER).unwrap();
    let now = Leaf::at(&guest, &held, PAGE).unwrap();
    assert!(!now.lacks_any(), "a mark beside the right itself is stale");
    assert!(is_over(&guest, &held, PAGE, ErrorCode::PRESENT | ErrorCode::USER));
}

#[test]
fn an_entry_of_a_page_that_was_swapped_out_has_nothing_taken() {
    for right in ALL {
        let (mut guest, held, leaf) = leaf(Access::all());
        assert!(leaf.exchange(&mut guest, &held, &[right], &[]));
        // The offset of the last one has a bit that makes its entry look as if only Present was removed.
        for absent in [swap_entry(0, 1), swap_entry(31, 0x1234), swap_entry(0, 0xb800_0000_0001), Right::Present.mark()]
        {
            put_entry(&mut guest, PAGE, absent);
            assert!(Leaf::at(&guest, &held, PAGE).is_none(), "{right:?} {absent:#x}");
            assert!(!leaf.exchange(&mut guest, &held, &ALL, &ALL), "{right:?} {absent:#x}");
            held.give_back(&mut guest);
            assert_eq!(entry(&guest), absent, "{right:?}");
        }
    }
}

#[test]
fn an_entry_that_was_made_absent_here_counts_where_it_was_made_so_and_nowhere_else() {
    let (mut guest, held, leaf) = leaf(Access::all());
    assert!(leaf.exchange(&mut guest, &held, &[Right::Present], &[]));
    let ours = entry(&guest);
    Leaf::at(&guest, &held, PAGE).unwrap().note_access(&mut guest, &held, true);
    assert!(Leaf::at(&guest, &held, PAGE).unwrap().is_dirty());
    assert!(Leaf::at(&guest, &Held::default(), PAGE).is_none(), "another hook has not made it so");
    for changed in [ours ^ 1 << 13, ours | Right::User.mark(), ours ^ 1 << 63] {
        put_entry(&mut guest, PAGE, changed);
        assert!(Leaf::at(&guest, &held, PAGE).is_none(), "{changed:#x}");
    }
}

#[test]
fn nothing_is_taken_besides_present() {
    for right in [Right::Write, Right::User, Right::Execute, Right::Tripwire] {
        let (mut guest, held, leaf) = leaf(Access::all());
        assert!(leaf.exchange(&mut guest, &held, &[Right::Present], &[]));
        assert!(!Leaf::at(&guest, &held, PAGE).unwrap().exchange(&mut guest, &held, &[right], &[]), "{right:?}");
        let (mut guest, held, leaf) = self::leaf(Access::all());
        assert!(leaf.exchange(&mut guest, &held, &[right], &[]));
        assert!(
            !Leaf::at(&guest, &held, PAGE).unwrap().exchange(&mut guest, &held, &[Right::Present], &[]),
            "{right:?}"
        );
    }
}

#[test]
fn an_entry_that_does_not_hold_still_is_counted_and_left() {
    let (mut guest, held, leaf) = leaf(Access::all());
    guest.fail(Method::CompareExchange, When::Always, GuestError::OutsideMemory(Pa(0)));
    assert!(!leaf.exchange(&mut guest, &held, &[Right::User], &[]));
    leaf.note_access(&mut guest, &held, true);
    assert_eq!(held.warnings().len(), 1);
}

#[test]
fn the_cpu_s_own_notes_are_made() {
    let (mut guest, held, leaf) = leaf(Access::all());
    leaf.note_access(&mut guest, &held, true);
    assert!(Leaf::at(&guest, &held, PAGE).unwrap().is_dirty());
}
