//! Shared libraries: loaded, and never unloaded.

use std::ffi::{CStr, CString, c_void};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;

/// Makes a file of `content` that has no place in any file system, and that nobody can change any more (memfd_create(2), and
/// F_ADD_SEALS in fcntl(2)).
///
/// # Errors
/// The host has no memory to spare, or forbids it.
pub(crate) fn sealed_file(name: &CStr, content: &[u8]) -> io::Result<File> {
    // SAFETY: the name is a C string, and the call touches no other memory.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(content)?;
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: the descriptor is open, and the argument is an integer.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

/// A library that is loaded as long as the process lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loaded {
    handle: NonNull<c_void>,
}

// SAFETY: the handle is only ever passed to dlsym, which any thread may call (dlsym(3), "MT-Safe").
unsafe impl Send for Loaded {}
// SAFETY: as above.
unsafe impl Sync for Loaded {}

impl Loaded {
    /// Loads the library in `file`, with all that it needs, and runs its constructors: from here on its code is part of this
    /// process. The file must be one of its own, so that nobody changes it meanwhile, and stays open: it is known to
    /// the dynamic linker, to debuggers and in backtraces by its descriptor's number.
    ///
    /// It is never unloaded. Threads may have destructors of its thread-locals to run when they end, hooks may have
    /// started threads, and whatever they gave away may point to its constants.
    ///
    /// # Errors
    /// What the dynamic linker says.
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

    /// Where a symbol of the library's is.
    pub(crate) fn symbol(self, name: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: the handle is of a library that is still loaded, and the name is a C string.
        NonNull::new(unsafe { libc::dlsym(self.handle.as_ptr(), name.as_ptr()) })
    }
}

fn path_of(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// What the dynamic linker said last on this thread.
fn last_error() -> String {
    // SAFETY: dlerror returns null or a C string that is there until the next call on this thread (dlerror(3)).
    unsafe {
        let text = libc::dlerror();
        if text.is_null() { "no reason given".to_owned() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    }
}
