//! `buddy-blocks serve`

use crate::access::AccessConfig;
use crate::config::ServeConfig;
use crate::options::ServeArguments;
use crate::{Failure, Outcome, environment, logging};
use buddy_ring::Address;
use buddy_server::access::Access;
use buddy_server::server::Drain;
use buddy_server::{Reload, ServeError, Server};
use buddy_store::OpenError;
use clap::{Args, Command};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

/// Exit status after a second signal, as shells have it for a program that a signal ended.
const EXIT_INTERRUPTED: i32 = 130;
/// Descriptors beside those of connections: files and the controller's ring …
const OTHER_DESCRIPTORS: u64 = 64;
/// … and each worker's ring, socket, pipes, and clients that are told that they are too many.
const DESCRIPTORS_PER_WORKER: u64 = 80 + buddy_server::PIPE_DESCRIPTORS_MAX;

/// Serves until it is told to stop.
pub(crate) fn run(arguments: ServeArguments) -> Outcome {
    let command = ServeArguments::augment_args(Command::new("serve"));
    environment::refuse_unknown(&command, std::env::vars_os().map(|(name, _)| name)).map_err(Failure::usage)?;
    let config = arguments.into_config().map_err(Failure::usage)?;
    logging::start(&config.log_level, config.log_format).map_err(Failure::usage)?;
    raise_descriptor_limit(&config);
    let drain = Arc::new(OnceLock::new());
    let reload = Arc::new(OnceLock::new());
    let access = config.access.open()?;
    heed_signals(
        Arc::clone(&drain),
        Again { access: Arc::clone(&access), config: config.access.clone(), files: Arc::clone(&reload) },
    )?;
    let server = Server::start(&config.listeners, &config.data, &config.settings, &config.limits, access)
        .map_err(|error| failed_to_start(&config, &error))?;
    // Set once, here; before anybody is told that there is a server, and stops it.
    let _ = (drain.set(server.drain()), reload.set(server.reload()));
    announce(&config, &server);
    server.wait();
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Says what is served, and what about it the operator should know.
fn announce(config: &ServeConfig, server: &Server) {
    let store = server.store();
    let totals = store.shared().statistics.totals();
    if !store.writes_directly() {
        tracing::warn!("the file system does not write past its cache (O_DIRECT): slower, and every reply is copied");
    } else if !store.sends_cached() {
        tracing::warn!(
            "the file system changes pages that are being sent, or could not be tried: every reply is copied"
        );
    }
    tracing::info!(
        address = %joined(server.addresses()),
        data = %config.data.display(),
        workers = config.settings.workers,
        durability = config.settings.durability.name(),
        blocks = totals.block_count(),
        bytes_stored = totals.bytes_stored(),
        "serving"
    );
}

fn joined(addresses: &[(Address, bool)]) -> String {
    let shown = addresses.iter().map(|(address, tls)| format!("{address}{}", if *tls { " (TLS)" } else { "" }));
    shown.collect::<Vec<_>>().join(", ")
}

/// Says which store or address it was.
fn failed_to_start(config: &ServeConfig, error: &ServeError) -> Failure {
    match error {
        ServeError::Open(OpenError::Recovery(error)) => Failure::new(format!("{}: {error}", config.data.display())),
        error => Failure::from_display(error),
    }
}

/// The first signal lets the server finish what it has begun; a second one, or one before the server serves, ends it at once. The
/// store is built for that: what was acknowledged is in its journal. SIGHUP has files read again that may have changed.
fn heed_signals(drain: Arc<OnceLock<Drain>>, again: Again) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(Failure::from_display)?;
    let watch = move || {
        let mut stopping = false;
        for signal in signals.forever() {
            match drain.get() {
                _ if signal == SIGHUP => again.read(),
                Some(drain) if !stopping => {
                    tracing::info!(signal, "stopping: finishing what is under way");
                    stopping = true;
                    drain.begin();
                }
                _ => {
                    tracing::warn!(signal, "stopped at once");
                    logging::finish();
                    std::process::exit(EXIT_INTERRUPTED);
                }
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(watch).map_err(Failure::from_display)?;
    Ok(())
}

/// What is read again on SIGHUP.
struct Again {
    access: Arc<Access>,
    config: AccessConfig,
    /// Set when the server serves.
    files: Arc<OnceLock<Reload>>,
}

impl Again {
    /// Tokens, certificate and key. What is wrong with them is said, and those of before stay in use.
    fn read(&self) {
        let has_tokens = self.config.reload(&self.access);
        match self.files.get().map(Reload::certificate) {
            Some(Ok(true)) => tracing::info!("certificate and key were read again"),
            Some(Err(error)) => tracing::error!(%error, "certificate and key stay as they were"),
            Some(Ok(false)) if !has_tokens => tracing::info!("there is nothing to be read again"),
            Some(Ok(false)) => {}
            None => tracing::info!(
                "the store is being opened: certificate and key, if any, are read again before it is served"
            ),
        }
    }
}

/// As many descriptors as connections are allowed, as far as the hard limit goes.
fn raise_descriptor_limit(config: &ServeConfig) {
    let limit = getrlimit(Resource::Nofile);
    let others = OTHER_DESCRIPTORS + DESCRIPTORS_PER_WORKER * config.settings.workers as u64;
    let wanted = config.limits.connections_max as u64 + others;
    let allowed = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum));
    if limit.current.is_some_and(|current| current < allowed) {
        let raised = Rlimit { current: Some(allowed), maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files could not be raised");
        }
    }
    if allowed < wanted {
        tracing::warn!(
            max_connections = config.limits.connections_max,
            open_files = allowed,
            "the limit of open files allows fewer connections: raise `ulimit -n`"
        );
    }
}
