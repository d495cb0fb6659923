//! What all workers share: the phase, where each listens, what each counts, and who may do what.

use crate::access::Access;
use crate::metrics::WorkerMetrics;
use crate::peers::Peers;
use crate::phase::Phase;
use crate::tls::TlsSettings;
use arc_swap::ArcSwap;
use buddy_ring::Listener;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// A socket that is listened on.
#[derive(Clone)]
pub(crate) struct Listening {
    pub(crate) listener: Arc<Listener>,
    /// Connections to it speak TLS.
    pub(crate) tls: bool,
}

/// What all workers share.
pub(crate) struct ServerState {
    phase: AtomicU8,
    /// Open connections of each worker.
    connections: Box<[AtomicUsize]>,
    /// What each worker counts.
    metrics: Box<[Arc<WorkerMetrics>]>,
    /// Where each worker listens, once it does.
    listeners: Box<[OnceLock<Vec<Listening>>]>,
    /// How connections through TLS are made, if there are any.
    tls: OnceLock<ArcSwap<TlsSettings>>,
    /// Where connections are limited by peer.
    peers: Option<Arc<Peers>>,
    access: Arc<Access>,
    started: Instant,
}

impl ServerState {
    pub(crate) fn new(
        workers: usize,
        connections_per_peer_max: Option<usize>,
        access: Arc<Access>,
    ) -> Arc<ServerState> {
        Arc::new(ServerState {
            access,
            peers: connections_per_peer_max.map(Peers::new),
            listeners: (0..workers).map(|_| OnceLock::new()).collect(),
            tls: OnceLock::new(),
            phase: AtomicU8::new(Phase::Starting as u8),
            connections: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            metrics: (0..workers).map(|_| Arc::default()).collect(),
            started: Instant::now(),
        })
    }

    /// Begins a phase. The workers must be woken.
    pub(crate) fn begin(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            _ => Phase::Draining,
        }
    }

    /// Counts a connection in.
    pub(crate) fn connection_opened(&self, worker: usize) {
        if let Some(count) = self.connections.get(worker) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn connection_closed(&self, worker: usize) {
        if let Some(count) = self.connections.get(worker) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The worker with the fewest connections, and how many those are.
    pub(crate) fn least_loaded(&self) -> (usize, usize) {
        let counts = self.connections.iter().map(|count| count.load(Ordering::Relaxed));
        counts.enumerate().min_by_key(|(_, count)| *count).unwrap_or_default()
    }

    /// Open connections of one worker.
    pub(crate) fn connections_of(&self, worker: usize) -> usize {
        self.connections.get(worker).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Open connections of each worker.
    pub(crate) fn connections_by_worker(&self) -> Vec<usize> {
        self.connections.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Open connections of all workers.
    pub(crate) fn connections(&self) -> usize {
        self.connections.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Who counts connections by peer, where that is done.
    pub(crate) fn peers(&self) -> Option<&Arc<Peers>> {
        self.peers.as_ref()
    }

    /// Who may do what.
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// Gives each worker its sockets.
    pub(crate) fn set_listeners(&self, listeners: Vec<Vec<Listening>>) {
        for (place, listeners) in self.listeners.iter().zip(listeners) {
            // Set once, by whoever starts the server.
            let _ = place.set(listeners);
        }
    }

    /// The sockets of a worker.
    pub(crate) fn listeners(&self, worker: usize) -> &[Listening] {
        self.listeners.get(worker).and_then(OnceLock::get).map_or(&[], Vec::as_slice)
    }

    /// Connections through TLS are made like this from now on.
    pub(crate) fn set_tls(&self, settings: Arc<TlsSettings>) {
        self.tls.get_or_init(|| ArcSwap::new(Arc::clone(&settings))).store(settings);
    }

    /// How to make a connection through TLS.
    pub(crate) fn tls(&self) -> Option<Arc<TlsSettings>> {
        self.tls.get().map(ArcSwap::load_full)
    }

    /// What all workers count.
    pub(crate) fn metrics(&self) -> impl Iterator<Item = &WorkerMetrics> + Clone {
        self.metrics.iter().map(|metrics| &**metrics)
    }

    /// Where a worker counts.
    pub(crate) fn metrics_of(&self, worker: usize) -> Arc<WorkerMetrics> {
        self.metrics.get(worker).map(Arc::clone).unwrap_or_default()
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}
