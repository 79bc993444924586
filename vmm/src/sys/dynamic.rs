//! Shared libraries: loaded, and never unloaded.

use std::ffi::{CStr, CString, c_void};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use vector14_hook::abi::{Foreign, Mismatch};

/// Creates a file with `content` that is in no file system and that nobody can change any more (memfd_create(2), and
/// F_ADD_SEALS in fcntl(2)).
///
/// # Errors
/// The host has no memory to spare, or forbids it.
pub(crate) fn sealed_file(name: &CStr, content: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.write_all(content)?;
    seal(&file)?;
    Ok(file)
}

/// Seals a file. On a busy host, the kernel may still hold references to the pages that were just written; it waits for
/// some 150 ms, and then returns EBUSY.
fn seal(file: &File) -> io::Result<()> {
    const ATTEMPTS: usize = 20;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    let mut attempts = std::iter::repeat_with(|| fcntl_add_seals(file, seals)).take(ATTEMPTS);
    let done = attempts.find(|attempt| *attempt != Err(Errno::BUSY)).unwrap_or(Err(Errno::BUSY));
    Ok(done?)
}

/// A library that stays loaded as long as the process lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loaded {
    handle: NonNull<c_void>,
}

// SAFETY: the handle is only ever passed to dlsym, which any thread may call (dlsym(3), "MT-Safe").
unsafe impl Send for Loaded {}
// SAFETY: as above.
unsafe impl Sync for Loaded {}

impl Loaded {
    /// Loads the library in `file` with its dependencies, and runs its constructors: from here on its code is part of
    /// this process. The file must belong to this process, so that nobody changes it meanwhile. It stays open,
    /// because the dynamic linker, debuggers and backtraces know it by its descriptor's number.
    ///
    /// The library is never unloaded: threads may have to run destructors of its thread-locals when they end, hooks
    /// may have started threads, and its constants may still be referenced.
    ///
    /// # Errors
    /// The dynamic linker's message.
    pub(crate) fn open(file: File) -> Result<Self, String> {
        let path = path_of(&file);
        let name = CString::new(path.clone()).map_err(|error| error.to_string())?;
        // SAFETY:
        // 1. The name is a C string.
        // 2. The library's constructors run here. They are of a library that the user has named in order to run its code.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        let handle = NonNull::new(handle).ok_or_else(|| last_error().replace(&path, "it"))?;
        std::mem::forget(file);
        Ok(Self { handle })
    }

    /// Address of one of the library's symbols.
    pub(crate) fn symbol(self, name: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: the handle is of a library that is still loaded, and the name is a C string.
        NonNull::new(unsafe { libc::dlsym(self.handle.as_ptr(), name.as_ptr()) })
    }
}

/// The kind of hook that a loaded library's symbol `vector14_hook` describes.
///
/// # Errors
/// [`Mismatch`].
pub(crate) fn foreign(symbol: NonNull<c_void>) -> Result<Foreign, Mismatch> {
    // SAFETY:
    // 1. The library stays loaded, so what the symbol names stays where it is. The library's file was checked before:
    //    the symbol has at least the size of a descriptor.
    // 2. Whoever exports a descriptor with our magic number, version and sizes declares that its functions are what
    //    the header says. Nothing more can be known of foreign code.
    unsafe { Foreign::new(symbol.as_ptr().cast()) }
}

fn path_of(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// The dynamic linker's last message on this thread.
fn last_error() -> String {
    // SAFETY: dlerror returns null or a C string that is there until the next call on this thread (dlerror(3)).
    unsafe {
        let text = libc::dlerror();
        if text.is_null() { "no reason given".to_owned() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    }
}
