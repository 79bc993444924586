//! What can be wrong with a queue and with a request.

use vm_memory::{GuestAddress, GuestMemoryError};

use super::QUEUE_SIZE;

/// How a driver has broken the rules.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueueError {
    #[error("a queue of {size} descriptors: must be a power of two of at most {QUEUE_SIZE}")]
    Size { size: u32 },
    #[error("the {part} at {address:#x}: {source}")]
    Address { part: &'static str, address: u64, source: virtio_queue::Error },
    #[error("a queue of {size} descriptors at {descriptors:#x}, {available:#x} and {used:#x}: not in memory")]
    Outside { size: u32, descriptors: u64, available: u64, used: u64 },
    #[error("the rings: {0}")]
    Rings(virtio_queue::Error),
    #[error("the chain at descriptor {head} does not end within {QUEUE_SIZE} descriptors inside of the table")]
    Endless { head: u16 },
    #[error("the chain at descriptor {head} has {length} bytes at {address:#x}: not in memory")]
    Buffer { head: u16, address: u64, length: u32 },
    #[error("the chain at descriptor {head} has a readable buffer after a writable one")]
    Order { head: u16 },
    #[error("a request of {readable} bytes to read and {writable} to write: {what}")]
    Request { what: &'static str, readable: u64, writable: u64 },
    #[error("a request is {missing} bytes too short")]
    Short { missing: usize },
    #[error("memory at {:#x}: {source}", .address.0)]
    Access { address: GuestAddress, source: GuestMemoryError },
}
