//! `keys`: accesses that protection keys forbid (SDM vol. 3A, 4.6.2), from both rings: a user page is one for ring 0 too.

use core::arch::asm;
use core::sync::atomic::Ordering::Relaxed;

use vector14_guest_abi::window::{ERROR_CODES, KEYS_PKRU, PAGE_SIZE};

use super::{P, W, fault, faults};
use crate::fault::Action;
use crate::paging::{PRESENT, USER, WRITABLE, patterned};
use crate::probe::Ring;
use crate::window::open;
use crate::{ring0, say};

/// A protection key forbade the access.
const PK: u64 = 1 << 5;

/// A PTE has its key here.
const KEY_SHIFT: u32 = 59;

pub(super) fn run() {
    const PKU: u32 = 1 << 3;
    const CR4_PKE: u64 = 1 << 22;
    if ring0::cpuid(7).ecx & PKU == 0 {
        say!("NO PROTECTION KEYS: CPUID offers none, so no access was forbidden by one");
        return;
    }
    ring0::set_cr4(CR4_PKE);
    let ptes = open(&ERROR_CODES, 3, Action::Resume);
    let pages = [0, 1, 2].map(|page| ERROR_CODES.start + page * PAGE_SIZE);
    for ((key, pte), page) in (0..).zip(ptes).zip(pages) {
        pte.store(patterned(page, 1) | PRESENT | WRITABLE | USER | key << KEY_SHIFT, Relaxed);
    }
    write_pkru(KEYS_PKRU);
    let [free, unreadable, unwritable] = pages;
    for ring in [Ring::Three, Ring::Zero] {
        let user = ring.user_bit();
        faults(0, || ring.store(free, ring.load(free)));
        fault(unreadable, P | PK | user, || ring.load(unreadable));
        fault(unreadable, P | W | PK | user, || ring.store(unreadable, 0));
        faults(0, || ring.load(unwritable));
        fault(unwritable, P | W | PK | user, || ring.store(unwritable, 0));
    }
    write_pkru(0);
    say!("key 1 forbids all, key 2 writes, to both rings");
}

/// Keys only have a say over user pages: all that this kernel has are, and bear key 0.
fn write_pkru(value: u32) {
    // SAFETY: key 0 forbids nothing.
    unsafe { asm!("wrpkru", in("eax") value, in("ecx") 0, in("edx") 0, options(nostack, preserves_flags)) };
}
