//! `stack-mmio`: ring 0 with a stack outside of RAM, where pushes reach nothing and pops find nothing.

use vector14_guest_abi::window::{DEMAND, OUTSIDE_RAM, PAGE_SIZE};

use crate::cmdline::Cmdline;
use crate::idt::{IDT, PAGE_FAULT};
use crate::probe::Ring;
use crate::window::open_demand;
use crate::{console, ring0, say};

pub(super) fn run(cmdline: &Cmdline) -> ! {
    let stack = OUTSIDE_RAM + PAGE_SIZE / 2;
    open_demand(&DEMAND, 1);
    match cmdline.value("how") {
        "fault" => {
            say!("faulting with a stack at {stack:#x}");
            Ring::Zero.run(ring0::load_on_stack, stack, DEMAND.start)
        }
        "jump" => {
            let handler = IDT.gate(PAGE_FAULT).handler();
            say!("jumping to {handler:#x} with a stack at {stack:#x}");
            Ring::Zero.run(ring0::jump_on_stack, stack, handler)
        }
        _ => cmdline.refuse("how", "fault or jump"),
    };
    console::fail(format_args!("still running"))
}
