//! What the commands of `vector14` are made of.

pub mod bench;
pub mod config;
pub mod ctl;
pub mod display;
pub mod doctor;
pub mod reload;
pub mod replay;
