//! Accepting connections: each is refused, served here, or passed to a worker with fewer.
//!
//! Each listener has several tasks that accept from it, one connection at a time, so that a worker with much to do lets many in at once.

use crate::admission::Admission;
use crate::connection;
use crate::limits::{ACCEPT_LOG_INTERVAL, ACCEPT_PAUSE, ACCEPTS_AT_A_TIME, CROWD_MAX};
use crate::peers::PeerSlot;
use crate::server_state::Listening;
use crate::worker::Worker;
use buddy_ring::{JoinHandle, Socket};
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Instant;

/// A worker passes a connection on when it has more than the least loaded by at least this.
const IMBALANCE_MIN: usize = 1;

/// What a worker remembers of accepting, for all of its listeners.
#[derive(Default)]
pub(crate) struct Acceptance {
    /// Connections above the limit that are being told so.
    crowd: Cell<usize>,
    failure_logged: Cell<Option<Instant>>,
}

impl Acceptance {
    fn log_failure(&self, error: &io::Error, now: Instant) {
        let recently = self.failure_logged.get().is_some_and(|logged| now < logged + ACCEPT_LOG_INTERVAL);
        if !recently {
            self.failure_logged.set(Some(now));
            tracing::warn!(%error, "connections cannot be accepted for now");
        }
    }
}

/// Accepts connections from all sockets of a worker, in tasks that end when the server drains.
pub(crate) fn start(worker: &Rc<Worker>) -> Vec<JoinHandle<()>> {
    let listeners = worker.state.listeners(worker.number).iter().cloned();
    let accepting =
        listeners.map(|listening| Rc::new(Accepting { worker: Rc::clone(worker), listening, fails: Cell::new(false) }));
    let tasks = accepting.flat_map(|accepting| std::iter::repeat_n(accepting, ACCEPTS_AT_A_TIME));
    tasks.map(|accepting| worker.ring.spawn(async move { accepting.run().await })).collect()
}

/// A socket that a worker accepts connections from.
struct Accepting {
    worker: Rc<Worker>,
    listening: Listening,
    /// Nothing was accepted since it failed.
    fails: Cell<bool>,
}

impl Accepting {
    /// Accepts connections, one at a time, until the server drains.
    async fn run(&self) {
        let Accepting { worker, listening: Listening { listener, tls }, .. } = self;
        loop {
            match worker.phase.unless_draining(listener.accept(&worker.ring)).await {
                None => return listener.stop(),
                Some(Ok(socket)) => {
                    self.fails.set(false);
                    accepted(worker, socket, *tls);
                }
                // Who stopped listening first has ended what the others were waiting for.
                Some(Err(_)) if worker.phase.is_draining() => {}
                Some(Err(error)) if is_of_one_connection(&error) => {}
                // Descriptors or memory that ran out come back; a listener that is broken says so, and must not keep its worker busy.
                Some(Err(error)) => {
                    if !self.fails.replace(true) {
                        worker.metrics.connections.failed.add(1);
                    }
                    worker.acceptance.log_failure(&error, worker.ring.now());
                    worker.phase.unless_draining(worker.ring.sleep(ACCEPT_PAUSE)).await;
                }
            }
        }
    }
}

/// Whether it was the connection that failed, so that the next may well be accepted at once: see accept(2).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::EINTR
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::ENONET
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::EPERM
                | libc::EPROTO
        )
    )
}

/// Serves a connection that was accepted here, or passes it to a worker with fewer. It counts from now on, wherever it goes.
fn accepted(worker: &Rc<Worker>, socket: Socket, tls: bool) {
    worker.metrics.connections.accepted.add(1);
    let limit = worker.limits.connections_max;
    if worker.state.connections() >= limit {
        return refuse_crowd(worker, socket, tls, format!("there are {limit} connections already"));
    }
    let admission = match peer_slot(worker, &socket) {
        Ok(slot) => Admission { slot, tls },
        Err(reason) => return refuse_crowd(worker, socket, tls, reason),
    };
    let (target, fewest) = worker.state.least_loaded();
    let mine = worker.state.connections_of(worker.number);
    if target == worker.number || mine < fewest + IMBALANCE_MIN {
        return Worker::serve(worker, socket, admission);
    }
    worker.state.connection_opened(target);
    if let Err(returned) = worker.hand_over.pass(socket, admission, target, &worker.ring) {
        worker.state.connection_closed(target);
        if let Some((socket, admission)) = returned {
            Worker::serve(worker, socket, admission);
        }
    }
}

/// Counts a connection to its peer, where that is limited.
fn peer_slot(worker: &Worker, socket: &Socket) -> Result<Option<PeerSlot>, String> {
    let Some(peers) = worker.state.peers() else { return Ok(None) };
    // One that is gone already needs no count.
    let Some(peer) = socket.peer() else { return Ok(None) };
    let refused = || format!("there are {} connections from {} already", peers.connections_max(), peer.ip());
    peers.admit(peer.ip()).map(Some).ok_or_else(refused)
}

/// Tells one client too many so, unless it would take a handshake to do so.
fn refuse_crowd(worker: &Rc<Worker>, socket: Socket, tls: bool, reason: String) {
    worker.metrics.connections.refused.add(1);
    if tls || worker.acceptance.crowd.get() >= CROWD_MAX {
        return;
    }
    worker.acceptance.crowd.set(worker.acceptance.crowd.get() + 1);
    let worker = Rc::clone(worker);
    let ring = worker.ring.clone();
    ring.spawn(async move {
        connection::refuse_crowd(&worker, socket, reason).await;
        worker.acceptance.crowd.set(worker.acceptance.crowd.get() - 1);
    })
    .detach();
}
