//! Virtio devices behind memory-mapped registers (virtio 1.2, 4.2, version 2): an entropy source and disks.
//!
//! - `mmio`: the registers, the same for every device
//! - `queue`: the virtqueue; `chain`: its descriptor chains, as checked ranges of guest memory
//! - `entropy`, `block`: the devices, which execute chains
//! - [`image`]: the file that holds a disk's data
//!
//! Each device has one queue, and serves it on the thread of the vCPU that notifies it. Everything that the guest
//! writes is untrusted: after an invalid queue or request the device sets DEVICE_NEEDS_RESET and does nothing until it
//! is reset. One notification serves at most one queue's worth of requests, each of at most [`MAX_REQUEST`] bytes.

mod backend;
mod block;
mod chain;
mod entropy;
mod error;
pub(crate) mod image;
mod mmio;
mod queue;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub(crate) use backend::Backend;
pub(crate) use block::Block;
pub(crate) use entropy::Entropy;
pub(crate) use mmio::Mmio;

/// Maximum number of devices. Each has an I/O APIC pin of its own, above those of ISA.
pub(crate) const SLOTS: u32 = 8;
/// Address of the first device's registers: below the I/O APIC, in the hole between RAM ranges.
const REGISTERS: u32 = 0xfeb0_0000;
const REGISTERS_SIZE: u32 = 0x1000;
const FIRST_GSI: u32 = 16;

/// Descriptors of a queue, and so the most in a chain; a power of two (virtio 1.2, 2.7).
const QUEUE_SIZE: u16 = 128;

/// Maximum data in a request, in bytes. Block devices announce this limit, so a well-behaved guest does not exceed it.
const MAX_REQUEST: u64 = 4 << 20;

/// Guest-physical addresses of the registers of the device in `slot`.
pub(crate) fn registers(slot: u32) -> Range<u32> {
    let start = REGISTERS + slot * REGISTERS_SIZE;
    start..start + REGISTERS_SIZE
}

/// Interrupt number of the device in `slot`.
pub(crate) fn gsi(slot: u32) -> u32 {
    FIRST_GSI + slot
}
