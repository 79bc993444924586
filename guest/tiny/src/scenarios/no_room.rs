//! `no-room`: a page-fault handler on a page of its own without any filler, so a stub has no room beside it.

use vector14_guest_abi::window::{DEMAND, NO_ROOM, PAGE_SIZE, pattern};

use super::fault;
use crate::cmdline::Cmdline;
use crate::exception::PageFaultHandler;
use crate::fault::Action;
use crate::idt::{IDT, PAGE_FAULT};
use crate::paging::{PRESENT, USER, entry};
use crate::probe::Ring;
use crate::window::{open, open_demand};
use crate::{check, frames, say};

use core::sync::atomic::Ordering::Relaxed;

const NOPS: u64 = u64::from_ne_bytes([0x90; 8]);
/// `nop; nop; jmp [rip]`: to the address that the next 8 bytes hold.
const JUMP: u64 = u64::from_le_bytes([0x90, 0x90, 0xff, 0x25, 0, 0, 0, 0]);

pub(super) fn run(cmdline: &Cmdline) {
    let pages = cmdline.number("pages");
    let code = frames::take_zeroed(1);
    for index in 0..PAGE_SIZE / 8 {
        entry(code, index).store(NOPS, Relaxed);
    }
    entry(code, 0).store(JUMP, Relaxed);
    entry(code, 1).store(PageFaultHandler::First.address(), Relaxed);
    open(&NO_ROOM, 1, Action::Fatal)[0].store(code | PRESENT | USER, Relaxed);
    IDT.gate(PAGE_FAULT).set(NO_ROOM.start);
    say!("the handler is at {:#x}, on a page of its own", NO_ROOM.start);

    open_demand(&DEMAND, pages);
    for address in (DEMAND.start..).step_by(PAGE_SIZE as usize).take(pages as usize) {
        let word = fault(address, Ring::Three.user_bit(), || Ring::Three.load(address));
        check!(pattern(address), word, "first word");
    }
}
