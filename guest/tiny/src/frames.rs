//! Frames: physical memory, allocated in order and never freed.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use vector14_guest_abi::window::PAGE_SIZE;

use crate::console;

static NEXT: AtomicU64 = AtomicU64::new(0);
static END: AtomicU64 = AtomicU64::new(0);

/// Makes the memory from this kernel's end to `ram_end` available.
pub fn init(ram_end: u64) {
    unsafe extern "C" {
        static image_end: u8;
    }
    NEXT.store(&raw const image_end as u64, Relaxed);
    END.store(ram_end, Relaxed);
}

/// Allocates `count` adjacent frames, without clearing them. Ring 0 and several CPUs at once may call it.
#[inline(always)]
pub fn take(count: u64) -> Option<u64> {
    let frame = NEXT.fetch_add(count * PAGE_SIZE, Relaxed);
    if frame + count * PAGE_SIZE <= END.load(Relaxed) { Some(frame) } else { None }
}

/// Allocates zeroed frames, in ring 3. The scenario fails if none are left.
pub fn take_zeroed(count: u64) -> u64 {
    let Some(frame) = take(count) else { console::fail(format_args!("out of memory: {count} more pages needed")) };
    // SAFETY: nobody else has these frames, and RAM is mapped at its own address.
    unsafe { (frame as *mut u8).write_bytes(0, (count * PAGE_SIZE) as usize) };
    frame
}
