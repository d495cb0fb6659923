//! The bytes of a connection, to and fro. Everything else of the server sends and receives through this, so that what lies between it
//! and the socket is decided here alone.

use crate::peer::Peer;
use buddy_ring::{IoBuffer, ReceiveBuffers, ReceivedChunk, SendAmount, Socket};
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

/// One connection's stream of bytes.
pub(crate) struct Stream {
    socket: Socket,
}

impl Stream {
    /// Bytes as they are.
    pub(crate) fn plain(socket: Socket) -> Stream {
        Stream { socket }
    }

    /// Receives what is there into a buffer of the kernel's choice. An empty chunk is the end of the stream.
    pub(crate) async fn receive_chunk(&self, buffers: &ReceiveBuffers) -> io::Result<ReceivedChunk> {
        buffers.receive(&self.socket).await
    }

    /// Receives into `range` of `buffer` what is there, waiting for the first byte; 0 at the end of the stream.
    pub(crate) async fn receive<B: IoBuffer>(&self, buffer: B, range: Range<usize>) -> (io::Result<usize>, B) {
        self.socket.receive(buffer, range).await
    }

    /// Waits until there is something to receive, or the stream has ended.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Sends `range` of `buffer`, or as much of it as `amount` says. `more`: other bytes follow at once.
    pub(crate) async fn send<B: IoBuffer>(
        &self,
        buffer: B,
        range: Range<usize>,
        amount: SendAmount,
        more: bool,
    ) -> (io::Result<usize>, B) {
        self.socket.send(buffer, range, amount, more).await
    }

    /// Whether pages of a file can be sent without copying them: see [`Stream::send_file`].
    pub(crate) fn sends_files(&self) -> bool {
        true
    }

    /// Sends pages of a file from the page cache, as much as is taken at once; `WouldBlock` where nothing is: see
    /// [`Stream::writable`].
    pub(crate) fn send_file(&self, file: BorrowedFd<'_>, offset: &mut u64, length: usize) -> io::Result<usize> {
        self.socket.send_file(file, offset, length)
    }

    /// Waits until bytes are taken again, or the stream is broken.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    /// Who is at the other end.
    pub(crate) fn peer(&self) -> Peer {
        Peer::of(&self.socket)
    }

    /// Bytes that were sent and that the peer's system has not confirmed, where the system tells.
    pub(crate) fn unconfirmed_bytes(&self) -> Option<u32> {
        self.socket.unconfirmed_bytes()
    }

    /// Tells the peer that nothing more will be sent.
    pub(crate) fn finish_sending(&self) {
        self.socket.finish_sending();
    }
}
