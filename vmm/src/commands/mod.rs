//! What the commands of `vector14` are built from.

pub mod bench;
pub mod config;
pub mod ctl;
pub mod display;
pub mod doctor;
#[cfg(test)]
pub(crate) mod reference;
pub mod reload;
pub mod replay;
