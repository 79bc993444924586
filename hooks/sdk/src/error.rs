//! Why a hook's access to its guest fails.

use crate::{Pa, Va};

/// Why a call on the guest handle failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestError {
    /// The walk ended at an entry without P.
    #[error("virtual address {0} is not mapped by the guest")]
    NotMapped(Va),
    /// The virtual address is not canonical, or the walk met an entry with a reserved bit set. Also: mapping the page
    /// needs an entry at the top level of PAE paging, which the CPU reads only when CR3 is written.
    #[error("virtual address {0} has no valid translation")]
    Malformed(Va),
    /// The VM has no memory at this address: it is MMIO, a hole, or past the end of memory.
    #[error("physical address {0} is outside guest memory")]
    OutsideMemory(Pa),
    /// The page to be mapped is already mapped.
    #[error("virtual address {0} is already mapped")]
    AlreadyMapped(Va),
    /// Other vCPUs keep changing the page-table entry.
    #[error("the page-table entry of virtual address {0} keeps changing")]
    Contended(Va),
    /// A page address or a frame address is not a multiple of 4 KiB.
    #[error("address {0:#x} is not a multiple of 4 KiB")]
    Unaligned(u64),
    /// All host-owned pages are in use.
    #[error("the pool of host-owned pages is used up ({pages} pages)")]
    PoolExhausted {
        /// Number of pages in the pool.
        pages: u64,
    },
    /// KVM refuses to add more pages of the pool to the guest's memory.
    #[error("KVM refuses memory for more pages of the pool (errno {0})")]
    PoolRefused(i32),
    /// A page of a Linux guest has no last-level page table, and Linux can't use one from the pool.
    #[error(
        "virtual address {0} has no page table, and Linux can't use one from the pool: have the process populate a page in \
         the same 2 MiB (MADV_POPULATE_WRITE)"
    )]
    NoTable(Va),
    /// The page to be freed is not one that this hook allocated.
    #[error("{0} is not a page that this hook allocated from the pool")]
    NotTaken(Pa),
    /// The instruction's bytes, or the descriptor of its code segment, can't be read.
    #[error("the instruction at {0} can't be read")]
    UnreadableCode(Va),
    /// The bytes at the instruction pointer do not decode as an instruction.
    #[error("the bytes at {0} are not an instruction")]
    NoInstruction(Va),
    /// The fault is a recorded one, and there is no guest.
    #[error("there is no guest: a trace has faults in it, and neither memory nor general registers")]
    NoGuest,
    /// KVM could not flush the vCPUs' translations.
    #[error("the vCPUs' translations can't be flushed (errno {0})")]
    Flush(i32),
}
