//! One connection through TLS.
//!
//! rustls turns bytes from the wire into bytes of the conversation and back, without doing any I/O; both directions pass through
//! small buffers that are given up when they are empty, so that an idle connection holds nothing but its keys.

use super::record_border::RecordBorder;
use super::settings::TlsSettings;
use buddy_ring::{IoBuffer, ReceiveBuffers, SendAmount, Socket, is_interruption};
use rustls::ServerConnection;
use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Read, Write};
use std::ops::{DerefMut, Range};
use std::sync::Arc;

/// Bytes that one send encrypts at most: records of 16 KiB each (RFC 8446 section 5.1).
const SEND_BYTES_MAX: usize = 64 * 1024;
/// Records that were made and not sent yet take no more than that, and what a handshake needs.
const RECORDS_BYTES_MAX: usize = 2 * SEND_BYTES_MAX;
/// The body of a request is received in pieces of up to this size.
const RECEIVE_BYTES: usize = 32 * 1024;

/// A connection through TLS, used through the ring of this thread.
pub(crate) struct TlsStream {
    socket: Socket,
    session: RefCell<ServerConnection>,
    incoming: RefCell<Incoming>,
    /// Where the bytes end that rustls was given.
    border: Cell<RecordBorder>,
    /// It was given bytes since something was last received: they may be a part of a message of several records.
    unanswered: Cell<bool>,
    /// Records were taken out of rustls, and it is not known that they were sent.
    records_lost: Cell<bool>,
    /// Bytes that were encrypted and not sent yet, because others were to follow.
    held_back: Cell<usize>,
}

/// Bytes from the wire that rustls has not taken yet.
#[derive(Default)]
struct Incoming {
    bytes: Vec<u8>,
    at: usize,
}

impl Incoming {
    fn unused(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn use_up(&mut self, count: usize) {
        self.at += count;
        if self.at >= self.bytes.len() {
            *self = Incoming::default();
        }
    }
}

impl TlsStream {
    /// A connection on which nothing was said yet.
    ///
    /// # Errors
    ///
    /// What rustls says.
    pub(crate) fn new(socket: Socket, settings: &TlsSettings) -> io::Result<TlsStream> {
        let mut session = ServerConnection::new(Arc::clone(&settings.config)).map_err(io::Error::other)?;
        session.set_buffer_limit(Some(RECORDS_BYTES_MAX));
        Ok(TlsStream {
            socket,
            session: RefCell::new(session),
            incoming: RefCell::default(),
            border: Cell::default(),
            unanswered: Cell::new(false),
            records_lost: Cell::new(false),
            held_back: Cell::new(0),
        })
    }

    /// The socket below, for what does not touch its bytes.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Agrees with the client on keys.
    ///
    /// # Errors
    ///
    /// The system's, or what is wrong with what the client said; it was told, unless it said too much.
    pub(crate) async fn shake_hands(&self, settings: &TlsSettings, buffers: &ReceiveBuffers) -> io::Result<()> {
        let bytes_max = settings.handshake_bytes_max;
        let mut bytes = 0;
        loop {
            self.flush().await?;
            if !self.session.borrow().is_handshaking() {
                self.unanswered.set(false);
                return Ok(());
            }
            if bytes > bytes_max {
                let error = format!("the handshake is larger than {bytes_max} bytes");
                return Err(io::Error::new(ErrorKind::InvalidData, error));
            }
            let ended = !self.receive_records(Some(buffers)).await?;
            if ended {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            while self.session.borrow().is_handshaking() && bytes <= bytes_max {
                match self.process_some().await? {
                    0 => break,
                    taken => bytes += taken,
                }
            }
        }
    }

    /// Lets the peer take what was said last, and throws away what it still sends, until it ends.
    pub(crate) async fn see_off(&self) {
        self.socket.finish_sending();
        let mut bytes = vec![0; RECEIVE_BYTES];
        loop {
            let (received, returned) = self.socket.receive(bytes, 0..RECEIVE_BYTES).await;
            bytes = returned;
            if !matches!(received, Ok(1..)) {
                return;
            }
        }
    }

    /// Waits for bytes from the wire, unless there is something to receive or a part of it already. False at their end.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) async fn arrival(&self, buffers: &ReceiveBuffers) -> io::Result<bool> {
        let state = self.session.borrow_mut().process_new_packets().map_err(invalid)?;
        if self.holds_part() || state.plaintext_bytes_to_read() > 0 || state.peer_has_closed() {
            return Ok(true);
        }
        self.receive_records(Some(buffers)).await
    }

    /// Whether bytes have arrived of which nothing can be received yet.
    pub(crate) fn holds_part(&self) -> bool {
        self.unanswered.get() || self.border.get().is_inside() || !self.incoming.borrow().unused().is_empty()
    }

    /// Receives into `range` of `buffer` what is there, waiting for the first byte; 0 at the end of the stream.
    ///
    /// # Errors
    ///
    /// The system's, or what is wrong with what the client sent; it was told.
    pub(crate) async fn receive<B>(&self, mut buffer: B, range: Range<usize>) -> (io::Result<usize>, B)
    where
        B: IoBuffer + DerefMut<Target = [u8]>,
    {
        let here = match self.wait_for_plaintext(None).await {
            Ok(here) => here,
            Err(error) => return (Err(error), buffer),
        };
        let end = range.end.min(range.start.saturating_add(here));
        let Some(target) = buffer.get_mut(range.start..end) else {
            return (Err(ErrorKind::InvalidInput.into()), buffer);
        };
        let received = if here == 0 { Ok(0) } else { self.session.borrow_mut().reader().read(target) };
        (received, buffer)
    }

