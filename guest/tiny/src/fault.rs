//! Page faults: the guest's own vector-14 handler.
//!
//! What it does about a fault depends on the window that the address is in. Scenarios set a window's policy from ring
//! 3. A fault in a window without a policy, or outside the windows, is fatal.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use vector14_guest_abi::window::{PAGE_SIZE, WINDOW_COUNT, WINDOW_SIZE, window_index};

use crate::cpu::Cpu;
use crate::paging::{PRESENT, USER, WRITABLE};
use crate::trap_frame::TrapFrame;
use crate::{frames, ring0};

/// Error-code bits of a write to a present page.
const PRESENT_WRITE: u64 = 1 << 0 | 1 << 1;

/// What the handler does about a fault in a window.
pub enum Action {
    /// The fault is fatal.
    Fatal,
    /// Maps the page's frame. `frames` is the first of consecutive frames, one per page, which are already filled.
    Demand { frames: u64 },
    /// On a write to a present page: maps a writable copy of it.
    CopyOnWrite,
    /// Changes bits of the PTE.
    Change { clear: u64, set: u64 },
    /// Continues at [`Cpu::resume`].
    Resume,
    /// Reads from `first`, which may fault itself; then does as [`Action::Demand`].
    Nested { first: u64, frames: u64 },
}

/// The handler has no answer to a fault.
pub struct Unserved;

struct Policy {
    action: Action,
    ptes: *const AtomicU64,
    pages: u64,
}

struct Policies(UnsafeCell<[Policy; WINDOW_COUNT as usize]>);

// SAFETY: written by the first CPU, before any CPU faults in the window whose policy it is.
unsafe impl Sync for Policies {}

static POLICIES: Policies = Policies(UnsafeCell::new(
    [const { Policy { action: Action::Fatal, ptes: core::ptr::null(), pages: 0 } }; WINDOW_COUNT as usize],
));

/// Sets the policy for the pages that begin at `window` and have these PTEs.
pub fn set_policy(window: &Range<u64>, ptes: &'static [AtomicU64], action: Action) {
    let index = window_index(window.start).expect("a window");
    let policy = Policy { action, ptes: ptes.as_ptr(), pages: ptes.len() as u64 };
    // SAFETY: see `Policies`. Volatile, as the reader is an exception handler.
    unsafe { POLICIES.0.get().cast::<Policy>().add(index).write_volatile(policy) }
}

/// CR2.
#[inline(always)]
pub fn address() -> u64 {
    let address;
    // SAFETY: reading it has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
    address
}

/// Serves a fault.
#[inline(always)]
pub fn serve(cpu: &Cpu, frame: &mut TrapFrame, address: u64) -> Result<(), Unserved> {
    let index = window_index(address).ok_or(Unserved)?;
    // SAFETY: `index` is below WINDOW_COUNT; nobody writes a policy while its window is in use.
    let policy = unsafe { &*POLICIES.0.get().cast::<Policy>().add(index) };
    let page = address % WINDOW_SIZE / PAGE_SIZE;
    if let Action::Resume = policy.action {
        frame.rip = cpu.resume.load(Relaxed);
        return Ok(());
    }
    if page >= policy.pages {
        return Err(Unserved);
    }
    // SAFETY: `page` is below the number of PTEs that the policy was set with.
    let pte = unsafe { &*policy.ptes.add(page as usize) };
    match policy.action {
        Action::Fatal | Action::Resume => return Err(Unserved),
        Action::Demand { frames } => map(pte, frames, page),
        Action::CopyOnWrite if frame.error & PRESENT_WRITE == PRESENT_WRITE => copy(pte, address)?,
        Action::CopyOnWrite => return Err(Unserved),
        Action::Change { clear, set } => {
            pte.fetch_and(!clear, Relaxed);
            pte.fetch_or(set, Relaxed);
        }
        Action::Nested { first, frames } => {
            // SAFETY: a read that is meant to fault; the address lies in a window, where no Rust object lives.
            unsafe { (first as *const u8).read_volatile() };
            map(pte, frames, page);
        }
    }
    ring0::flush_here(address);
    Ok(())
}

/// Several CPUs may fault on the same page at once: the first one maps it.
#[inline(always)]
fn map(pte: &AtomicU64, frames: u64, page: u64) {
    let frame = frames + page * PAGE_SIZE;
    let _ = pte.compare_exchange(0, frame | PRESENT | WRITABLE | USER, Relaxed, Relaxed);
}

#[inline(always)]
fn copy(pte: &AtomicU64, address: u64) -> Result<(), Unserved> {
    let frame = frames::take(1).ok_or(Unserved)?;
    let (page, words) = (address & !(PAGE_SIZE - 1), PAGE_SIZE / 8);
    // SAFETY: from a page that is present, or this would not be a protection fault, to a frame that nobody else has,
    // mapped at its own address. The direction flag is clear.
    unsafe {
        asm!("rep movsq", inout("rsi") page => _, inout("rdi") frame => _, inout("rcx") words => _,
            options(nostack, preserves_flags));
    }
    pte.store(frame | PRESENT | WRITABLE | USER, Relaxed);
    Ok(())
}
