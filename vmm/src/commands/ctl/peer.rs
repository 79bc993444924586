//! Which user is at the other end of a control socket's connection.

use std::io;
use std::os::unix::net::UnixStream;

use rustix::process::Uid;

/// The user at the other end (SO_PEERCRED in unix(7)), unless it is root or the user of this process.
pub(super) fn stranger(stream: &UnixStream) -> io::Result<Option<Uid>> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?.uid;
    let trusted = peer.is_root() || peer == rustix::process::geteuid();
    Ok((!trusted).then_some(peer))
}
