//! `twice`: one instruction that faults on two pages. It is fetched three times, and takes effect once.

use vector14_guest_abi::window::{PAGE_SIZE, TWICE, pattern};

use super::faults;
use crate::probe::Ring;
use crate::window::open_demand;
use crate::{check, say};

pub(super) fn run() {
    open_demand(&TWICE, 2);
    let (from, to) = (TWICE.start, TWICE.start + PAGE_SIZE);
    faults(2, || Ring::Three.copy(from, to));
    faults(0, || {
        check!(pattern(from), Ring::Three.load(to), "the word that was copied");
        check!(pattern(to), Ring::Three.load(to + 8), "the word after it");
        check!(pattern(from), Ring::Three.load(from), "the word that it was copied from");
    });
    say!("one movsq between two absent pages: two faults, one copy");
}
