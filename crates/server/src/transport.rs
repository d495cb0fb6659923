//! What carries a connection: a socket by itself, or TLS on it.

use crate::tls::TlsStream;
use buddy_ring::{IoBuffer, ReceiveBuffers, ReceivedChunk, SendAmount, Socket};
use std::io;
use std::ops::{Deref, DerefMut, Range};

/// What carries a connection.
pub(crate) enum Transport {
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

impl Transport {
    /// The socket below, for what does not touch its bytes.
    pub(crate) fn socket(&self) -> &Socket {
        match self {
            Transport::Plain(socket) => socket,
            Transport::Tls(stream) => stream.socket(),
        }
    }

    /// The socket, where bytes that are written to it arrive as they are.
    pub(crate) fn plain_socket(&self) -> Option<&Socket> {
        match self {
            Transport::Plain(socket) => Some(socket),
            Transport::Tls(_) => None,
        }
    }

    /// Receives what is there, holding no memory before bytes arrive. Empty at the end of the stream.
    ///
    /// # Errors
    ///
    /// The system's, or those of TLS.
    pub(crate) async fn receive_waiting(&self, buffers: &ReceiveBuffers) -> io::Result<Received> {
        match self {
            Transport::Plain(socket) => buffers.receive(socket).await.map(Received::Chunk),
            Transport::Tls(stream) => stream.receive_waiting(buffers).await.map(Received::Bytes),
        }
    }

    /// Receives into `range` of `buffer` what is there, waiting for the first byte; 0 at the end of the stream.
    ///
    /// # Errors
    ///
    /// The system's, or those of TLS.
    pub(crate) async fn receive<B>(&self, buffer: B, range: Range<usize>) -> (io::Result<usize>, B)
    where
        B: IoBuffer + DerefMut<Target = [u8]>,
    {
        match self {
            Transport::Plain(socket) => socket.receive(buffer, range).await,
            Transport::Tls(stream) => stream.receive(buffer, range).await,
        }
    }

    /// Sends `range` of `buffer`, or as much of it as `amount` says; returns how much. `more`: other bytes follow at once.
    ///
    /// # Errors
    ///
    /// The system's, or those of TLS.
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
            Transport::Plain(socket) => socket.send(buffer, range, amount, more).await,
            Transport::Tls(stream) => stream.send(buffer, range, more).await,
        }
    }

    /// Waits until there is something to receive, or the connection has ended.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Transport::Plain(socket) => socket.readable().await,
            Transport::Tls(stream) => stream.readable().await,
        }
    }

    /// Tells the client that nothing more will be sent.
    pub(crate) async fn finish_sending(&self) {
        if let Transport::Tls(stream) = self {
            stream.say_goodbye().await;
        }
        self.socket().finish_sending();
    }
}
