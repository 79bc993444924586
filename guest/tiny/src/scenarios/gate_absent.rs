//! `gate-absent`: faults with gate 14 marked not present, which is a #NP.

use vector14_guest_abi::window::DEMAND;

use crate::fault::Action;
use crate::idt::{IDT, PAGE_FAULT};
use crate::paging::open;
use crate::probe::Ring;
use crate::{console, say};

pub(super) fn run() -> ! {
    open(&DEMAND, 1, Action::Demand);
    IDT.gate(PAGE_FAULT).remove();
    say!("faulting with gate 14 not present");
    Ring::Three.load(DEMAND.start);
    console::fail(format_args!("still running"))
}
