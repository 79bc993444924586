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
    use vector14_hook::Fault;
    use vector14_hook::mock::write_fault;

    /// A write from user mode to an unmapped page, with its place among all faults.
    pub(crate) fn fault(sequence: u64, address: u64) -> Fault {
        Fault { sequence, ..write_fault(address) }
    }
}
