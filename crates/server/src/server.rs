//! All workers together: bound first, so that a port in use is known before anything is opened; ready next; then they listen.

use crate::access::Access;
use crate::hand_over::HandOver;
use crate::limits::HttpLimits;
use crate::phase::{Phase, ServerState};
use crate::worker::{self, WorkerSeed};
use buddy_ring::{ListenError, Listener, Remote};
use buddy_store::{Attachment, OpenError, Settings, Store};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

/// Why a server cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Its store.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A worker.
    #[error("a worker cannot be started: {0}")]
    Worker(String),
}

/// A running server.
pub struct Server {
    store: Store,
    state: Arc<ServerState>,
    workers: Vec<JoinHandle<()>>,
    remotes: Vec<Remote>,
    address: SocketAddr,
}

/// Lets a server finish what it has begun and stop. Can be used from any thread.
#[derive(Clone)]
pub struct Drain {
    state: Arc<ServerState>,
    remotes: Vec<Remote>,
}

impl Drain {
    /// Begins to drain.
    pub fn begin(&self) {
        self.state.begin(Phase::Draining);
        self.remotes.iter().for_each(Remote::wake);
    }
}

impl Server {
    /// Opens the store at `data` and serves it on `address`, one worker a thread, as many as `settings` says. `access` can be
    /// replaced while it serves.
    ///
    /// # Errors
    ///
    /// [`ServeError`]
    pub fn start(
        address: SocketAddr,
        data: &Path,
        settings: &Settings,
        limits: &HttpLimits,
        access: Arc<Access>,
    ) -> Result<Server, ServeError> {
        let listener = Listener::bind(address, limits.congestion_control.as_deref())?;
        let address = listener.address();
        let settings = Settings { pins_max: limits.connections_max, ..settings.clone() };
        let (store, attachments) = Store::open(data, &settings)?;
        let state = ServerState::new(settings.workers, limits.connections_per_peer_max, access);
        let (workers, remotes) = start_workers(attachments, limits, &state)?;
        state.set_listeners(listener.listen(settings.workers, limits.backlog)?);
        state.begin(Phase::Serving);
        remotes.iter().for_each(Remote::wake);
        Ok(Server { store, state, workers, remotes, address })
    }

    /// The address it listens on, with the port that the system chose where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The store that it serves.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The way to stop it.
    #[must_use]
    pub fn drain(&self) -> Drain {
        Drain { state: Arc::clone(&self.state), remotes: self.remotes.clone() }
    }

    /// Waits until it has stopped, after it was told to.
    pub fn wait(self) {
        for worker in self.workers {
            // A worker that panicked has said so.
            let _ = worker.join();
        }
        self.store.wait();
    }
}

fn start_workers(
    attachments: Vec<Attachment>,
    limits: &HttpLimits,
    state: &Arc<ServerState>,
) -> Result<(Vec<JoinHandle<()>>, Vec<Remote>), ServeError> {
    let (started, starting) = mpsc::channel();
    let mut workers = Vec::new();
    let (hand_over, inboxes) = HandOver::new(attachments.len());
    for (number, (attachment, inbox)) in attachments.into_iter().zip(inboxes).enumerate() {
        let seed = WorkerSeed {
            number,
            attachment,
            limits: limits.clone(),
            state: Arc::clone(state),
            hand_over: hand_over.clone(),
            inbox,
            started: started.clone(),
        };
        let thread = std::thread::Builder::new().name(format!("worker-{number}"));
        let spawned = thread.spawn(move || worker::run(seed));
        workers.push(spawned.map_err(|error: io::Error| ServeError::Worker(error.to_string()))?);
    }
    drop(started);
    let mut remotes = Vec::new();
    for _ in 0..workers.len() {
        match starting.recv() {
            Ok(Ok(remote)) => remotes.push(remote),
            Ok(Err(reason)) => return Err(ServeError::Worker(reason)),
            Err(_) => return Err(ServeError::Worker("it ended before it began".to_owned())),
        }
    }
    Ok((workers, remotes))
}
