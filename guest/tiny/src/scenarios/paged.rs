//! `paged`: works on pages that the guest's handler does not map. The host keeps some of them in memory, the others in
//! a file.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use vector14_guest_abi::paged::{RANGE, Random, SYNC_AT, WORDS, checksum};
use vector14_guest_abi::window::{HIDDEN, PAGE_SIZE, pattern};

use crate::cmdline::Cmdline;
use crate::fault::Action;
use crate::probe::Ring;
use crate::smp::{Job, run as run_on_all, start};
use crate::window::open;
use crate::{check, say};

static CPU_COUNT: AtomicU64 = AtomicU64::new(0);
static PAGES: AtomicU64 = AtomicU64::new(0);
static ROUNDS: AtomicU64 = AtomicU64::new(0);
static SUM: AtomicU64 = AtomicU64::new(0);
/// CPUs that have counted all.
static COUNTED: AtomicU64 = AtomicU64::new(0);

pub(super) fn run(cmdline: &Cmdline) {
    let (pages, rounds) = (cmdline.number("pages"), cmdline.number("rounds"));
    if pages > (RANGE.end - RANGE.start) / PAGE_SIZE {
        cmdline.refuse("pages", "at most half of a window");
    }
    let work: Job = match cmdline.value("kind") {
        "read" => read_own,
        "read-all" => read_all,
        "read-hot" => read_hot,
        "random" => read_at_random,
        "write" => write_own,
        "count" => count,
        "sync" => sync_while_others_count,
        _ => cmdline.refuse("kind", "read, read-all, read-hot, random, write, count or sync"),
    };
    let cpus = start();
    open(&HIDDEN, pages, Action::Fatal);
    for (value, of) in [(cpus, &CPU_COUNT), (pages, &PAGES), (rounds, &ROUNDS)] {
        of.store(value, Relaxed);
    }
    run_on_all(cpus, work);
    for _ in 0..cmdline.number("syncs") {
        Ring::Three.load(SYNC_AT);
    }
    say!("cpus={cpus} checksum={:#x}", SUM.load(Relaxed));
}

fn word(page: u64, index: u64) -> *mut u64 {
    (RANGE.start + page * PAGE_SIZE + index * 8) as *mut u64
}

fn read(page: u64) -> u64 {
    // SAFETY: inside the window, where no Rust object lives; the host resolves the fault.
    checksum(page, (0..WORDS).map(|index| unsafe { word(page, index).read_volatile() }))
}

fn add_up(pages: impl Iterator<Item = u64>) {
    let sum = pages.map(read).fold(0_u64, u64::wrapping_add);
    SUM.fetch_add(sum, Relaxed);
}

/// The pages that are one CPU's.
fn own(cpu: u64) -> Range<u64> {
    let (pages, cpus) = (PAGES.load(Relaxed), CPU_COUNT.load(Relaxed));
    cpu * pages / cpus..(cpu + 1) * pages / cpus
}

/// Each CPU reads its part, in order.
fn read_own(cpu: u64) {
    add_up(own(cpu));
}

/// Each CPU reads everything, all at the same pace: they fault on the same pages together.
fn read_all(_cpu: u64) {
    add_up(0..PAGES.load(Relaxed));
}

/// Each CPU reads its part, and looks at its first page again after each other.
fn read_hot(cpu: u64) {
    let first = own(cpu).start;
    add_up(own(cpu).inspect(|_| {
        read(first);
    }));
}

/// Each CPU reads pages in an order of its own.
fn read_at_random(cpu: u64) {
    let mut random = Random::new(PAGES.load(Relaxed), cpu);
    add_up((0..ROUNDS.load(Relaxed)).map(|_| random.next_page()));
}

/// Each CPU fills every other page of its part with its pattern.
fn write_own(cpu: u64) {
    for page in own(cpu).filter(|page| !page.is_multiple_of(2)) {
        for index in 0..WORDS {
            // SAFETY: as in `read`.
            unsafe { word(page, index).write_volatile(pattern(RANGE.start + page * PAGE_SIZE)) };
        }
    }
}

/// Each CPU adds 1 to a word of its own in pages of an order of its own, and finds what it left there the last time:
/// whatever happens to a page, nothing that is written to it meanwhile is lost.
fn count(cpu: u64) {
    let pages = PAGES.load(Relaxed);
    for round in 0..ROUNDS.load(Relaxed) {
        for step in 0..pages {
            // CPUs meet on some pages, and go through the others in opposite directions.
            let page = if cpu.is_multiple_of(2) { step } else { pages - 1 - step };
            // SAFETY: as in `read`.
            unsafe {
                let before = word(page, cpu).read_volatile();
                check!(round, before, "count of CPU {cpu} in page {page}");
                word(page, cpu).write_volatile(before + 1);
            }
        }
    }
}

/// CPU 0 asks again and again for everything to be written back, while the others count: pages leave that are being
/// written to.
fn sync_while_others_count(cpu: u64) {
    if cpu > 0 {
        count(cpu);
        COUNTED.fetch_add(1, Relaxed);
        return;
    }
    while COUNTED.load(Relaxed) < CPU_COUNT.load(Relaxed) - 1 {
        Ring::Three.load(SYNC_AT);
    }
}
