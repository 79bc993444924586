//! The hooks that ship with vector14.
//!
//! # Layout
//! - `trace`: one line a fault, to the console or a file
//! - `count`: tables of how many faults there were, by kind, place and instruction
//! - `zero_fill`: resolves faults in an address window with pages of the host's own
//! - `pager`: backs an address range by a file, and keeps a part of it in memory
//! - `watch`: accesses to chosen pages; `guard`: pages that nobody may touch; `wx`: pages that are written and then executed
//! - `chaos`: faults that a guest must cope with
//! - `script` (a feature): a function of a Rhai script decides
//!
//! What they share:
//! - `address`: addresses and address ranges in options
//! - `rights`: rights that are taken from the guest's pages and given back; `emulate`: instructions that are done here instead
//! - `sighting`: an access, as it is shown; `counters`: counts by 64-bit keys
//!
//! Each is a good place to start a hook from; `zero_fill` is the shortest that changes the guest.

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

    /// A write from user mode to an unmapped page, with its place among all faults.
    pub(crate) fn fault(sequence: u64, address: u64) -> Fault {
        Fault { sequence, ..write_fault(address) }
    }

    /// The guest makes the entry of a page anew.
    pub(crate) fn put_entry(guest: &mut MockGuest, page: Va, entry: u64) {
        let last = guest.walk(page).unwrap().entries().last().copied().unwrap();
        assert_eq!((last.level, guest.compare_exchange(last.slot, last.entry, entry)), (1, Ok(true)));
    }

    /// The entry of a page that Linux has swapped out: a type in bits 63:59, the inverted offset in bits 58:9
    /// (arch/x86/include/asm/pgtable_64.h).
    pub(crate) const fn swap_entry(kind: u64, offset: u64) -> u64 {
        kind << 59 | (!offset << 14) >> 5
    }

    /// The guest swaps a page out.
    pub(crate) fn swap_out(guest: &mut MockGuest, page: Va) {
        if guest.translate(page).is_err() {
            guest.load(page, &[1], vector14_hook::Access::all());
        }
        put_entry(guest, page, swap_entry(0, 1));
    }
}
