//! How faults reach the host. Each engine recognises its own exits, reports the context that the fault interrupted,
//! and turns a verdict's outcome into machine state.
//!
//! # Layout
//! - [`interface`]: what an engine does, per VM and per vCPU
//! - [`exception_bitmap`]: faults exit before they are delivered; needs a change to KVM
//! - [`gate`]: IDT entry 14 points at a stub that exits; works on any KVM
//! - [`off`]: no fault is intercepted
//! - [`select`](mod@select): which engine a VM gets
//! - [`caught`], [`outcome`]: a fault, and the outcome of a verdict on it
//! - [`length`], [`registers`]: instruction lengths and register conversion, for both engines

mod caught;
mod exception_bitmap;
mod gate;
mod interface;
mod length;
mod off;
mod outcome;
mod registers;
mod select;

pub(crate) use self::caught::Caught;
pub(crate) use self::exception_bitmap::{ExceptionBitmapCpu, offer};
pub(crate) use self::gate::{ArmWhen, Room};
pub(crate) use self::interface::{Engine, EngineCpu};
pub(crate) use self::length::Lengths;
pub(crate) use self::outcome::{ApplyError, Outcome};
pub use self::select::EngineError;
pub(crate) use self::select::select;
