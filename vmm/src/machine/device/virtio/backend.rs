//! What a virtio device of one type does.

use super::chain::Chain;
use super::error::QueueError;

/// The part of a virtio device that depends on its type.
pub(crate) trait Backend: Send {
    /// The device ID (virtio 1.2, 5).
    fn id(&self) -> u32;

    /// The feature bits that the device offers, besides those that every device here offers.
    fn features(&self) -> u64;

    /// The configuration space.
    fn config(&self) -> &[u8];

    /// Executes a chain. Returns how many bytes were written into the chain.
    ///
    /// # Errors
    /// The chain is not a valid request. A valid request that fails reports this through its status.
    fn serve(&mut self, chain: &mut Chain<'_>) -> Result<u32, QueueError>;
}
