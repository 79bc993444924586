//! The parts of the scenario `paged` that the host has to reproduce.

use core::ops::Range;

use crate::window::{HIDDEN, PAGE_SIZE, WINDOW_SIZE};

/// The largest range that the pages take.
pub const RANGE: Range<u64> = HIDDEN.start..HIDDEN.start + WINDOW_SIZE / 2;

/// A touch of this page asks for everything to be written back. Nothing is mapped there.
pub const SYNC_AT: u64 = HIDDEN.end - PAGE_SIZE;

/// 8-byte words in a page.
pub const WORDS: u64 = PAGE_SIZE / 8;

/// The checksum of page `number`, from its words in order. The checksums of several pages are added up.
#[inline(always)]
pub fn checksum(number: u64, words: impl Iterator<Item = u64>) -> u64 {
    words.fold(number, |sum, word| sum.rotate_left(7) ^ word).wrapping_mul(2 * number + 1)
}

/// A pseudo-random sequence of pages, the same in every run: xorshift64*.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
    pages: u64,
}

impl Random {
    /// The sequence of one CPU, among `pages` pages.
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
