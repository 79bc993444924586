//! The hooks that ship with vector14.
//!
//! # Layout
//! - `trace`: writes one line per fault, to the console or a file
//! - `count`: counts faults by kind, by address range and by instruction
//! - `zero_fill`: resolves faults in an address window with host-owned pages
//! - `pager`: backs an address range with a file and keeps part of it in memory
//! - `watch`: reports accesses to chosen pages; `guard`: forbids access to pages; `wx`: reports pages that are executed
//!   after they were written
//! - `chaos`: injects spurious faults, EFAULT and delays
//! - `script` (a feature): calls a function of a Rhai script for each fault
//!
//! Code that they share:
//! - `address`: addresses and address ranges in options
//! - `rights`: removes access rights from the guest's pages and restores them; `emulate`: emulates the faulting
//!   instruction
//! - `sighting`: an observed access, and how it is shown; `counters`: counts by 64-bit keys
//!
//! Each hook is a good starting point for your own; `zero_fill` is the shortest that changes the guest.

mod address;
mod chaos;
mod count;
mod counters;
mod emulate;
mod guard;
mod pager;
mod rights;
#[cfg(feature = "script")]
mod script;
mod sighting;
mod trace;
mod watch;
mod wx;
mod zero_fill;

pub use trace::{TraceError, TraceReader};
use vector14_hook::HookType;

/// The hooks that a config file can name, in the order in which `vector14 hooks` lists them.
pub const HOOKS: &[HookType] = &[
    trace::TYPE,
    count::TYPE,
    zero_fill::TYPE,
    pager::TYPE,
    watch::TYPE,
    guard::TYPE,
    wx::TYPE,
    chaos::TYPE,
    #[cfg(feature = "script")]
    script::TYPE,
];

#[cfg(test)]
mod tests {
    use vector14_hook::mock::{MockGuest, write_fault};
    use vector14_hook::{Fault, Guest, Va};

    /// A write from user mode to an unmapped page, with its sequence number.
    pub(crate) fn fault(sequence: u64, address: u64) -> Fault {
        Fault { sequence, ..write_fault(address) }
    }

    /// Replaces the entry of a page, as the guest would.
    pub(crate) fn put_entry(guest: &mut MockGuest, page: Va, entry: u64) {
        let last = guest.walk(page).unwrap().entries().last().copied().unwrap();
        assert_eq!((last.level, guest.compare_exchange(last.slot, last.entry, entry)), (1, Ok(true)));
    }

    /// The entry of a page that Linux has swapped out: a type in bits 63:59, the inverted offset in bits 58:9
    /// (arch/x86/include/asm/pgtable_64.h).
    pub(crate) const fn swap_entry(kind: u64, offset: u64) -> u64 {
        kind << 59 | (!offset << 14) >> 5
    }

    /// Swaps a page out, as the guest would.
    pub(crate) fn swap_out(guest: &mut MockGuest, page: Va) {
        if guest.translate(page).is_err() {
            guest.load(page, &[1], vector14_hook::Access::all());
        }
        put_entry(guest, page, swap_entry(0, 1));
    }
}
