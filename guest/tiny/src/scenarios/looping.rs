//! `loop`: one fault. The host may resolve it without mapping the page: then the fault repeats until the host gives up
//! and the guest's handler gets it.

use vector14_guest_abi::window::{LOOP, pattern};

use super::fault;
use crate::probe::Ring;
use crate::window::open_demand;
use crate::{check, say};

pub(super) fn run() {
    let (page, ring) = (LOOP.start, Ring::Three);
    open_demand(&LOOP, 1);
    let word = fault(page, ring.user_bit(), || ring.load(page));
    check!(pattern(page), word, "first word");
    say!("the guest's handler was told of the fault in the end");
}
