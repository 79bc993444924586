//! Windows: the ranges of virtual memory in which scenarios fault, each with page tables and a policy of its own.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use vector14_guest_abi::window::{PAGE_SIZE, WINDOW_SIZE};

use crate::fault::{self, Action};
use crate::paging::{ENTRIES, PRESENT, PageTable, USER, WRITABLE, entry, patterned};
use crate::{frames, ring0};

unsafe extern "C" {
    safe static PDPT: PageTable;
}

/// The page-directory-pointer entry that maps all of `window`.
pub fn window_entry(window: &Range<u64>) -> &'static AtomicU64 {
    &PDPT.0[(window.start / WINDOW_SIZE) as usize]
}

/// Empties `window` and prepares its first `pages` pages: builds page tables with zero PTEs, and sets what the guest's
/// handler does about faults there. Returns the PTEs.
pub fn open(window: &Range<u64>, pages: u64, action: Action) -> &'static [AtomicU64] {
    assert!((1..=WINDOW_SIZE / PAGE_SIZE).contains(&pages), "{pages} pages do not fit in a window");
    let tables = pages.div_ceil(ENTRIES as u64);
    let directory = frames::take_zeroed(1 + tables);
    let first_table = directory + PAGE_SIZE;
    for i in 0..tables {
        entry(directory, i).store((first_table + i * PAGE_SIZE) | PRESENT | WRITABLE | USER, Relaxed);
    }
    // SAFETY: the tables adjoin each other, so that their entries are one slice; frames are never given back.
    let ptes = unsafe { core::slice::from_raw_parts(entry(first_table, 0), pages as usize) };
    fault::set_policy(window, ptes, action);
    let entry = window_entry(window);
    let was_open = entry.swap(directory | PRESENT | WRITABLE | USER, Relaxed) != 0;
    if was_open {
        ring0::flush_all();
    }
    ptes
}

/// Opens `window` so that the guest's handler maps each of its first `pages` pages when it is first touched.
pub fn open_demand(window: &Range<u64>, pages: u64) -> &'static [AtomicU64] {
    open(window, pages, Action::Demand { frames: patterned(window.start, pages) })
}
