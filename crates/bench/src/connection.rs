//! One connection: a request out, its reply in.
//!
//! The request is handed to the kernel together with the wait for the reply, so a small exchange enters the kernel once.

use crate::reply::{self, ReplyHead};
use buddy_ring::{Deadline, Ring, SendAmount, Socket};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Room for a reply's head and a small body. What does not fit is thrown away, unless it is wanted.
const INPUT_BYTES: usize = 8 * 1024;
/// Largest body that is kept, of servers that store larger ones than ours.
const KEPT_BODY_BYTES_MAX: usize = 64 << 20;

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("could not connect: {0}")]
    Connect(io::Error),
    #[error("TCP congestion control \"{0}\" cannot be used: see /proc/sys/net/ipv4/tcp_allowed_congestion_control")]
    CongestionControl(String),
    /// Before the first byte of a reply.
    #[error("the server closed the connection instead of answering")]
    Closed,
    /// Before the first byte of a reply.
    #[error("the connection broke before an answer came: {0}")]
    Lost(io::Error),
    #[error("the server closed the connection in the middle of its answer")]
    CutOff,
    #[error("the connection broke in the middle of an answer: {0}")]
    Broken(io::Error),
    #[error("no answer in time")]
    TimedOut,
    #[error("a malformed reply: {0}")]
    Malformed(&'static str),
}

impl Trouble {
    /// The connection has ended, and nothing of a reply has come.
    pub(crate) fn is_without_reply(&self) -> bool {
        matches!(self, Trouble::Closed | Trouble::Lost(_))
    }
}

/// A connection that is kept alive.
pub(crate) struct Connection {
    socket: Socket,
    /// The request, written by who sends it.
    pub(crate) output: Vec<u8>,
    input: Vec<u8>,
    deadline: Deadline,
    timeout: Duration,
    /// It has brought a reply.
    is_used: bool,
}

/// A reply. Its body is looked at through [`Connection::body`].
pub(crate) struct Reply {
    pub(crate) head: ReplyHead,
    /// Where the body lies in the input; `None` where it was thrown away.
    body: Option<Range<usize>>,
}

/// What is to become of a reply's body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyBody {
    /// The request was HEAD.
    None,
    /// Kept only if it is small.
    Counted,
    Kept,
}

impl Connection {
    pub(crate) async fn open(
        ring: &Ring,
        address: SocketAddr,
        timeout: Duration,
        congestion_control: Option<&str>,
    ) -> Result<Connection, Trouble> {
        let connecting = Socket::connect(ring, address, congestion_control);
        let socket = ring.timeout(timeout, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let failed = |error: io::Error| match congestion_control {
            // Unknown, or not allowed: connecting itself says neither.
            Some(name) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
                Trouble::CongestionControl(name.to_owned())
            }
            _ => Trouble::Connect(error),
        };
        Ok(Connection {
            socket: socket.map_err(failed)?,
            output: Vec::new(),
            input: vec![0; INPUT_BYTES],
            deadline: Deadline::new(ring, timeout),
            timeout,
            is_used: false,
        })
    }

    /// Whether it has brought a reply: if it ends before the next, the server may have had enough of it, not of the request.
    pub(crate) fn is_used(&self) -> bool {
        self.is_used
    }

    /// Sends what is in `output`, and the tail, and receives the reply.
    pub(crate) async fn exchange(&mut self, tail: Option<&[u8]>, wanted: ReplyBody) -> Result<Reply, Trouble> {
        let Connection { socket, output, input, deadline, timeout, is_used } = self;
        deadline.set(*timeout);
        let exchange = async {
            let mut reply = match tail {
                None => exchange_small(socket, output, input, wanted).await?,
                Some(tail) => exchange_large(socket, output, tail, input, wanted).await?,
            };
            reply.body = receive_body(socket, input, &reply, wanted).await?;
            Ok(reply)
        };
        let reply = deadline.limit(exchange).await.unwrap_or(Err(Trouble::TimedOut));
        *is_used |= reply.is_ok();
        reply
    }

    /// The body of the last reply; `None` where it was thrown away.
    pub(crate) fn body(&self, reply: &Reply) -> Option<&[u8]> {
        self.input.get(reply.body.clone()?)
    }

    /// Whether the server has closed the connection, or sent something that nobody asked for.
    pub(crate) fn is_over(&self) -> bool {
        let mut byte = [0];
        !matches!(recv(&self.socket, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT), Err(Errno::AGAIN))
    }
}

