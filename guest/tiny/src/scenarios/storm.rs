//! `storm`: tight loops to be timed. A byte goes to the mark port right before and right after.

use core::arch::naked_asm;

use vector14_guest_abi::window::STORM;
use vector14_guest_abi::{MARK_PORT, NOP_PORT};

use crate::cmdline::Cmdline;
use crate::exception::PageFaultHandler;
use crate::fault::Action;
use crate::idt::{IDT, PAGE_FAULT};
use crate::window::open;
use crate::{ring0, say};

pub(super) fn run(cmdline: &Cmdline) {
    let (kind, ring) = (cmdline.value("kind"), cmdline.ring());
    let [count, faults, rounds] = ["count", "faults", "rounds"].map(|name| cmdline.number(name));
    for (name, number) in [("count", count), ("faults", faults), ("rounds", rounds)] {
        if number == 0 {
            cmdline.refuse(name, "1 or more");
        }
    }
    let (exits, faults) = match kind {
        "exit" => (count, 0),
        "fault" => (0, count),
        "both" => (count, faults),
        _ => cmdline.refuse("kind", "fault, exit or both"),
    };
    open(&STORM, 1, Action::Fatal);
    IDT.gate(PAGE_FAULT).set(PageFaultHandler::Storm.address());
    say!("kind={kind} count={count} ring={ring}");
    for _ in 0..rounds {
        for (storm, count) in [(write_nop_port as ring0::Function, exits), (read_one_page, faults)] {
            if count > 0 {
                ring.run(storm, STORM.start, count);
            }
        }
    }
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

// The instruction above names it as a literal.
const _: () = assert!(NOP_PORT == 0xf5);
