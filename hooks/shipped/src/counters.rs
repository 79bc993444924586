//! Fixed-capacity counters that many threads can increment without locks or allocation.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts for a limited number of 64-bit keys, first come, first served: an open-addressing hash table of atomics.
///
/// A key that finds no slot is counted together with other such keys. Orderings are relaxed: the counts are read after
/// the counting threads have finished, and they order no other memory.
pub(crate) struct Counters {
    slots: Box<[Slot]>,
    others: AtomicU64,
}

/// A key and its count. A slot's key is set once and never changes.
struct Slot {
    key: AtomicU64,
    count: AtomicU64,
}

/// The key of a free slot. It is neither a canonical address nor an error code. If it is counted anyway, it has no
/// slot.
const FREE: u64 = 1 << 63;
/// Number of slots that a key tries. Bounds the cost per fault to 8 cache lines, whatever addresses a guest picks.
const PROBES: usize = 32;
/// 2^64 divided by the golden ratio: spreads keys that differ in few bits (Knuth, TAOCP vol. 3, 6.4).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Counters {
    /// Room for `capacity` keys, which must be 0 or a power of two.
    pub(crate) fn new(capacity: usize) -> Self {
        debug_assert!(capacity == 0 || capacity.is_power_of_two());
        let slot = |_| Slot { key: AtomicU64::new(FREE), count: AtomicU64::new(0) };
        Self { slots: (0..capacity).map(slot).collect(), others: AtomicU64::new(0) }
    }

    /// Increments the count of `key`.
    pub(crate) fn add(&self, key: u64) {
        let count = self.find(key).map_or(&self.others, |slot| &slot.count);
        count.fetch_add(1, Relaxed);
    }

    /// All keys that have slots, with their counts.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        let pairs = self.slots.iter().map(|slot| (slot.key.load(Relaxed), slot.count.load(Relaxed)));
        pairs.filter(|(key, _)| *key != FREE)
    }

    /// Number of counts for keys without a slot.
    pub(crate) fn others(&self) -> u64 {
        self.others.load(Relaxed)
    }

    /// The slot of `key`, claimed if necessary.
    fn find(&self, key: u64) -> Option<&Slot> {
        if key == FREE {
            return None;
        }
        let mask = self.slots.len().checked_sub(1)?;
        let home = self.home(key);
        (0..PROBES.min(self.slots.len())).map(|step| &self.slots[(home + step) & mask]).find(|slot| slot.claim(key))
    }

    /// Index at which the search for `key` starts: the upper bits of its hash, which depend on all bits of the key.
    fn home(&self, key: u64) -> usize {
        let product = u128::from(key.wrapping_mul(SPREAD)) * self.slots.len() as u128;
        usize::try_from(product >> 64).unwrap_or_default()
    }
}

impl Slot {
    /// Claims this slot for `key` if it is free. Returns whether the slot now belongs to `key`.
    fn claim(&self, key: u64) -> bool {
        match self.key.load(Relaxed) {
            FREE => {
                let before = self.key.compare_exchange(FREE, key, Relaxed, Relaxed);
                before.is_ok() || before == Err(key)
            }
            taken => taken == key,
        }
    }
}

/// One count for each of a fixed number of places, and one for everything else.
pub(crate) struct Tally {
    places: Box<[AtomicU64]>,
    elsewhere: AtomicU64,
}

impl Tally {
    /// Counts for `places` places.
    pub(crate) fn new(places: usize) -> Self {
        Self { places: (0..places).map(|_| AtomicU64::new(0)).collect(), elsewhere: AtomicU64::new(0) }
    }

    /// Increments the count of the place with this index, or the count for everything else.
    pub(crate) fn add(&self, place: Option<usize>) {
        place.and_then(|index| self.places.get(index)).unwrap_or(&self.elsewhere).fetch_add(1, Relaxed);
    }

    /// The count of the place with this index, or the count for everything else.
    pub(crate) fn get(&self, place: Option<usize>) -> u64 {
        place.and_then(|index| self.places.get(index)).unwrap_or(&self.elsewhere).load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn every_key_has_its_own_count() {
        let counters = Counters::new(64);
        for key in [0, u64::MAX, 7, 0, 0, 7] {
            counters.add(key);
        }
        let counts: HashMap<_, _> = counters.iter().collect();
        assert_eq!(counts, HashMap::from([(0, 3), (u64::MAX, 1), (7, 2)]));
        assert_eq!(counters.others(), 0);
    }

    #[test]
    fn half_full_of_neighbours_every_key_finds_a_slot() {
        let counters = Counters::new(4096);
        (0..2048).for_each(|page| counters.add(0x7f00_0000_0000 + page * 4096));
        assert_eq!((counters.iter().count(), counters.others()), (2048, 0));
    }

    #[test]
    fn a_full_table_counts_others_and_keeps_what_it_has() {
        let counters = Counters::new(16);
        (0..1000).for_each(|key| counters.add(key));
        (0..1000).for_each(|key| counters.add(key));
        assert!(counters.iter().all(|(_, count)| count == 2));
        assert_eq!((counters.iter().count(), counters.others()), (16, 2 * (1000 - 16)));
    }

    #[test]
    fn the_free_mark_and_a_table_without_room_count_as_others() {
        for counters in [Counters::new(16), Counters::new(0)] {
            counters.add(FREE);
            assert_eq!((counters.iter().count(), counters.others()), (0, 1));
        }
    }

    #[test]
    fn threads_that_claim_the_same_slots_lose_nothing() {
        let counters = Counters::new(64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..40_000).for_each(|n| counters.add(n % 40)));
            }
        });
        assert_eq!(counters.iter().count(), 40);
        assert!(counters.iter().all(|(_, count)| count == 4000));
    }
}
