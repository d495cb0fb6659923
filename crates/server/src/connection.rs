//! One connection, read from top to bottom: head, body, block, reply. One request at a time; pipelined ones in order.

use crate::input::Input;
use crate::limits::{DISCARD_BYTES_MAX, LINGER, LINGER_BYTES_MAX, WHOLE_SEND_BYTES_MAX};
use crate::metrics::RequestKind;
use crate::pace::Pace;
use crate::pieces::Pieces;
use crate::reply::{self, Persistence, ReplyContext};
use crate::request::{BodyFraming, Head, Method, parse_head};
use crate::request_error::RequestError;
use crate::routes;
use crate::status::{Problem, Status};
use crate::stream::Stream;
use crate::tls::TlsStream;
use crate::worker::Worker;
use buddy_ring::{Deadline, IoBuffer, SendAmount, Socket};
use rustls::server::ServerConfig;
use std::cell::Cell;
use std::future::Future;
use std::ops::{DerefMut, Range};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;

/// The connection is of no more use: broken, ended by the client, or too slow.
#[derive(Debug)]
pub(crate) struct Broken;

/// What the next request's head turned out to be.
enum NextHead {
    Head(Head),
    Refused(Problem),
    /// The client has ended the connection, or was idle for too long.
    Ended,
}

/// A connection.
pub(crate) struct Connection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) stream: Stream,
    pub(crate) input: Input,
    /// When the client must have moved.
    pub(crate) deadline: Deadline,
    /// The status of the reply to this request; 0: there is none yet.
    replied: Cell<u16>,
    /// By which its worker knows it.
    pub(crate) key: usize,
    /// Requests so far.
    requests: u64,
}

/// Whether the next request may follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GoesOn {
    Yes,
    No,
}

impl From<Persistence> for GoesOn {
    fn from(persistence: Persistence) -> GoesOn {
        if persistence == Persistence::Close { GoesOn::No } else { GoesOn::Yes }
    }
}

/// Serves a connection until it ends; through TLS where `tls` says how.
pub(crate) async fn serve(worker: &Rc<Worker>, socket: Socket, tls: Option<Arc<ServerConfig>>, key: usize) {
    let stream = match tls {
        None => Stream::Plain(socket),
        Some(config) => match secure(worker, socket, config).await {
            Some(stream) => Stream::Tls(stream),
            None => return,
        },
    };
    let mut connection = Connection::new(worker, stream, key);
    loop {
        let next = connection.next_head().await;
        let turn = worker.ring.now();
        let goes_on = match next {
            NextHead::Ended => return connection.finish().await,
            NextHead::Refused(problem) => {
                connection.counting(RequestKind::MALFORMED, async |this| this.refuse_unread(&problem).await).await
            }
            NextHead::Head(head) => {
                connection.counting(head.method.into(), async |this| this.answer(&head).await).await
            }
        };
        match goes_on {
            // Head and pages of a cached block go out without a wait: who asks for many at once must not keep the worker from others.
            Ok(GoesOn::Yes) if worker.ring.now() == turn && !connection.input.unused().is_empty() => {
                worker.ring.next_turn().await;
            }
            Ok(GoesOn::Yes) => {}
            Ok(GoesOn::No) => return connection.linger().await,
            Err(Broken) => return,
        }
    }
}

/// Agrees on keys with a client, within the time for a head.
async fn secure(worker: &Worker, socket: Socket, config: Arc<ServerConfig>) -> Option<Box<TlsStream>> {
    let stream = Box::new(TlsStream::new(socket, config).ok()?);
    let shaking_hands = stream.shake_hands(&worker.receive_buffers);
    // Who has not asked for anything yet is not waited for by a server that stops.
    let shaking_hands = worker.phase.unless_draining(shaking_hands);
    match worker.ring.timeout(worker.limits.head_timeout, shaking_hands).await {
        Ok(Some(Ok(()))) => Some(stream),
        Ok(Some(Err(error))) => {
            tracing::debug!(%error, "a client could not agree on TLS");
            None
        }
        Ok(None) | Err(_) => None,
    }
}