/// A request in one piece. Its send is looked at after the reply is here: until then it wakes nobody.
async fn exchange_small(
    socket: &Socket,
    output: &mut Vec<u8>,
    input: &mut Vec<u8>,
    wanted: ReplyBody,
) -> Result<Reply, Trouble> {
    let request = std::mem::take(output);
    let length = request.len();
    let mut sending = pin!(socket.send(request, 0..length, SendAmount::All, false));
    let mut sent = match sending.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(sent) => Some(sent),
        Poll::Pending => None,
    };
    let mut reply = receive_head(socket, input, wanted).await?;
    if sent.is_none() {
        sent = Some(sending.await);
    }
    if let Some((result, request)) = sent {
        *output = request;
        // Answered before the request was there as a whole: what is left of it must not be taken for another.
        reply.head.keeps_alive &= result.is_ok_and(|sent| sent == length);
    }
    Ok(reply)
}

/// A request whose body's end is sent from where it lies.
async fn exchange_large(
    socket: &Socket,
    output: &mut Vec<u8>,
    tail: &[u8],
    input: &mut Vec<u8>,
    wanted: ReplyBody,
) -> Result<Reply, Trouble> {
    let sent = send_large(socket, output, tail).await;
    match (sent, receive_head(socket, input, wanted).await) {
        (Ok(()), received) => received,
        // Refused before all of it was sent.
        (Err(_), Ok(mut reply)) => {
            reply.head.keeps_alive = false;
            Ok(reply)
        }
        (Err(error), Err(trouble)) if trouble.is_without_reply() => Err(Trouble::Lost(error)),
        (Err(_), Err(trouble)) => Err(trouble),
    }
}

async fn send_large(socket: &Socket, output: &mut Vec<u8>, mut tail: &[u8]) -> io::Result<()> {
    let head = std::mem::take(output);
    let length = head.len();
    let (sent, head) = socket.send(head, 0..length, SendAmount::All, true).await;
    *output = head;
    if sent? < length {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    while !tail.is_empty() {
        match socket.try_send(tail, false) {
            Ok(sent) => tail = tail.get(sent..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Receives a head, and what comes with it.
async fn receive_head(socket: &Socket, input: &mut Vec<u8>, wanted: ReplyBody) -> Result<Reply, Trouble> {
    let mut received = 0;
    loop {
        if received == input.len() {
            return Err(Trouble::Malformed("its head is too large"));
        }
        let range = received..input.len();
        received += receive(socket, input, range).await.map_err(|trouble| match trouble {
            Trouble::CutOff if received == 0 => Trouble::Closed,
            Trouble::Broken(error) if received == 0 => Trouble::Lost(error),
            other => other,
        })?;
        let bytes = input.get(..received).unwrap_or_default();
        let head = reply::parse(bytes, wanted == ReplyBody::None).map_err(Trouble::Malformed)?;
        if let Some(head) = head {
            if received > head.head_bytes.saturating_add(head.body_bytes) {
                return Err(Trouble::Malformed("it goes on behind its end"));
            }
            return Ok(Reply { head, body: Some(head.head_bytes..received) });
        }
    }
}

/// Receives what is still to come of the body. `reply.body` is what came with the head.
async fn receive_body(
    socket: &Socket,
    input: &mut Vec<u8>,
    reply: &Reply,
    wanted: ReplyBody,
) -> Result<Option<Range<usize>>, Trouble> {
    let head = reply.head;
    let mut received = reply.body.as_ref().map_or(head.head_bytes, |body| body.end);
    let end = head.head_bytes.saturating_add(head.body_bytes);
    if end > input.len() {
        if wanted != ReplyBody::Kept {
            while received < end {
                received += some(socket.discard(end - received).await)?;
            }
            return Ok(None);
        }
        if head.body_bytes > KEPT_BODY_BYTES_MAX {
            return Err(Trouble::Malformed("its body is too large to be looked at"));
        }
        input.resize(end, 0);
    }
    while received < end {
        received += receive(socket, input, received..end).await?;
    }
    Ok(Some(head.head_bytes..end))
}

/// Receives at least a byte.
async fn receive(socket: &Socket, input: &mut Vec<u8>, range: Range<usize>) -> Result<usize, Trouble> {
    let (received, buffer) = socket.receive_later(std::mem::take(input), range).await;
    *input = buffer;
    some(received)
}

/// In the middle of a reply, where the end of the stream is an error.
fn some(received: io::Result<usize>) -> Result<usize, Trouble> {
    match received {
        Ok(0) => Err(Trouble::CutOff),
        Ok(received) => Ok(received),
        Err(error) => Err(Trouble::Broken(error)),
    }
}
