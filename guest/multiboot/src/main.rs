//! vector14's multiboot kernel: entered in 32-bit protected mode as the Multiboot Specification 0.6.96 defines, it
//! prints its boot information, switches to long mode, and takes page faults that its own handler steps over.
//!
//! It is all assembler, because it runs in ring 0, where some KVMs emulate and support general registers only.
//!
//! # Layout
//! - [`entry`]: the header, and what the boot loader left
//! - [`console`]: text and numbers on COM1, in 32-bit code
//! - [`long_mode`]: page tables, descriptor tables, and the way to 64-bit code
//! - [`faults`]: the faults and their handler
//! - [`firmware`]: what a BIOS leaves in memory, where the command line asks for it
//! - [`protected_mode`]: faults without long mode, if the command line asks for them
#![no_std]
#![no_main]

mod console;
mod entry;
mod faults;
mod firmware;
mod long_mode;
mod protected_mode;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
