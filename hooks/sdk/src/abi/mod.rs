//! The boundary to hooks in shared libraries: a versioned C ABI.
//!
//! A library exports one symbol, [`SYMBOL`], a [`Descriptor`]. Everything that crosses the boundary is `repr(C)` and is
//! owned by the side that made it; text is returned through a [`Sink`] that the caller lends. So a library can be built
//! by any compiler, in any language, and a Rust library may link another version of the SDK or of the standard library.
//! Only [`VERSION`] and the sizes of the structs must agree. Both are in the first bytes of the descriptor and can be
//! read from the file without running any of its code.
//!
//! Hooks in Rust need none of this: [`export!`](crate::export) makes the descriptor from a
//! [`HookType`](crate::HookType). Hooks in C use [`HEADER`], generated from `types.rs`.
//!
//! # Layout
//! - `types`: the types that cross the boundary
//! - `text`, `convert`: conversion of text and of the SDK's types to those types and back
//! - `calls`: the host's side of the guest handle; `handle`: the library's side
//! - `export`: the library's side of the descriptor; `foreign`: the host's side; `version`: the check that they agree
//!
//! All of the SDK's unsafe code is here.
#![allow(unsafe_code)]

mod calls;
mod convert;
mod export;
mod foreign;
mod handle;
mod text;
mod types;
mod version;

pub use self::export::{Export, option_docs};
pub use self::foreign::Foreign;
pub use self::types::{
    Code, Descriptor, Fault, Guest, GuestCalls, GuestKind, GuestResult, GuestStatus, MAGIC, Mapping, OptionDoc,
    Options, OptionsError, Prefix, Sink, Sizes, Status, Step, SystemRegisters, TableEntry, Text, Translation, VERSION,
    Verdict, VerdictKind, Walk,
};
pub use self::version::Mismatch;

/// The name of the symbol that a library exports.
pub const SYMBOL: &str = "vector14_hook";

/// The contents of `vector14_hook.h`.
pub const HEADER: &str = include_str!("../../include/vector14_hook.h");

#[cfg(test)]
mod tests;
