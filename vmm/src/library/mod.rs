//! Hooks that are loaded from shared libraries.
//!
//! A library's file is read once. What was read is looked at (`inspect`) and then loaded from memory, so that a file that is
//! rebuilt meanwhile changes nothing of what runs, and can be loaded again beside it. Before anything of it runs, the
//! version of the interface that it is made for is read out of its file; before anything of it runs in this process, it is loaded
//! in another (`trial`). Nothing here is on the path of a fault.

mod error;
mod inspect;
mod trial;
mod watch;

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use vector14_hook::abi::{self, Foreign};
use vector14_hook::{Hook, OptionDoc, Options, OptionsError};

pub use self::error::{LibraryError, Reason};
pub use self::trial::serve_trials;
pub use self::watch::watch;
use crate::sys::dynamic;
use crate::sys::library::foreign;

/// No library is larger than this, in bytes: anything larger is taken for a file named by mistake.
const FILE_MAX: u64 = 1 << 30;

/// A library that is loaded, and stays so. Clones are the same library.
#[derive(Clone, Debug)]
pub struct Library {
    path: PathBuf,
    stamp: Stamp,
    hook: Foreign,
}

impl Library {
    /// Loads the library at `path`. Its constructors run, in another process first where this program [serves
    /// trials](serve_trials).
    ///
    /// # Errors
    /// [`LibraryError`]; where that is not [`Reason::Load`] or [`Reason::Descriptor`], nothing of the library has run in this
    /// process.
    pub fn load(path: &Path) -> Result<Self, LibraryError> {
        let failed = |reason| LibraryError { path: path.to_owned(), reason };
        let (image, stamp) = read(path).map_err(failed)?;
        inspect::check(&image).map_err(failed)?;

        // For debuggers. The host takes no longer one.
        const NAME_MAX: usize = 200;
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let name = CString::new(&name[..name.len().min(NAME_MAX)]).unwrap_or_default();
        let file = dynamic::sealed_file(&name, &image).map_err(|error| failed(Reason::Host(error)))?;
        trial::run(&file).map_err(failed)?;
        let hook = open(file).map_err(failed)?;
        Ok(Self { path: path.to_owned(), stamp, hook })
    }

    /// The file that it was loaded from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The state of that file when it was read.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// What its hook calls itself.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.hook.name()
    }

    /// One line on what its hook does.
    #[must_use]
    pub fn summary(&self) -> &'static str {
        self.hook.summary()
    }

    /// The options that its hook understands.
    #[must_use]
    pub fn options(&self) -> &[OptionDoc] {
        self.hook.options()
    }

    /// Finds what [`Library::create`] would object to, without leaving a trace.
    ///
    /// # Errors
    /// What the hook finds wrong.
    pub fn check(&self, options: &Options) -> Result<(), OptionsError> {
        self.hook.check(options)
    }

    /// Makes a hook.
    ///
    /// # Errors
    /// What the hook finds wrong.
    pub fn create(&self, options: &Options) -> Result<Box<dyn Hook>, OptionsError> {
        self.hook.create(options)
    }
}

/// By which it is seen that a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds since the epoch.
    modified: (i64, i64),
}

impl Stamp {
    /// Of the file at `path`; `None` where there is none at the moment.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        path.metadata().ok().map(|metadata| Self::from_metadata(&metadata))
    }

    fn from_metadata(metadata: &std::fs::Metadata) -> Self {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Self { device: metadata.dev(), inode: metadata.ino(), size: metadata.size(), modified }
    }
}

/// Has the dynamic linker load a library, and reads its descriptor.
fn open(library: File) -> Result<Foreign, Reason> {
    let loaded = dynamic::Loaded::open(library).map_err(Reason::Load)?;
    let symbol = CString::new(abi::SYMBOL).unwrap_or_default();
    let descriptor = loaded.symbol(&symbol).ok_or(Reason::NoSymbol)?;
    foreign(descriptor).map_err(Reason::Descriptor)
}

/// The file's content. What might wait for its other end is not opened.
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
