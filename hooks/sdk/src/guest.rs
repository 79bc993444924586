//! The guest handle: what a hook can read and change while a fault waits for its verdict.

use std::time::Duration;

use crate::paging::{Access, Mapping, Translation, Walk};
use crate::{Code, Cr3, GuestError, Instruction, Pa, Va};

/// The general registers of the faulting context; the guest resumes with these values.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the registers' own names say it all")]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub rsp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
}

/// System registers of the faulting vCPU, as they were at the fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemRegisters {
    /// CR0: paging, and whether write protection applies to the kernel (SDM vol. 3A, 2.5).
    pub cr0: u64,
    /// CR4: the paging mode, SMEP, SMAP, protection keys.
    pub cr4: u64,
    /// EFER: long mode, NX.
    pub efer: u64,
    /// Base of the FS segment.
    pub fs_base: Va,
    /// Base of the GS segment.
    pub gs_base: Va,
}

/// The kind of guest kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GuestKind {
    /// Linux. It accounts for every page that its page tables map, and reaches page tables through its direct map.
    Linux,
    /// Any other kernel.
    #[default]
    Other,
}

/// The guest, as a hook accesses it.
///
/// A hook sees what the faulting vCPU sees: virtual addresses are translated by the page tables in its CR3 at the exit,
/// or by those set with [`Guest::use_address_space`]. In [`Hook::on_end`](crate::Hook::on_end) there is no faulting
/// vCPU: registers are zero, and virtual addresses can be used only after [`Guest::use_address_space`].
///
/// # Cost of calls
/// - Registers are plain memory.
/// - An access by virtual address costs one page walk per page, four or five loads each.
/// - `map`, `unmap` and `protect` cost a page walk and an atomic exchange.
/// - `allocate_page` fills 4 KiB.
/// - None of these makes a system call or takes a lock, except when more of the pool has to be added to the guest's
///   memory: for each of the first 32 pages, and after that each time the pool has grown by a sixteenth.
/// - `flush` stops every vCPU briefly and drops KVM's cached translations of the guest's memory. Call it once per
///   batch, not once per page.
/// - `code` reads 15 bytes; `instruction` also decodes them.
/// - `log` formats and writes, and may block.
pub trait Guest {
    /// General registers of the faulting context.
    fn registers(&self) -> &Registers;

    /// General registers of the faulting context, for writing. The guest resumes with the new values, whatever the
    /// verdict. This is how a skipped instruction gets its results.
    fn registers_mut(&mut self) -> &mut Registers;

    /// System registers of the faulting vCPU.
    fn system_registers(&self) -> &SystemRegisters;

    /// The kind of guest kernel, detected from the kernel's file.
    fn kind(&self) -> GuestKind;

    /// The CR3 whose page tables translate virtual addresses.
    fn address_space(&self) -> Cr3;

    /// Translates virtual addresses by other page tables until the hook returns. `cr3` is not checked: if it is wrong,
    /// the first access fails.
    fn use_address_space(&mut self, cr3: Cr3);

    /// Walks the page tables for `address` and returns every entry, from the top-level table down.
    ///
    /// # Errors
    /// [`GuestError::Malformed`] for an address that is not canonical, [`GuestError::OutsideMemory`] for a table
    /// outside guest memory.
    fn walk(&self, address: Va) -> Result<Walk, GuestError>;

    /// Translates `address` by the guest's page tables.
    ///
    /// # Errors
    /// [`GuestError::NotMapped`], [`GuestError::Malformed`], or [`GuestError::OutsideMemory`] for a table that lies
    /// outside guest memory.
    fn translate(&self, address: Va) -> Result<Translation, GuestError>;

    /// Fills `buffer` from virtual memory. The mapping's access rights are ignored.
    ///
    /// # Errors
    /// As [`Guest::translate`], for the first page that fails; the buffer's contents are then unspecified.
    fn read(&self, address: Va, buffer: &mut [u8]) -> Result<(), GuestError>;

    /// Writes `data` to virtual memory. The mapping's access rights are ignored.
    ///
    /// # Errors
    /// As [`Guest::translate`], for the first page that fails; the pages before it have been written.
    fn write(&mut self, address: Va, data: &[u8]) -> Result<(), GuestError>;

    /// Fills `buffer` from guest-physical memory.
    ///
    /// # Errors
    /// [`GuestError::OutsideMemory`].
    fn read_physical(&self, address: Pa, buffer: &mut [u8]) -> Result<(), GuestError>;

    /// Writes `data` to guest-physical memory.
    ///
    /// # Errors
    /// [`GuestError::OutsideMemory`].
    fn write_physical(&mut self, address: Pa, data: &[u8]) -> Result<(), GuestError>;

