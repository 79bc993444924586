//! The boundary of a hook that is loaded from a shared library: a C ABI with a version.
//!
//! A library exports one symbol, [`SYMBOL`], a [`Descriptor`]. Whatever crosses the boundary is `repr(C)`, and is owned by the
//! side that made it: text goes out through a [`Sink`] that the caller lends. So a library may be made by any compiler, in any
//! language, and a Rust one may link another version of the SDK or of the standard library. What must agree is
//! [`VERSION`] and the sizes of the structs; both are in the first bytes of the descriptor and can be read from the file
//! without running any of its code.
//!
//! Hooks in Rust meet none of this: [`export!`](crate::export) makes the descriptor of a [`HookType`](crate::HookType).
//! For C there is [`HEADER`], generated from `types.rs`.
//!
//! # Layout
//! - `types`: what crosses, and nothing else
//! - `text`, `convert`: text, and the SDK's own types, into what crosses and back
//! - `calls` is the host's side of the guest handle, `handle` the library's
//! - `export` is the library's side of the descriptor, `foreign` the host's; `version` tells whether they agree
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

/// `vector14_hook.h`.
pub const HEADER: &str = include_str!("../../include/vector14_hook.h");

#[cfg(test)]
mod tests;
