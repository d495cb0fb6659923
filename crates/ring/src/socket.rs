//! Receiving, sending, and sending a file's pages without a copy.

use crate::file::part;
use crate::operation::{IoBuffer, interrupt, transfer};
use crate::runtime::Ring;
use io_uring::{opcode, types};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// From `io_uring.h`: wait for readiness before the first attempt.
pub(crate) const RECVSEND_POLL_FIRST: u16 = 1;

/// How much of a buffer one send is to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendAmount {
    /// All of it, unless the connection breaks: the kernel itself sends the rest of a partial send.
    All,
    /// What the socket takes, at least a byte.
    Some,
}

/// A process at the other end of a Unix socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerProcess {
    /// Its number; 0 where it has none here, because it runs in another container.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// A connected socket, used through the ring of this thread.
#[derive(Clone)]
pub struct Socket {
    ring: Ring,
    descriptor: Arc<OwnedFd>,
}

/// Whether an operation has ended because of [`Socket::interrupt`].
#[must_use]
pub fn is_interruption(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECANCELED)
}

impl Socket {
    /// Uses a connected socket that another thread has accepted.
    #[must_use]
    pub fn new(ring: &Ring, descriptor: OwnedFd) -> Socket {
        Socket::shared(ring, Arc::new(descriptor))
    }

    pub(crate) fn shared(ring: &Ring, descriptor: Arc<OwnedFd>) -> Socket {
        Socket { ring: ring.clone(), descriptor }
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

    /// The process at the other end of a Unix socket, as it was when it connected; `None` for any other socket.
    #[must_use]
    pub fn peer_process(&self) -> Option<PeerProcess> {
        if !socket2::SockRef::from(&*self.descriptor).local_addr().ok()?.is_unix() {
            return None;
        }
        let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).ok()?;
        // SAFETY: the descriptor is open; SO_PEERCRED writes at most `length` bytes, all of one `ucred`, which is plain integers.
        let result = unsafe {
            libc::getsockopt(
                self.descriptor.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut peer).cast(),
                &raw mut length,
            )
        };
        (result == 0).then_some(PeerProcess { pid: peer.pid, uid: peer.uid, gid: peer.gid })
    }

    /// Receives into `range` of `buffer` what is there, waiting for the first byte; 0 at the end of the stream.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn receive<B: IoBuffer>(&self, buffer: B, range: Range<usize>) -> (io::Result<usize>, B) {
        self.receive_as(buffer, range, 0).await
    }

    /// Like [`Socket::receive`], for bytes that are not there yet: a first attempt that would find nothing is left out.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn receive_later<B: IoBuffer>(&self, buffer: B, range: Range<usize>) -> (io::Result<usize>, B) {
        self.receive_as(buffer, range, RECVSEND_POLL_FIRST).await
    }

    async fn receive_as<B: IoBuffer>(&self, mut buffer: B, range: Range<usize>, how: u16) -> (io::Result<usize>, B) {
        let (pointer, length) = match part(&mut buffer, &range) {
            Ok(part) => part,
            Err(error) => return (Err(error), buffer),
        };
        let entry = opcode::Recv::new(self.target(), pointer, length).ioprio(how).build();
        // SAFETY: the entry names a part of the buffer and this descriptor.
        let (result, buffer) = unsafe { transfer(&self.ring, &self.descriptor, entry, buffer) }.await;
        self.ring.traffic().count_received(&result);
        (result, buffer)
    }

    /// Makes an operation that is in flight, of this socket or a clone of it, end now: its buffer comes back, with what had been received
    /// or sent by then, or else with an error for which [`is_interruption`] is true. It is for a time in which there is no more than one.
    /// Where there is none, or it is over, nothing happens: an operation that begins after this call is not harmed.
    pub fn interrupt(&self) {
        interrupt(&self.ring, &self.descriptor);
    }

    /// Receives up to `length` bytes and lets the kernel throw them away, uncopied, waiting for the first; returns how many, 0 at
    /// the end of the stream. Of a TCP socket.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn discard(&self, length: usize) -> io::Result<usize> {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        // tcp(7): with MSG_TRUNC nothing is written into the buffer, so there needs to be none.
        let entry = opcode::Recv::new(self.target(), std::ptr::null_mut(), length).flags(libc::MSG_TRUNC).build();
        // SAFETY: the entry names this descriptor and no memory: a socket that wrote all the same would meet a null pointer,
        // which the kernel reports as an error.
        let (result, _) = unsafe { transfer(&self.ring, &self.descriptor, entry, Vec::new()) }.await;
        self.ring.traffic().count_received(&result);
        result
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
        let (result, buffer) = unsafe { transfer(&self.ring, &self.descriptor, entry, buffer) }.await;
        self.ring.traffic().count_sent(&result);
        (result, buffer)
    }

    /// Sends as much of `bytes` as the socket takes at once, without waiting. `more`: other bytes follow at once.
    ///
    /// # Errors
    ///
    /// `WouldBlock` where it takes nothing now, see [`Socket::writable`]; otherwise the system's.
    pub fn try_send(&self, bytes: &[u8], more: bool) -> io::Result<usize> {
        let mut flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
        flags.set(rustix::net::SendFlags::MORE, more);
        let sent = rustix::net::send(&self.descriptor, bytes, flags).map_err(io::Error::from);
        self.ring.traffic().count_sent(&sent);
        sent
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
        let sent = rustix::fs::sendfile(&self.descriptor, file, Some(offset), length).map_err(io::Error::from);
        self.ring.traffic().count_sent(&sent);
        sent
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
