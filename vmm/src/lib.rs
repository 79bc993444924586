//! A hypervisor that intercepts guest page faults.
//!
//! Boots a guest under KVM, exits at every guest #PF, asks hooks what to do with it, and either reinjects the fault
//! into the guest's own handler or resolves it. The path of a fault fits on one screen, in `run.rs`.
//!
//! # Layout
//! Top-down, starting at the command line; each module uses those below it.
//! - [`config`], [`display`], [`doctor`], [`bench`](mod@bench): the parts of the `vector14` commands
//! - [`ctl`]: control of a running VM from another process
//! - [`replay`]: asks hooks about the faults of a recorded trace
//! - [`vm`]: runs a VM from its config to its [`summary`]
//! - `run`: one vCPU's loop, and the path of a fault
//! - `engine`: how faults reach the host; [`chain`]: the hooks; [`progress`]: the loop detector; [`guest`]: the guest
//!   as hooks see it
//! - [`device`]: the devices; `events`: what the main thread waits for; `control`: stopping and holding vCPUs;
//!   `watchdog`: hooks that take too long; `input`: console input; [`outlet`]: buffered output that blocks no vCPU
//! - `acpi`, `bios`: the tables that describe the machine to the guest
//! - [`vcpu`], [`loader`], [`boot`], `cpuid`: a vCPU, a kernel, the state in which the vCPU enters the kernel, the
//!   guest's CPUID
//! - `paging`, [`segment`]: a vCPU's paging mode and code segment; page walks are in [`vector14_hook::paging`]
//! - [`memory`]: guest-physical memory; `pool`: the host-owned pages in it
//! - [`library`]: hooks loaded from shared libraries
//! - `sys`: all unsafe code

mod acpi;
pub mod bench;
mod bios;
pub mod boot;
pub mod chain;
pub mod config;
mod control;
mod cpuid;
pub mod ctl;
pub mod device;
pub mod display;
pub mod doctor;
mod engine;
mod events;
pub mod guest;
mod input;
pub mod library;
pub mod loader;
pub mod memory;
pub mod outlet;
mod paging;
mod pool;
pub mod progress;
pub mod replay;
mod run;
pub mod segment;
pub mod summary;
mod sys;
pub mod vcpu;
pub mod vm;
mod watchdog;
