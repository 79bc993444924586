//! Hooks loaded from shared libraries.
//!
//! A library's file is read once. The bytes are inspected (`inspect`) and then loaded from memory: a rebuild of the
//! file does not affect the code that runs, and the new file can be loaded beside the old one. The interface version is
//! read from the file before any code of the library runs. The library is loaded in another process (`trial`) before it
//! is loaded in this one. Nothing here is on the path of a fault.

mod error;
mod inspect;
mod trial;

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use vector14_hook::abi::{self, Foreign};
use vector14_hook::{Hook, OptionDoc, Options, OptionsError};

pub use self::error::{LibraryError, Reason};
pub use self::trial::serve_trials;
use crate::sys::dynamic::{self, foreign};

/// Largest library that is loaded, in bytes; a larger file was probably named by mistake.
const FILE_MAX: u64 = 1 << 30;

/// A loaded library, which is never unloaded. Clones refer to the same library.
#[derive(Clone, Debug)]
pub struct Library {
    path: PathBuf,
    stamp: Stamp,
    hook: Foreign,
}

impl Library {
    /// Loads the library at `path` and runs its constructors, first in another process if this program [serves
    /// trials](serve_trials).
    ///
    /// # Errors
    /// [`LibraryError`]. Unless its reason is [`Reason::Load`] or [`Reason::Descriptor`], no code of the library has
    /// run in this process.
    pub fn load(path: &Path) -> Result<Self, LibraryError> {
        let failed = |reason| LibraryError { path: path.to_owned(), reason };
        let (image, stamp) = read(path).map_err(failed)?;
        inspect::check(&image).map_err(failed)?;

        // The name is for debuggers. The host accepts no longer name.
        const NAME_MAX: usize = 200;
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let name = CString::new(&name[..name.len().min(NAME_MAX)]).unwrap_or_default();
        let file = dynamic::sealed_file(&name, &image).map_err(|error| failed(Reason::Host(error)))?;
        trial::run(&file).map_err(failed)?;
        let hook = open(file).map_err(failed)?;
        Ok(Self { path: path.to_owned(), stamp, hook })
    }

    /// The file that the library was loaded from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The state of the library's file when it was read.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The name that its hook gives itself.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.hook.name()
    }

    /// One line on what its hook does.
    #[must_use]
    pub fn summary(&self) -> &'static str {
        self.hook.summary()
    }

    /// The options that its hook accepts.
    #[must_use]
    pub fn options(&self) -> &[OptionDoc] {
        self.hook.options()
    }

    /// Reports what [`Library::create`] would object to, without side effects.
    ///
    /// # Errors
    /// The hook rejects the options.
    pub fn check(&self, options: &Options) -> Result<(), OptionsError> {
        self.hook.check(options)
    }

    /// Creates a hook.
    ///
    /// # Errors
    /// The hook rejects the options.
    pub fn create(&self, options: &Options) -> Result<Box<dyn Hook>, OptionsError> {
        self.hook.create(options)
    }
}

/// Identifies one state of a file; it differs after the file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Last modification, in seconds and nanoseconds since the epoch.
    modified: (i64, i64),
}

impl Stamp {
    /// The stamp of the file at `path`; `None` if there is no such file at the moment.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        path.metadata().ok().map(|metadata| Self::from_metadata(&metadata))
    }

    fn from_metadata(metadata: &std::fs::Metadata) -> Self {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Self { device: metadata.dev(), inode: metadata.ino(), size: metadata.size(), modified }
    }
}

/// Loads a library with the dynamic linker, and reads its descriptor.
fn open(library: File) -> Result<Foreign, Reason> {
    let loaded = dynamic::Loaded::open(library).map_err(Reason::Load)?;
    let symbol = CString::new(abi::SYMBOL).unwrap_or_default();
    let descriptor = loaded.symbol(&symbol).ok_or(Reason::NoSymbol)?;
    foreign(descriptor).map_err(Reason::Descriptor)
}

/// Reads the file. Opens regular files only, because others may block.
fn read(path: &Path) -> Result<(Vec<u8>, Stamp), Reason> {
    let metadata = path.metadata().map_err(Reason::Unreadable)?;
    if !metadata.is_file() {
        return Err(Reason::NotFile);
    }
    if metadata.len() > FILE_MAX {
        return Err(Reason::TooLarge(metadata.len()));
    }
    let mut image = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut image));
    read.map_err(Reason::Unreadable)?;
    Ok((image, Stamp::from_metadata(&metadata)))
}
