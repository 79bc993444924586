//! `demo`: a short run for first-time users.

use vector14_guest_abi::window::{DEMAND, HIDDEN, PAGE_SIZE, pattern};

use super::{fault, faults};
use crate::fault::Action;
use crate::paging::page_is;
use crate::probe::Ring;
use crate::window::{open, open_demand};
use crate::{check, say};

const PAGES: u64 = 3;

pub(super) fn run() {
    let ring = Ring::Three;
    say!("Hello. I am a tiny kernel, and I am about to touch memory that is not there.");
    say!("First {PAGES} pages that my own page-fault (#PF) handler knows how to supply.");
    open_demand(&DEMAND, PAGES);
    for address in pages(DEMAND.start) {
        let word = fault(address, ring.user_bit(), || ring.load(address));
        check!(pattern(address), word, "first word");
        say!("  I read {address:#x}: my handler ran, and put a page there.");
    }
    say!("Now {PAGES} pages that it knows nothing of. If it is called for one of them, I am done for.");
    open(&HIDDEN, PAGES, Action::Fatal);
    for address in pages(HIDDEN.start) {
        let word = faults(0, || ring.load(address));
        check!(true, page_is(address, word), "page {address:#x} holds the same word throughout");
        say!("  I read {address:#x}: my handler never ran, and yet there is a page, full of {:#04x}.", word & 0xff);
    }
    say!("My handler counted {PAGES} faults. The other {PAGES} were answered from outside.");
}

fn pages(start: u64) -> impl Iterator<Item = u64> {
    (start..).step_by(PAGE_SIZE as usize).take(PAGES as usize)
}
