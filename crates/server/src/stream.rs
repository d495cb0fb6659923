//! The bytes of a connection, to and fro: on a socket by itself, or through TLS on it. Everything else of the server sends and
//! receives through this.

use crate::peer::Peer;
use crate::tls::TlsStream;
use buddy_ring::{IoBuffer, Pipe, ReceiveBuffers, ReceivedChunk, SendAmount, Socket};
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::os::fd::BorrowedFd;

/// One connection's stream of bytes.
pub(crate) enum Stream {
    /// Bytes as they are.
    Plain(Socket),
    /// Records of TLS.
    Tls(Box<TlsStream>),
}

/// Bytes that have arrived.
pub(crate) enum Received {
    /// In a buffer that the kernel picked.
    Chunk(ReceivedChunk),
    /// In memory of their own.
    Bytes(Vec<u8>),
}

impl Deref for Received {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Received::Chunk(chunk) => chunk,
            Received::Bytes(bytes) => bytes,
        }
    }
}

impl Stream {
    /// The socket below, for what does not touch its bytes.
    fn socket(&self) -> &Socket {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => stream.socket(),
        }
    }

    /// Receives what is there, holding no memory before bytes arrive. Empty at the end of the stream.
    pub(crate) async fn receive_chunk(&self, buffers: &ReceiveBuffers) -> io::Result<Received> {
        match self {
            Stream::Plain(socket) => buffers.receive(socket).await.map(Received::Chunk),
            Stream::Tls(stream) => stream.receive_waiting(buffers).await.map(Received::Bytes),
        }
    }

    /// Waits for bytes of which it takes more to make something that can be received, or for that; not at all where bytes are received as
    /// they are. False at the end of the stream.
    pub(crate) async fn arrival(&self, buffers: &ReceiveBuffers) -> io::Result<bool> {
        match self {
            Stream::Plain(_) => Ok(true),
            Stream::Tls(stream) => stream.arrival(buffers).await,
        }
    }

    /// Whether bytes have arrived of which nothing can be received yet.
    pub(crate) fn holds_part(&self) -> bool {
        match self {
            Stream::Plain(_) => false,
            Stream::Tls(stream) => stream.holds_part(),
        }
    }

    /// Receives into `range` of `buffer` what is there, waiting for the first byte; 0 at the end of the stream.
    pub(crate) async fn receive<B>(&self, buffer: B, range: Range<usize>) -> (io::Result<usize>, B)
    where
        B: IoBuffer + DerefMut<Target = [u8]>,
    {
        match self {
            Stream::Plain(socket) => socket.receive(buffer, range).await,
            Stream::Tls(stream) => stream.receive(buffer, range).await,
        }
    }

    /// Waits until there is something to receive, or the stream has ended.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.readable().await,
            Stream::Tls(stream) => stream.readable().await,
        }
    }

    /// Sends `range` of `buffer`, or as much of it as `amount` says. `more`: other bytes follow at once.
    pub(crate) async fn send<B>(
        &self,
        buffer: B,
        range: Range<usize>,
        amount: SendAmount,
        more: bool,
    ) -> (io::Result<usize>, B)
    where
        B: IoBuffer + DerefMut<Target = [u8]>,
    {
        match self {
            Stream::Plain(socket) => socket.send(buffer, range, amount, more).await,
            Stream::Tls(stream) => stream.send(buffer, range, more).await,
        }
    }

    /// Sends as much of `bytes` as is taken at once; `WouldBlock` where nothing is: see [`Stream::writable`]. `Unsupported` through
    /// TLS, which keeps what it has encrypted until it is taken. `more`: other bytes follow at once.
    pub(crate) fn try_send(&self, bytes: &[u8], more: bool) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.try_send(bytes, more),
            Stream::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Whether pages of a file can be sent without copying them: see [`Stream::send_file`].
    pub(crate) fn sends_files(&self) -> bool {
        matches!(self, Stream::Plain(_))
    }

    /// Sends pages of a file from the page cache, as much as is taken at once; `WouldBlock` where nothing is: see
    /// [`Stream::writable`].
    pub(crate) fn send_file(&self, file: BorrowedFd<'_>, offset: &mut u64, length: usize) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.send_file(file, offset, length),
            Stream::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Sends what is in a pipe, likewise. `more`: other bytes follow at once.
    pub(crate) fn send_pipe(&self, pipe: &mut Pipe, more: bool) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.send_pipe(pipe, more),
            Stream::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Waits until bytes are taken again, or the stream is broken.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.socket().writable().await
    }

    /// Who is at the other end.
    pub(crate) fn peer(&self) -> Peer {
        Peer::of(self.socket())
    }

    /// Bytes that were sent and that the peer's system has not confirmed, where the system tells.
    pub(crate) fn unconfirmed_bytes(&self) -> Option<u32> {
        self.socket().unconfirmed_bytes()
    }

    /// Tells the peer that nothing more will be sent.
    pub(crate) async fn finish_sending(&self) {
        if let Stream::Tls(stream) = self {
            stream.say_goodbye().await;
        }
        self.socket().finish_sending();
    }
}
