//! A page-fault interceptor made of a hypervisor.

pub mod config;
pub mod display;
pub mod doctor;
pub mod summary;
