//! `stack-unmapped`: faults with a stack that is not mapped: no frame can be pushed, for #PF or for #DF.

use vector14_guest_abi::window::{DEMAND, HIDDEN, PAGE_SIZE};

use crate::cmdline::Cmdline;
use crate::probe::Ring;
use crate::window::open_demand;
use crate::{console, cpu, ring0, say};

pub(super) fn run(cmdline: &Cmdline) -> ! {
    let stack = HIDDEN.start + PAGE_SIZE;
    let ring = cmdline.ring();
    open_demand(&DEMAND, 1);
    say!("faulting in ring {ring} with a stack at {stack:#x}");
    match ring {
        Ring::Zero => ring.run(ring0::load_on_stack, stack, DEMAND.start),
        Ring::Three => {
            cpu::set_rsp0(stack);
            ring.load(DEMAND.start)
        }
    };
    console::fail(format_args!("still running"))
}
