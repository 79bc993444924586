//! `storm`: tight loops to be timed. A byte goes to the mark port right before and right after.

use core::arch::naked_asm;

use vector14_guest_abi::window::STORM;
use vector14_guest_abi::{MARK_PORT, NOP_PORT};

use crate::cmdline::Cmdline;
use crate::exception::PageFaultHandler;
use crate::fault::Action;
use crate::frames;
use crate::idt::{IDT, PAGE_FAULT};
use crate::paging::{PRESENT, USER, open};
use crate::say;

use core::sync::atomic::Ordering::Relaxed;

pub(super) fn run(cmdline: &Cmdline) {
    let (count, kind, ring) = (cmdline.number("count"), cmdline.value("kind"), cmdline.ring());
    if count == 0 {
        cmdline.refuse("count", "1 or more");
    }
    let storm = match kind {
        "exit" => write_nop_port,
        "fault" => {
            open(&STORM, 1, Action::Fatal);
            IDT.gate(PAGE_FAULT).set(PageFaultHandler::Storm.address());
            read_one_page
        }
        "resolve" => {
            let shared = frames::take_zeroed(1);
            for pte in open(&STORM, count, Action::Change { clear: 0, set: PRESENT }) {
                pte.store(shared | USER, Relaxed);
            }
            read_new_pages
        }
        _ => cmdline.refuse("kind", "fault, resolve or exit"),
    };
    say!("kind={kind} count={count} ring={ring}");
    ring.run(storm, STORM.start, count);
    IDT.gate(PAGE_FAULT).set(PageFaultHandler::First.address());
}

/// A naked function that runs the instructions given RSI times, between two writes to the mark port.
macro_rules! storm {
    ($name:ident, $($instruction:literal),+) => {
        #[unsafe(naked)]
        #[unsafe(link_section = ".ring0")]
        unsafe extern "C" fn $name(_address: u64, _count: u64) -> u64 {
            naked_asm!(
                "mov al, 1",
                "out {mark}, al",
                "2:",
                $($instruction,)+
                "dec rsi",
                "jnz 2b",
                "mov al, 0",
                "out {mark}, al",
                "ret",
                mark = const MARK_PORT,
            )
        }
    };
}

storm!(write_nop_port, "out 0xf5, al");
// Two bytes long: `STORM_INSTRUCTION_LENGTH`.
storm!(read_one_page, "mov al, [rdi]");
storm!(read_new_pages, "mov al, [rdi]", "add rdi, 4096");

// The instruction above names it as a literal.
const _: () = assert!(NOP_PORT == 0xf5);