/// Tells a client that there are too many.
pub(crate) async fn refuse_crowd(worker: &Rc<Worker>, socket: Socket, reason: String) {
    let mut connection = Connection::new(worker, Stream::Plain(socket), usize::MAX);
    let mut problem = Problem::fatal(Status::SERVICE_UNAVAILABLE, reason);
    problem.retry_after_s = Some(1);
    if connection.refuse_unread(&problem).await.is_ok() {
        connection.linger().await;
    }
}

/// Why no more of a head was received.
enum HeadEnd {
    Broken,
    TooSlow,
}

impl Connection {
    fn new(worker: &Rc<Worker>, stream: Stream, key: usize) -> Connection {
        let deadline = Deadline::new(&worker.ring, worker.limits.idle_timeout);
        Connection {
            worker: Rc::clone(worker),
            stream,
            input: Input::default(),
            deadline,
            replied: Cell::new(0),
            key,
            requests: 0,
        }
    }

    /// Answers a request, and counts it when that is done.
    async fn counting(
        &mut self,
        kind: RequestKind,
        answer: impl AsyncFnOnce(&mut Connection) -> Result<GoesOn, Broken>,
    ) -> Result<GoesOn, Broken> {
        let began = self.worker.ring.now();
        let goes_on = answer(self).await;
        let time = self.worker.ring.now().saturating_duration_since(began);
        self.worker.metrics.count_request(kind, self.replied.take(), time);
        goes_on
    }

    /// Receives until a head is complete.
    async fn next_head(&mut self) -> NextHead {
        let worker = Rc::clone(&self.worker);
        let limits = &worker.limits;
        self.input.skip_empty_lines();
        let mut begun = !self.input.unused().is_empty();
        let mut last_line_end = None;
        self.deadline.set(if begun { limits.head_timeout } else { limits.idle_timeout });
        loop {
            // Who sends byte by byte has a head read once a line, not once a byte.
            let unused = self.input.unused();
            let before = last_line_end.replace(memchr::memrchr(b'\n', unused));
            let is_worth_reading = before != last_line_end || unused.len() > limits.head_bytes_max;
            if begun && is_worth_reading {
                match parse_head(self.input.unused()) {
                    Ok(Some(head)) if head.bytes > limits.head_bytes_max => {
                        return NextHead::Refused(head_too_large(limits.head_bytes_max));
                    }
                    Ok(Some(head)) => {
                        self.input.use_up(head.bytes);
                        return NextHead::Head(head);
                    }
                    Ok(None) if self.input.unused().len() > limits.head_bytes_max => {
                        return NextHead::Refused(head_too_large(limits.head_bytes_max));
                    }
                    Ok(None) => {}
                    Err(problem) => return NextHead::Refused(problem),
                }
            } else if !begun && self.worker.phase.is_draining() {
                return NextHead::Ended;
            }
            match self.receive_head_part(begun).await {
                Ok(true) => {
                    self.input.skip_empty_lines();
                    let begins = !begun && !self.input.unused().is_empty();
                    if begins {
                        last_line_end = None;
                        self.deadline.set(limits.head_timeout);
                        begun = true;
                    }
                }
                Ok(false) | Err(HeadEnd::Broken) => return NextHead::Ended,
                Err(HeadEnd::TooSlow) if begun => {
                    let seconds = limits.head_timeout.as_secs_f32();
                    let detail = format!("the head of the request was not complete after {seconds} s");
                    return NextHead::Refused(Problem::fatal(Status::REQUEST_TIMEOUT, detail));
                }
                Err(HeadEnd::TooSlow) => return NextHead::Ended,
            }
        }
    }

    async fn receive_head_part(&mut self, begun: bool) -> Result<bool, HeadEnd> {
        if !begun {
            self.worker.connections.set_idle(self.key, true);
        }
        let receiving = self.input.receive(&self.worker.receive_buffers, &self.stream);
        let received = self.deadline.limit(receiving).await;
        if !begun {
            self.worker.connections.set_idle(self.key, false);
        }
        match received {
            Ok(Ok(more)) => Ok(more),
            Ok(Err(_)) => Err(HeadEnd::Broken),
            Err(_) => Err(HeadEnd::TooSlow),
        }
    }

