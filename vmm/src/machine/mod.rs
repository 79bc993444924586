//! The machine: its memory, vCPUs and devices, and what it boots.
//!
//! # Layout
//! - [`acpi`], [`bios`]: the tables that describe the machine to the guest
//! - [`loader`], [`boot`]: a kernel, and the state in which the first vCPU enters it
//! - [`device`], [`outlet`]: the devices; buffered output that blocks no vCPU
//! - [`vcpu`], [`vcpus`], [`cpuid`]: one vCPU; stopping and holding all of them; what the guest's CPUID says
//! - [`segment`], [`paging`]: a vCPU's code segment and paging mode, and virtual memory under them
//! - [`memory`], [`pool`]: guest-physical memory, and the host-owned pages in it
//! - [`config`], [`capability`], [`stop`]: what a config says of the machine, what it needs of KVM, and why it stopped

pub(crate) mod acpi;
pub(crate) mod bios;
pub(crate) mod boot;
pub(crate) mod capability;
pub(crate) mod config;
pub(crate) mod cpuid;
pub(crate) mod device;
pub(crate) mod loader;
pub(crate) mod memory;
pub mod outlet;
pub(crate) mod paging;
pub(crate) mod pool;
pub(crate) mod segment;
pub(crate) mod stop;
pub(crate) mod vcpu;
pub(crate) mod vcpus;
