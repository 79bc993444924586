//! `tables-loop`: faults through a page table whose entries all point to the table itself.

use vector14_guest_abi::window::{PAGE_SIZE, TABLES_LOOP};

use super::{P, W, fault, faults};
use crate::fault::{Action, set_policy};
use crate::paging::{FRAME, PRESENT, USER, entry};
use crate::probe::Ring;
use crate::window::window_entry;
use crate::{check, frames, say};

use core::sync::atomic::Ordering::Relaxed;

pub(super) fn run() {
    let table = frames::take_zeroed(1);
    for index in 0..PAGE_SIZE / 8 {
        entry(table, index).store(table | PRESENT | USER, Relaxed);
    }
    set_policy(&TABLES_LOOP, &[], Action::Resume);
    window_entry(&TABLES_LOOP).store(table | PRESENT | USER, Relaxed);

    // Directory, table and page are all the one frame.
    let last_page = TABLES_LOOP.end - PAGE_SIZE;
    for ring in [Ring::Three, Ring::Zero] {
        for page in [TABLES_LOOP.start, last_page] {
            let seen = faults(0, || ring.load(page));
            check!(table, seen & FRAME, "frame that the entry at {page:#x} points to");
            fault(page, P | W | ring.user_bit(), || ring.store(page, 0));
        }
    }
    say!("reads reach the table itself, writes fault");
}
