//! `gate-absent`: faults with gate 14 marked not present. That is a #NP while a #PF is delivered: a #DF.

use vector14_guest_abi::window::DEMAND;

use crate::idt::{IDT, PAGE_FAULT};
use crate::probe::Ring;
use crate::window::open_demand;
use crate::{console, say};

pub(super) fn run() -> ! {
    open_demand(&DEMAND, 1);
    IDT.gate(PAGE_FAULT).remove();
    say!("faulting with gate 14 not present");
    Ring::Three.load(DEMAND.start);
    console::fail(format_args!("still running"))
}
