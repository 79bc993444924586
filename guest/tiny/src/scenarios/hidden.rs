//! `hidden`: pages that the guest's handler does not map. The scenario passes only if the host maps them.

use vector14_guest_abi::window::{HIDDEN, PAGE_SIZE};

use crate::cmdline::Cmdline;
use crate::fault::Action;
use crate::paging::page_is;
use crate::probe::Ring;
use crate::window::open;
use crate::{check, say};

pub(super) fn run(cmdline: &Cmdline) {
    let (pages, fill) = (cmdline.number("pages"), cmdline.number("fill"));
    if fill > 0xff {
        cmdline.refuse("fill", "a byte");
    }
    touch(pages, fill as u8);
    say!("{pages} pages found filled with {fill:#04x}, and writable");
}

/// Reads all of each page, then writes to it.
fn touch(pages: u64, fill: u8) {
    open(&HIDDEN, pages, Action::Fatal);
    let word = u64::from_ne_bytes([fill; 8]);
    for page in 0..pages {
        let address = HIDDEN.start + page * PAGE_SIZE;
        check!(word, Ring::Three.load(address), "first word of page {address:#x}");
        check!(true, page_is(address, word), "page {address:#x} is filled");
    }
    for page in 0..pages {
        let address = HIDDEN.start + page * PAGE_SIZE;
        Ring::Three.store(address, page);
        check!(page, Ring::Three.load(address), "what was written to page {address:#x}");
    }
}