    /// Receives what is there, for who may wait long: no memory is held before bytes arrive. Empty at the end of the stream.
    ///
    /// # Errors
    ///
    /// As [`TlsStream::receive`].
    pub(crate) async fn receive_waiting(&self, buffers: &ReceiveBuffers) -> io::Result<Vec<u8>> {
        let mut received = vec![0; self.wait_for_plaintext(Some(buffers)).await?];
        self.session.borrow_mut().reader().read_exact(&mut received)?;
        Ok(received)
    }

    /// Waits until something was decrypted; returns how many bytes, 0 at the end of the stream.
    async fn wait_for_plaintext(&self, buffers: Option<&ReceiveBuffers>) -> io::Result<usize> {
        loop {
            let state = self.session.borrow_mut().process_new_packets().map_err(invalid)?;
            if state.plaintext_bytes_to_read() > 0 || state.peer_has_closed() {
                self.unanswered.set(false);
                return Ok(state.plaintext_bytes_to_read());
            }
            // rustls takes no more before what it has decrypted was read: one piece at a time.
            if self.process_some().await? == 0 && !self.receive_records(buffers).await? {
                // The client went without a farewell. HTTP/1.1 says itself where a message ends.
                return Ok(0);
            }
        }
    }

    /// Waits until there is something to receive, or the connection has ended.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        let here = self.session.borrow_mut().process_new_packets().map_err(invalid)?.plaintext_bytes_to_read();
        if here > 0 || !self.incoming.borrow().unused().is_empty() { Ok(()) } else { self.socket.readable().await }
    }

    /// Waits for bytes from the wire. False at their end.
    async fn receive_records(&self, buffers: Option<&ReceiveBuffers>) -> io::Result<bool> {
        let bytes = match buffers {
            Some(buffers) => buffers.receive(&self.socket).await?.to_vec(),
            None => {
                let (received, mut bytes) = self.socket.receive(vec![0; RECEIVE_BYTES], 0..RECEIVE_BYTES).await;
                bytes.truncate(received?);
                bytes
            }
        };
        let more = !bytes.is_empty();
        self.incoming.replace(Incoming { bytes, at: 0 });
        Ok(more)
    }

    /// Lets rustls have some of the bytes that have arrived, and sends what it has to say to that; returns how many.
    async fn process_some(&self) -> io::Result<usize> {
        let (taken, outcome) = {
            let mut incoming = self.incoming.borrow_mut();
            if incoming.unused().is_empty() {
                return Ok(0);
            }
            let mut session = self.session.borrow_mut();
            let taken = session.read_tls(&mut incoming.unused())?;
            let mut border = self.border.get();
            border.pass(incoming.unused().get(..taken).unwrap_or_default());
            self.border.set(border);
            self.unanswered.set(true);
            incoming.use_up(taken);
            (taken, session.process_new_packets())
        };
        // Keys are renewed, tickets handed out, and refusals explained by what is sent here.
        let flushed = self.flush().await;
        match outcome {
            Ok(_) => flushed.map(|()| taken),
            Err(error) => Err(invalid(error)),
        }
    }

    /// Encrypts and sends `range` of `buffer`, or the first part of it; returns how much. `more`: other bytes follow at once and
    /// travel with these.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) async fn send<B>(&self, buffer: B, range: Range<usize>, more: bool) -> (io::Result<usize>, B)
    where
        B: IoBuffer + DerefMut<Target = [u8]>,
    {
        let end = range.end.min(range.start.saturating_add(SEND_BYTES_MAX));
        let Some(part) = buffer.get(range.start..end) else { return (Err(ErrorKind::InvalidInput.into()), buffer) };
        let written = self.session.borrow_mut().writer().write(part);
        if let Ok(count) = written {
            self.held_back.set(self.held_back.get() + count);
            if more && count == range.len() && self.held_back.get() < SEND_BYTES_MAX {
                return (written, buffer);
            }
        }
        match self.flush().await {
            Ok(()) => (written, buffer),
            Err(error) => (Err(error), buffer),
        }
    }

    /// Says that nothing more will be sent (RFC 8446 section 6.1).
    pub(crate) async fn say_goodbye(&self) {
        self.session.borrow_mut().send_close_notify();
        // A connection that is broken already needs no farewell.
        let _ = self.flush().await;
    }

    /// Sends every record that was made. Where that fails, is interrupted or is given up, it is the last time: the client would take what
    /// came behind the missing records for a forgery (RFC 8446 section 5.2).
    async fn flush(&self) -> io::Result<()> {
        self.held_back.set(0);
        while self.session.borrow().wants_write() {
            if self.records_lost.replace(true) {
                return Err(ErrorKind::BrokenPipe.into());
            }
            let mut records = Vec::with_capacity(RECEIVE_BYTES);
            self.session.borrow_mut().write_tls(&mut records)?;
            let mut range = 0..records.len();
            while !range.is_empty() {
                let (sent, returned) = self.socket.send(records, range.clone(), SendAmount::All, false).await;
                records = returned;
                match sent {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(sent) => range.start += sent,
                    // Who interrupts would go on.
                    Err(error) if is_interruption(&error) => return Err(ErrorKind::BrokenPipe.into()),
                    Err(error) => return Err(error),
                }
            }
            self.records_lost.set(false);
        }
        Ok(())
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}
