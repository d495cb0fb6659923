//! Listening, accepting, receiving, sending, and sending a file's pages without a copy.

use crate::file::part;
use crate::operation::{Completion, IoBuffer, Operation, Payload, transfer};
use crate::runtime::Ring;
use io_uring::{opcode, types};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

/// From `io_uring.h`: wait for readiness before the first attempt.
pub(crate) const RECVSEND_POLL_FIRST: u16 = 1;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody listens there already.
    #[error("cannot listen on {0}: the port is in use by another process")]
    InUse(SocketAddr),
    /// The congestion control is unknown to the kernel or not allowed.
    #[error(
        "TCP congestion control \"{name}\" cannot be used ({source}): see /proc/sys/net/ipv4/tcp_allowed_congestion_control"
    )]
    CongestionControl {
        /// The name that was asked for.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Bytes that a connection's peer has no room for yet, and that the kernel queues all the same. What is on its way does not count, so
/// fast peers do not notice; but without this one that does not read makes the kernel queue megabytes, and enough of those make it drop
/// what others send.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// A socket bound to an address, to be used through any ring.
pub struct Listener {
    descriptor: OwnedFd,
    address: SocketAddr,
    congestion_control: Option<String>,
}

impl Listener {
    /// Binds a socket to an address, which no other process may have bound for listening. It does not listen yet.
    /// `congestion_control` is for the connections that it will accept; `None` leaves the system's.
    ///
    /// # Errors
    ///
    /// [`ListenError`]
    pub fn bind(address: SocketAddr, congestion_control: Option<&str>) -> Result<Listener, ListenError> {
        bind_one(address, false, congestion_control)
    }

    /// Begins to listen, with `count` sockets on the one address, for as many rings; the kernel spreads connections between
    /// them. Each keeps up to `backlog` connections for us until they are accepted.
    ///
    /// The first socket listens before it may share the port, so that a port that somebody else listens on, or shares with
    /// whoever asks, is an error; only then the option is set, and the others join it.
    ///
    /// # Errors
    ///
    /// [`ListenError`]
    pub fn listen(self, count: usize, backlog: i32) -> Result<Vec<Listener>, ListenError> {
        let failed = |source: rustix::io::Errno| bind_error(self.address, source.into());
        rustix::net::listen(&self.descriptor, backlog).map_err(failed)?;
        rustix::net::sockopt::set_socket_reuseport(&self.descriptor, true).map_err(failed)?;
        let (address, congestion_control) = (self.address, self.congestion_control.clone());
        let mut listeners = vec![self];
        while listeners.len() < count {
            let joined = bind_one(address, true, congestion_control.as_deref())?;
            rustix::net::listen(&joined.descriptor, backlog).map_err(|error| bind_error(address, error.into()))?;
            listeners.push(joined);
        }
        Ok(listeners)
    }

    /// The address it listens on, with the port that the system chose where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening, on this socket: connections that were not accepted are reset, new ones refused.
    pub fn stop(&self) {
        // A socket that does not listen needs no stopping.
        let _ = rustix::net::shutdown(&self.descriptor, rustix::net::Shutdown::Read);
    }

    /// Waits for a connection.
    ///
    /// # Errors
    ///
    /// The system's; those of the connection (`ECONNABORTED`) and of descriptors that ran out are for the caller to outlive.
    pub async fn accept(self: &Arc<Self>, ring: &Ring) -> io::Result<Socket> {
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let entry =
            opcode::Accept::new(types::Fd(self.descriptor.as_raw_fd()), std::ptr::null_mut(), std::ptr::null_mut())
                .flags(flags)
                .build();
        // SAFETY: the entry points to no memory; the listener's descriptor stays open in the payload.
        let operation = unsafe { Operation::submit(ring, entry, Accepting(Arc::clone(self))) };
        let (completion, _) = operation.await;
        completion.into_result()?;
        Ok(Socket::new(ring, accepted(completion)))
    }
}

fn bind_one(address: SocketAddr, join: bool, congestion_control: Option<&str>) -> Result<Listener, ListenError> {
    let other = |source| ListenError::Other { address, source };
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None).map_err(other)?;
    socket.set_reuse_address(true).map_err(other)?;
    if join {
        socket.set_reuse_port(true).map_err(other)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true).map_err(other)?;
    }
    // Accepted connections inherit these.
    socket.set_tcp_nodelay(true).map_err(other)?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX).map_err(other)?;
    if let Some(name) = congestion_control {
        socket
            .set_tcp_congestion(name.as_bytes())
            .map_err(|source| ListenError::CongestionControl { name: name.to_owned(), source })?;
    }
    socket.bind(&address.into()).map_err(|error| bind_error(address, error))?;
    let address = socket.local_addr().map_err(other)?.as_socket().unwrap_or(address);
    Ok(Listener { descriptor: socket.into(), address, congestion_control: congestion_control.map(str::to_owned) })
}

fn bind_error(address: SocketAddr, error: io::Error) -> ListenError {
    match error.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse(address),
        _ => ListenError::Other { address, source: error },
    }
}

/// An accept in flight. A connection that arrives when nobody waits for it any more is closed.
struct Accepting(Arc<Listener>);

impl Payload for Accepting {
    fn discard(self, completion: Completion) {
        if completion.result >= 0 {
            drop(accepted(completion));
        }
        drop(self.0);
    }
}

