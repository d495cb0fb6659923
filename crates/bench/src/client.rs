//! A connection's loop: pace, choose, exchange, record.

use crate::connection::{Connection, Trouble};
use crate::pace::Pace;
use crate::request::Request;
use crate::tally::FailureKind;
use crate::work::Answer;
use crate::worker::Worker;
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// After a connection could not be made.
const RECONNECT_DELAY: Duration = Duration::from_millis(50);
/// A connection that was idle for this long is looked at before it is used: the server may have closed it.
const IDLE_LOOK: Duration = Duration::from_secs(1);

/// Why a request failed, and how that is said.
type Failed = (FailureKind, Option<String>);

/// A connection that is made anew whenever it has ended.
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    /// Among those of its thread.
    pub(crate) index: usize,
    pub(crate) connection: Option<Connection>,
    /// Whether what it does counts: the load has come so far.
    pub(crate) is_measured: bool,
}

impl Client {
    /// Sends requests until the pace says that it is enough, or there is nothing left to ask for.
    pub(crate) async fn load(mut self, pace: Rc<Pace>, measure: Instant) {
        let worker = Rc::clone(&self.worker);
        while !worker.is_stopped() {
            let Some(due) = pace.next(worker.ring.now()) else {
                // That nothing more is due until then is part of what is measured.
                worker.wait_until(pace.end()).await;
                break;
            };
            self.is_measured = due >= measure;
            self.wait_until(due).await;
            if worker.is_stopped() {
                break;
            }
            let Some(request) = worker.next_request() else {
                // What was due, too, has nothing left to ask for: the last reply was the end.
                worker.note_out_of_names();
                return;
            };
            let outcome = self.attempt(request).await;
            let latency = worker.ring.now().saturating_duration_since(due);
            let is_unconnected = matches!(outcome, Err((FailureKind::Connect, _)));
            worker.record(request, outcome, self.is_measured.then_some(latency));
            worker.note_end();
            if is_unconnected {
                worker.ring.sleep(RECONNECT_DELAY).await;
            }
        }
        worker.note_end();
    }

    /// Waits until `due`, or until it is told to stop.
    async fn wait_until(&mut self, due: Instant) {
        let wait = due.saturating_duration_since(self.worker.ring.now());
        if wait.is_zero() {
            return;
        }
        self.worker.wait_until(due).await;
        if wait >= IDLE_LOOK && self.connection.as_ref().is_some_and(Connection::is_over) {
            self.hang_up();
        }
    }

    /// Stores blocks until none are `left` to store.
    ///
    /// # Errors
    ///
    /// Says why one could not be stored.
    pub(crate) async fn store(&mut self, left: &Cell<usize>) -> Result<(), String> {
        let worker = Rc::clone(&self.worker);
        while left.get() > 0 && !worker.is_stopped() {
            left.set(left.get() - 1);
            let request = worker.stock.borrow_mut().put(&worker.noise);
            match self.attempt(request).await {
                Ok(answer) => worker.settle_stored(request, answer),
                Err(failed) => {
                    worker.give_up();
                    return Err(worker.describe(request, &failed));
                }
            }
        }
        Ok(())
    }

    /// Sends `request`, and once more where a connection that was used before has ended meanwhile, as it may at any time (RFC 9112,
    /// section 9.3.1). All methods that are sent are idempotent (RFC 9110, section 9.2.2): PUT stores the same body under the same name,
    /// and a DELETE that was done before its reply was lost finds nothing the second time, which is no failure.
    async fn attempt(&mut self, request: Request) -> Result<Answer, Failed> {
        self.worker.begin(self.index, request);
        let is_used = self.connection.as_ref().is_some_and(Connection::is_used);
        let mut is_repeated = false;
        let outcome = match self.exchange(request).await {
            Err(trouble) if is_used && trouble.is_without_reply() => {
                self.hang_up();
                is_repeated = true;
                match self.exchange(request).await {
                    Ok(Err((FailureKind::Status(404), _))) if matches!(request, Request::Delete(_)) => {
                        Ok(Ok(Answer::NONE))
                    }
                    again => again,
                }
            }
            first => first,
        };
        self.worker.finish(self.index);
        let outcome = outcome.unwrap_or_else(|trouble| {
            self.connection = None;
            Err((kind_of(&trouble), Some(trouble.to_string())))
        });
        // Whatever became of it the second time, nobody knows about the first.
        if outcome.as_ref().is_err_and(|(kind, _)| is_repeated || kind.leaves_open()) {
            self.worker.doubt(request);
        }
        outcome
    }

    async fn exchange(&mut self, request: Request) -> Result<Result<Answer, Failed>, Trouble> {
        let worker = &*self.worker;
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(worker.connect().await?),
        };
        let tail = worker.writer.write(request, &worker.noise, &mut connection.output);
        let wanted = worker.stock.borrow().wanted(request);
        let reply = connection.exchange(tail, wanted).await?;
        let body = connection.body(&reply);
        let judged = worker.stock.borrow().judge(request, reply.head, body, &worker.noise);
        let judged = judged.map_err(|kind| (kind, first_line(body)));
        if !reply.head.keeps_alive {
            self.hang_up();
        }
        Ok(judged)
    }

    /// The next request finds a new connection.
    fn hang_up(&mut self) {
        self.connection = None;
        self.worker.tally.borrow_mut().reconnects += u64::from(self.is_measured);
    }
}

fn kind_of(trouble: &Trouble) -> FailureKind {
    match trouble {
        Trouble::Connect(_) | Trouble::CongestionControl(_) => FailureKind::Connect,
        Trouble::Closed | Trouble::CutOff => FailureKind::Closed,
        Trouble::Lost(_) | Trouble::Broken(_) => FailureKind::Broken,
        Trouble::TimedOut => FailureKind::TimedOut,
        Trouble::Malformed(_) => FailureKind::Malformed,
    }
}

/// What a server says about its refusal, if that is a short text.
fn first_line(body: Option<&[u8]>) -> Option<String> {
    const SHOWN_BYTES_MAX: usize = 300;
    let text = std::str::from_utf8(body?).ok()?;
    let line = text.lines().next()?.trim();
    (!line.is_empty() && line.len() <= SHOWN_BYTES_MAX).then(|| line.to_owned())
}
