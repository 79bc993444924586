//! Frames: physical memory, given out in order and never taken back.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use vector14_guest_abi::window::PAGE_SIZE;

use crate::console;

static NEXT: AtomicU64 = AtomicU64::new(0);
static END: AtomicU64 = AtomicU64::new(0);

/// Everything from this kernel's end to `ram_end` is free.
pub fn init(ram_end: u64) {
    unsafe extern "C" {
        static image_end: u8;
    }
    NEXT.store(&raw const image_end as u64, Relaxed);
    END.store(ram_end, Relaxed);
}

/// The address of `count` adjoining frames, as they are. Fit for ring 0, and for several CPUs at once.
#[inline(always)]
pub fn take(count: u64) -> Option<u64> {
    let frame = NEXT.fetch_add(count * PAGE_SIZE, Relaxed);
    if frame + count * PAGE_SIZE <= END.load(Relaxed) { Some(frame) } else { None }
}

/// As [`take`], but zeroed, and for ring 3: running out ends the scenario.
pub fn take_zeroed(count: u64) -> u64 {
    let Some(frame) = take(count) else { console::fail(format_args!("out of memory: {count} more pages wanted")) };
    // SAFETY: nobody else has these frames, and RAM is mapped at its own address.
    unsafe { (frame as *mut u8).write_bytes(0, (count * PAGE_SIZE) as usize) };
    frame
}
