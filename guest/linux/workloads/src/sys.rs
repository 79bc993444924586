//! System calls, and all of the unsafe code.
#![expect(unsafe_code, reason = "page faults of the kinds that are wanted come from raw memory and system calls")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::ptr;

pub(crate) const PAGE: usize = 4096;

/// Pages of this process's own, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: *mut u8,
    pages: usize,
}

// SAFETY: it is only memory, accessed one byte at a time through volatile operations or atomics.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Fresh anonymous pages, private to this process.
    pub(crate) fn new(pages: usize) -> io::Result<Self> {
        Self::map(ptr::null_mut(), pages, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    /// Fresh anonymous pages at an address at which nothing is.
    pub(crate) fn at(address: usize, pages: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        Self::map(ptr::without_provenance_mut(address), pages, flags, -1)
    }

    /// Pages of a file, or, with other `flags`, of another kind.
    pub(crate) fn with(pages: usize, flags: libc::c_int, file: Option<&File>) -> io::Result<Self> {
        Self::map(ptr::null_mut(), pages, flags, file.map_or(-1, File::as_raw_fd))
    }

    fn map(address: *mut u8, pages: usize, flags: libc::c_int, file: RawFd) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a mapping that replaces no other touches no memory in use: MAP_FIXED is never asked for.
        let start = unsafe { libc::mmap(address.cast(), pages * PAGE, access, flags, file, 0) };
        if start == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(Self { start: start.cast(), pages })
        }
    }

    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// The address of a page.
    pub(crate) fn address(&self, page: usize) -> usize {
        self.byte(page).addr()
    }

    /// The first byte of a page.
    pub(crate) fn read(&self, page: usize) -> u8 {
        // SAFETY: `byte` is inside of the mapping, and any byte is a u8.
        unsafe { self.byte(page).read_volatile() }
    }

    /// Writes the first byte of a page.
    pub(crate) fn write(&self, page: usize, value: u8) {
        // SAFETY: as for `read`; nobody holds a reference to this memory.
        unsafe { self.byte(page).write_volatile(value) }
    }

    /// One of a page's 8-byte words.
    pub(crate) fn read_word(&self, page: usize, word: u64) -> u64 {
        // SAFETY: `word` is inside of the mapping and aligned, and any 8 bytes are a u64.
        unsafe { self.word(page, word).read_volatile() }
    }

    /// Writes one of a page's 8-byte words.
    pub(crate) fn write_word(&self, page: usize, word: u64, value: u64) {
        // SAFETY: as for `read_word`; nobody holds a reference to this memory.
        unsafe { self.word(page, word).write_volatile(value) }
    }

    /// Adds to the first byte of a page, whoever else does.
    pub(crate) fn add(&self, page: usize, value: u8) {
        // SAFETY: inside of the mapping, aligned as a u8 always is, and accessed atomically by all that share it.
        let byte = unsafe { std::sync::atomic::AtomicU8::from_ptr(self.byte(page)) };
        byte.fetch_add(value, std::sync::atomic::Ordering::SeqCst);
    }

    /// Writes `mov eax, value; ret` to the first page, and calls it.
    pub(crate) fn execute_returning(&self, value: u8) -> u8 {
        let code = [0xb8, value, 0, 0, 0, 0xc3];
        for (offset, byte) in code.into_iter().enumerate() {
            // SAFETY: inside of the first page, to which nobody holds a reference.
            unsafe { self.start.add(offset).write_volatile(byte) };
        }
        // SAFETY: what was just written is a function of the C ABI that changes no register but EAX; the callers have made
        // the page executable.
        let function = unsafe { std::mem::transmute::<*mut u8, extern "C" fn() -> u8>(self.start) };
        function()
    }

    /// `PROT_` bits for some of the pages.
    pub(crate) fn protect(&self, first: usize, pages: usize, access: libc::c_int) -> io::Result<()> {
        assert!(first + pages <= self.pages, "beyond the mapping");
        // SAFETY: pages of this mapping only, to which there are no references.
        result(unsafe { libc::mprotect(self.byte(first).cast(), pages * PAGE, access) })
    }

    /// `madvise` for all pages.
    pub(crate) fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: as for `protect`.
        result(unsafe { libc::madvise(self.start.cast(), self.pages * PAGE, advice) })
    }

    /// Has the kernel put a page of its own there, without a fault.
    pub(crate) fn populate(&self, page: usize) -> io::Result<()> {
        // SAFETY: as for `protect`.
        result(unsafe { libc::madvise(self.byte(page).cast(), PAGE, libc::MADV_POPULATE_WRITE) })
    }

    /// Moves it to where there is room for more pages.
    pub(crate) fn grow(&mut self, pages: usize) -> io::Result<()> {
        let (old, new) = (self.pages * PAGE, pages * PAGE);
        // SAFETY: the whole mapping, to which there are no references; its new place is stored right here.
        let start = unsafe { libc::mremap(self.start.cast(), old, new, libc::MREMAP_MAYMOVE) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        (self.start, self.pages) = (start.cast(), pages);
        Ok(())
    }

    fn word(&self, page: usize, word: u64) -> *mut u64 {
        let word = usize::try_from(word).ok().filter(|word| *word < PAGE / 8).expect("a word of a page");
        // SAFETY: the page is inside of the mapping, and the word inside of the page.
        unsafe { self.byte(page).cast::<u64>().add(word) }
    }

    fn byte(&self, page: usize) -> *mut u8 {
        assert!(page < self.pages, "beyond the mapping");
        // SAFETY: inside of the mapping, as was just checked.
        unsafe { self.start.add(page * PAGE) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this mapping, to which there are no references.
        unsafe { libc::munmap(self.start.cast(), self.pages * PAGE) };
    }
}

/// Reads a byte at an address at which nothing is: something other than this program sees to it that it gets past that.
pub(crate) fn touch(address: usize) {
    // SAFETY: whatever is read is not used; the access is for its fault, and without the host's hook it ends the process.
    unsafe { ptr::without_provenance::<u8>(address).read_volatile() };
}

/// Runs `child` in a copy of this process, and returns its status.
pub(crate) fn in_child(child: impl FnOnce() -> u8) -> io::Result<i32> {
    // SAFETY: the child runs code of this program only and leaves without returning; workloads fork while they have
    // one thread.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => return Err(io::Error::last_os_error()),
        // SAFETY: ends the child at once.
        0 => unsafe { libc::_exit(child().into()) },
        _ => {}
    }
    let mut status = 0;
    // SAFETY: `status` is writable.
    if unsafe { libc::waitpid(pid, &raw mut status, 0) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(libc::WEXITSTATUS(status))
}

/// Has SIGSEGV call this, with the address of the fault.
pub(crate) fn on_segv(handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void)) -> io::Result<()> {
    // SAFETY: all zeroes is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for.
    result(unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, ptr::null_mut()) })
}

