//! A page-fault interceptor made of a hypervisor.
//!
//! Boots a guest under KVM, takes an exit at every guest #PF, asks hooks what is to become of it, and then reinjects the
//! fault into the guest's own handler or resolves it. The path of a fault is in `run.rs`, in one screen.
//!
//! # Layout
//! From the command line down; each module uses those below it.
//! - [`config`], [`display`], [`doctor`], [`bench`](mod@bench): what the commands of `vector14` are made of
//! - [`ctl`]: a running VM, controlled from another process
//! - [`replay`]: hooks, asked about faults of a trace
//! - [`vm`]: a VM from its config to its [`summary`]
//! - `run`: one vCPU's loop, and the path of a fault
//! - `engine`: how faults reach the host; [`chain`]: the hooks; [`progress`]: the loop detector; [`guest`]: what hooks
//!   see of the guest
//! - [`device`], `events`, `control`: the machine around the CPUs, what the main thread waits for, stopping and holding;
//!   `watchdog`: hooks that take too long; `input`: what is typed; [`outlet`]: output that nobody waits for
//! - `acpi`, `bios`: what the guest is told of that machine
//! - [`vcpu`], [`loader`], [`boot`], `cpuid`: a CPU, a kernel, and the state in which the one enters the other
//! - `paging`, [`segment`]: the paging mode and the code segment that a vCPU is in; walks are in [`vector14_hook::paging`]
//! - [`memory`]: guest-physical memory; `pool`: the host-owned pages in it
//! - [`library`]: hooks that are loaded from shared libraries
//! - `sys`: all of the unsafe code

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
