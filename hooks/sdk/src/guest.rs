//! The guest handle: what a hook can see and do while a fault waits for its verdict.

use crate::{Pa, Va};

/// The general registers of the context that faulted, as they will be when it goes on.
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

bitflags::bitflags! {
    /// Rights of a leaf mapping, as the product of all levels of a walk grants them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Access: u8 {
        /// R/W set at every level.
        const WRITE = 1 << 0;
        /// U/S set at every level.
        const USER = 1 << 1;
        /// XD clear at every level (or EFER.NXE off).
        const EXECUTE = 1 << 2;
    }
}

/// Where a virtual address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The guest-physical address that the virtual address stands for.
    pub address: Pa,
    /// Size of the leaf page that maps it, in bytes: 4 KiB, 2 MiB or 1 GiB; 4 MiB in 32-bit paging.
    pub page_size: u64,
    /// What the mapping allows.
    pub access: Access,
}

/// Why an access to guest memory, or a change of its page tables, could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestError {
    /// The walk ended at an entry without P.
    #[error("virtual address {0} is not mapped by the guest")]
    NotMapped(Va),
    /// The walk met an entry with a reserved bit set, or a virtual address that is not canonical; or the page needs an
    /// entry at the top level of PAE paging, which the CPU reads only with CR3.
    #[error("virtual address {0} has no valid translation")]
    Malformed(Va),
    /// There is no memory of the VM's at this address: MMIO, a hole, or past its end.
    #[error("physical address {0} is outside of guest memory")]
    OutsideMemory(Pa),
    /// A page that is asked to be mapped is mapped already.
    #[error("virtual address {0} is mapped already")]
    AlreadyMapped(Va),
    /// A page address or a frame address is not a multiple of 4 KiB.
    #[error("address {0:#x} is not a multiple of 4 KiB")]
    Unaligned(u64),
    /// All host-owned pages are in use.
    #[error("the pool of host-owned pages is used up ({pages} pages)")]
    PoolExhausted {
        /// How many pages the pool has.
        pages: u64,
    },
}

/// The guest, from inside a hook.
///
/// Everything is seen as the faulting vCPU sees it: virtual addresses go through the page tables that its CR3 names at
/// the exit. No call here costs a vCPU ioctl; an access by virtual address costs one page walk in plain memory a page.
pub trait Guest {
    /// Registers of the context that faulted.
    fn registers(&self) -> &Registers;

    /// The same, to be changed: what is written here is in force when the guest goes on, whatever the verdict.
    fn registers_mut(&mut self) -> &mut Registers;

    /// System registers of the vCPU that faulted.
    fn system_registers(&self) -> &SystemRegisters;

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

    /// Takes a zeroed 4 KiB page from the VM's pool of host-owned pages. The guest's own allocator does not know of
    /// these pages: they lie outside of the memory map that the guest was booted with.
    ///
    /// # Errors
    /// [`GuestError::PoolExhausted`].
    fn allocate_page(&mut self) -> Result<Pa, GuestError>;

    /// Maps the 4 KiB page at `page` to the frame at `frame` in the guest's page tables, taking pages for missing
    /// tables from the pool. The rights of tables that exist already are left alone.
    ///
    /// # Errors
    /// [`GuestError::AlreadyMapped`] where a leaf is present, [`GuestError::Unaligned`], [`GuestError::PoolExhausted`],
    /// or as [`Guest::translate`] for tables that can't be walked.
    fn map(&mut self, page: Va, frame: Pa, access: Access) -> Result<(), GuestError>;

    /// Writes a line to the VM's log under this hook's name. It formats and may block: not for every fault.
    fn log(&self, message: &str);
}
