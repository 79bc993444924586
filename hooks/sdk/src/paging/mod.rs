//! The guest's page tables, read as the CPU reads them in every paging mode: none, 32-bit, PAE, 4 and 5 levels
//! (SDM vol. 3A, 4.1 to 4.5; APM vol. 2, 5.2 and 5.3), and changed as a kernel would change them.
//!
//! The code is pure: it takes the paging state and a function that loads a table entry. A walk visits at most five
//! entries, whatever they hold. The VM and the mock guest share this code; [`Guest`](crate::Guest) returns its types to
//! hooks.
//!
//! # Layout
//! - `flags`: access rights, and the flags of entries
//! - `mode`: the paging modes, and the addresses of entries
//! - `registers`: the bits of control registers that select the mode
//! - `entry`: decoding and making entries
//! - `walk`: page walks
//! - `change`: mapping, unmapping, protecting

mod change;
mod entry;
mod flags;
mod mode;
mod registers;
#[cfg(test)]
mod tests;
mod walk;

pub use self::change::Tables;
pub use self::entry::NO_STRUCT_PAGE;
pub use self::flags::{Access, EntryFlags};
pub use self::mode::{Mode, Paging, Part, Place};
pub use self::registers::{CR0_ET, CR0_PE, CR0_PG, CR0_WP, CR4_LA57, CR4_PAE, CR4_PSE, EFER_LMA, EFER_LME, EFER_NXE};
pub use self::walk::{Mapping, Step, TableEntry, Translation, Walk};
