//! vector14's tiny guest: a kernel whose only purpose is to fault.
//!
//! The command line names one scenario. The scenario causes page faults, checks how each was handled, prints what it
//! did, and ends the VM through the exit port; 0 means passed.
//!
//! Nearly all of it runs in ring 3, with an I/O permission bitmap that opens the ports to it, and with everything
//! mapped user-accessible so that it edits page and descriptor tables in place. The code that needs ring 0 is small and
//! in one section, `.ring0`. It uses general registers only, because some KVMs that run this guest emulate ring 0 one
//! instruction at a time.
//!
//! # Layout
//! - [`boot`], [`boot_params`], [`cpu`], [`smp`]: from the boot protocol to ring 3, on the first CPU and on the others
//! - [`gdt`], [`idt`], [`exception`], [`trap_frame`], [`fault`]: descriptor tables, entry stubs and what they push, and
//!   the page-fault handler with its policy for each window
//! - [`memory`]: what the compiler expects of a C library
//! - [`ring0`], [`probe`]: calls into ring 0, and accesses that may fault, from either ring
//! - [`frames`], [`paging`], [`window`]: physical memory, page tables, and where scenarios fault
//! - [`quirks`]: emulated CPUs
//! - [`console`], [`cmdline`]: output and input
//! - [`scenarios`]: one file each
#![no_std]
#![no_main]

mod boot;
mod boot_params;
mod cmdline;
mod console;
mod cpu;
mod exception;
mod fault;
mod frames;
mod gdt;
mod idt;
mod memory;
mod paging;
mod probe;
mod quirks;
mod ring0;
mod scenarios;
mod smp;
mod trap_frame;
mod window;

use crate::boot_params::BootParams;

/// Ring 3 begins here, on the first CPU.
extern "C" fn main(boot_params: &'static BootParams) -> ! {
    frames::init(boot_params.ram_end());
    let cmdline = cmdline::Cmdline::parse(boot_params.cmdline());
    console::set_prefix(cmdline.scenario());
    scenarios::run(&cmdline);
    console::pass(cpu::total_faults())
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    say!("{}", info);
    console::exit(console::Status::Bug)
}
