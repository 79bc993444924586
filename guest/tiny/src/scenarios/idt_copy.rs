//! `idt-readonly` and `idt-absent`: an IDT on a page of its own, which is mapped read-only or not at all.

use vector14_guest_abi::window::{DEMAND, HIDDEN, IDT_COPY, pattern};

use super::{fault, faults};
use crate::cmdline::Cmdline;
use crate::fault::Action;
use crate::idt::{IDT, Idt, LIMIT};
use crate::paging::{PRESENT, USER, WRITABLE, page_is};
use crate::probe::Ring;
use crate::window::{open, open_demand};
use crate::{check, frames, ring0, say};

use core::sync::atomic::Ordering::Relaxed;

pub(super) fn readonly() {
    load_copy(PRESENT | USER);
    open_demand(&DEMAND, 1);
    say!("faulting with an IDT at {:#x}, read-only", IDT_COPY.start);
    take_one_fault();
}

/// Its page is not present until the host maps it, to the frame that its entry names. Nothing needs the IDT until then.
pub(super) fn absent(cmdline: &Cmdline) {
    let (hidden, ring) = (HIDDEN.start, Ring::Three);
    open(&HIDDEN, 1, Action::Fatal);
    open_demand(&DEMAND, 1);
    load_copy(WRITABLE | USER);
    let word = faults(0, || ring.load(hidden));
    check!(true, page_is(hidden, word), "page {hidden:#x} holds the same word throughout");
    say!("the host has resolved a fault that could not have been delivered");
    match cmdline.value("first") {
        "fault" => take_one_fault(),
        "call" => {
            ring0::flush_all();
            take_one_fault();
        }
        _ => cmdline.refuse("first", "fault or call"),
    }
}

/// Loads IDTR with a copy of the table, in a page whose entry has these flags.
fn load_copy(flags: u64) {
    let frame = frames::take_zeroed(1);
    // SAFETY: zeros are absent gates, and the frame, mapped at its own address, is nobody else's.
    unsafe { &*(frame as *const Idt) }.copy(&IDT);
    open(&IDT_COPY, 1, Action::Fatal)[0].store(frame | flags, Relaxed);
    ring0::load_idt(IDT_COPY.start, LIMIT);
}

fn take_one_fault() {
    let (page, ring) = (DEMAND.start, Ring::Three);
    let word = fault(page, ring.user_bit(), || ring.load(page));
    check!(pattern(page), word, "first word");
    say!("the guest's handler has served a fault");
}
