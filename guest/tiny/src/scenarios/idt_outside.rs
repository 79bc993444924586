//! `idt-outside`: faults with an IDT outside of RAM.

use vector14_guest_abi::window::{DEMAND, OUTSIDE_RAM};

use crate::probe::Ring;
use crate::window::open_demand;
use crate::{console, idt, ring0, say};

pub(super) fn run() -> ! {
    open_demand(&DEMAND, 1);
    ring0::load_idt(OUTSIDE_RAM, idt::LIMIT);
    say!("faulting with an IDT at {OUTSIDE_RAM:#x}");
    Ring::Three.load(DEMAND.start);
    console::fail(format_args!("still running"))
}
