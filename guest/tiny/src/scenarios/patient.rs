//! `patient`: as `demand`, for a host that reinjects faults that are already resolved.

use vector14_guest_abi::window::{DEMAND, PAGE_SIZE, pattern};

use crate::cmdline::Cmdline;
use crate::paging::page_is;
use crate::probe::Ring;
use crate::window::open_demand;
use crate::{check, say};

pub(super) fn run(cmdline: &Cmdline) {
    let pages = cmdline.number("pages");
    open_demand(&DEMAND, pages);
    for address in (0..pages).map(|page| DEMAND.start + page * PAGE_SIZE) {
        check!(pattern(address), Ring::Three.load(address), "first word of page {address:#x}");
        check!(true, page_is(address, pattern(address)), "page {address:#x} holds its pattern");
    }
    say!("{pages} pages mapped at their first touch, contents right");
}
