//! The entropy device (virtio 1.2, 5.4): random numbers from the host.

use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use super::Backend;
use super::chain::Chain;
use super::error::QueueError;

/// Maximum number of bytes per request; a driver then asks again (virtio 1.2, 5.4.6.1).
const MOST: usize = 256;

/// The device, which has no state.
pub(crate) struct Entropy;

impl Backend for Entropy {
    fn id(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn features(&self) -> u64 {
        0
    }

    fn config(&self) -> &[u8] {
        &[]
    }

    fn serve(&mut self, chain: &mut Chain<'_>) -> Result<u32, QueueError> {
        if chain.readable.length() > 0 || chain.writable.length() == 0 {
            return Err(chain.refuse("must have only buffers that the device writes"));
        }
        let mut random = [0; MOST];
        let length = usize::try_from(chain.writable.length()).unwrap_or(MOST).min(MOST);
        let random = &mut random[..length];
        match getrandom::fill(random) {
            Ok(()) => chain.writable.write(random).map(|()| u32::try_from(random.len()).unwrap_or_default()),
            Err(error) => {
                // The driver is told that it got no bytes, and asks again.
                tracing::debug!("the host has no random numbers: {error}");
                Ok(0)
            }
        }
    }
}
