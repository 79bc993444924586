//! The control socket: a running VM is looked at and changed from another process.
//!
//! One JSON object a line each way. The server says first who it is, `{"vector14":{"version":…,"protocol":1,…}}`. A request
//! names its `command` and has the command's arguments beside it; the answer has a `result` or an `error`, and the `id` of
//! the request, whatever that was:
//!
//! ```text
//! {"id":1,"command":"add","hook":"trace","options":{"format":"json"},"position":0}
//! {"id":1,"result":{"name":"trace"}}
//! {"id":2,"command":"remove","name":"tarce"}
//! {"id":2,"error":{"message":"no hook `tarce` in the chain (trace, count)","help":null}}
//! ```
//!
//! Nothing here is on the path of a fault, and nothing that a client does or fails to do is waited for by a vCPU or by the
//! main thread: every client has a thread of its own here, which also makes the hooks that it asks for.
//!
//! # Layout
//! - `socket`: where the socket is in the file system, and whose; `lock`: the file beside it that keeps two runs apart; `peer`: who
//!   is at the other end
//! - `server`: connections; `session`: one of them, line by line
//! - `request`: what can be asked for; `command`: doing it; `stats`: what `stats` repeats
//! - [`client`]: the other end

pub mod client;
mod command;
mod lock;
mod peer;
mod request;
mod server;
mod session;
mod socket;
mod stats;

pub use client::{Client, ClientError};
pub use request::Refusal;
pub use server::Server;
pub use socket::{BindError, ControlSocket};
pub use stats::Stats;

/// The version of what is said on the socket. It grows where an old client would misunderstand.
pub const PROTOCOL: u32 = 1;
/// A longer line is no request.
pub const LINE_MAX: usize = 64 << 10;
/// So many clients are served at once.
pub const CLIENTS_MAX: usize = 16;
