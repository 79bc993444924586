//! The pages on which `guest/multiboot` faults in protected mode, and what it expects of the host.

/// Start of its window of absent pages, one per verdict.
pub const WINDOW: u32 = 0x4000_0000;
/// The word that the host fills the second page with.
pub const FILL: u32 = 0x5a5a_5a5a;
/// Error code of the #GP that the host raises for the fault on the fourth page.
pub const RAISED_ERROR: u32 = 0x18;
/// The fault on the fifth page is reinjected at an address this many bytes higher.
pub const OTHER_OFFSET: u32 = 0x123;
/// Error code with which the fault on the fifth page is reinjected.
pub const OTHER_ERROR: u32 = 0x6;
