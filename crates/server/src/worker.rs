//! One worker: a thread with its own ring, listener, session and connections. What it shares with other workers are the phase
//! the server is in, counters, and sockets that are passed on.

use crate::access::AuditLog;
use crate::admission::Admission;
use crate::connection;
use crate::hand_over::{HandOver, Inbox};
use crate::hash_queue::HashQueue;
use crate::limits::{ACCEPT_LOG_INTERVAL, ACCEPT_PAUSE, ACCEPTS_AT_A_TIME, CROWD_MAX, HttpLimits, REPLY_MEMORY_SHARE};
use crate::memory::return_free_memory;
use crate::metrics::WorkerMetrics;
use crate::page_cache::PageCache;
use crate::page_sender::Pipes;
use crate::peers::PeerSlot;
use crate::phase::{Listening, Phase, PhaseWatch, ServerState};
use crate::upload_memory::UploadMemory;
use buddy_ring::{BufferPool, ReceiveBuffers, Remote, Ring, RingConfig, Runtime, Socket};
use buddy_store::{Attachment, RealSession};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

/// Buffers that were not needed for this long go back to the system.
const TRIM_INTERVAL: Duration = Duration::from_secs(1);
/// Vectors for small replies that are kept for the next.
const SCRATCH_KEPT_MAX: usize = 64;
/// Larger ones are not.
const SCRATCH_BYTES_MAX: usize = 8 * 1024;
/// Connections that were cut off have this long to end.
const CUT_OFF_GRACE: Duration = Duration::from_secs(1);
/// A worker passes a connection on when it has more than the least loaded by at least this.
const IMBALANCE_MIN: usize = 1;

/// What a worker starts with.
pub(crate) struct WorkerSeed {
    pub(crate) number: usize,
    pub(crate) attachment: Attachment,
    pub(crate) limits: HttpLimits,
    /// How long it looks for work before it sleeps.
    pub(crate) busy_poll: Duration,
    pub(crate) state: Arc<ServerState>,
    pub(crate) hand_over: HandOver,
    pub(crate) inbox: Inbox,
    /// Told when the worker is ready to serve, or why it cannot.
    pub(crate) started: mpsc::Sender<Result<Remote, String>>,
}

/// One worker, as its connections see it.
pub(crate) struct Worker {
    pub(crate) ring: Ring,
    number: usize,
    pub(crate) session: Rc<RealSession>,
    pub(crate) limits: HttpLimits,
    /// For blocks that are received …
    pub(crate) uploads: UploadMemory,
    /// … and for blocks that are sent.
    pub(crate) reply_buffers: BufferPool,
    pub(crate) receive_buffers: ReceiveBuffers,
    pub(crate) page_cache: PageCache,
    pub(crate) pipes: Pipes,
    pub(crate) hash_queue: Rc<HashQueue>,
    pub(crate) state: Arc<ServerState>,
    pub(crate) phase: Rc<PhaseWatch>,
    /// What this worker counts.
    pub(crate) metrics: Arc<WorkerMetrics>,
    pub(crate) audit: AuditLog,
    hand_over: HandOver,
    connections: RefCell<Slab<Entry>>,
    /// Connections above the limit that are being told so.
    crowd: Cell<usize>,
    accept_failure_logged: Cell<Option<Instant>>,
    date: RefCell<Date>,
    scratch: RefCell<Vec<Vec<u8>>>,
    trimming: Cell<bool>,
}

/// A connection, as its worker sees it.
struct Entry {
    socket: Socket,
    /// It waits for a request.
    idle: bool,
}

/// The time as `Date` says it, made once a second.
struct Date {
    second: u64,
    text: String,
}

/// Runs a worker until the server has drained.
pub(crate) fn run(seed: WorkerSeed) {
    let started = seed.started.clone();
    if let Err(error) = run_to_end(seed) {
        // Only before it has started: whoever waits is told.
        let _ = started.send(Err(error));
    }
}

