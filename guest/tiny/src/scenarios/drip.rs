//! `drip`: touches one page after another, slowly, and prints what it finds there: its own handler's pattern, or the
//! data of a page that the host mapped.

use vector14_guest_abi::window::{DEMAND, PAGE_SIZE, pattern};

use crate::cmdline::Cmdline;
use crate::probe::Ring;
use crate::say;
use crate::smp::timestamp;
use crate::window::open_demand;

pub(super) fn run(cmdline: &Cmdline) {
    let (pages, cycles) = (cmdline.number("pages"), cmdline.number("cycles"));
    open_demand(&DEMAND, pages);
    for page in 0..pages {
        let address = DEMAND.start + page * PAGE_SIZE;
        let word = Ring::Three.load(address);
        if word == pattern(address) {
            say!("page {page}: from my own handler");
        } else {
            say!("page {page}: from outside, {word:#018x}");
        }
        let began = timestamp();
        while timestamp() - began < cycles {
            core::hint::spin_loop();
        }
    }
}
