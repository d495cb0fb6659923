//! What clients are limited to, with its default, and most sizes and times of the HTTP side. Those of one mechanism alone stand at the top
//! of its file.

use crate::cors::Cors;
use buddy_ring::ListenOptions;
use std::time::Duration;

/// Limits on what clients may send, hold and take.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// Bytes of a request's head.
    pub head_bytes_max: usize,
    /// Time between the first and the last byte of a head.
    pub head_timeout: Duration,
    /// Time without progress in a body.
    pub body_timeout: Duration,
    /// Time between requests.
    pub idle_timeout: Duration,
    /// Time in which a client that takes a reply must take some of it.
    pub send_timeout: Duration,
    /// Time that a stopping server leaves to requests under way.
    pub drain_timeout: Duration,
    /// A body or a reply that moves more slowly than this, on the whole, is given up: it holds memory that others need.
    pub bytes_per_second_min: u32,
    /// Connections, of all workers together.
    pub connections_max: usize,
    /// Connections of one peer: an IPv4 address, or a /64 of IPv6.
    pub connections_per_peer_max: Option<usize>,
    /// Requests after which a connection ends.
    pub requests_per_connection_max: Option<u64>,
    /// Connections that the kernel keeps until they are accepted.
    pub backlog: i32,
    /// Bytes of bodies and replies that each worker may have in memory.
    pub buffer_bytes_max: usize,
    /// Buffers into which each worker receives heads, of [`HttpLimits::receive_buffer_bytes`] each.
    pub receive_buffers: u16,
    /// Bytes of such a buffer: a head and a small body in one.
    pub receive_buffer_bytes: usize,
    /// What sockets are like.
    pub listen: ListenOptions,
    /// Pages in browsers that may use the server.
    pub cors: Cors,
}

impl Default for HttpLimits {
    fn default() -> HttpLimits {
        HttpLimits {
            head_bytes_max: 16 * 1024,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
            bytes_per_second_min: 4096,
            connections_max: 16_384,
            connections_per_peer_max: None,
            requests_per_connection_max: None,
            backlog: 1024,
            buffer_bytes_max: 32 << 20,
            receive_buffers: 64,
            receive_buffer_bytes: 8 * 1024,
            listen: ListenOptions::default(),
            cors: Cors::default(),
        }
    }
}

/// Headers of a request.
pub(crate) const HEADERS_MAX: usize = 64;
/// The body of a refused request is read and thrown away up to this size, to keep the connection; a larger one ends it.
pub(crate) const DISCARD_BYTES_MAX: u64 = 64 * 1024;
/// After a refusal that ends the connection, what the client still sends is thrown away, so that the refusal reaches it, until it has sent
/// nothing for this long …
pub(crate) const LINGER: Duration = Duration::from_secs(2);
/// … and for this long in all.
pub(crate) const LINGER_MAX: Duration = Duration::from_secs(10);
/// Bytes thrown away then.
pub(crate) const LINGER_BYTES_MAX: usize = 8 << 20;
/// Bytes of the head of any reply.
pub(crate) const REPLY_HEAD_BYTES_MAX: usize = 1024;
/// An address that is in use is tried again for this long …
pub(crate) const BIND_PATIENCE: Duration = Duration::from_secs(1);
/// … this often.
pub(crate) const BIND_PAUSE: Duration = Duration::from_millis(20);
/// Blocks up to this size are copied into one send with their head; larger ones are sent from the page cache where possible.
pub(crate) const COPIED_BYTES_MAX: u32 = 32 * 1024;
/// While memory for replies is scarce a client that takes nothing for this long loses the memory of its reply …
pub(crate) const PATIENCE_WHILE_SCARCE: Duration = Duration::from_millis(20);
/// … and gets this much at a time: less than a socket has room for when it is writable.
pub(crate) const FRUGAL_BYTES_MAX: usize = 32 * 1024;
/// What goes through TLS is copied this much at a time then, one record (RFC 8446 section 5.1).
pub(crate) const COPIED_THROUGH_TLS: usize = 16 * 1024;
/// Replies up to this size are one send operation, whatever the client takes at a time.
pub(crate) const WHOLE_SEND_BYTES_MAX: usize = 64 * 1024;
/// A chunked body begins in a buffer of this size, and moves to one for the largest block when it outgrows it.
pub(crate) const CHUNKED_BYTES_FIRST: usize = 32 * 1024;
/// The part of a worker's buffer memory that is kept for replies, so that uploads cannot hold up reads: one in so many.
pub(crate) const REPLY_MEMORY_SHARE: usize = 4;
/// Connections above the limit that are told so at a time; more are closed without a word.
pub(crate) const CROWD_MAX: usize = 64;
/// Connections that a worker accepts of each listener in one turn: one by one, many that come at once would wait for as many turns.
pub(crate) const ACCEPTS_AT_A_TIME: usize = 16;
/// Not more often than this it is logged that connections cannot be accepted.
pub(crate) const ACCEPT_LOG_INTERVAL: Duration = Duration::from_secs(10);
/// How much of a client's text a refusal repeats, in characters.
pub(crate) const SHOWN_CHARS: usize = 100;
/// A read that takes longer than this holds its own extent only.
pub(crate) const PIN_AFTER: Duration = Duration::from_secs(1);
/// Pause after connections could not be accepted, for want of descriptors or memory for example.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Names that `/-/blocks` lists where the client does not say how many …
pub(crate) const LISTED_DEFAULT: usize = 1000;
/// … and at most.
pub(crate) const LISTED_MAX: usize = 10_000;
/// Names in one `/-/missing`.
pub(crate) const NAMES_MAX: usize = 16_384;
/// Names of those that are looked up before others get their turn: about 100 µs.
pub(crate) const LOOK_UPS_A_TURN: usize = 64;
/// Long replies of many lines are written in pieces of about this size.
pub(crate) const LINES_PIECE_BYTES: usize = 32 * 1024;
