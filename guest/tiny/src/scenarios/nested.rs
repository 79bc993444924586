//! `nested`: the guest's handler faults itself, before it maps the page that it was called for.

use vector14_guest_abi::window::{DEMAND, NESTED, PAGE_SIZE, pattern};

use super::faults;
use crate::cmdline::Cmdline;
use crate::fault::{Action, set_policy};
use crate::paging::{page_is, patterned};
use crate::probe::Ring;
use crate::window::{open, open_demand};
use crate::{check, say};

pub(super) fn run(cmdline: &Cmdline) {
    let pages = cmdline.number("pages");
    open_demand(&DEMAND, pages);
    let frames = patterned(NESTED.start, pages);
    let ptes = open(&NESTED, pages, Action::Fatal);
    for offset in (0..pages).map(|page| page * PAGE_SIZE) {
        let (inner, outer) = (DEMAND.start + offset, NESTED.start + offset);
        set_policy(&NESTED, ptes, Action::Nested { first: inner, frames });
        let word = faults(2, || Ring::Three.load(outer));
        check!(pattern(outer), word, "first word");
        faults(0, || {
            check!(true, page_is(outer, pattern(outer)), "page {outer:#x} holds its pattern");
            check!(true, page_is(inner, pattern(inner)), "page {inner:#x} holds its pattern");
        });
    }
    say!("{pages} faults, with a fault of the handler inside each");
}
