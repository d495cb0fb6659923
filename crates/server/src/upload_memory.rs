//! Memory for bodies that arrive, and for long answers: taking some, having more, and giving way to others.
//!
//! Who finds none waits in line, without reading. As long as somebody waits, those that hold some are judged ([`Holders`]), and who is
//! asked to give way has its receive interrupted: the buffer comes back from the kernel with all that had arrived, shrinks where it
//! lies, and the body goes on. An answer that goes out of such memory is held to the same: who takes too little of it is cut off. While
//! nobody waits none of this costs anything but a place in a table.

use crate::connection::{Broken, Connection};
use crate::holders::{Demand, Holders, Room};
use crate::pace::Pace;
use crate::request_error::RequestError;
use crate::status::{Problem, Status};
use crate::worker::Worker;
use buddy_ring::{Buffer, BufferPool, Elapsed};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// As long as somebody waits, holders are judged this often.
const REVIEW_INTERVAL: Duration = Duration::from_millis(5);

/// Memory of one worker for bodies that arrive.
pub(crate) struct UploadMemory {
    pub(crate) buffers: BufferPool,
    holders: RefCell<Holders>,
    reviewing: Cell<bool>,
}

impl UploadMemory {
    /// Memory of at most so many bytes.
    pub(crate) fn new(limit_bytes: usize) -> UploadMemory {
        UploadMemory {
            buffers: BufferPool::new(limit_bytes),
            holders: RefCell::new(Holders::new(limit_bytes)),
            reviewing: Cell::new(false),
        }
    }

    /// Has holders judged until nobody waits any more. To be called by who is about to wait.
    fn review_later(worker: &Rc<Worker>) {
        if !worker.uploads.reviewing.replace(true) {
            let worker = Rc::clone(worker);
            let ring = worker.ring.clone();
            ring.spawn(async move { UploadMemory::review(&worker).await }).detach();
        }
    }

    async fn review(worker: &Worker) {
        let uploads = &worker.uploads;
        while uploads.buffers.is_awaited() {
            let asked = uploads.holders.borrow_mut().review(worker.ring.now());
            asked.into_iter().for_each(|connection| worker.connections.interrupt(connection));
            worker.ring.sleep(REVIEW_INTERVAL).await;
        }
        uploads.reviewing.set(false);
    }
}

/// A buffer for a body or an answer of up to `bytes`. Where there is none now, what the connection holds is given up before it waits.
pub(crate) async fn take_buffer(connection: &mut Connection, bytes: usize) -> Result<Buffer, RequestError> {
    let buffers = connection.worker.uploads.buffers.clone();
    connection.worker.trim_later();
    let taken = match buffers.try_take(bytes) {
        Ok(None) => {
            connection.input.release_buffer();
            connection.deadline.set(connection.worker.limits.body_timeout);
            UploadMemory::review_later(&connection.worker);
            match connection.deadline.limit(buffers.take(bytes)).await {
                Ok(taken) => taken.map(Some),
                Err(Elapsed) => Ok(None),
            }
        }
        taken => taken,
    };
    match taken {
        Ok(Some(buffer)) => Ok(buffer),
        Ok(None) => Err(no_memory("other requests take the memory that this one needs")),
        Err(error) => {
            connection.worker.failures.no_memory(connection.worker.ring.now(), "a request", &error);
            Err(no_memory("there is no memory for the request"))
        }
    }
}

fn no_memory(detail: &str) -> RequestError {
    let mut problem = Problem::fatal(Status::SERVICE_UNAVAILABLE, detail);
    problem.retry_after_s = Some(1);
    RequestError::before_body(problem)
}

/// The place in the table of a body that arrives, until it is dropped.
pub(crate) struct Claim {
    worker: Rc<Worker>,
    key: usize,
}

impl Claim {
    /// For a body that arrives on `connection` in `buffer`.
    pub(crate) fn new(connection: &Connection, room: Room, buffer: &Buffer) -> Claim {
        let worker = Rc::clone(&connection.worker);
        let key = worker.uploads.holders.borrow_mut().insert(connection.key, room, buffer.len(), worker.ring.now());
        Claim { worker, key }
    }

