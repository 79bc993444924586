//! Virtio devices behind memory-mapped registers (virtio 1.2, 4.2, version 2): an entropy source and disks.
//!
//! - `mmio`: the registers, the same for every device
//! - `queue`: the virtqueue; `chain`: what is in it, as ranges of guest memory that have been checked
//! - `entropy`, `block`: what is done with a chain
//! - [`image`]: the file behind a disk
//!
//! Each device has one queue, and serves it on the vCPU's thread that notifies it. The guest's every word is hostile
//! here: what is no valid queue or request makes the device say DEVICE_NEEDS_RESET and do nothing more until it is
//! reset, and one notification is at most one queue's worth of requests, each of at most [`MAX_REQUEST`] bytes.

mod block;
mod chain;
mod entropy;
pub(crate) mod image;
mod mmio;
mod queue;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub(crate) use block::Block;
pub(crate) use entropy::Entropy;
pub(crate) use mmio::Mmio;

use self::chain::Chain;
use self::queue::QueueError;

/// Devices that there is room for. Each has an I/O APIC pin of its own, above those of ISA.
pub(crate) const SLOTS: u32 = 8;
/// Below the I/O APIC, in the hole that RAM leaves.
const REGISTERS: u32 = 0xfeb0_0000;
const REGISTERS_SIZE: u32 = 0x1000;
const FIRST_GSI: u32 = 16;

/// Descriptors of a queue, and so of a chain; a power of two (virtio 1.2, 2.7).
const QUEUE_SIZE: u16 = 128;

/// No request of a well-behaved guest has more data, in bytes: it is what block devices announce.
const MAX_REQUEST: u64 = 4 << 20;

/// Guest-physical addresses of the registers of the device in `slot`.
pub(crate) fn registers(slot: u32) -> Range<u32> {
    let start = REGISTERS + slot * REGISTERS_SIZE;
    start..start + REGISTERS_SIZE
}

/// The interrupt of the device in `slot`.
pub(crate) fn gsi(slot: u32) -> u32 {
    FIRST_GSI + slot
}

/// What makes a virtio device the one that it is.
pub(crate) trait Backend: Send {
    /// Its device ID (virtio 1.2, 5).
    fn id(&self) -> u32;

    /// The feature bits that it offers, besides those that every device here has.
    fn features(&self) -> u64;

    /// Its configuration space.
    fn config(&self) -> &[u8];

    /// Does what a chain asks for. Returns how many bytes it has written into the chain.
    ///
    /// # Errors
    /// The chain is no request at all; a request that merely fails says so in its own way.
    fn serve(&mut self, chain: &mut Chain<'_>) -> Result<u32, QueueError>;
}
