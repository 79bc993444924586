//! `reserved`: reads through a PTE with a reserved bit set, which the guest's handler clears.

use vector14_guest_abi::window::{RESERVED, RESERVED_BIT, pattern};

use super::{P, RSVD, fault, faults};
use crate::fault::Action;
use crate::paging::{PRESENT, USER, patterned};
use crate::probe::Ring;
use crate::window::open;
use crate::{check, ring0, say};

use core::sync::atomic::Ordering::Relaxed;

pub(super) fn run() {
    read(Ring::Three);
    say!("reserved bit cleared at the first read");
}

/// Reads the page with one fault, and again without.
pub(super) fn read(ring: Ring) {
    require_reserved_bit();
    let page = RESERVED.start;
    let pte = &open(&RESERVED, 1, Action::Change { clear: RESERVED_BIT, set: 0 })[0];
    pte.store(patterned(page, 1) | PRESENT | USER | RESERVED_BIT, Relaxed);
    check!(pattern(page), fault(page, P | RSVD | ring.user_bit(), || ring.load(page)), "data of the page");
    faults(0, || check!(pattern(page), ring.load(page), "data of the page, again"));
}

/// Checks that `RESERVED_BIT` is beyond MAXPHYADDR (CPUID leaf 0x8000_0008).
pub(super) fn require_reserved_bit() {
    let maxphyaddr = ring0::cpuid(0x8000_0008).eax & 0xff;
    check!(true, 1 << maxphyaddr <= RESERVED_BIT, "physical addresses of {maxphyaddr} bits leave a reserved bit");
}
