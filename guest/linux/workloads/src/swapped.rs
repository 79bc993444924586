//! Memory that the kernel swaps out, moves and shares with children while a hook on the host looks at its pages.

use std::fs;
use std::thread;

use crate::sys::{Mapping, in_child};
use crate::{Failure, Outcome, check, check_taint, taint};

/// Where hooks are told to look. Nothing is mapped there in a Linux process.
const START: usize = 0x15_5000_0000;
const PAGES: usize = 64;
const ROUNDS: u64 = 3;
/// The words of a page that are written. The first page has code in its first word.
const WORDS: [u64; 2] = [1, 511];
/// Compactions per round.
const COMPACTIONS: usize = 4;
/// What a child adds to the pages that it writes, and what the parent adds to swapped pages that it writes.
const OF_CHILD: u64 = 1 << 48;
const OF_PARENT: u64 = 1 << 49;

/// Swaps every page out and back in, with children that inherit pages and swap entries, and with compactions beside it.
pub(crate) fn swapped() -> Outcome {
    let (taint_before, out_before) = (taint()?, pages_swapped_out()?);
    let memory = Mapping::at(START, PAGES)?;
    memory.protect(0, PAGES, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC)?;
    for round in 0..ROUNDS {
        (0..PAGES).for_each(|page| write(&memory, page, content(page, round)));
        inherit(&memory, round, "present pages")?;
        memory.advise(libc::MADV_PAGEOUT)?;
        inherit(&memory, round, "swap entries")?;
        memory.advise(libc::MADV_PAGEOUT)?;
        let own = |page| content(page, round) + if page % 2 == 1 { OF_PARENT } else { 0 };
        let wrong = beside_compactions(|| {
            (1..PAGES).step_by(2).for_each(|page| write(&memory, page, own(page)));
            (0..PAGES).find(|page| !has(&memory, *page, own(*page)))
        })?;
        check(wrong.is_none(), || format!("round {round}: page {wrong:?} has other bytes"))?;
        let value = round.to_le_bytes()[0];
        check(memory.execute_returning(value) == value, || format!("round {round}: another round's code"))?;
    }
    let swap = fs::read_to_string("/proc/swaps")?.lines().count() > 1;
    let out = pages_swapped_out()? - out_before;
    check(!swap || out >= PAGES as u64, || format!("only {out} pages were swapped out"))?;
    println!("swapped: checksum={:#x}, {}", checksum(&memory), if swap { "to swap" } else { "without swap" });
    drop(memory);
    check_taint(&taint_before)
}

/// A child sees its parent's pages. It writes every other one, has its own swapped out, and finds all of them as they should be.
fn inherit(memory: &Mapping, round: u64, what: &str) -> Outcome {
    let status = in_child(|| {
        let inherited = (0..PAGES).all(|page| has(memory, page, content(page, round)));
        (0..PAGES).step_by(2).for_each(|page| write(memory, page, content(page, round) + OF_CHILD));
        let paged_out = memory.advise(libc::MADV_PAGEOUT).is_ok();
        let own = |page| content(page, round) + if page % 2 == 0 { OF_CHILD } else { 0 };
        u8::from(inherited)
            | u8::from(paged_out) << 1
            | u8::from((0..PAGES).all(|page| has(memory, page, own(page)))) << 2
    })?;
    check(status == 7, || format!("round {round}: a child that inherits {what} has status {status} instead of 7"))
}

/// Runs `work` while another thread has the kernel move pages.
fn beside_compactions<T>(work: impl FnOnce() -> T) -> Result<T, Failure> {
    let compact = || (0..COMPACTIONS).try_for_each(|_| fs::write("/proc/sys/vm/compact_memory", "1"));
    let (result, compacted) = thread::scope(|scope| {
        let compactions = scope.spawn(compact);
        (work(), compactions.join())
    });
    compacted.map_err(|_| "the compacting thread has panicked")??;
    Ok(result)
}

fn content(page: usize, round: u64) -> u64 {
    (round + 1) << 32 | (page as u64) << 8
}

fn write(memory: &Mapping, page: usize, content: u64) {
    WORDS.into_iter().for_each(|word| memory.write_word(page, word, content + word));
}

fn has(memory: &Mapping, page: usize, content: u64) -> bool {
    WORDS.into_iter().all(|word| memory.read_word(page, word) == content + word)
}

fn checksum(memory: &Mapping) -> u64 {
    let words = (0..PAGES).flat_map(|page| WORDS.map(|word| memory.read_word(page, word)));
    words.fold(0, |sum: u64, word| sum.rotate_left(5) ^ word)
}

fn pages_swapped_out() -> Result<u64, Failure> {
    let counters = fs::read_to_string("/proc/vmstat")?;
    let count = counters.lines().find_map(|line| line.strip_prefix("pswpout "));
    Ok(count.ok_or("/proc/vmstat does not count pages swapped out")?.parse()?)
}
