//! I/O ports.

/// First 16550 UART: the guest's console.
pub const COM1: u16 = 0x3f8;

/// A write of `v` here ends the VM with status `(v << 1) | 1`, as QEMU's isa-debug-exit does; 0 is a pass.
pub const EXIT_PORT: u16 = 0xf4;

/// An unclaimed port. A write costs one bare exit, which is what `storm kind=exit` measures.
pub const NOP_PORT: u16 = 0xf5;

/// A byte written here makes the host note the time, if it asked for that; otherwise the port is unclaimed.
pub const MARK_PORT: u16 = 0xf6;