    /// So much of the body has arrived.
    pub(crate) fn moved(&self, filled: usize) {
        self.worker.uploads.holders.borrow_mut().moved(self.key, filled, || self.worker.ring.now());
    }

    /// So much more of the work on the body, or of its answer, is done.
    pub(crate) fn advanced(&self, bytes: usize) {
        self.worker.uploads.holders.borrow_mut().advanced(self.key, bytes, || self.worker.ring.now());
    }

    /// Does what the body was asked to do, if anything. It is asked before each receive; one under way is interrupted for it.
    ///
    /// # Errors
    ///
    /// The body is to end.
    pub(crate) fn give_way(&self, buffer: &mut Buffer, filled: usize) -> Result<(), RequestError> {
        match self.demand() {
            None => Ok(()),
            Some((Demand::End, _)) => Err(given_up(filled)),
            Some((Demand::Shrink, size)) => {
                self.shrink(buffer, size);
                Ok(())
            }
        }
    }

    /// Gives back what is not needed for `bytes`.
    pub(crate) fn shrink(&self, buffer: &mut Buffer, bytes: usize) {
        if let Err(error) = buffer.shrink(bytes) {
            tracing::error!(%error, "a buffer cannot be made smaller");
        }
        self.worker.uploads.holders.borrow_mut().resized(self.key, buffer.len());
    }

    /// Runs what sends an answer out of the memory, until that is to be given back.
    pub(crate) async fn while_held<T, E: From<Broken>>(
        &self,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut operation = pin!(operation);
        poll_fn(|context| {
            // Who is asked to has the operation in flight interrupted, and is polled.
            if matches!(self.demand(), Some((Demand::End, _))) {
                return Poll::Ready(Err(Broken.into()));
            }
            operation.as_mut().poll(context)
        })
        .await
    }

    /// As [`Claim::give_way`], for room that is needed as a whole.
    pub(crate) fn go_on(&self, filled: usize) -> Result<(), RequestError> {
        if matches!(self.demand(), Some((Demand::End, _))) { Err(given_up(filled)) } else { Ok(()) }
    }

    fn demand(&self) -> Option<(Demand, usize)> {
        self.worker.uploads.holders.borrow().demand(self.key)
    }

    /// Moves to a larger buffer: for `needed` bytes at least, for `all` of the body where it is fast. The time that this takes does not
    /// count as the client's.
    pub(crate) async fn grow(
        &self,
        connection: &mut Connection,
        pace: &mut Pace,
        buffer: &mut Buffer,
        needed: usize,
        all: usize,
    ) -> Result<(), RequestError> {
        let holders = &self.worker.uploads.holders;
        let size = holders.borrow().larger_size(self.key, needed, all);
        let mut larger = match self.worker.uploads.buffers.try_take(size) {
            Ok(Some(larger)) => larger,
            // The next attempt says what is wrong.
            Ok(None) | Err(_) => {
                let began = self.worker.ring.now();
                let taken = self.take_in_line(connection, size).await?;
                pace.give_back(self.worker.ring.now().saturating_duration_since(began));
                taken
            }
        };
        if let Some(target) = larger.get_mut(..buffer.len()) {
            target.copy_from_slice(buffer);
        }
        *buffer = larger;
        holders.borrow_mut().resized(self.key, buffer.len());
        Ok(())
    }

    async fn take_in_line(&self, connection: &mut Connection, size: usize) -> Result<Buffer, RequestError> {
        let holders = &self.worker.uploads.holders;
        if !holders.borrow_mut().begin_waiting(self.key) {
            return Err(no_memory("other requests take the memory that this one needs"));
        }
        let taken = take_buffer(connection, size).await;
        holders.borrow_mut().end_waiting(self.key, self.worker.ring.now());
        taken
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.worker.uploads.holders.borrow_mut().remove(self.key);
    }
}

fn given_up(received: usize) -> RequestError {
    RequestError::before_body(Problem::fatal(
        Status::REQUEST_TIMEOUT,
        format!("the body was given up after {received} bytes: it arrived slowly, and others waited for the memory"),
    ))
}
