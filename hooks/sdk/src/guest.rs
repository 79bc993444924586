//! The guest handle: what a hook can see and do while a fault waits for its verdict.

use std::time::Duration;

use crate::paging::{Access, Mapping, Translation, Walk};
use crate::{Code, Cr3, Instruction, Pa, Va};

/// The general registers of the context that faulted, as they will be when it goes on.
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

/// What else decides how the faulting instruction ran, as it was when it faulted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemRegisters {
    /// CR0: paging, and whether read-only pages hold for the kernel (SDM vol. 3A, 2.5).
    pub cr0: u64,
    /// CR4: the paging mode, SMEP, SMAP, protection keys.
    pub cr4: u64,
    /// EFER: long mode, NX.
    pub efer: u64,
    /// Where FS begins.
    pub fs_base: Va,
    /// Where GS begins.
    pub gs_base: Va,
}

/// What kind of guest a kernel makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GuestKind {
    /// Linux. It accounts for every page that its page tables map, and follows tables through its direct map.
    Linux,
    /// Any other.
    #[default]
    Other,
}

/// Why an access to guest memory, or a change of its page tables, could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestError {
    /// The walk ended at an entry without P.
    #[error("virtual address {0} is not mapped by the guest")]
    NotMapped(Va),
    /// The walk met an entry with a reserved bit set, or a virtual address that is not canonical; or a page needs an entry
    /// at the top level of PAE paging, which the CPU reads only with CR3.
    #[error("virtual address {0} has no valid translation")]
    Malformed(Va),
    /// There is no memory of the VM's at this address: MMIO, a hole, or past its end.
    #[error("physical address {0} is outside of guest memory")]
    OutsideMemory(Pa),
    /// A page that is asked to be mapped is mapped already.
    #[error("virtual address {0} is mapped already")]
    AlreadyMapped(Va),
    /// Other vCPUs change the page-table entry all the time.
    #[error("the page-table entry of virtual address {0} does not hold still")]
    Contended(Va),
    /// A page address or a frame address is not a multiple of 4 KiB.
    #[error("address {0:#x} is not a multiple of 4 KiB")]
    Unaligned(u64),
    /// All host-owned pages are in use.
    #[error("the pool of host-owned pages is used up ({pages} pages)")]
    PoolExhausted {
        /// How many pages the pool has.
        pages: u64,
    },
    /// KVM refuses to make more pages of the pool the guest's memory.
    #[error("KVM refuses memory for more pages of the pool (errno {0})")]
    PoolRefused(i32),
    /// A page of a Linux guest has no last-level page table, and Linux could not follow one from the pool.
    #[error(
        "virtual address {0} has no page table, and Linux can't use one of the pool's: have the process populate a page in \
         the same 2 MiB (MADV_POPULATE_WRITE)"
    )]
    NoTable(Va),
    /// A page is to be given back that this hook has not taken.
    #[error("{0} is no page that this hook has taken from the pool")]
    NotTaken(Pa),
    /// The instruction's bytes, or the descriptor of its code segment, can't be read.
    #[error("the instruction at {0} can't be read")]
    UnreadableCode(Va),
    /// The bytes at the instruction pointer are no instruction.
    #[error("the bytes at {0} are no instruction")]
    NoInstruction(Va),
    /// There is a recorded fault and no guest.
    #[error("there is no guest: a trace has faults in it, and neither memory nor general registers")]
    NoGuest,
    /// KVM refuses to drop the translations that the vCPUs hold.
    #[error("the vCPUs' translations can't be flushed (errno {0})")]
    Flush(i32),
}

/// The guest, from inside a hook.
///
/// Everything is seen as the faulting vCPU sees it: virtual addresses go through the page tables that its CR3 names at
/// the exit, or through those that [`Guest::use_address_space`] names. In [`Hook::on_end`](crate::Hook::on_end) there is no
/// faulting vCPU: registers are zero then, and an address space has to be named before virtual addresses lead anywhere.
///
/// # What calls cost
/// Registers are plain memory. An access by virtual address costs a page walk in plain memory, of four or five loads, a page;
/// `map`, `unmap` and `protect` cost one, and an atomic exchange. `allocate_page` fills 4 KiB. None of these makes a system call
/// or takes a lock, except when the guest has to be given more pages of the pool: for each of the first 32, and then for every
/// sixteenth part by which the pool grows. `flush` stops every vCPU for a moment and makes KVM forget what it has
/// learnt of the guest's memory: once a batch, not once a page. `code` reads 15 bytes, `instruction` decodes them on
/// top. `log` formats and writes, and may block.
pub trait Guest {
    /// Registers of the context that faulted.
    fn registers(&self) -> &Registers;

    /// The same, to be changed: what is written here is in force when the guest goes on, whatever the verdict. This is
    /// how a skipped instruction gets its results.
    fn registers_mut(&mut self) -> &mut Registers;

    /// System registers of the vCPU that faulted.
    fn system_registers(&self) -> &SystemRegisters;

    /// What kind of guest this is, as its kernel's file says.
    fn kind(&self) -> GuestKind;

    /// The page tables that virtual addresses go through.
    fn address_space(&self) -> Cr3;

    /// Sends virtual addresses through other page tables, until the hook returns. Nothing is checked: tables that lead
    /// nowhere show in the first access.
    fn use_address_space(&mut self, cr3: Cr3);

    /// Every entry on the way from the top-level table to where `address` leads.
    ///
    /// # Errors
    /// [`GuestError::Malformed`] for an address that is not canonical, [`GuestError::OutsideMemory`] for a table outside of
    /// guest memory.
    fn walk(&self, address: Va) -> Result<Walk, GuestError>;

