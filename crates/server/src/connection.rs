//! One connection, read from top to bottom: head, body, block, reply. One request at a time; pipelined ones in order.

use crate::asker::Asker;
use crate::input::Input;
use crate::limits::{DISCARD_BYTES_MAX, LINGER, LINGER_BYTES_MAX, LINGER_MAX};
use crate::metrics::RequestKind;
use crate::next_head::NextHead;
use crate::pieces::Pieces;
use crate::reply::{self, Persistence};
use crate::request::{BodyFraming, Head};
use crate::request_error::RequestError;
use crate::routes;
use crate::status::{Problem, Status};
use crate::stream::Stream;
use crate::tls::{TlsSettings, TlsStream};
use crate::worker::Worker;
use buddy_ring::{Deadline, Socket};
use buddy_store::StoreError;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

/// The connection is of no more use: broken, ended by the client, or too slow.
#[derive(Debug)]
pub(crate) struct Broken;

/// A connection.
pub(crate) struct Connection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) stream: Stream,
    pub(crate) input: Input,
    /// When the client must have moved.
    pub(crate) deadline: Deadline,
    /// The status of the reply to this request; 0: there is none yet.
    pub(crate) replied: Cell<u16>,
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
pub(crate) async fn serve(worker: &Rc<Worker>, socket: Socket, tls: Option<Arc<TlsSettings>>, key: usize) {
    let stream = match tls {
        None => Stream::Plain(socket),
        Some(settings) => match secure(worker, socket, &settings).await {
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
            NextHead::Refused(refused) => {
                let refuse = async |this: &mut Connection| this.refuse_unread(refused.asker(), &refused.problem).await;
                connection.counting(RequestKind::MALFORMED, refuse).await
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
async fn secure(worker: &Worker, socket: Socket, settings: &TlsSettings) -> Option<Box<TlsStream>> {
    let stream = Box::new(TlsStream::new(socket, settings).ok()?);
    let shaking_hands = stream.shake_hands(settings, &worker.receive_buffers);
    // Who has not asked for anything yet is not waited for by a server that stops.
    let shaking_hands = worker.phase.unless_draining(shaking_hands);
    match worker.ring.timeout(worker.limits.head_timeout, shaking_hands).await {
        Ok(Some(Ok(()))) => Some(stream),
        Ok(Some(Err(error))) => {
            tracing::debug!(%error, "a client could not agree on TLS");
            // Who was asked for a certificate may have sent its first request: closing at once would reset the connection.
            let _ = worker.ring.timeout(LINGER, stream.see_off()).await;
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
    if connection.refuse_unread(Asker::default(), &problem).await.is_ok() {
        connection.linger().await;
    }
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

    /// Answers one request.
    async fn answer(&mut self, head: &Head) -> Result<GoesOn, Broken> {
        self.requests += 1;
        if !has_body(head) {
            // What follows is the next request's: it must not hold a buffer that others need while this one is answered.
            self.input.release_buffer();
        }
        match routes::route(self, head).await {
            Ok(goes_on) => Ok(goes_on),
            Err(RequestError::Broken) => Err(Broken),
            Err(RequestError::Refused { problem, body_read }) => self.refuse(head, &problem, body_read).await,
        }
    }

    /// Refuses a request that was read to its end, and that the store did not carry out.
    pub(crate) fn failed(&self, error: StoreError) -> RequestError {
        RequestError::after_body(self.problem_of(error))
    }

    /// What a client is told that the store has said. Where nobody but the server is to blame, the log has it, too.
    pub(crate) fn problem_of(&self, error: StoreError) -> Problem {
        let problem = Problem::from(error);
        if problem.status == Status::INTERNAL_SERVER_ERROR {
            self.worker.failures.failed(self.worker.ring.now(), &problem.detail);
        }
        problem
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

    /// Refuses a request. `body_read`: nothing of it is left to be read.
    async fn refuse(&mut self, head: &Head, problem: &Problem, body_read: bool) -> Result<GoesOn, Broken> {
        // Who waits to be told to send a body is told not to, by the refusal.
        let awaited = has_body(head) && head.expects_continue && self.input.unused().is_empty();
        let discards = !awaited && !problem.ends_connection;
        let read = body_read || (discards && self.discard_refused_body(head).await?);
        let ends = !read || problem.ends_connection;
        let persistence = if ends { Persistence::Close } else { self.persistence(head) };
        // Who does not read the refusal must not keep a buffer that others need.
        self.input.release_buffer();
        self.reply_with(persistence, Asker::of(head), |target, context| reply::problem(target, context, problem))
            .await?;
        Ok(persistence.into())
    }

    /// Refuses what could not be read as a request.
    async fn refuse_unread(&mut self, asker: Asker<'_>, problem: &Problem) -> Result<GoesOn, Broken> {
        self.input.release_buffer();
        self.reply_with(Persistence::Close, asker, |target, context| reply::problem(target, context, problem)).await?;
        Ok(GoesOn::No)
    }

    /// Reads the body of a refused request and throws it away, if it is small and on its way. False where it is not.
    async fn discard_refused_body(&mut self, head: &Head) -> Result<bool, Broken> {
        match self.discard_body(head).await {
            Ok(()) => Ok(true),
            Err(RequestError::Broken) => Err(Broken),
            Err(RequestError::Refused { .. }) => Ok(false),
        }
    }

    /// Reads a body that means nothing and throws it away.
    ///
    /// # Errors
    ///
    /// The request is refused where it is too large for that, malformed, or too slow.
    pub(crate) async fn discard_body(&mut self, head: &Head) -> Result<(), RequestError> {
        if !has_body(head) {
            return Ok(());
        }
        if matches!(head.body, BodyFraming::Length(length) if length > DISCARD_BYTES_MAX) {
            return Err(RequestError::before_body(too_large_to_discard()));
        }
        let mut pieces = Pieces::begin(self, head, 0).await?;
        let mut bytes = 0;
        let mut discard = |piece: &[u8]| {
            bytes += piece.len() as u64;
            if bytes > DISCARD_BYTES_MAX { Err(too_large_to_discard()) } else { Ok(()) }
        };
        while pieces.next(self, &mut discard).await? {}
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
        let end = self.worker.ring.now() + LINGER_MAX;
        let mut discarded = 0;
        while discarded < LINGER_BYTES_MAX && self.worker.ring.now() < end {
            if !self.input.unused().is_empty() {
                // It goes on sending.
                self.deadline.set(LINGER);
            }
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

fn has_body(head: &Head) -> bool {
    !matches!(head.body, BodyFraming::None | BodyFraming::Length(0))
}

fn too_large_to_discard() -> Problem {
    let detail = "a body means nothing here, and this one is too large to be passed over";
    Problem::fatal(Status::BAD_REQUEST, detail)
}
