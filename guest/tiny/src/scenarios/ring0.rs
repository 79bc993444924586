//! `ring0`: faults from ring 0, and what CR0.WP makes of its writes to read-only pages.

use vector14_guest_abi::window::READONLY;

use super::{P, W, demand, fault, faults, noexec, readonly, reserved};
use crate::cpu::{CR0, CR0_WP};
use crate::fault::Action;
use crate::paging::{PRESENT, USER, patterned};
use crate::probe::Ring;
use crate::window::open;
use crate::{check, ring0, say};

use core::sync::atomic::Ordering::Relaxed;

pub(super) fn run() {
    demand::touch(Ring::Zero, 16);
    say!("demand: 16 pages");
    readonly::copy_on_write(Ring::Zero, 4);
    say!("readonly: 4 pages");
    noexec::fetch(Ring::Zero);
    say!("noexec: 1 page");
    reserved::read(Ring::Zero);
    say!("reserved: 1 page");
    write_protect();
    say!("CR0.WP: a write to a read-only page faults with it, and not without it");
}

fn write_protect() {
    let page = READONLY.start;
    let pte = &open(&READONLY, 1, Action::Resume)[0];
    let frame = patterned(page, 1);
    pte.store(frame | PRESENT | USER, Relaxed);

    let before = Ring::Zero.load(page);
    fault(page, P | W, || Ring::Zero.store(page, 1));
    check!(before, Ring::Zero.load(page), "data of the page after a write that faulted");

    ring0::write_cr0(CR0 & !CR0_WP);
    faults(0, || Ring::Zero.store(page, 2));
    ring0::write_cr0(CR0);
    check!(2, Ring::Zero.load(page), "data of the page after a write with CR0.WP clear");

    fault(page, P | W, || Ring::Zero.store(page, 3));
    check!(2, Ring::Zero.load(page), "data of the page with CR0.WP set again");
}
