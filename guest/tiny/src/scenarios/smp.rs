//! `smp`: all CPUs fault together, first on different pages, then on the same.

use vector14_guest_abi::window::{DEMAND, PAGE_SIZE, pattern};

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::faults;
use crate::cmdline::Cmdline;
use crate::cpu::{self, CPUS};
use crate::paging::page_is;
use crate::probe::Ring;
use crate::smp::{meet, run as run_on_all, start};
use crate::window::open_demand;
use crate::{check, say};

static CPU_COUNT: AtomicU64 = AtomicU64::new(0);
static PAGES: AtomicU64 = AtomicU64::new(0);
static ARRIVALS: AtomicU64 = AtomicU64::new(0);

pub(super) fn run(cmdline: &Cmdline) {
    let pages = cmdline.number("pages");
    let cpus = start();
    CPU_COUNT.store(cpus, Relaxed);
    PAGES.store(pages, Relaxed);
    open_demand(&DEMAND, pages * (cpus + 1));

    run_on_all(cpus, touch_own);
    check!(pages * cpus, cpu::total_faults(), "faults on different pages");
    run_on_all(cpus, touch_shared);
    let shared = cpu::total_faults() - pages * cpus;
    check!(
        true,
        (pages..=pages * cpus).contains(&shared),
        "{shared} faults on {pages} shared pages are as many as can be"
    );

    for index in 0..cpus {
        say!("cpu={index} faults={}", CPUS.cpu(index as usize).faults.load(Relaxed));
    }
    say!("cpus={cpus} own={} shared={shared}", pages * cpus);
}

fn page(index: u64) -> u64 {
    DEMAND.start + index * PAGE_SIZE
}

/// Pages that no other CPU touches: one fault each.
fn touch_own(cpu: u64) {
    let pages = PAGES.load(Relaxed);
    faults(pages, || {
        for address in (cpu * pages..(cpu + 1) * pages).map(page) {
            check!(true, page_is(address, pattern(address)), "page {address:#x} holds its pattern");
        }
    });
}

/// Pages that every CPU touches at the same time. One word of each is then counted up by all: it is one page, not
/// several.
fn touch_shared(_cpu: u64) {
    let (pages, cpus) = (PAGES.load(Relaxed), CPU_COUNT.load(Relaxed));
    for i in 0..pages {
        let address = page(cpus * pages + i);
        meet(&ARRIVALS, cpus, 2 * i + 1);
        Ring::Three.exchange(address, 1);
        meet(&ARRIVALS, cpus, 2 * i + 2);
        check!(pattern(address) + cpus, Ring::Three.load(address), "what all CPUs added up in page {address:#x}");
        check!(pattern(address), Ring::Three.load(address + 8), "word beside it");
    }
}
