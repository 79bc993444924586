//! Memory that a hook on the host backs by a file.
//!
//! To the kernel it is private memory without access rights. The kernel does not know that page-table entries in it are
//! present for a while. Before the mapping is changed, the touch of one address makes the host restore them.

use std::fs;
use std::ops::Range;

use vector14_guest_abi::paged::{WORDS, checksum};

use crate::sys::{Mapping, PAGE, in_child, memory_file, touch, transfer};
use crate::{Outcome, check, check_taint, taint};

/// Where the host's hook has its range, and how long that is.
const START: usize = 0x15_0000_0000;
const PAGES: usize = 4096;
/// The touch of this address has everything written back.
const SYNC_AT: usize = 0x15_4000_0000;

/// Pages that have a page table in common.
const PAGES_PER_TABLE: usize = 512;
/// One page of each table is the kernel's own, and begins with this.
const OWN: u8 = 0x77;
/// The first page that the kernel is to write to: not one of its own, in the host's file neither.
const TO_KERNEL: usize = 3;

/// Reads the whole file, changes a part of it, lets the kernel read and write it, and leaves no trace in the kernel.
pub(crate) fn pager() -> Outcome {
    let taint_before = taint()?;
    let memory = Mapping::at(START, PAGES)?;
    memory.advise(libc::MADV_NOHUGEPAGE)?;
    memory.advise(libc::MADV_DONTFORK)?;
    for own in own_pages() {
        memory.populate(own)?;
        memory.write(own, OWN);
    }
    memory.protect(0, PAGES, libc::PROT_NONE)?;

    let sum = std::thread::scope(|scope| {
        let low = scope.spawn(|| sum(&memory, 0..PAGES / 2));
        let high = sum(&memory, PAGES / 2..PAGES);
        low.join().map(|low| high.wrapping_add(low))
    });
    println!("pager: checksum={:#x}", sum.map_err(|_| "a reading thread has panicked")?);

    for page in (0..PAGES).step_by(2) {
        (0..WORDS).for_each(|word| memory.write_word(page, word, (page as u64) << 32 | word));
    }
    in_system_calls(&memory)?;
    let status = in_child(|| 0)?;
    check(status == 0, || format!("the child's status is {status}"))?;

    touch(SYNC_AT);
    memory.protect(0, PAGES, libc::PROT_READ | libc::PROT_WRITE)?;
    let right = own_pages().all(|own| memory.read(own) == OWN);
    check(right, || "the kernel's own pages are not back".to_owned())?;
    drop(memory);
    check_taint(&taint_before)
}

fn own_pages() -> impl Iterator<Item = usize> {
    (0..PAGES).step_by(PAGES_PER_TABLE)
}

fn sum(memory: &Mapping, pages: Range<usize>) -> u64 {
    let page = |page| checksum(page as u64, (0..WORDS).map(|word| memory.read_word(page, word)));
    pages.map(page).fold(0, u64::wrapping_add)
}

/// The kernel reads pages that are and that are not in memory, and writes one. A page at a time: before Linux 6.12
/// copies the first page of a long write it looks at all of its first 2 MiB, which may be more than the host keeps in
/// memory.
fn in_system_calls(memory: &Mapping) -> Outcome {
    let file = memory_file(PAGES)?;
    for page in 0..PAGES {
        let written = transfer(libc::SYS_write, &file, memory.address(page), PAGE)?;
        check(written == PAGE, || format!("the kernel has taken {written} bytes of page {page}"))?;
    }
    let copy = Mapping::with(PAGES, libc::MAP_SHARED, Some(&file))?;
    let right = (0..PAGES).step_by(2).all(|page| copy.read_word(page, 7) == (page as u64) << 32 | 7);
    check(right, || "the kernel has read other bytes than were written".to_owned())?;

    let zero = fs::File::open("/dev/zero")?;
    let read = transfer(libc::SYS_read, &zero, memory.address(TO_KERNEL), PAGE)?;
    check(read == PAGE, || format!("the kernel has put {read} bytes into the range"))
}
