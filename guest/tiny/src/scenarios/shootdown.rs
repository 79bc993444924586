//! `shootdown`: CPU 1 reads a page all the time, without an exit, while each fault of CPU 0 has the host put another
//! frame there.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use vector14_guest_abi::window::{HIDDEN, PAGE_SIZE};

use crate::cmdline::Cmdline;
use crate::fault::Action;
use crate::smp::{run as run_on_all, start};
use crate::window::open;
use crate::{check, say};

static ROUNDS: AtomicU64 = AtomicU64::new(0);
/// 1 plus the value that CPU 1 read last; 0 before its first read.
static SEEN: AtomicU64 = AtomicU64::new(0);

pub(super) fn run(cmdline: &Cmdline) {
    let rounds = cmdline.number("rounds");
    let cpus = start();
    check!(true, cpus > 1, "there is a second CPU");
    open(&HIDDEN, rounds + 1, Action::Fatal);
    ROUNDS.store(rounds, Relaxed);
    run_on_all(cpus, work);
    say!("{rounds} frames put behind a page that is being read");
}

fn work(cpu: u64) {
    match cpu {
        0 => fault_each_round(),
        1 => read_all_the_time(),
        _ => {}
    }
}

/// Each round faults on a page of its own, after CPU 1 has read what the last round left.
fn fault_each_round() {
    for round in 1..=ROUNDS.load(Relaxed) {
        while SEEN.load(Relaxed) != round {
            core::hint::spin_loop();
        }
        read(HIDDEN.start + round * PAGE_SIZE);
    }
}

/// Every round's frame holds the round's number; what is taken away holds something else from then on.
fn read_all_the_time() {
    let mut last = read(HIDDEN.start);
    check!(0, last, "what the first frame holds");
    loop {
        SEEN.store(last + 1, Relaxed);
        if last == ROUNDS.load(Relaxed) {
            return;
        }
        let now = read(HIDDEN.start);
        if now != last {
            check!(last + 1, now, "what comes after {last}");
            last = now;
        }
    }
}

fn read(address: u64) -> u64 {
    // SAFETY: a window, where no Rust object lives; the host resolves the fault.
    unsafe { (address as *const u64).read_volatile() }
}
