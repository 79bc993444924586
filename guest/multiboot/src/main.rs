//! vector14's multiboot kernel: entered in 32-bit protected mode as the Multiboot Specification 0.6.96 has it, it says on
//! the console what it was told, switches to long mode, and takes page faults that its own handler steps over.
//!
//! All of it is assembler, since it runs in ring 0, where some KVMs emulate, and know general registers only.
//!
//! # Layout
//! - [`entry`]: the header, and what the boot loader left
//! - [`console`]: text and numbers on COM1, in 32-bit code
//! - [`long_mode`]: page tables, descriptor tables, and the way to 64-bit code
//! - [`faults`]: the faults and their handler
//! - [`firmware`]: what a BIOS leaves in memory, where the command line asks for it
//! - [`protected_mode`]: what the command line can ask for in the place of long mode: faults without it
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
