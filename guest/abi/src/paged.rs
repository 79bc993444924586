//! What `paged` does with the pages that a pager backs, where the host has to come to the same result.

use core::ops::Range;

use crate::window::{HIDDEN, PAGE_SIZE, WINDOW_SIZE};

/// Where they are, at the most.
pub const RANGE: Range<u64> = HIDDEN.start..HIDDEN.start + WINDOW_SIZE / 2;

/// An instruction that touches this page asks for everything to be written back. Nothing is mapped there.
pub const SYNC_AT: u64 = HIDDEN.end - PAGE_SIZE;

/// 8-byte words in a page.
pub const WORDS: u64 = PAGE_SIZE / 8;

/// The checksum of page `number`, of its words in their order. Those of several pages are added up.
#[inline(always)]
pub fn checksum(number: u64, words: impl Iterator<Item = u64>) -> u64 {
    words.fold(number, |sum, word| sum.rotate_left(7) ^ word).wrapping_mul(2 * number + 1)
}

/// Pages in no order, the same each time: xorshift64*.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
    pages: u64,
}

impl Random {
    /// Of `pages` pages, for one CPU.
    pub const fn new(pages: u64, cpu: u64) -> Self {
        Self { state: 0x9e37_79b9_7f4a_7c15 + cpu, pages }
    }

    /// The next page's number.
    pub fn next_page(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % self.pages
    }
}
