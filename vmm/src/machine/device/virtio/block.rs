//! The block device (virtio 1.2, 5.2).

use std::io;
use std::ops::Range;

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_S_IOERR,
    VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

use super::chain::{Buffers, Chain};
use super::error::QueueError;
use super::image::{Access, Image, SECTOR};
use super::{Backend, MAX_REQUEST};

/// Length of a request's header: type, reserved, sector (virtio 1.2, 5.2.6).
const HEADER: usize = 16;
/// Length of a disk's name, which has no NUL if it uses all of it (virtio 1.2, 5.2.6.1).
const NAME: usize = 20;
/// Data is copied in pieces of this size, which is also the largest buffer that a driver may use (SIZE_MAX).
const PIECE: u32 = 64 << 10;
/// Maximum number of buffers that a driver may use for a request's data (SEG_MAX).
const SEGMENTS: u32 = 62;
const _: () = assert!(PIECE as u64 * SEGMENTS as u64 <= MAX_REQUEST && SEGMENTS + 2 <= super::QUEUE_SIZE as u32);

/// A disk.
pub(crate) struct Block {
    image: Image,
    name: [u8; NAME],
    config: [u8; 16],
    piece: Vec<u8>,
}

/// Why a request fails. The guest is told through the status, except for `Queue`.
enum Failure {
    Input(&'static str),
    Host(io::Error),
    Unsupported,
    /// The chain is not a request, so there is no status to write.
    Queue(QueueError),
}

impl Block {
    /// The disk number `index` of a machine.
    pub(crate) fn new(image: Image, index: usize) -> Self {
        let mut name = [0; NAME];
        let text = format!("vector14-{index}");
        name.iter_mut().zip(text.bytes()).for_each(|(name, byte)| *name = byte);
        // struct virtio_blk_config: capacity, size_max, seg_max.
        let mut config = [0; 16];
        config[..8].copy_from_slice(&image.sectors().to_le_bytes());
        config[8..12].copy_from_slice(&PIECE.to_le_bytes());
        config[12..].copy_from_slice(&SEGMENTS.to_le_bytes());
        Self { image, name, config, piece: vec![0; PIECE as usize] }
    }

    /// Executes a request. Returns how many bytes were written into `writable`.
    fn carry_out(
        &mut self,
        kind: u32,
        sector: u64,
        readable: &mut Buffers<'_>,
        writable: &mut Buffers<'_>,
    ) -> Result<u64, Failure> {
        match kind {
            VIRTIO_BLK_T_IN => {
                let (range, length) = (self.range(sector, writable.length())?, writable.length());
                for offset in range.clone().step_by(self.piece.len()) {
                    let piece = piece(&mut self.piece, range.end - offset);
                    self.image.read(offset, piece).map_err(Failure::Host)?;
                    writable.write(piece).map_err(Failure::Queue)?;
                }
                Ok(length)
            }
            VIRTIO_BLK_T_OUT => {
                let range = self.range(sector, readable.length())?;
                if self.image.access() == Access::Read {
                    return Err(Failure::Input("a write to a read-only disk"));
                }
                for offset in range.clone().step_by(self.piece.len()) {
                    let piece = piece(&mut self.piece, range.end - offset);
                    readable.read(piece).map_err(Failure::Queue)?;
                    self.image.write(offset, piece).map_err(Failure::Host)?;
                }
                Ok(0)
            }
            VIRTIO_BLK_T_FLUSH => self.image.flush().map(|()| 0).map_err(Failure::Host),
            VIRTIO_BLK_T_GET_ID => {
                let length = writable.length().min(NAME as u64);
                let name = self.name.get(..usize::try_from(length).unwrap_or(NAME)).unwrap_or_default();
                writable.write(name).map(|()| length).map_err(Failure::Queue)
            }
            _ => Err(Failure::Unsupported),
        }
    }

    /// The range of the image that holds `length` bytes from `sector`.
    fn range(&self, sector: u64, length: u64) -> Result<Range<u64>, Failure> {
        if !length.is_multiple_of(SECTOR) {
            return Err(Failure::Input("data that is not a whole number of sectors"));
        }
        if length > MAX_REQUEST {
            return Err(Failure::Input("more data than SIZE_MAX and SEG_MAX allow"));
        }
        let end = sector.checked_add(length / SECTOR).filter(|end| *end <= self.image.sectors());
        end.map(|end| sector * SECTOR..end * SECTOR).ok_or(Failure::Input("sectors beyond the end of the disk"))
    }
}

/// The part of the buffer that the next copy uses.
fn piece(buffer: &mut [u8], left: u64) -> &mut [u8] {
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
    &mut buffer[..length]
}

impl Backend for Block {
    fn id(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        let read_only = match self.image.access() {
            Access::Read => 1 << VIRTIO_BLK_F_RO,
            Access::ReadWrite => 0,
        };
        read_only | 1 << VIRTIO_BLK_F_SIZE_MAX | 1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_FLUSH
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    /// Serves a request of header, data and one status byte, in buffers of any sizes (virtio 1.2, 5.2.6 and 2.7.4).
    fn serve(&mut self, chain: &mut Chain<'_>) -> Result<u32, QueueError> {
        let refused = chain.refuse("must have a header to read and a status to write");
        if chain.readable.length() < HEADER as u64 {
            return Err(refused);
        }
        let mut status = chain.writable.split_last().ok_or(refused)?;
        let mut header = [0; HEADER];
        chain.readable.read(&mut header)?;
        let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = header;
        let (kind, sector) = (u32::from_le_bytes([k0, k1, k2, k3]), u64::from_le_bytes(sector));
        let (code, written) = match self.carry_out(kind, sector, &mut chain.readable, &mut chain.writable) {
            Ok(written) => (VIRTIO_BLK_S_OK, written),
            Err(Failure::Unsupported) => (VIRTIO_BLK_S_UNSUPP, 0),
            Err(Failure::Input(what)) => {
                tracing::debug!("disk request of type {kind} for sector {sector}: {what}");
                (VIRTIO_BLK_S_IOERR, 0)
            }
            Err(Failure::Host(error)) => {
                tracing::debug!("disk request of type {kind} for sector {sector}: {error}");
                (VIRTIO_BLK_S_IOERR, 0)
            }
            Err(Failure::Queue(error)) => return Err(error),
        };
        status.write(&[code.to_le_bytes()[0]])?;
        Ok(u32::try_from(written).unwrap_or_default() + 1)
    }
}
