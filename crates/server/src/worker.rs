//! One worker: a thread with its own ring, listener, session and connections. What it shares with other workers are the phase
//! the server is in, counters, and sockets that are passed on.

use crate::accepting::{self, Acceptance};
use crate::access::AuditLog;
use crate::admission::Admission;
use crate::connection;
use crate::connections::Connections;
use crate::date::Date;
use crate::failure_log::FailureLog;
use crate::hand_over::{HandOver, Inbox};
use crate::limits::{HttpLimits, REPLY_MEMORY_SHARE};
use crate::memory::return_free_memory;
use crate::metrics::WorkerMetrics;
use crate::page_cache::PageCache;
use crate::page_sender::Pipes;
use crate::phase::{Phase, PhaseWatch};
use crate::scratch::Scratch;
use crate::server_state::ServerState;
use crate::upload_memory::UploadMemory;
use buddy_ring::{BufferPool, ReceiveBuffers, Remote, Ring, RingConfig, Runtime, Socket};
use buddy_store::{Attachment, RealSession};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

/// Buffers that were not needed for this long go back to the system.
const TRIM_INTERVAL: Duration = Duration::from_secs(1);

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
    pub(crate) number: usize,
    pub(crate) session: Rc<RealSession>,
    pub(crate) limits: HttpLimits,
    /// For blocks that are received …
    pub(crate) uploads: UploadMemory,
    /// … and for blocks that are sent.
    pub(crate) reply_buffers: BufferPool,
    pub(crate) receive_buffers: ReceiveBuffers,
    pub(crate) page_cache: PageCache,
    pub(crate) pipes: Pipes,
    pub(crate) state: Arc<ServerState>,
    pub(crate) phase: Rc<PhaseWatch>,
    /// What this worker counts.
    pub(crate) metrics: Arc<WorkerMetrics>,
    pub(crate) audit: AuditLog,
    pub(crate) failures: FailureLog,
    pub(crate) hand_over: HandOver,
    pub(crate) connections: Connections,
    pub(crate) acceptance: Acceptance,
    pub(crate) date: Date,
    pub(crate) scratch: Scratch,
    trimming: Cell<bool>,
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
    let receive_buffers = ReceiveBuffers::new(&ring, seed.limits.receive_buffers, seed.limits.receive_buffer_bytes)
        .map_err(|error| format!("buffers for receiving cannot be registered with io_uring: {error}"))?;
    let (worker, inbox, started) = Worker::new(&ring, receive_buffers, seed);
    let taking_over = Rc::clone(&worker);
    worker.hand_over.receive(worker.number, inbox, &ring, move |socket, admission| {
        Worker::serve_counted(&taking_over, socket, admission);
    });
    let telling = Rc::clone(&worker);
    ring.on_turn_end(move || telling.tell_levels());
    runtime.block_on(serve(&worker, &started));
    Ok(())
}

/// Serves until the server has drained.
async fn serve(worker: &Rc<Worker>, started: &mpsc::Sender<Result<Remote, String>>) {
    // The port opens only when the first put needs to wait for nothing.
    worker.session.fill_pools().await;
    let _ = started.send(Ok(worker.ring.remote()));
    worker.phase.reached(Phase::Serving).await;
    let accepting = accepting::start(worker);
    let scrub_bytes_per_second = worker.session.settings().scrub_bytes_per_second;
    if worker.number == 0 && scrub_bytes_per_second > 0 {
        worker.ring.spawn(Rc::clone(&worker.session).scrub(scrub_bytes_per_second)).detach();
    }
    worker.phase.reached(Phase::Draining).await;
    for accepting in accepting {
        accepting.await;
    }
    worker.connections.drain(&worker.ring, worker.limits.drain_timeout).await;
    worker.session.close().await;
}

impl Worker {
    /// Makes a worker; returns it, its inbox, and whom to tell that it has started.
    fn new(
        ring: &Ring,
        receive_buffers: ReceiveBuffers,
        seed: WorkerSeed,
    ) -> (Rc<Worker>, Inbox, mpsc::Sender<Result<Remote, String>>) {
        let WorkerSeed { number, attachment, limits, state, hand_over, inbox, started, .. } = seed;
        let reply_bytes_max = limits.buffer_bytes_max / REPLY_MEMORY_SHARE;
        let worker = Worker {
            ring: ring.clone(),
            number,
            session: attachment.start(ring),
            uploads: UploadMemory::new(limits.buffer_bytes_max - reply_bytes_max),
            reply_buffers: BufferPool::new(reply_bytes_max),
            receive_buffers,
            page_cache: PageCache::default(),
            pipes: Pipes::default(),
            phase: PhaseWatch::start(ring, &state),
            metrics: state.metrics_of(number),
            audit: AuditLog::default(),
            failures: FailureLog::default(),
            state,
            limits,
            hand_over,
            connections: Connections::default(),
            acceptance: Acceptance::default(),
            date: Date::default(),
            scratch: Scratch::default(),
            trimming: Cell::new(false),
        };
        (Rc::new(worker), inbox, started)
    }

    /// Serves a connection that was accepted here.
    pub(crate) fn serve(worker: &Rc<Worker>, socket: Socket, admission: Admission) {
        worker.state.connection_opened(worker.number);
        Worker::serve_counted(worker, socket, admission);
    }

    /// Serves a connection in a task of its own.
    fn serve_counted(worker: &Rc<Worker>, socket: Socket, Admission { slot, tls }: Admission) {
        let key = worker.connections.insert(socket.clone());
        let worker = Rc::clone(worker);
        let ring = worker.ring.clone();
        ring.spawn(async move {
            let tls = if tls { worker.state.tls() } else { None };
            connection::serve(&worker, socket, tls, key).await;
            worker.connections.remove(key);
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

    /// With so many bytes more, more than half of the memory for replies would be taken.
    pub(crate) fn reply_memory_is_scarce(&self, bytes: usize) -> bool {
        self.reply_buffers.in_use_bytes() + bytes > self.limits.buffer_bytes_max / REPLY_MEMORY_SHARE / 2
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
            let pipes_kept = self.pipes.trim();
            if kept == [false, false] && !pipes_kept {
                self.trimming.set(false);
                return return_free_memory();
            }
        }
    }
}