    /// Answers one request.
    async fn answer(&mut self, head: &Head) -> Result<GoesOn, Broken> {
        self.requests += 1;
        if matches!(head.body, BodyFraming::None | BodyFraming::Length(0)) {
            // What follows is the next request's: it must not hold a buffer that others need while this one is answered.
            self.input.release_buffer();
        }
        match routes::route(self, head).await {
            Ok(goes_on) => Ok(goes_on),
            Err(RequestError::Broken) => Err(Broken),
            Err(RequestError::Refused { problem, body_read }) => self.refuse(head, &problem, body_read).await,
        }
    }

    /// How the connection goes on after a request that was read to its end.
    pub(crate) fn persistence(&self, head: &Head) -> Persistence {
        let is_last = self.worker.limits.requests_per_connection_max.is_some_and(|max| self.requests >= max);
        if !head.keep_alive || is_last || self.worker.phase.is_draining() {
            Persistence::Close
        } else if head.is_http_10 {
            Persistence::KeepAliveConfirmed
        } else {
            Persistence::KeepAlive
        }
    }

    /// Sends a small reply to a request that was read to its end; `write` writes it.
    pub(crate) async fn reply(
        &self,
        head: &Head,
        write: impl FnOnce(&mut Vec<u8>, ReplyContext<'_>),
    ) -> Result<GoesOn, Broken> {
        let persistence = self.persistence(head);
        self.reply_with(persistence, Some(head), write).await?;
        Ok(persistence.into())
    }

    /// `head`: the request, where it could be read as one.
    async fn reply_with(
        &self,
        persistence: Persistence,
        head: Option<&Head>,
        write: impl FnOnce(&mut Vec<u8>, ReplyContext<'_>),
    ) -> Result<(), Broken> {
        let mut scratch = self.worker.scratch.take();
        self.with_context(persistence, head, |context| write(&mut scratch, context));
        let length = scratch.len();
        let scratch = self.send(scratch, 0..length, false).await?;
        self.worker.scratch.give(scratch);
        Ok(())
    }

    /// Works with what all replies to one request have in common.
    pub(crate) fn with_context<T>(
        &self,
        persistence: Persistence,
        head: Option<&Head>,
        work: impl FnOnce(ReplyContext<'_>) -> T,
    ) -> T {
        let is_head = head.is_some_and(|head| head.method == Method::Head);
        let is_private = self.worker.state.access().keeps_blocks_private();
        let cors = self.worker.limits.cors.fields(head.and_then(|head| head.origin.as_deref()));
        self.worker.date.with(|date| {
            work(ReplyContext { date, persistence, is_head, cors, is_private, replied: Some(&self.replied) })
        })
    }

    /// Sends a range of a buffer. The client must take some of it every so often, and all of it in time.
    pub(crate) fn send<B>(&self, buffer: B, range: Range<usize>, more: bool) -> impl Future<Output = Result<B, Broken>>
    where
        B: IoBuffer + DerefMut<Target = [u8]>,
    {
        let pace = Pace::of_reply(&self.worker, range.len());
        self.send_piece(buffer, range, more, pace)
    }

    /// As [`Connection::send`], for a piece of a reply that has all of it as much time as `pace` says.
    pub(crate) async fn send_piece<B>(
        &self,
        buffer: B,
        range: Range<usize>,
        more: bool,
        pace: Pace,
    ) -> Result<B, Broken>
    where
        B: IoBuffer + DerefMut<Target = [u8]>,
    {
        let (mut buffer, mut range) = (buffer, range);
        let amount = if range.len() <= WHOLE_SEND_BYTES_MAX { SendAmount::All } else { SendAmount::Some };
        while !range.is_empty() {
            let sending = self.stream.send(buffer, range.clone(), amount, more);
            let (sent, returned) = self.while_client_takes(&pace, pin!(sending)).await?;
            buffer = returned;
            match sent {
                Ok(sent) if sent > 0 => range.start += sent,
                _ => return Err(Broken),
            }
        }
        Ok(buffer)
    }

    /// Runs an operation that waits for the client to take bytes, as long as it takes some every so often. An operation may take
    /// longer than that: what counts is whether fewer bytes are on their way than before.
    pub(crate) async fn while_client_takes<F: Future>(
        &self,
        pace: &Pace,
        mut operation: Pin<&mut F>,
    ) -> Result<F::Output, Broken> {
        let mut unconfirmed = None;
        loop {
            if let Ok(output) = pace.limit(&self.deadline, operation.as_mut()).await {
                return Ok(output);
            }
            let now = self.stream.unconfirmed_bytes();
            if pace.is_over() || now.is_none() || now == unconfirmed {
                return Err(Broken);
            }
            unconfirmed = now;
        }
    }

    /// Refuses a request. `body_read`: nothing of it is left to be read.
    async fn refuse(&mut self, head: &Head, problem: &Problem, body_read: bool) -> Result<GoesOn, Broken> {
        let read = body_read || (!problem.ends_connection && self.discard_body(head).await?);
        let ends = !read || problem.ends_connection;
        let persistence = if ends { Persistence::Close } else { self.persistence(head) };
        // Who does not read the refusal must not keep a buffer that others need.
        self.input.release_buffer();
        self.reply_with(persistence, Some(head), |target, context| reply::problem(target, context, problem)).await?;
        Ok(persistence.into())
    }

    /// Refuses what could not be read as a request.
    async fn refuse_unread(&mut self, problem: &Problem) -> Result<GoesOn, Broken> {
        self.input.release_buffer();
        self.reply_with(Persistence::Close, None, |target, context| reply::problem(target, context, problem)).await?;
        Ok(GoesOn::No)
    }

    /// Reads a body that is not wanted and throws it away, if it is small and on its way. False where it is not.
    pub(crate) async fn discard_body(&mut self, head: &Head) -> Result<bool, Broken> {
        match head.body {
            BodyFraming::None | BodyFraming::Length(0) => return Ok(true),
            BodyFraming::Length(length) if length <= DISCARD_BYTES_MAX && !head.expects_continue => {}
            BodyFraming::Length(_) | BodyFraming::Chunked => return Ok(false),
        }
        match self.discard_pieces(head).await {
            Ok(()) => Ok(true),
            Err(RequestError::Broken) => Err(Broken),
            Err(RequestError::Refused { .. }) => Ok(false),
        }
    }

    async fn discard_pieces(&mut self, head: &Head) -> Result<(), RequestError> {
        let mut pieces = Pieces::begin(self, head, 0).await?;
        while pieces.next(self, |_| Ok(())).await? {}
        self.input.release_buffer();
        Ok(())
    }

    /// Tells the client that nothing more will be sent, unless it takes nothing any more. Sets the deadline for what follows.
    async fn finish(&self) {
        self.deadline.set(LINGER);
        // A client that does not listen is not waited for.
        let _ = self.deadline.limit(self.stream.finish_sending()).await;
    }

    /// Ends a connection whose client may still be sending: closing at once would reset it, and what was sent might be lost.
    async fn linger(mut self) {
        self.finish().await;
        let mut discarded = 0;
        while discarded < LINGER_BYTES_MAX {
            discarded += self.input.unused().len();
            self.input.use_up(self.input.unused().len());
            let receiving = self.input.receive(&self.worker.receive_buffers, &self.stream);
            match self.deadline.limit(receiving).await {
                Ok(Ok(true)) => {}
                _ => return,
            }
        }
    }
}

fn head_too_large(limit: usize) -> Problem {
    Problem::fatal(
        Status::REQUEST_HEADER_FIELDS_TOO_LARGE,
        format!("the head of the request is larger than {limit} bytes"),
    )
}
