//! A SIGSEGV handler that repairs its own fault.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::sys::{Mapping, fault_address, on_segv, open_page};
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
