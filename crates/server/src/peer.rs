//! Who is at the other end of a connection, for logs.

use buddy_ring::{PeerProcess, Socket};
use std::fmt;
use std::net::SocketAddr;

/// The other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Peer {
    /// An address and a port.
    Address(SocketAddr),
    /// A process on this machine.
    Process(PeerProcess),
    /// It is gone.
    Gone,
}

impl Peer {
    /// Of a connected socket.
    pub(crate) fn of(socket: &Socket) -> Peer {
        match (socket.peer(), socket.peer_process()) {
            // An IPv4 address is written as one.
            (Some(address), _) => Peer::Address(SocketAddr::new(address.ip().to_canonical(), address.port())),
            (None, Some(process)) => Peer::Process(process),
            (None, None) => Peer::Gone,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Address(address) => address.fmt(formatter),
            Peer::Process(PeerProcess { pid, uid, gid }) => write!(formatter, "unix pid={pid} uid={uid} gid={gid}"),
            Peer::Gone => formatter.write_str("gone"),
        }
    }
}
