//! `noexec`: fetches from an NX page, which the guest's handler makes executable.

use vector14_guest_abi::window::NOEXEC;

use super::{I, P, fault, faults};
use crate::fault::Action;
use crate::paging::{NO_EXECUTE, PRESENT, USER, entry};
use crate::probe::{FETCH_TARGET, Ring};
use crate::window::open;
use crate::{check, frames, say};

use core::sync::atomic::Ordering::Relaxed;

pub(super) fn run() {
    fetch(Ring::Three);
    say!("NX cleared at the first fetch, data readable before, code running after");
}

/// Reads the page without a fault, executes it with one, and executes it again without.
pub(super) fn fetch(ring: Ring) {
    let page = NOEXEC.start;
    let pte = &open(&NOEXEC, 1, Action::Change { clear: NO_EXECUTE, set: 0 })[0];
    let frame = frames::take_zeroed(1);
    entry(frame, 0).store(FETCH_TARGET, Relaxed);
    pte.store(frame | PRESENT | USER | NO_EXECUTE, Relaxed);

    faults(0, || check!(FETCH_TARGET, ring.load(page), "data of the page"));
    check!(1, fault(page, P | I | ring.user_bit(), || ring.fetch(page)), "code of the page ran");
    faults(0, || check!(1, ring.fetch(page), "code of the page ran again"));
}
