//! `jit`: code that is written and then executed, again and again, in pages that allow both.

use vector14_guest_abi::window::{DEMAND, PAGE_SIZE};

use crate::cmdline::Cmdline;
use crate::probe::{FETCH_TARGET, Ring};
use crate::window::open_demand;
use crate::{check, say};

pub(super) fn run(cmdline: &Cmdline) {
    let (pages, rounds) = (cmdline.number("pages"), cmdline.number("rounds"));
    open_demand(&DEMAND, pages);
    for round in 0..rounds {
        for address in (0..pages).map(|page| DEMAND.start + page * PAGE_SIZE) {
            Ring::Three.store(address, FETCH_TARGET);
            check!(1, Ring::Three.fetch(address), "code of page {address:#x} ran in round {round}");
        }
    }
    say!("{pages} pages written and executed {rounds} times");
}
