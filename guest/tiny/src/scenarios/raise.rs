//! `raise`: the host turns a page fault into #GP.

use vector14_guest_abi::window::{PAGE_SIZE, RAISE};

use super::faults;
use crate::cmdline::Cmdline;
use crate::fault::Action;
use crate::idt::{GENERAL_PROTECTION, IDT};
use crate::paging::entry;
use crate::probe::{LOAD_LENGTH, Ring};
use crate::window::open;
use crate::{check, cpu, frames, say};

use core::sync::atomic::Ordering::Relaxed;

pub(super) fn run(cmdline: &Cmdline) {
    let code = cmdline.number("code");
    open(&RAISE, 1, Action::Fatal);
    let cpu = cpu::this();
    let stack = frames::take_zeroed(1);
    let ist = match cmdline.number("ist") {
        0 => false,
        1 => true,
        _ => cmdline.refuse("ist", "0 or 1"),
    };
    if ist {
        cpu::set_ist1(stack + PAGE_SIZE);
        IDT.gate(GENERAL_PROTECTION).set_ist1();
    }
    for ring in [Ring::Three, Ring::Zero] {
        cpu.last.vector.store(0, Relaxed);
        cpu.expected.store(GENERAL_PROTECTION as u64, Relaxed);
        faults(0, || ring.load(RAISE.start));
        cpu.expected.store(0, Relaxed);

        check!(GENERAL_PROTECTION, cpu.last.vector.load(Relaxed), "vector");
        check!(code, cpu.last.error.load(Relaxed), "error code of the #GP");
        check!(cpu.resume.load(Relaxed) - LOAD_LENGTH, cpu.last.rip.load(Relaxed), "RIP of the #GP");
        // SS, RSP, RFLAGS and CS are pushed in this order: CS is never 0.
        let pushed = entry(stack, PAGE_SIZE / 8 - 4).swap(0, Relaxed) != 0;
        check!(ist, pushed, "whether the handler ran on the stack of its own");
        say!("from ring {ring}: #GP with error code {code:#x}, at the instruction that faulted");
    }
}
