//! A raw disk image: a file that contains a disk's sectors in order.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};

use crate::machine::config::DiskConfig;

/// Size of a sector, in bytes (virtio 1.2, 5.2.4).
pub(crate) const SECTOR: u64 = 512;

/// What a guest may do with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    ReadWrite,
}

/// Why a file can't be used as a disk.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The host returned an error.
    #[error(transparent)]
    Host(#[from] io::Error),
    /// The file is a socket, a pipe, or a device other than a block device.
    #[error("not a file with a disk's sectors")]
    NoFile,
    /// The file is read-only, and the disk is writable.
    #[error("the file is read-only: give the disk `readonly = true`, or the file its write permission")]
    ReadOnly,
    /// The file is too small for a single sector.
    #[error("the file has {size} bytes: a disk has at least one sector of {SECTOR} bytes")]
    TooSmall {
        /// Size of the file, in bytes.
        size: u64,
    },
    /// The last sector is truncated.
    #[error("the file has {size} bytes: must be a multiple of the sector size, {SECTOR} bytes")]
    Torn {
        /// Size of the file, in bytes.
        size: u64,
    },
    /// Another VM, or another disk of this one, uses the file.
    #[error("the file is in use: the image of a writable disk can't be shared")]
    InUse,
}

impl From<ImageError> for io::Error {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Host(error) => error,
            error @ (ImageError::NoFile
            | ImageError::ReadOnly
            | ImageError::TooSmall { .. }
            | ImageError::Torn { .. }
            | ImageError::InUse) => Self::other(error),
        }
    }
}

/// An open image.
#[derive(Debug)]
pub(crate) struct Image {
    file: File,
    sectors: u64,
    access: Access,
}

impl Image {
    /// Opens a disk's file. The file is not locked, and not changed.
    pub(crate) fn open(disk: &DiskConfig) -> Result<Self, ImageError> {
        let DiskConfig { path, readonly } = disk;
        let access = if *readonly { Access::Read } else { Access::ReadWrite };
        // Files that may block on open are refused first.
        let metadata = fs::metadata(path)?;
        if metadata.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory).into());
        }
        if !metadata.is_file() && !metadata.file_type().is_block_device() {
            return Err(ImageError::NoFile);
        }
        if access == Access::ReadWrite && metadata.permissions().readonly() {
            return Err(ImageError::ReadOnly);
        }
        let mut file = match File::options().read(true).write(access == Access::ReadWrite).open(path) {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => return Err(ImageError::ReadOnly),
            opened => opened?,
        };
        match file.seek(SeekFrom::End(0))? {
            size if size < SECTOR => Err(ImageError::TooSmall { size }),
            size if !size.is_multiple_of(SECTOR) => Err(ImageError::Torn { size }),
            size => Ok(Self { file, sectors: size / SECTOR, access }),
        }
    }

    /// Locks the image while it is open: shared for a read-only disk, exclusive for a writable one.
    pub(crate) fn lock(self) -> Result<Self, ImageError> {
        let locked = match self.access {
            Access::Read => self.file.try_lock_shared(),
            Access::ReadWrite => self.file.try_lock(),
        };
        match locked {
            Ok(()) => Ok(self),
            Err(fs::TryLockError::WouldBlock) => Err(ImageError::InUse),
            Err(fs::TryLockError::Error(error)) => Err(error.into()),
        }
    }

    pub(super) fn sectors(&self) -> u64 {
        self.sectors
    }

    pub(super) fn access(&self) -> Access {
        self.access
    }

    pub(super) fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(data, offset)
    }

    pub(super) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    pub(super) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
