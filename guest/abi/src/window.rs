//! Windows: ranges of guest-virtual addresses, 1 GiB each, in which nothing is mapped when a scenario begins.
//!
//! One window is one entry of the guest's page-directory-pointer table, so that a scenario builds and breaks the tables
//! below it without touching any other's. Page tables for the pages that a scenario uses are in place beforehand.

use core::ops::Range;

/// Size of a page, and of every leaf that a scenario maps.
pub const PAGE_SIZE: u64 = 4096;

/// Size of a window, and the distance from one to the next.
pub const WINDOW_SIZE: u64 = 1 << 30;

/// Number of windows.
pub const WINDOW_COUNT: u64 = 16;

/// Start of the first window.
pub const WINDOWS_START: u64 = 0x10_0000_0000;

/// Pages that the guest's handler maps at their first touch, filled with [`pattern`].
pub const DEMAND: Range<u64> = window(0);
/// Pages that the guest's handler does not map: a fault here is fatal unless the host resolves it.
pub const HIDDEN: Range<u64> = window(1);
/// Present read-only pages, filled with [`pattern`]; the guest's handler copies a page when it is written to.
pub const READONLY: Range<u64> = window(2);
/// Present pages with NX set; the guest's handler clears it.
pub const NOEXEC: Range<u64> = window(3);
/// Present pages with the reserved [`RESERVED_BIT`] set; the guest's handler clears it.
pub const RESERVED: Range<u64> = window(4);
/// One page for every kind of error code; the guest's handler continues after the faulting instruction.
pub const ERROR_CODES: Range<u64> = window(5);
/// Pages mapped at their first touch, as in [`DEMAND`], two of them by one instruction.
pub const TWICE: Range<u64> = window(6);
/// Pages mapped at their first touch; before it does so the guest's handler itself faults in [`DEMAND`].
pub const NESTED: Range<u64> = window(7);
/// Never mapped, and a fault is fatal in the guest: the host skips the instruction.
pub const SKIP: Range<u64> = window(8);
/// Never mapped, and a #PF is fatal in the guest: the host turns it into a #GP.
pub const RAISE: Range<u64> = window(9);
/// Mapped at the first fault that reaches the guest's handler.
pub const LOOP: Range<u64> = window(10);
/// What `storm` faults on; it is never mapped.
pub const STORM: Range<u64> = window(11);
/// Holds one executable page without any filler: `no-room` has its page-fault handler here.
pub const NO_ROOM: Range<u64> = window(12);
/// Reached through a page table all of whose entries point to the table itself.
pub const TABLES_LOOP: Range<u64> = window(13);
/// One page, with a copy of the interrupt descriptor table in it.
pub const IDT_COPY: Range<u64> = window(14);
/// Its first page is what `verdict` faults on; the guest's handler records faults anywhere in it, and abandons the
/// instruction.
pub const VERDICT: Range<u64> = window(15);

/// The window that `address` lies in, counted from [`WINDOWS_START`], if it lies in one.
#[inline(always)]
pub const fn window_index(address: u64) -> Option<usize> {
    let index = address.wrapping_sub(WINDOWS_START) / WINDOW_SIZE;
    if index < WINDOW_COUNT { Some(index as usize) } else { None }
}

/// A PTE bit above every physical address that a CPU of up to 51 address bits can form: setting it is a reserved-bit
/// violation (SDM vol. 3A, 5.7).
pub const RESERVED_BIT: u64 = 1 << 51;

/// What `keys` has in PKRU: protection key 1 forbids every access, key 2 writes (SDM vol. 3A, 4.6.2).
pub const KEYS_PKRU: u32 = 0b01 << 2 | 0b10 << 4;

/// Start of the hole below 4 GiB, which is identity-mapped and is not RAM.
pub const HOLE_START: u64 = 0xc000_0000;

/// Outside of any RAM below the local APIC, and mapped to itself: what the hostile scenarios use as memory.
pub const OUTSIDE_RAM: u64 = 0xd000_0000;

/// What the guest fills the page at `address` with, repeated in each of its 8-byte words.
#[inline(always)]
pub const fn pattern(address: u64) -> u64 {
    (address & !(PAGE_SIZE - 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

const fn window(index: u64) -> Range<u64> {
    let start = WINDOWS_START + index * WINDOW_SIZE;
    start..start + WINDOW_SIZE
}
