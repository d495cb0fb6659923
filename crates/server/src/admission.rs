//! What a connection was let in with: it goes with the socket, from the worker that accepted it to the one that serves it.

use crate::peers::PeerSlot;

/// What a connection was let in with.
pub(crate) struct Admission {
    /// Its place among those of its peer, where these are limited.
    pub(crate) slot: Option<PeerSlot>,
    /// It came in where TLS is spoken.
    pub(crate) tls: bool,
}