/// The descriptor that a successful accept handed over.
fn accepted(completion: Completion) -> OwnedFd {
    // SAFETY: the kernel has just created this descriptor for us, and a completion is looked at once.
    unsafe { OwnedFd::from_raw_fd(completion.result) }
}

/// How much of a buffer one send is to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendAmount {
    /// All of it, unless the connection breaks: the kernel itself sends the rest of a partial send.
    All,
    /// What the socket takes, at least a byte.
    Some,
}

/// A connected socket, used through the ring of this thread.
#[derive(Clone)]
pub struct Socket {
    ring: Ring,
    descriptor: Arc<OwnedFd>,
}

impl Socket {
    /// Uses a connected socket that another thread has accepted.
    #[must_use]
    pub fn new(ring: &Ring, descriptor: OwnedFd) -> Socket {
        Socket { ring: ring.clone(), descriptor: Arc::new(descriptor) }
    }

    /// The descriptor, to be used through another ring; `None` while operations or clones hold it.
    #[must_use]
    pub fn into_descriptor(self) -> Option<OwnedFd> {
        Arc::into_inner(self.descriptor)
    }

    /// Bytes that were sent and that the peer's system has not confirmed, where the system tells.
    #[must_use]
    pub fn unconfirmed_bytes(&self) -> Option<u32> {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the descriptor is open; TIOCOUTQ (SIOCOUTQ) writes one integer.
        let result = unsafe { libc::ioctl(self.descriptor.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        u32::try_from(bytes).ok().filter(|_| result == 0)
    }

    /// The address of the peer, where it has one.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        socket2::SockRef::from(&*self.descriptor).peer_addr().ok()?.as_socket()
    }

    /// Receives into `range` of `buffer` what is there, waiting for the first byte; 0 at the end of the stream.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn receive<B: IoBuffer>(&self, mut buffer: B, range: Range<usize>) -> (io::Result<usize>, B) {
        let (pointer, length) = match part(&mut buffer, &range) {
            Ok(part) => part,
            Err(error) => return (Err(error), buffer),
        };
        let entry = opcode::Recv::new(self.target(), pointer, length).build();
        // SAFETY: the entry names a part of the buffer and this descriptor.
        unsafe { transfer(&self.ring, &self.descriptor, entry, buffer) }.await
    }

    /// Sends `range` of `buffer`, or as much of it as `amount` says; returns how much. `more`: other bytes follow at once.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn send<B: IoBuffer>(
        &self,
        mut buffer: B,
        range: Range<usize>,
        amount: SendAmount,
        more: bool,
    ) -> (io::Result<usize>, B) {
        let (pointer, length) = match part(&mut buffer, &range) {
            Ok(part) => part,
            Err(error) => return (Err(error), buffer),
        };
        let mut flags = libc::MSG_NOSIGNAL;
        if amount == SendAmount::All {
            flags |= libc::MSG_WAITALL;
        }
        if more {
            flags |= libc::MSG_MORE;
        }
        let entry = opcode::Send::new(self.target(), pointer, length).flags(flags).build();
        // SAFETY: the entry names a part of the buffer and this descriptor.
        unsafe { transfer(&self.ring, &self.descriptor, entry, buffer) }.await
    }

    /// Sends pages of `file` from the page cache without copying them, as much as the socket takes at once.
    /// `WouldBlock` where it takes nothing: see [`Socket::writable`].
    ///
    /// The caller sees to it that the pages are cached: others are read from the disk while this thread waits.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn send_file(&self, file: BorrowedFd<'_>, offset: &mut u64, length: usize) -> io::Result<usize> {
        Ok(rustix::fs::sendfile(&self.descriptor, file, Some(offset), length)?)
    }

    /// Waits until the socket takes bytes again, or the connection is broken.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn writable(&self) -> io::Result<()> {
        self.poll(libc::POLLOUT).await
    }

    /// Waits until there is something to receive, or the connection has ended.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn readable(&self) -> io::Result<()> {
        self.poll(libc::POLLIN | libc::POLLRDHUP).await
    }

    async fn poll(&self, events: i16) -> io::Result<()> {
        let entry = opcode::PollAdd::new(self.target(), u32::from(events.cast_unsigned())).build();
        // SAFETY: the entry names this descriptor and no memory.
        unsafe { transfer(&self.ring, &self.descriptor, entry, Vec::new()) }.await.0.map(drop)
    }

    /// Tells the peer that nothing more will be sent.
    pub fn finish_sending(&self) {
        // A connection that is broken already needs no farewell.
        let _ = rustix::net::shutdown(&self.descriptor, rustix::net::Shutdown::Write);
    }

    /// Receives what has arrived, then the end of the stream, whatever the peer goes on to send: wakes who waits to receive.
    pub fn finish_receiving(&self) {
        // As above.
        let _ = rustix::net::shutdown(&self.descriptor, rustix::net::Shutdown::Read);
    }

    /// Ends the connection in both directions: operations under way end.
    pub fn cut_off(&self) {
        // As above.
        let _ = rustix::net::shutdown(&self.descriptor, rustix::net::Shutdown::Both);
    }

    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    pub(crate) fn descriptor(&self) -> &Arc<OwnedFd> {
        &self.descriptor
    }

    pub(crate) fn target(&self) -> types::Fd {
        types::Fd(self.descriptor.as_raw_fd())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
