//! A page-fault interceptor made of a hypervisor.

pub mod summary;
