//! Page tables, 4 levels (SDM vol. 3A, 5.5).

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use vector14_guest_abi::window::{PAGE_SIZE, pattern};

use crate::frames;

pub const PRESENT: u64 = 1 << 0;
pub const WRITABLE: u64 = 1 << 1;
pub const USER: u64 = 1 << 2;
/// PCD and PWT: uncacheable.
pub const UNCACHED: u64 = 1 << 3 | 1 << 4;
/// PS: a leaf above the last level.
pub const LARGE: u64 = 1 << 7;
/// XD, or NX.
pub const NO_EXECUTE: u64 = 1 << 63;

/// The bits of a PTE that hold the frame's address.
pub const FRAME: u64 = 0xf_ffff_ffff_f000;

/// Entries of a table.
pub const ENTRIES: usize = 512;

/// A page table of any level.
#[repr(C, align(4096))]
pub struct PageTable(pub [AtomicU64; ENTRIES]);

impl PageTable {
    /// A page directory that identity-maps 1 GiB from `start`, in 2 MiB leaves.
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

/// Entry `index` of the table, or of consecutive tables, at `table`.
pub fn entry(table: u64, index: u64) -> &'static AtomicU64 {
    // SAFETY: callers name a table that they took the frames for, which is mapped at its own address.
    unsafe { &*(table as *const AtomicU64).add(index as usize) }
}

/// Allocates frames for `pages` pages from `address` on, each filled with its page's [`pattern`]. They are filled here,
/// in ring 3, because that is slow in the handler where ring 0 is emulated.
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
    // SAFETY: a scenario's window, read as plain words; if the page is not mapped yet, the fault maps it.
    (0..ENTRIES).all(|i| unsafe { (address as *const u64).add(i).read_volatile() } == word)
}