/// The address of a fault, as SIGSEGV's handler is told.
pub(crate) fn fault_address(info: *mut libc::siginfo_t) -> usize {
    // SAFETY: the kernel passes a valid siginfo of SIGSEGV to the handler.
    unsafe { (*info).si_addr().addr() }
}

/// Gives the page at an address back its rights: what a handler of SIGSEGV can do.
pub(crate) fn open_page(address: usize) {
    let page: *mut libc::c_void = ptr::without_provenance_mut(address & !(PAGE - 1));
    // SAFETY: rights are added to a page, which invalidates no reference; mprotect may be called in a signal handler.
    unsafe { libc::mprotect(page, PAGE, libc::PROT_READ | libc::PROT_WRITE) };
}

/// Reads the first byte of a page while `vector` is in YMM0, and returns what YMM0 holds afterwards.
pub(crate) fn load_with_vector(memory: &Mapping, page: usize, mut vector: [u8; 32]) -> [u8; 32] {
    assert!(std::arch::is_x86_feature_detected!("avx"), "YMM0 is AVX's");
    // SAFETY: 1. The CPU and the kernel have AVX, as was just checked.
    // 2. `vector` is 32 bytes to read and write, and the load is of one byte inside of the mapping.
    unsafe {
        std::arch::asm!(
            "vmovdqu ymm0, [{vector}]",
            "mov {byte}, byte ptr [{page}]",
            "vmovdqu [{vector}], ymm0",
            vector = in(reg) vector.as_mut_ptr(),
            page = in(reg) memory.byte(page),
            byte = out(reg_byte) _,
            out("ymm0") _,
            options(nostack, preserves_flags),
        );
    }
    vector
}

/// Sets all vector registers to 0.
pub(crate) fn clear_vector_registers() {
    assert!(std::arch::is_x86_feature_detected!("avx"), "VZEROALL is AVX's");
    // SAFETY: the CPU and the kernel have AVX, as was just checked, and every register that changes is named.
    unsafe {
        std::arch::asm!(
            "vzeroall",
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _, out("ymm6") _,
            out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _, out("ymm12") _,
            out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(nomem, nostack, preserves_flags),
        );
    }
}

/// `read` or `write` on a file descriptor, with an address that may be bad.
pub(crate) fn transfer(number: libc::c_long, file: &impl AsRawFd, address: usize, length: usize) -> io::Result<usize> {
    // SAFETY: the callers give addresses that are theirs, or nobody's; the kernel refuses the latter.
    let done = unsafe { libc::syscall(number, file.as_raw_fd(), address, length) };
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}

/// A system call that makes a file.
pub(crate) fn open(number: libc::c_long, arguments: [usize; 5]) -> io::Result<File> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the callers pass what the call needs, and get a file of their own.
    let file = unsafe { libc::syscall(number, a, b, c, d, e) };
    let file = RawFd::try_from(file).ok().filter(|file| *file >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: a file descriptor that was just made and belongs to nobody else.
    Ok(unsafe { File::from_raw_fd(file) })
}

/// An ioctl whose argument is a structure.
pub(crate) fn ioctl<T>(file: &File, request: libc::c_ulong, argument: &mut T) -> io::Result<()> {
    // SAFETY: the callers pass the structure that belongs to the request; it is writable.
    result(unsafe { libc::ioctl(file.as_raw_fd(), request, ptr::from_mut(argument)) })
}

/// Keeps this thread on one CPU.
pub(crate) fn run_on(cpu: usize) -> io::Result<()> {
    // SAFETY: all zeroes is a valid, empty set; CPU_SET checks the number.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        set
    };
    // SAFETY: the set is readable, and of this size.
    result(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) })
}

/// Has this file's name removed and its pages kept: scratch memory with a file behind it.
pub(crate) fn memory_file(pages: usize) -> io::Result<File> {
    let name = CString::new("workload")?;
    let file = open(libc::SYS_memfd_create, [name.as_ptr().addr(), 0, 0, 0, 0])?;
    file.set_len((pages * PAGE) as u64)?;
    Ok(file)
}

fn result(returned: libc::c_int) -> io::Result<()> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
