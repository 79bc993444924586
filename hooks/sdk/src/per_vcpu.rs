//! State that several vCPUs update at once without contention.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::Fault;

/// The most vCPUs that a VM can have.
pub const MAX_VCPUS: usize = 8;

/// One value per vCPU, each in its own cache line, so that vCPUs that update their values do not slow each other down.
///
/// ```
/// use vector14_hook::{Counter, Fault, PerVcpu};
///
/// #[derive(Default)]
/// struct Seen {
///     faults: PerVcpu<Counter>,
/// }
///
/// impl Seen {
///     fn note(&self, fault: &Fault) {
///         self.faults.of(fault).add(1);
///     }
///
///     fn total(&self) -> u64 {
///         self.faults.iter().map(Counter::get).sum()
///     }
/// }
/// ```
#[derive(Debug, Default)]
pub struct PerVcpu<T>([Slot<T>; MAX_VCPUS]);

/// Two lines of 64 bytes: CPUs prefetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Slot<T>(T);

impl<T> PerVcpu<T> {
    /// Calls `value` with each vCPU's number to make its value.
    pub fn new(mut value: impl FnMut(u32) -> T) -> Self {
        let mut vcpus = 0..;
        Self(std::array::from_fn(|_| Slot(value(vcpus.next().unwrap_or_default()))))
    }

    /// The value of the vCPU that faulted.
    #[must_use]
    pub fn of(&self, fault: &Fault) -> &T {
        self.at(fault.vcpu)
    }

    /// The value of a vCPU, from 0 to [`MAX_VCPUS`] - 1.
    #[must_use]
    pub fn at(&self, vcpu: u32) -> &T {
        &self.0[vcpu as usize % MAX_VCPUS].0
    }

    /// All values, in vCPU order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|slot| &slot.0)
    }
}

/// A counter that one thread at a time may add to and any thread may read. Unlike `fetch_add`, it needs no locked
/// instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. If two threads add at the same time, one addition may be lost, so use it inside a [`PerVcpu`].
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// The current count.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_each_have_a_vcpu_lose_no_count() {
        let counts = PerVcpu::<Counter>::default();
        std::thread::scope(|scope| {
            for vcpu in 0..4 {
                let counts = &counts;
                let fault = Fault { vcpu, ..Fault::default() };
                scope.spawn(move || (0..100_000).for_each(|_| counts.of(&fault).add(1)));
            }
        });
        assert_eq!(counts.iter().map(Counter::get).collect::<Vec<_>>()[..5], [100_000, 100_000, 100_000, 100_000, 0]);
    }
}
