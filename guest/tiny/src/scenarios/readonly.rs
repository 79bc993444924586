//! `readonly`: copy on write by the guest's handler.

use vector14_guest_abi::window::{PAGE_SIZE, READONLY, pattern};

use super::{P, W, fault, faults};
use crate::cmdline::Cmdline;
use crate::fault::Action;
use crate::paging::{PRESENT, USER, entry, page_is, patterned};
use crate::probe::Ring;
use crate::window::open;
use crate::{check, say};

use core::sync::atomic::Ordering::Relaxed;

pub(super) fn run(cmdline: &Cmdline) {
    let pages = cmdline.number("pages");
    copy_on_write(Ring::Three, pages);
    say!("{pages} pages copied at their first write, originals unchanged");
}

/// Reads pages without a fault, then writes to each: by a plain store and by a locked instruction, in turns.
pub(super) fn copy_on_write(ring: Ring, pages: u64) {
    let ptes = open(&READONLY, pages, Action::CopyOnWrite);
    for (pte, address) in ptes.iter().zip((READONLY.start..).step_by(PAGE_SIZE as usize)) {
        let original = patterned(address, 1);
        pte.store(original | PRESENT | USER, Relaxed);
        faults(0, || check!(pattern(address), ring.load(address), "original"));

        let error = P | W | ring.user_bit();
        if (address / PAGE_SIZE).is_multiple_of(2) {
            fault(address, error, || ring.store(address, !pattern(address)));
            check!(!pattern(address), ring.load(address), "what was stored in the copy");
        } else {
            check!(pattern(address), fault(address, error, || ring.exchange(address, 1)), "what was exchanged");
            check!(pattern(address).wrapping_add(1), ring.load(address), "what was added up in the copy");
        }
        check!(pattern(address), ring.load(address + 8), "second word of the copy");
        check!(pattern(address), entry(original, 0).load(Relaxed), "first word of the original");
        ring.store(address, pattern(address));
        check!(true, page_is(address, pattern(address)), "the rest of the copy is the original's");
    }
}
