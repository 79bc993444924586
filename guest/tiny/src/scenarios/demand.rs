//! `demand`: the guest's handler maps pages at their first touch.

use vector14_guest_abi::window::{DEMAND, PAGE_SIZE, pattern};

use super::{W, fault, faults};
use crate::cmdline::Cmdline;
use crate::paging::page_is;
use crate::probe::Ring;
use crate::window::open_demand;
use crate::{check, say};

pub(super) fn run(cmdline: &Cmdline) {
    let pages = cmdline.number("pages");
    touch(Ring::Three, pages);
    say!("{pages} pages mapped at their first touch, contents right");
}

/// Touches pages for the first time, every other one by a write, then checks what is in them without a fault.
pub(super) fn touch(ring: Ring, pages: u64) {
    open_demand(&DEMAND, pages);
    let addresses = || (0..pages).map(|page| DEMAND.start + page * PAGE_SIZE);
    for address in addresses() {
        if (address / PAGE_SIZE).is_multiple_of(2) {
            check!(pattern(address), fault(address, ring.user_bit(), || ring.load(address)), "first word");
        } else {
            fault(address, ring.user_bit() | W, || ring.store(address, pattern(address)));
        }
    }
    faults(0, || {
        for address in addresses() {
            check!(true, page_is(address, pattern(address)), "page {address:#x} holds its pattern");
        }
    });
}
