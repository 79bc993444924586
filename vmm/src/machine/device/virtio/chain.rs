//! A chain of descriptors (virtio 1.2, 2.7.5). It is read once and checked; after that it is a list of ranges in guest
//! memory, which the guest can't change by changing descriptors.

use std::collections::VecDeque;

use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::QUEUE_SIZE;
use super::error::QueueError;
use crate::sys::ram::GuestRam;

/// Buffers for the device to read, then buffers for it to write (virtio 1.2, 2.7.4.2).
pub(crate) struct Chain<'m> {
    pub(super) readable: Buffers<'m>,
    pub(super) writable: Buffers<'m>,
}

impl<'m> Chain<'m> {
    pub(super) fn read(memory: &'m GuestRam, chain: DescriptorChain<&GuestRam>) -> Result<Self, QueueError> {
        let head = chain.head_index();
        let (mut readable, mut writable) = (Buffers::new(memory), Buffers::new(memory));
        let mut ended = false;
        for descriptor in chain.take(usize::from(QUEUE_SIZE)) {
            let (address, length) = (descriptor.addr(), descriptor.len());
            if !memory.check_range(address, length as usize) {
                return Err(QueueError::Buffer { head, address: address.0, length });
            }
            if descriptor.is_write_only() {
                writable.ranges.push_back((address, length));
            } else if writable.ranges.is_empty() {
                readable.ranges.push_back((address, length));
            } else {
                return Err(QueueError::Order { head });
            }
            ended = !descriptor.has_next();
        }
        // The iterator also ends if the next descriptor is outside of the table, or after a loop of descriptors.
        if ended { Ok(Self { readable, writable }) } else { Err(QueueError::Endless { head }) }
    }

    /// The error for a chain that is not a valid request.
    pub(super) fn refuse(&self, what: &'static str) -> QueueError {
        QueueError::Request { what, readable: self.readable.length(), writable: self.writable.length() }
    }
}

/// Ranges of guest memory, consumed from the front.
pub(crate) struct Buffers<'m> {
    memory: &'m GuestRam,
    ranges: VecDeque<(GuestAddress, u32)>,
}

impl<'m> Buffers<'m> {
    fn new(memory: &'m GuestRam) -> Self {
        Self { memory, ranges: VecDeque::new() }
    }

    /// Number of bytes left.
    pub(super) fn length(&self) -> u64 {
        self.ranges.iter().map(|(_, length)| u64::from(*length)).sum()
    }

    /// Fills `data` from guest memory.
    pub(super) fn read(&mut self, data: &mut [u8]) -> Result<(), QueueError> {
        self.walk(data.len(), |memory, address, part| memory.read_slice(&mut data[part], address))
    }

    /// Writes `data` to guest memory.
    pub(super) fn write(&mut self, data: &[u8]) -> Result<(), QueueError> {
        self.walk(data.len(), |memory, address, part| memory.write_slice(&data[part], address))
    }

    /// Removes the last byte, and returns it as a buffer of its own.
    pub(super) fn split_last(&mut self) -> Option<Self> {
        while let Some((address, length)) = self.ranges.pop_back() {
            if let Some(rest) = length.checked_sub(1) {
                self.ranges.push_back((address, rest));
                let last = GuestAddress(address.0 + u64::from(rest));
                return Some(Self { memory: self.memory, ranges: [(last, 1)].into() });
            }
        }
        None
    }

    /// Consumes `length` bytes from the front. Calls the visitor for each piece, with its address and the range of the
    /// whole that it covers.
    fn walk(
        &mut self,
        length: usize,
        mut visit: impl FnMut(&GuestRam, GuestAddress, std::ops::Range<usize>) -> vm_memory::GuestMemoryResult<()>,
    ) -> Result<(), QueueError> {
        let mut done = 0;
        while done < length {
            let Some((address, available)) = self.ranges.pop_front() else {
                return Err(QueueError::Short { missing: length - done });
            };
            let piece = (length - done).min(available as usize);
            visit(self.memory, address, done..done + piece).map_err(|source| QueueError::Access { address, source })?;
            done += piece;
            let rest = available - u32::try_from(piece).unwrap_or(available);
            if rest > 0 {
                self.ranges.push_front((GuestAddress(address.0 + piece as u64), rest));
            }
        }
        Ok(())
    }
}
