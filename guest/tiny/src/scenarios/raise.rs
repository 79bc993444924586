//! `raise`: the host turns a page fault into #GP.

use vector14_guest_abi::window::RAISE;

use super::faults;
use crate::cmdline::Cmdline;
use crate::fault::Action;
use crate::idt::GENERAL_PROTECTION;
use crate::paging::open;
use crate::probe::{LOAD_LENGTH, Ring};
use crate::{check, cpu, say};

use core::sync::atomic::Ordering::Relaxed;

pub(super) fn run(cmdline: &Cmdline) {
    let code = cmdline.number("code");
    open(&RAISE, 1, Action::Fatal);
    let cpu = cpu::this();
    for ring in [Ring::Three, Ring::Zero] {
        cpu.last.vector.store(0, Relaxed);
        cpu.expected.store(GENERAL_PROTECTION as u64, Relaxed);
        faults(0, || ring.load(RAISE.start));
        cpu.expected.store(0, Relaxed);

        check!(GENERAL_PROTECTION, cpu.last.vector.load(Relaxed), "vector");
        check!(code, cpu.last.error.load(Relaxed), "error code of the #GP");
        check!(cpu.resume.load(Relaxed) - LOAD_LENGTH, cpu.last.rip.load(Relaxed), "RIP of the #GP");
        say!("from ring {ring}: #GP with error code {code:#x}, at the instruction that faulted");
    }
}
