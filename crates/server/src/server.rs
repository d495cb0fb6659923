//! All workers together: bound first, so that a port in use is known before anything is opened; ready next; then they listen.

use crate::access::Access;
use crate::hand_over::HandOver;
use crate::limits::{BIND_PATIENCE, BIND_PAUSE, HttpLimits};
use crate::memory::map_large_allocations;
use crate::phase::Phase;
use crate::server_state::{Listening, ServerState};
use crate::tls::{self, TlsError, TlsFiles};
use crate::worker::{self, WorkerSeed};
use buddy_ring::{Address, ListenError, ListenOptions, Listener, Remote};
use buddy_store::{Attachment, OpenError, Settings, Store};
use std::io;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Why a server cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Certificate and key.
    #[error(transparent)]
    Tls(#[from] TlsError),
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
    addresses: Vec<(Address, bool)>,
    tls: Option<TlsFiles>,
}

/// Where a server listens.
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    /// For connections without TLS.
    pub plain: Vec<Address>,
    /// For connections through TLS, with these files.
    pub tls: Option<(Vec<Address>, TlsFiles)>,
}

impl Listeners {
    /// All of their addresses.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.plain.iter().chain(self.tls.iter().flat_map(|(addresses, _)| addresses))
    }
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

/// Reads files again that may have changed. Can be used from any thread.
#[derive(Clone)]
pub struct Reload {
    state: Arc<ServerState>,
    tls: Option<TlsFiles>,
}

impl Reload {
    /// Reads certificate and key again, for connections to come; those that there are go on. False where there is no TLS.
    ///
    /// # Errors
    ///
    /// [`TlsError`]: what was read before stays in use.
    pub fn certificate(&self) -> Result<bool, TlsError> {
        let Some(files) = &self.tls else { return Ok(false) };
        self.state.set_tls(tls::load(files)?);
        Ok(true)
    }
}

impl Server {
    /// Opens the store at `data` and serves it on all of `listeners`, one worker a thread, as many as `settings` says. `access` can be
    /// replaced while it serves.
    ///
    /// # Errors
    ///
    /// [`ServeError`]
    pub fn start(
        listeners: &Listeners,
        data: &Path,
        settings: &Settings,
        limits: &HttpLimits,
        access: Arc<Access>,
    ) -> Result<Server, ServeError> {
        map_large_allocations();
        let tls = listeners.tls.as_ref().map(|(_, files)| files.clone());
        let tls_settings = tls.as_ref().map(tls::load).transpose()?;
        let bound = bind(listeners, limits)?;
        let addresses = bound.iter().map(|(listener, tls)| (listener.address().clone(), *tls)).collect();
        let settings = Settings { pins_max: limits.connections_max, ..settings.clone() };
        let (store, attachments) = Store::open(data, &settings)?;
        let state = ServerState::new(settings.workers, limits.connections_per_peer_max, access);
        let (workers, remotes) = start_workers(attachments, limits, settings.busy_poll, &state)?;
        if let (Some(settings), Some(files)) = (tls_settings, &tls) {
            // Opening may have taken a while: who replaced the files meanwhile could not tell anybody.
            let newer =
                tls::load(files).inspect_err(|error| tracing::error!(%error, "certificate and key stay as they were"));
            state.set_tls(newer.unwrap_or(settings));
        }
        let server = Server { store, state, workers, remotes, addresses, tls };
        match listen(bound, settings.workers, limits) {
            Ok(listeners) => server.state.set_listeners(listeners),
            // Somebody was faster. The store is closed as if it had been served.
            Err(error) => {
                server.drain().begin();
                server.wait();
                return Err(error.into());
            }
        }
        server.state.begin(Phase::Serving);
        server.remotes.iter().for_each(Remote::wake);
        Ok(server)
    }

    /// The addresses it listens on, with the ports that the system chose where 0 was asked for, and whether they are for TLS.
    #[must_use]
    pub fn addresses(&self) -> &[(Address, bool)] {
        &self.addresses
    }

    /// The way to read certificate and key again.
    #[must_use]
    pub fn reload(&self) -> Reload {
        Reload { state: Arc::clone(&self.state), tls: self.tls.clone() }
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

/// Binds every address, and says which are for TLS.
fn bind(listeners: &Listeners, limits: &HttpLimits) -> Result<Vec<(Listener, bool)>, ListenError> {
    let plain = listeners.plain.iter().map(|address| (address, false));
    let tls = listeners.tls.iter().flat_map(|(addresses, _)| addresses).map(|address| (address, true));
    plain.chain(tls).map(|(address, tls)| Ok((bind_patiently(address, &limits.listen)?, tls))).collect()
}

/// A process that was killed lets go of its sockets a moment later: when what its ring had in flight has ended.
fn bind_patiently(address: &Address, options: &ListenOptions) -> Result<Listener, ListenError> {
    let deadline = Instant::now() + BIND_PATIENCE;
    loop {
        match Listener::bind(address, options) {
            Err(ListenError::InUse(_) | ListenError::PortInUse(_)) if Instant::now() < deadline => {
                std::thread::sleep(BIND_PAUSE);
            }
            bound => return bound,
        }
    }
}

/// The sockets of each worker: one on every address.
fn listen(
    bound: Vec<(Listener, bool)>,
    workers: usize,
    limits: &HttpLimits,
) -> Result<Vec<Vec<Listening>>, ListenError> {
    let mut by_worker = vec![Vec::new(); workers];
    for (listener, tls) in bound {
        let sockets = listener.listen(workers, limits.backlog)?;
        for (listeners, socket) in by_worker.iter_mut().zip(sockets) {
            listeners.push(Listening { listener: Arc::new(socket), tls });
        }
    }
    Ok(by_worker)
}

fn start_workers(
    attachments: Vec<Attachment>,
    limits: &HttpLimits,
    busy_poll: Duration,
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
            busy_poll,
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
