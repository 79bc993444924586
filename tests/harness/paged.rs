//! Files that back a pager's memory, and their checksums.

use vector14_guest_abi::paged::{WORDS, checksum};
use vector14_guest_abi::window::PAGE_SIZE;

/// The contents of a file whose words all differ, the same in every run.
pub fn contents(pages: u64) -> Vec<u8> {
    (0..pages * WORDS).flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect()
}

/// The words of a page.
pub fn words(contents: &[u8], page: u64) -> impl Iterator<Item = u64> {
    let start = usize::try_from(page * PAGE_SIZE).unwrap();
    let page = &contents[start..start + 4096];
    page.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()))
}

/// The checksum of some pages.
pub fn sum_of(contents: &[u8], pages: impl Iterator<Item = u64>) -> u64 {
    pages.map(|page| checksum(page, words(contents, page))).fold(0, u64::wrapping_add)
}
