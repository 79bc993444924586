//! `crash`: a triple fault. A #PF finds no gate, nor does the #DF that follows.

use vector14_guest_abi::window::DEMAND;

use crate::idt::IDT;
use crate::probe::Ring;
use crate::{console, ring0, say};

pub(super) fn run() -> ! {
    say!("faulting with an empty IDT");
    ring0::load_idt(IDT.address(), 0);
    Ring::Three.load(DEMAND.start);
    console::fail(format_args!("still running"))
}
