//! What the multiboot kernel faults on in protected mode, and what it wants of the host: `guest/multiboot`.

/// Where its window begins, whose pages are absent: one a verdict.
pub const WINDOW: u32 = 0x4000_0000;
/// The word that the host fills the second page with.
pub const FILL: u32 = 0x5a5a_5a5a;
/// Error code of the #GP that the host makes of the fault on the fourth page.
pub const RAISED_ERROR: u32 = 0x18;
/// The fault on the fifth page is reinjected as one so many bytes further on,
pub const OTHER_OFFSET: u32 = 0x123;
/// with this error code.
pub const OTHER_ERROR: u32 = 0x6;
