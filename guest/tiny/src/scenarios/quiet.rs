//! `quiet`: makes no exit of its own before its first fault.

use vector14_guest_abi::window::{DEMAND, pattern};

use super::fault;
use crate::cmdline::Cmdline;
use crate::probe::Ring;
use crate::smp::timestamp;
use crate::window::open_demand;
use crate::{check, say};

pub(super) fn run(cmdline: &Cmdline) {
    let cycles = cmdline.number("cycles");
    let (page, ring) = (DEMAND.start, Ring::Three);
    open_demand(&DEMAND, 1);
    let began = timestamp();
    while timestamp() - began < cycles {
        core::hint::spin_loop();
    }
    let word = fault(page, ring.user_bit(), || ring.load(page));
    check!(pattern(page), word, "first word");
    say!("the first exit was a fault, after {cycles} cycles");
}
