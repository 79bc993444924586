//! A page-fault interceptor made of a hypervisor.

pub mod boot;
pub mod chain;
pub mod config;
mod control;
mod cpuid;
pub mod device;
mod engine;
mod events;
pub mod guest;
pub mod loader;
pub mod memory;
pub mod progress;
mod run;
mod segment;
pub mod summary;
mod sys;
pub mod vcpu;
pub mod vm;
pub mod walk;