fn run_to_end(seed: WorkerSeed) -> Result<(), String> {
    let runtime = Runtime::new(RingConfig { submission_entries: 512, busy_poll: seed.busy_poll })
        .map_err(|error| error.to_string())?;
    let ring = runtime.ring();
    let limits = seed.limits;
    let receive_buffers = ReceiveBuffers::new(&ring, limits.receive_buffers, limits.receive_buffer_bytes)
        .map_err(|error| format!("buffers for receiving cannot be registered with io_uring: {error}"))?;
    let session = seed.attachment.start(&ring);
    let reply_bytes_max = limits.buffer_bytes_max / REPLY_MEMORY_SHARE;
    let worker = Rc::new(Worker {
        ring: ring.clone(),
        number: seed.number,
        session,
        uploads: UploadMemory::new(limits.buffer_bytes_max - reply_bytes_max),
        reply_buffers: BufferPool::new(reply_bytes_max),
        receive_buffers,
        page_cache: PageCache::default(),
        pipes: Pipes::default(),
        hash_queue: HashQueue::new(&ring),
        phase: PhaseWatch::start(&ring, &seed.state),
        metrics: seed.state.metrics_of(seed.number),
        audit: AuditLog::default(),
        state: seed.state,
        limits,
        hand_over: seed.hand_over,
        connections: RefCell::default(),
        crowd: Cell::new(0),
        accept_failure_logged: Cell::new(None),
        date: RefCell::new(Date { second: 0, text: String::new() }),
        scratch: RefCell::default(),
        trimming: Cell::new(false),
    });
    let taking_over = Rc::clone(&worker);
    worker.hand_over.receive(worker.number, seed.inbox, &ring, move |socket, admission| {
        Worker::serve_counted(&taking_over, socket, admission);
    });
    let telling = Rc::clone(&worker);
    ring.on_turn_end(move || telling.tell_levels());
    runtime.block_on(async {
        // The port opens only when the first put needs to wait for nothing.
        worker.session.fill_pools().await;
        let _ = seed.started.send(Ok(ring.remote()));
        worker.phase.reached(Phase::Serving).await;
        let listeners = worker.state.listeners(worker.number).iter().cloned();
        let accepting: Vec<_> = listeners
            .flat_map(|listening| {
                let accepting = Rc::new(Accepting { worker: Rc::clone(&worker), listening, fails: Cell::new(false) });
                std::array::from_fn::<_, ACCEPTS_AT_A_TIME, _>(|_| {
                    let accepting = Rc::clone(&accepting);
                    ring.spawn(async move { accepting.run().await })
                })
            })
            .collect();
        let scrub_bytes_per_second = worker.session.settings().scrub_bytes_per_second;
        if worker.number == 0 && scrub_bytes_per_second > 0 {
            ring.spawn(Rc::clone(&worker.session).scrub(scrub_bytes_per_second)).detach();
        }
        worker.phase.reached(Phase::Draining).await;
        for accepting in accepting {
            accepting.await;
        }
        worker.drain().await;
        worker.session.close().await;
    });
    Ok(())
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
                    Worker::accepted(worker, socket, *tls);
                }
                // Who stopped listening first has ended what the others were waiting for.
                Some(Err(_)) if worker.phase.is_draining() => {}
                Some(Err(error)) if is_of_one_connection(&error) => {}
                // Descriptors or memory that ran out come back; a listener that is broken says so, and must not keep its worker busy.
                Some(Err(error)) => {
                    if !self.fails.replace(true) {
                        worker.metrics.connections.failed.add(1);
                    }
                    worker.log_accept_failure(&error);
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

impl Worker {
    fn log_accept_failure(&self, error: &io::Error) {
        let now = self.ring.now();
        let recently = self.accept_failure_logged.get().is_some_and(|logged| now < logged + ACCEPT_LOG_INTERVAL);
        if !recently {
            self.accept_failure_logged.set(Some(now));
            tracing::warn!(%error, "connections cannot be accepted for now");
        }
    }

    /// Serves a connection that was accepted here, or passes it to a worker with fewer. It counts from now on, wherever it goes.
    fn accepted(worker: &Rc<Worker>, socket: Socket, tls: bool) {
        worker.metrics.connections.accepted.add(1);
        let limit = worker.limits.connections_max;
        if worker.state.connections() >= limit {
            return Worker::refuse_crowd(worker, socket, tls, format!("there are {limit} connections already"));
        }
        let admission = match worker.peer_slot(&socket) {
            Ok(slot) => Admission { slot, tls },
            Err(reason) => return Worker::refuse_crowd(worker, socket, tls, reason),
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
    fn peer_slot(&self, socket: &Socket) -> Result<Option<PeerSlot>, String> {
        let Some(peers) = self.state.peers() else { return Ok(None) };
        // One that is gone already needs no count.
        let Some(peer) = socket.peer() else { return Ok(None) };
        let refused = || format!("there are {} connections from {} already", peers.connections_max(), peer.ip());
        peers.admit(peer.ip()).map(Some).ok_or_else(refused)
    }

    /// Tells one client too many so, unless it would take a handshake to do so.
    fn refuse_crowd(worker: &Rc<Worker>, socket: Socket, tls: bool, reason: String) {
        worker.metrics.connections.refused.add(1);
        if tls || worker.crowd.get() >= CROWD_MAX {
            return;
        }
        worker.crowd.set(worker.crowd.get() + 1);
        let worker = Rc::clone(worker);
        let ring = worker.ring.clone();
        ring.spawn(async move {
            connection::refuse_crowd(&worker, socket, reason).await;
            worker.crowd.set(worker.crowd.get() - 1);
        })
        .detach();
    }

    fn serve(worker: &Rc<Worker>, socket: Socket, admission: Admission) {
        worker.state.connection_opened(worker.number);
        Worker::serve_counted(worker, socket, admission);
    }

    /// Serves a connection in a task of its own.
    fn serve_counted(worker: &Rc<Worker>, socket: Socket, Admission { slot, tls }: Admission) {
        let key = worker.connections.borrow_mut().insert(Entry { socket: socket.clone(), idle: false });
        let worker = Rc::clone(worker);
        let ring = worker.ring.clone();
        ring.spawn(async move {
            let tls = if tls { worker.state.tls() } else { None };
            connection::serve(&worker, socket, tls, key).await;
            worker.connections.borrow_mut().try_remove(key);
            worker.state.connection_closed(worker.number);
            drop(slot);
            worker.trim_later();
        })
        .detach();
    }

    /// Tells everybody how much is in use.
    fn tell_levels(&self) {
        let levels = &self.metrics.levels;
        levels.received_bytes.set(self.ring.received_bytes());
        levels.sent_bytes.set(self.ring.sent_bytes());
        levels.upload_buffer_bytes.set(self.uploads.buffers.in_use_bytes() as u64);
        levels.reply_buffer_bytes.set(self.reply_buffers.in_use_bytes() as u64);
        levels.receive_buffers.set(u64::from(self.receive_buffers.in_use()));
    }

    /// Notes whether a connection waits for a request.
    pub(crate) fn set_idle(&self, key: usize, idle: bool) {
        if let Some(entry) = self.connections.borrow_mut().get_mut(key) {
            entry.idle = idle;
        }
    }

    /// Makes what a connection waits for end: bytes to come, or to be taken.
    pub(crate) fn interrupt(&self, key: usize) {
        if let Some(entry) = self.connections.borrow().get(key) {
            entry.socket.interrupt();
        }
    }

    /// Ends connections that wait for a request, lets the others finish the one they are at, and cuts off those that do not in
    /// time.
    async fn drain(&self) {
        for (_, entry) in self.connections.borrow().iter() {
            if entry.idle {
                entry.socket.finish_receiving();
            }
        }
        self.wait_for_connections(self.limits.drain_timeout).await;
        let left = self.connections.borrow().len();
        if left > 0 {
            tracing::warn!(connections = left, "connections are cut off: they did not finish in time");
            for (_, entry) in self.connections.borrow().iter() {
                entry.socket.cut_off();
            }
            self.wait_for_connections(CUT_OFF_GRACE).await;
        }
    }

    async fn wait_for_connections(&self, timeout: Duration) {
        let all_ended = async {
            while !self.connections.borrow().is_empty() {
                self.ring.sleep(Duration::from_millis(5)).await;
            }
        };
        // Those that are left are the caller's to judge.
        let _ = self.ring.timeout(timeout, all_ended).await;
    }

    /// Works on the date as `Date` says it.
    pub(crate) fn with_date<T>(&self, work: impl FnOnce(&str) -> T) -> T {
        let now = SystemTime::now();
        let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut date = self.date.borrow_mut();
        if date.second != second {
            *date = Date { second, text: httpdate::fmt_http_date(now) };
        }
        work(&date.text)
    }

    /// With so many bytes more, more than half of the memory for replies would be taken.
    pub(crate) fn reply_memory_is_scarce(&self, bytes: usize) -> bool {
        self.reply_buffers.in_use_bytes() + bytes > self.limits.buffer_bytes_max / REPLY_MEMORY_SHARE / 2
    }

    /// An empty vector for a small reply.
    pub(crate) fn take_scratch(&self) -> Vec<u8> {
        self.scratch.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes a vector back.
    pub(crate) fn give_scratch(&self, mut scratch: Vec<u8>) {
        let mut kept = self.scratch.borrow_mut();
        if kept.len() < SCRATCH_KEPT_MAX && scratch.capacity() <= SCRATCH_BYTES_MAX {
            scratch.clear();
            kept.push(scratch);
        }
    }

    /// Gives unneeded memory back to the system every now and then, until none is kept: an idle worker has no timer.
    pub(crate) fn trim_later(self: &Rc<Self>) {
        if !self.trimming.replace(true) {
            let worker = Rc::clone(self);
            self.ring.spawn(async move { worker.trim().await }).detach();
        }
    }

    async fn trim(&self) {
        loop {
            self.ring.sleep(TRIM_INTERVAL).await;
            let kept = [&self.uploads.buffers, &self.reply_buffers].map(|pool| pool.trim() || pool.in_use_bytes() > 0);
            if kept == [false, false] {
                self.trimming.set(false);
                return return_free_memory();
            }
        }
    }
}
