//! The control socket, through which another process inspects and changes a running VM.
//!
//! Each side sends one JSON object per line. The server first identifies itself:
//! `{"vector14":{"version":…,"protocol":1,…}}`. A request has a `command`, with the command's arguments beside it. Its
//! answer has a `result` or an `error`, and the `id` of the request, which may be any value:
//!
//! ```text
//! {"id":1,"command":"add","hook":"trace","options":{"format":"json"},"position":0}
//! {"id":1,"result":{"name":"trace"}}
//! {"id":2,"command":"remove","name":"tarce"}
//! {"id":2,"error":{"message":"no hook `tarce` in the chain (trace, count)","help":null}}
//! ```
//!
//! Nothing here is on the path of a fault. Neither a vCPU nor the main thread ever waits for a client: each client has
//! a thread of its own, which also creates the hooks that the client asks for.
//!
//! # Layout
//! - `socket`: the socket in the file system, and its owner; `lock`: the file beside it that keeps two runs apart;
//!   `peer`: the user at the other end
//! - `server`: connections; `session`: one connection, line by line
//! - `protocol`: requests and their results; `execute`: executes them; `stats`: the lines that `stats` repeats
//! - [`client`]: the other end

pub mod client;
mod error;
mod execute;
mod lock;
mod peer;
mod protocol;
mod server;
mod session;
mod socket;
mod stats;

pub use client::{Client, ClientError};
pub use error::BindError;
pub use protocol::{Command, Refusal, Response};
pub use server::Server;
pub use socket::ControlSocket;
pub use stats::Stats;

/// Version of the protocol. It is incremented when an old client would misunderstand the new protocol.
pub const PROTOCOL: u32 = 1;
/// Maximum length of a request, in bytes.
pub const LINE_MAX: usize = 64 << 10;
/// Maximum number of clients that are served at once.
pub const CLIENTS_MAX: usize = 16;
