//! The machine's devices, behind one bus for ports and one for memory-mapped registers.

mod bus;
mod exit_port;
mod i8042;
mod serial;

pub use bus::{Bus, Device};
pub(crate) use exit_port::ExitPort;
pub(crate) use i8042::I8042;
pub(crate) use serial::Com1;
pub use serial::SharedOutput;
