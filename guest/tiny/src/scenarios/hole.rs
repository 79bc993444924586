//! `hole`: the pages from 3 GiB on, where no RAM is and the host has its own. What is not memory reads as ones and keeps nothing.

use vector14_guest_abi::window::{HIDDEN, HOLE_START, PAGE_SIZE};

use crate::cmdline::Cmdline;
use crate::fault::Action;
use crate::paging::page_is;
use crate::probe::Ring;
use crate::window::open;
use crate::{check, say};

pub(super) fn run(cmdline: &Cmdline) {
    let (pages, touched) = (cmdline.number("pages"), cmdline.number("touch"));
    if touched > 0 {
        open(&HIDDEN, 2 * touched, Action::Fatal);
    }
    zeroed(0, touched);
    say!("{} of {pages} pages are memory", scribble(pages));
    zeroed(touched, touched);
}

/// Finds zeroes in `count` pages that the host has to map, from the one of this number on.
fn zeroed(first: u64, count: u64) {
    for page in first..first + count {
        let address = HIDDEN.start + page * PAGE_SIZE;
        check!(true, page_is(address, 0), "page {address:#x} is zero");
    }
}

/// Writes to each page of the hole, and counts those that keep it.
fn scribble(pages: u64) -> usize {
    let addresses = || (0..pages).map(|page| HOLE_START + page * PAGE_SIZE);
    addresses().for_each(|address| Ring::Three.store(address, address));
    let keeps = |address: &u64| {
        let found = Ring::Three.load(*address);
        check!(
            true,
            found == *address || found == u64::MAX,
            "page {address:#x} keeps what is written or reads as ones"
        );
        found == *address
    };
    addresses().filter(keeps).count()
}
