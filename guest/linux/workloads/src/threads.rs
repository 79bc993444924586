//! Threads on several CPUs that touch the same pages at the same time.

use std::sync::Barrier;

use crate::sys::{Mapping, run_on};
use crate::{Outcome, check};

/// All threads add to each of the same fresh pages; no addition may get lost.
pub(crate) fn threads() -> Outcome {
    const PAGES: usize = 128;
    const ROUNDS: usize = 10;
    const THREADS: u8 = 2;
    let cpus = std::thread::available_parallelism()?.get();
    let memory = Mapping::new(PAGES)?;
    let barrier = Barrier::new(THREADS.into());
    for round in 0..ROUNDS {
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (memory, barrier) = (&memory, &barrier);
                scope.spawn(move || {
                    // With fewer CPUs than threads they take turns, which is right as well.
                    let _ = run_on(usize::from(thread) % cpus);
                    barrier.wait();
                    (0..PAGES).for_each(|page| memory.add(page, 1));
                });
            }
        });
        check((0..PAGES).all(|page| memory.read(page) == THREADS), || format!("round {round}: an addition is lost"))?;
        memory.advise(libc::MADV_DONTNEED)?;
    }
    println!("threads: {THREADS} threads, {PAGES} shared pages, {ROUNDS} rounds");
    Ok(())
}
