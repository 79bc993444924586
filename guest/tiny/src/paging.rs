//! Page tables, 4 levels (SDM vol. 3A, 5.5).

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use vector14_guest_abi::window::{PAGE_SIZE, WINDOW_SIZE, pattern};

use crate::fault::{self, Action};
use crate::{frames, ring0};

pub const PRESENT: u64 = 1 << 0;
pub const WRITABLE: u64 = 1 << 1;
pub const USER: u64 = 1 << 2;
/// PCD and PWT: uncacheable.
pub const UNCACHED: u64 = 1 << 3 | 1 << 4;
/// PS: a leaf above the last level.
pub const LARGE: u64 = 1 << 7;
/// XD, or NX.
pub const NO_EXECUTE: u64 = 1 << 63;

/// What a PTE has of its page's frame address.
pub const FRAME: u64 = 0xf_ffff_ffff_f000;

const ENTRIES: usize = 512;

/// A page table of any level.
#[repr(C, align(4096))]
pub struct PageTable([AtomicU64; ENTRIES]);

impl PageTable {
    /// A page directory that maps 1 GiB from `start` on to itself, in 2 MiB leaves.
    pub const fn identity(start: u64, flags: u64) -> Self {
        let mut entries = [const { AtomicU64::new(0) }; ENTRIES];
        let mut i = 0;
        while i < ENTRIES {
            entries[i] = AtomicU64::new((start + ((i as u64) << 21)) | flags);
            i += 1;
        }
        Self(entries)
    }
}

unsafe extern "C" {
    safe static PDPT: PageTable;
}

/// The page-directory-pointer entry behind which all of `window` lies.
pub fn window_entry(window: &Range<u64>) -> &'static AtomicU64 {
    &PDPT.0[(window.start / WINDOW_SIZE) as usize]
}

/// Empties `window` and prepares its first `pages` pages: page tables down to their PTEs, which are zero, and what the
/// guest's handler is to do about faults there. Returns the PTEs.
pub fn open(window: &Range<u64>, pages: u64, action: Action) -> &'static [AtomicU64] {
    assert!((1..=WINDOW_SIZE / PAGE_SIZE).contains(&pages), "{pages} pages do not fit a window");
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

/// Opens `window` as the guest's handler is to fill it: its first `pages` pages, each with its [`pattern`].
pub fn open_demand(window: &Range<u64>, pages: u64) -> &'static [AtomicU64] {
    open(window, pages, Action::Demand { frames: patterned(window.start, pages) })
}

/// Entry `index` of the table, or row of tables, at `table`.
pub fn entry(table: u64, index: u64) -> &'static AtomicU64 {
    // SAFETY: callers name a table that they took the frames for, which is mapped at its own address.
    unsafe { &*(table as *const AtomicU64).add(index as usize) }
}

/// Frames for `pages` pages from `address` on, each filled with its page's [`pattern`]. Filled here, in ring 3, because
/// the handler would take its time over it where ring 0 is emulated.
pub fn patterned(address: u64, pages: u64) -> u64 {
    let frames = frames::take_zeroed(pages);
    for page in 0..pages {
        let (frame, word) = (frames + page * PAGE_SIZE, pattern(address + page * PAGE_SIZE));
        (0..ENTRIES as u64).for_each(|index| entry(frame, index).store(word, Relaxed));
    }
    frames
}

/// Whether every word of the page at `address` is `word`. Touches it.
pub fn page_is(address: u64, word: u64) -> bool {
    // SAFETY: a scenario's window, read as plain words; where it is not mapped yet, the fault maps it.
    (0..ENTRIES).all(|i| unsafe { (address as *const u64).add(i).read_volatile() } == word)
}
