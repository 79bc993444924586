//! A split virtqueue (virtio 1.2, 2.7): its place in guest memory, and serving it. virtio-queue implements the rings.

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::GuestAddress;

use super::chain::Chain;
use super::error::QueueError;
use super::{Backend, QUEUE_SIZE};
use crate::sys::ram::GuestRam;

/// Where a driver wants its queue (virtio 1.2, 4.2.2, QueueNum to QueueDeviceHigh).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Layout {
    pub(super) size: u32,
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

/// A queue that is entirely in guest memory, and can be served.
#[derive(Debug)]
pub(super) struct Virtqueue(Queue);

impl Virtqueue {
    pub(super) fn new(layout: &Layout, memory: &GuestRam) -> Result<Self, QueueError> {
        let Layout { size, descriptors, available, used } = *layout;
        let mut queue = Queue::new(QUEUE_SIZE).map_err(QueueError::Rings)?;
        let sized = u16::try_from(size).ok().and_then(|size| queue.try_set_size(size).ok());
        sized.ok_or(QueueError::Size { size })?;
        let at = |part, address| move |source| QueueError::Address { part, address, source };
        queue.try_set_desc_table_address(GuestAddress(descriptors)).map_err(at("descriptor table", descriptors))?;
        queue.try_set_avail_ring_address(GuestAddress(available)).map_err(at("available ring", available))?;
        queue.try_set_used_ring_address(GuestAddress(used)).map_err(at("used ring", used))?;
        queue.set_ready(true);
        if queue.is_valid(memory) {
            Ok(Self(queue))
        } else {
            Err(QueueError::Outside { size, descriptors, available, used })
        }
    }

    /// Serves the available chains, at most one queue's worth: a driver that adds chains meanwhile notifies the device
    /// of them. Returns whether anything was served.
    pub(super) fn serve(&mut self, memory: &GuestRam, backend: &mut dyn Backend) -> Result<bool, QueueError> {
        for served in 0..self.0.size() {
            let Some(chain) = self.0.iter(memory).map_err(QueueError::Rings)?.next() else { return Ok(served > 0) };
            let head = chain.head_index();
            let written = backend.serve(&mut Chain::read(memory, chain)?)?;
            self.0.add_used(memory, head, written).map_err(QueueError::Rings)?;
        }
        Ok(true)
    }
}
