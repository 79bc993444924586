//! SIGSEGV handlers that repair their own faults. One of them clears the vector registers, which the signal's frame keeps.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::sys::{Mapping, clear_vector_registers, fault_address, load_with_vector, on_segv, open_page};
use crate::{Outcome, check};

static FAULTS: AtomicUsize = AtomicUsize::new(0);
static LAST: AtomicUsize = AtomicUsize::new(0);

extern "C" fn repair(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    let address = fault_address(info);
    LAST.store(address, SeqCst);
    FAULTS.fetch_add(1, SeqCst);
    open_page(address);
}

/// Every page is closed, read, closed to writes, and written: each time the handler sees the address, and opens it.
pub(crate) fn segv() -> Outcome {
    const PAGES: usize = 64;
    on_segv(repair)?;
    let memory = Mapping::new(PAGES)?;
    for page in 0..PAGES {
        memory.protect(page, 1, libc::PROT_NONE)?;
        check(memory.read(page) == 0, || format!("page {page} is not zero"))?;
        check(LAST.load(SeqCst) == memory.address(page), || format!("page {page}: the signal named another address"))?;
        memory.protect(page, 1, libc::PROT_READ)?;
        memory.write(page, 5);
        check(memory.read(page) == 5, || format!("page {page} has lost what was written"))?;
    }
    let faults = FAULTS.load(SeqCst);
    check(faults == 2 * PAGES, || format!("{faults} signals instead of {}", 2 * PAGES))?;
    println!("segv: {faults} faults repaired");
    Ok(())
}

extern "C" fn repair_and_clear(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    FAULTS.fetch_add(1, SeqCst);
    open_page(fault_address(info));
    clear_vector_registers();
}

/// YMM0 is live at each fault. The kernel saves it in the signal's frame, the handler clears it, and rt_sigreturn restores
/// it. Only XSAVE covers its upper half.
pub(crate) fn vector_state() -> Outcome {
    const PAGES: usize = 64;
    check(std::arch::is_x86_feature_detected!("avx"), || "the kernel offers no AVX".to_owned())?;
    on_segv(repair_and_clear)?;
    let memory = Mapping::new(PAGES)?;
    let before = FAULTS.load(SeqCst);
    for page in 0..PAGES {
        memory.protect(page, 1, libc::PROT_NONE)?;
        let vector: [u8; 32] = [u8::try_from(page)? + 1; 32];
        let after = load_with_vector(&memory, page, vector);
        check(after == vector, || format!("page {page}: the signal left {after:x?} of {vector:x?}"))?;
    }
    let faults = FAULTS.load(SeqCst) - before;
    check(faults == PAGES, || format!("{faults} signals instead of {PAGES}"))?;
    println!("vector-state: {faults} signals");
    Ok(())
}