    /// Where `address` leads in the guest's page tables.
    ///
    /// # Errors
    /// [`GuestError::NotMapped`], [`GuestError::Malformed`], or [`GuestError::OutsideMemory`] for a table that lies
    /// outside of guest memory.
    fn translate(&self, address: Va) -> Result<Translation, GuestError>;

    /// Fills `buffer` from virtual memory, without regard to the mapping's rights.
    ///
    /// # Errors
    /// As [`Guest::translate`], for the first page that fails; the buffer's contents are then unspecified.
    fn read(&self, address: Va, buffer: &mut [u8]) -> Result<(), GuestError>;

    /// Writes `data` to virtual memory, without regard to the mapping's rights.
    ///
    /// # Errors
    /// As [`Guest::translate`], for the first page that fails; the pages before it are written then.
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

    /// Replaces the aligned 8 bytes at a guest-physical address where they still are `current`, in one piece, as other vCPUs
    /// and the CPU's own page walker see it. `Ok(false)`: they are others by now.
    ///
    /// For page-table entries that [`Guest::map`] and its like don't know how to make. Those that take a right away need a
    /// [`Guest::flush`].
    ///
    /// # Errors
    /// [`GuestError::OutsideMemory`], for an address that is not a multiple of 8 as well.
    fn compare_exchange(&mut self, address: Pa, current: u64, new: u64) -> Result<bool, GuestError>;

    /// Takes a zeroed 4 KiB page from the VM's pool of host-owned pages. The guest's own allocator does not know of
    /// these pages: they lie outside of the memory map that the guest was booted with.
    ///
    /// The guest can access a page by its physical address from when it is taken first, given back or not. It can so access
    /// the most pages that were taken at a time, and a sixteenth more; the rest of the pool is a hole to it.
    ///
    /// A page is the hook's until it gives it back. When a hook is taken out of the chain, what it still has is unmapped where
    /// [`Guest::map`] mapped it last, and given back; a hook that takes its place inherits its pages instead.
    ///
    /// # Errors
    /// [`GuestError::PoolExhausted`], [`GuestError::PoolRefused`].
    fn allocate_page(&mut self) -> Result<Pa, GuestError>;

    /// Gives a page back to the pool. It must not be mapped any more, and translations to it must have been flushed. It keeps
    /// its contents until it is taken again.
    ///
    /// # Errors
    /// [`GuestError::NotTaken`].
    fn free_page(&mut self, page: Pa) -> Result<(), GuestError>;

    /// Maps the 4 KiB page at `page` to the frame at `frame` in the guest's page tables, taking pages for missing
    /// tables from the pool; these stay with the guest. The rights of tables that exist already are left alone.
    ///
    /// # Linux
    /// Linux follows its page tables through its direct map, where the pool is not. So no table is taken from the pool for
    /// it: the last-level table must be there. A process has one where it has populated a page in the same 2 MiB, by
    /// `madvise` with MADV_POPULATE_WRITE for instance.
    ///
    /// A page of the pool has no `struct page`. Its entry is marked accordingly (bit 9, `_PAGE_SPECIAL`), so that the kernel
    /// looks for none. It is still an entry that the kernel did not make: when it finds it in an ordinary mapping, as munmap,
    /// exit and fork do, it logs "BUG: Bad page map", taints itself (`TAINT_BAD_PAGE`) and goes on; munmap and exit drop the
    /// entry, and the frame stays the hook's. A hook that wants none of this unmaps its pages first: the hook `pager` has the
    /// process announce that it is about to change the mapping.
    ///
    /// # Errors
    /// [`GuestError::AlreadyMapped`] where a leaf is present, [`GuestError::NoTable`], [`GuestError::Unaligned`],
    /// [`GuestError::PoolExhausted`], [`GuestError::PoolRefused`], or as [`Guest::translate`] for tables that can't be walked.
    fn map(&mut self, page: Va, frame: Pa, access: Access) -> Result<(), GuestError>;

    /// Makes the leaf that maps `page` absent, whatever its size, and returns what it was.
    ///
    /// A vCPU may go on using the translation until the next [`Guest::flush`]; the VM does one of its own when the hook
    /// returns. Whoever reads, reuses or gives back the frame flushes first.
    ///
    /// # Errors
    /// As [`Guest::translate`], and [`GuestError::Contended`].
    fn unmap(&mut self, page: Va) -> Result<Mapping, GuestError>;

    /// Gives the leaf that maps `page` other rights, whatever its size, and returns what it was. The tables above it may still
    /// withhold some. As for [`Guest::unmap`], rights that are taken away are gone for sure after a [`Guest::flush`].
    ///
    /// # Errors
    /// As [`Guest::translate`], and [`GuestError::Contended`].
    fn protect(&mut self, page: Va, access: Access) -> Result<Mapping, GuestError>;

    /// Makes every vCPU forget its translations: when this returns, none uses one from before. Right on nested and on
    /// shadow paging.
    ///
    /// # Errors
    /// [`GuestError::Flush`].
    fn flush(&mut self) -> Result<(), GuestError>;

    /// The bytes of the instruction that faulted.
    ///
    /// # Errors
    /// [`GuestError::UnreadableCode`].
    fn code(&self) -> Result<Code, GuestError>;

    /// The instruction that faulted, decoded.
    ///
    /// # Errors
    /// As [`Guest::code`], and [`GuestError::NoInstruction`].
    fn instruction(&self) -> Result<Instruction, GuestError> {
        self.code()?.decode()
    }

    /// How long the VM has been running.
    fn elapsed(&self) -> Duration;

    /// Writes a line to the VM's log under this hook's name. It formats and may block: not for every fault.
    fn log(&self, message: &str);
}
