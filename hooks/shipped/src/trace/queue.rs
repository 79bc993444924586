//! The queue that takes faults from the vCPUs to the writer: bounded and lock-free.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use vector14_hook::Fault;

/// Interval at which a vCPU checks a full queue for room.
const LOOK_AGAIN: Duration = Duration::from_micros(100);
/// The value of [`FaultQueue::stalled_at`] while no vCPU has given up waiting.
const NOT_STALLED: u64 = u64::MAX;

/// A bounded queue of faults. When it is full, a vCPU waits for a limited time.
pub(super) struct FaultQueue {
    faults: ArrayQueue<Fault>,
    patience: Duration,
    /// Number of faults that the writer has taken out. While this grows, the writer makes progress.
    taken: AtomicU64,
    /// The value of `taken` when a vCPU gave up waiting. Until `taken` changes, no other vCPU waits.
    stalled_at: AtomicU64,
    lost: AtomicU64,
}

impl FaultQueue {
    /// A queue for `capacity` faults. A fault waits at most `patience` while nothing is taken out.
    pub(super) fn new(capacity: usize, patience: Duration) -> Self {
        Self {
            faults: ArrayQueue::new(capacity),
            patience,
            taken: AtomicU64::new(0),
            stalled_at: AtomicU64::new(NOT_STALLED),
            lost: AtomicU64::new(0),
        }
    }

    /// Adds a fault. Makes no system call unless the queue is full.
    pub(super) fn push(&self, fault: Fault) {
        if let Err(fault) = self.faults.push(fault) {
            self.push_when_there_is_room(fault);
        }
    }

    /// Removes the oldest fault. Only the writer calls this.
    pub(super) fn pop(&self) -> Option<Fault> {
        let fault = self.faults.pop();
        if fault.is_some() {
            self.taken.fetch_add(1, Relaxed);
        }
        fault
    }

    /// Number of faults that were taken out.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }

    /// Number of faults in all: those taken out, those still queued, and those lost because there was no room.
    pub(super) fn total(&self) -> u64 {
        self.taken() + self.faults.len() as u64 + self.lost.load(Relaxed)
    }

    #[cold]
    fn push_when_there_is_room(&self, mut fault: Fault) {
        let mut taken = self.taken();
        let mut since = Instant::now();
        while taken != self.stalled_at.load(Relaxed) {
            thread::sleep(LOOK_AGAIN);
            match self.faults.push(fault) {
                Ok(()) => return,
                Err(back) => fault = back,
            }
            if taken != self.taken() {
                (taken, since) = (self.taken(), Instant::now());
            } else if since.elapsed() >= self.patience {
                self.stalled_at.store(taken, Relaxed);
            }
        }
        self.lost.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::fault;
    use std::sync::atomic::AtomicBool;

    const PATIENCE: Duration = Duration::from_millis(50);

    #[test]
    fn a_full_queue_loses_patience_once() {
        let mut queue = FaultQueue::new(2, PATIENCE);
        (0..3).for_each(|n| queue.push(fault(n, 0)));
        // A vCPU that waits from here on would wait forever.
        queue.patience = Duration::MAX;
        (3..1000).for_each(|n| queue.push(fault(n, 0)));
        assert_eq!((queue.total(), queue.taken()), (1000, 0));
    }

    #[test]
    fn progress_brings_patience_back() {
        let queue = FaultQueue::new(1, PATIENCE);
        (0..2).for_each(|n| queue.push(fault(n, 0)));
        queue.pop().unwrap();
        queue.push(fault(2, 0));
        let start = Instant::now();
        queue.push(fault(3, 0));
        assert!(start.elapsed() >= PATIENCE);
        assert_eq!((queue.total(), queue.pop().unwrap().sequence, queue.pop()), (4, 2, None));
    }

    #[test]
    fn a_slow_reader_slows_the_vcpus_and_loses_nothing() {
        const EACH: u64 = 200;
        let (queue, through) = (FaultQueue::new(4, Duration::from_secs(30)), AtomicBool::new(false));
        let mut last = [None; 3];
        thread::scope(|scope| {
            let vcpus: Vec<_> = (0..3)
                .map(|vcpu| {
                    let queue = &queue;
                    scope.spawn(move || (0..EACH).for_each(|n| queue.push(Fault { vcpu, ..fault(n, 0) })))
                })
                .collect();
            let reader = scope.spawn(|| {
                let mut last = [None; 3];
                while !through.load(Relaxed) || queue.total() > queue.taken() {
                    thread::sleep(Duration::from_micros(50));
                    if let Some(fault) = queue.pop() {
                        let before = last[fault.vcpu as usize].replace(fault.sequence);
                        assert_eq!(fault.sequence, before.map_or(0, |n: u64| n + 1), "in each vCPU's own order");
                    }
                }
                last
            });
            vcpus.into_iter().for_each(|vcpu| vcpu.join().unwrap());
            through.store(true, Relaxed);
            last = reader.join().unwrap();
        });
        assert_eq!((queue.total(), queue.taken()), (3 * EACH, 3 * EACH));
        assert_eq!(last, [Some(EACH - 1); 3]);
    }
}