    /// Atomically replaces the 8 aligned bytes at a guest-physical address if they equal `current`. Returns `Ok(false)`
    /// if they do not. The replacement is atomic for other vCPUs and for the CPU's page walker.
    ///
    /// Use it for page-table entries that [`Guest::map`], [`Guest::unmap`] and [`Guest::protect`] can't make. After
    /// removing an access right, call [`Guest::flush`].
    ///
    /// # Errors
    /// [`GuestError::OutsideMemory`], also for an address that is not a multiple of 8.
    fn compare_exchange(&mut self, address: Pa, current: u64, new: u64) -> Result<bool, GuestError>;

    /// Allocates a zeroed 4 KiB page from the VM's pool of host-owned pages. The guest's own allocator does not know
    /// these pages: they lie outside the memory map that the guest was booted with.
    ///
    /// Once a page has been allocated, the guest can access it by its physical address, even after it is freed. At
    /// most, the guest can access as many pages as were ever allocated at the same time, and a sixteenth more; the rest
    /// of the pool is a hole.
    ///
    /// The hook owns the page until it frees it. When a hook is removed from the chain, each page that it still owns is
    /// unmapped where [`Guest::map`] last mapped it, and freed. A hook that replaces another inherits its pages
    /// instead.
    ///
    /// # Errors
    /// [`GuestError::PoolExhausted`], [`GuestError::PoolRefused`].
    fn allocate_page(&mut self) -> Result<Pa, GuestError>;

    /// Returns a page to the pool. It must no longer be mapped, and translations to it must have been flushed. The page
    /// keeps its contents until it is allocated again.
    ///
    /// # Errors
    /// [`GuestError::NotTaken`].
    fn free_page(&mut self, page: Pa) -> Result<(), GuestError>;

    /// Maps the 4 KiB page at `page` to the frame at `frame` in the guest's page tables. Missing tables are allocated
    /// from the pool and stay with the guest. The access rights in existing tables are not changed.
    ///
    /// # Linux
    /// Linux reaches its page tables through its direct map, which does not cover the pool. So in a Linux guest no
    /// table is allocated from the pool: the last-level table must exist. It exists if the process has populated a page
    /// in the same 2 MiB, for example with `madvise` and MADV_POPULATE_WRITE.
    ///
    /// A page of the pool has no `struct page`. Its entry is marked (bit 9, `_PAGE_SPECIAL`), so that the kernel does
    /// not look for one. But the kernel did not make this entry. When munmap, exit or fork finds it in an ordinary
    /// mapping, the kernel logs "BUG: Bad page map", taints itself (`TAINT_BAD_PAGE`) and continues. munmap and exit
    /// drop the entry; the hook still owns the frame. To avoid this, unmap the pages first: with the hook `pager`, the
    /// process announces that it is about to change the mapping.
    ///
    /// # Errors
    /// [`GuestError::AlreadyMapped`] if a leaf is present, [`GuestError::NoTable`], [`GuestError::Unaligned`],
    /// [`GuestError::PoolExhausted`], [`GuestError::PoolRefused`], or as [`Guest::translate`] for tables that can't be walked.
    fn map(&mut self, page: Va, frame: Pa, access: Access) -> Result<(), GuestError>;

    /// Makes the leaf that maps `page` absent, whatever its size, and returns the old mapping.
    ///
    /// vCPUs may use the stale translation until the next [`Guest::flush`]; the VM also flushes when the hook returns.
    /// Call [`Guest::flush`] before you read, reuse or free the frame.
    ///
    /// # Errors
    /// As [`Guest::translate`], and [`GuestError::Contended`].
    fn unmap(&mut self, page: Va) -> Result<Mapping, GuestError>;

    /// Sets the access rights of the leaf that maps `page`, whatever its size, and returns the old mapping. The tables
    /// above it may still withhold rights. As with [`Guest::unmap`], vCPUs may use removed rights until the next
    /// [`Guest::flush`].
    ///
    /// # Errors
    /// As [`Guest::translate`], and [`GuestError::Contended`].
    fn protect(&mut self, page: Va, access: Access) -> Result<Mapping, GuestError>;

    /// Flushes the translations of every vCPU: after this returns, none uses an older one. Works with nested and with
    /// shadow paging.
    ///
    /// # Errors
    /// [`GuestError::Flush`].
    fn flush(&mut self) -> Result<(), GuestError>;

    /// The bytes of the faulting instruction.
    ///
    /// # Errors
    /// [`GuestError::UnreadableCode`].
    fn code(&self) -> Result<Code, GuestError>;

    /// The faulting instruction, decoded.
    ///
    /// # Errors
    /// As [`Guest::code`], and [`GuestError::NoInstruction`].
    fn instruction(&self) -> Result<Instruction, GuestError> {
        self.code()?.decode()
    }

    /// How long the VM has been running.
    fn elapsed(&self) -> Duration;

    /// Writes a line to the VM's log under this hook's name. It formats and may block, so do not call it for every
    /// fault.
    fn log(&self, message: &str);
}
