//! The stack that the CPU pushed a frame on, in guest memory.

use std::sync::atomic::Ordering::Release;

use kvm_bindings::kvm_segment;
use vector14_hook::paging::Paging;
use vector14_hook::{GuestError, PAGE_SIZE, Pa, Va};

use crate::machine::memory::Memory;
use crate::machine::paging::{read_virtual, write_virtual};

const WORDS: usize = 6;

/// The six words on top of a stack of 64-bit words. The CPU aligns the stack before it pushes, so each word is in one
/// page; the frame as a whole can span two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LongStack {
    top: Va,
    first: Pa,
    /// Number of words in the first page.
    in_first: usize,
    second: Pa,
}

impl LongStack {
    pub(super) fn find(memory: &Memory, paging: &Paging, top: Va) -> Result<Self, GuestError> {
        let translate = |address| Ok(paging.translate(address, |slot| memory.load(slot))?.address);
        let first = translate(top)?;
        let left = (PAGE_SIZE - top.page_offset()) / 8;
        let in_first = usize::try_from(left).map_or(WORDS, |left| left.min(WORDS));
        let second = if in_first < WORDS { translate(top.page().offset(PAGE_SIZE))? } else { first };
        Ok(Self { top, first, in_first, second })
    }

    fn slots(self) -> impl Iterator<Item = Pa> {
        let slot = move |index: usize| match index.checked_sub(self.in_first) {
            None => self.first.offset(8 * index as u64),
            Some(index) => self.second.offset(8 * index as u64),
        };
        (0..WORDS).map(slot)
    }

    pub(super) fn read(self, memory: &Memory) -> Result<[u64; WORDS], GuestError> {
        let mut words = [0; WORDS];
        for (word, slot) in words.iter_mut().zip(self.slots()) {
            *word = memory.load(slot)?;
        }
        Ok(words)
    }

    /// Writes the words, and returns the stack pointer.
    pub(super) fn write(self, memory: &Memory, words: [u64; WORDS]) -> Result<u64, GuestError> {
        for (word, slot) in words.into_iter().zip(self.slots()) {
            memory.word(slot)?.store(word, Release);
        }
        Ok(self.top.0)
    }
}

/// The top of a stack of 32-bit words, which the CPU does not align. Its segment need not begin at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProtectedStack {
    pointer: u64,
    /// Linear address of the segment.
    base: u64,
    /// The bits of ESP that form the stack pointer: 16 of them if the segment's B flag is clear.
    mask: u64,
}

impl ProtectedStack {
    pub(super) fn of(pointer: u64, segment: &kvm_segment) -> Self {
        Self { pointer, base: segment.base, mask: if segment.db == 0 { 0xffff } else { 0xffff_ffff } }
    }

    /// ESP after `words` words have been popped.
    pub(super) fn above(self, words: u64) -> u64 {
        self.moved(self.pointer, 4 * words)
    }

    /// The stack after `words` words have been pushed from `pointer` on.
    pub(super) fn below(self, pointer: u64, words: u64) -> Self {
        Self { pointer: self.moved(pointer, (4 * words).wrapping_neg()), ..self }
    }

    fn moved(self, pointer: u64, distance: u64) -> u64 {
        (pointer & 0xffff_ffff & !self.mask) | (pointer.wrapping_add(distance) & self.mask)
    }

    fn linear(self) -> Va {
        Va(self.base.wrapping_add(self.pointer & self.mask) & 0xffff_ffff)
    }

    pub(super) fn read<const COUNT: usize>(self, memory: &Memory, paging: &Paging) -> Result<[u64; COUNT], GuestError> {
        let mut bytes = [[0; 4]; COUNT];
        read_virtual(memory, paging, self.linear(), bytes.as_flattened_mut())?;
        Ok(bytes.map(|word| u64::from(u32::from_le_bytes(word))))
    }

    /// Writes the lower halves of `words`, at most six, and returns the stack pointer.
    pub(super) fn write(self, memory: &Memory, paging: &Paging, words: &[u64]) -> Result<u64, GuestError> {
        let mut bytes = [[0; 4]; WORDS];
        for (bytes, word) in bytes.iter_mut().zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes()[..4]);
        }
        write_virtual(memory, paging, self.linear(), &bytes.as_flattened()[..4 * words.len()])?;
        Ok(self.pointer)
    }
}
