//! A store on a real disk: opening it, and the way into it for workers.

use crate::check::{CheckProgress, CheckReport, check, window_blocks};
use crate::files::{Access, DataDirectory, Descriptors, OpenDirectoryError, RealFile, Stamp, is_no_space};
use crate::format::StoreId;
use crate::index::{MdbxIndex, MdbxReader};
use crate::recovery::{Recovered, RecoveryError, create_if_new, io_error, recover};
use crate::session::Session;
use crate::settings::{DataSync, LookupPath, NewSpace, Settings};
use crate::shared::Shared;
use crate::threads::{start_checkpointer, start_controller, start_locator};
use crate::wiring::{SessionSeed, Wired, wire};
use buddy_ring::{Remote, Ring, RingConfig, Runtime, SetupError};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its directory.
    #[error(transparent)]
    Directory(#[from] OpenDirectoryError),
    /// The ring.
    #[error(transparent)]
    Ring(#[from] SetupError),
    /// What is in it.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// A thread could not be started.
    #[error("a thread cannot be started: {0}")]
    Thread(io::Error),
}

/// A session of a worker on a real disk.
pub type RealSession = Session<RealFile, MdbxReader>;

/// An open store. Its threads run until every session was closed.
pub struct Store {
    shared: Arc<Shared>,
    controller: JoinHandle<()>,
    checkpointer: JoinHandle<()>,
    locator: Option<JoinHandle<()>>,
    directory: DataDirectory,
}

/// One worker's way into the store, to be taken to its thread.
pub struct Attachment {
    session: SessionSeed<MdbxReader>,
    controller: Remote,
    data: Descriptors,
}

impl Attachment {
    /// Starts the session on the ring of the worker's thread.
    #[must_use]
    pub fn start(self, ring: &Ring) -> Rc<RealSession> {
        self.session.start(ring, self.controller, self.data.on(ring))
    }
}

impl Store {
    /// Opens the store at `path`, creating it where there is none, and starts its threads.
    ///
    /// # Errors
    ///
    /// [`OpenError`]
    pub fn open(path: &Path, settings: &Settings) -> Result<(Store, Vec<Attachment>), OpenError> {
        let directory = DataDirectory::open(path, Access::Write, settings.lock_timeout)?;
        let settings = &Settings {
            data_sync: Some(choose_data_sync(&directory, settings)),
            new_space: Some(choose_new_space(&directory, settings)),
            reads_at_once: choose_reads_at_once(&directory, settings),
            ..settings.clone()
        };
        let index = MdbxIndex::open(&directory.index_path()).map_err(RecoveryError::from)?;
        let recovered = recover_on_own_ring(&directory, &index, settings)?;
        if recovered.damage.is_none() {
            index.trust_pages().map_err(RecoveryError::from)?;
        }
        let (checkpoints, checkpointer) = start_checkpointer(index.clone())?;
        let (look_ups, locator) = match settings.lookup {
            LookupPath::Worker => (None, None),
            LookupPath::Controller => start_locator(&index).map(|(look_ups, thread)| (Some(look_ups), Some(thread)))?,
        };
        let wired = wire(settings, &index, recovered, checkpoints, look_ups).map_err(RecoveryError::from)?;
        let Wired { shared, controller, sessions } = wired;
        let (data, journal) = (directory.data.clone(), directory.journal.clone());
        let (controller, remote) = start_controller(controller, data, journal)?;
        let attachments = sessions.into_iter().map(|session| Attachment {
            session,
            controller: remote.clone(),
            data: directory.data.clone(),
        });
        let attachments = attachments.collect();
        Ok((Store { shared, controller, checkpointer, locator, directory }, attachments))
    }

    /// What all threads of the store share.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// True where large blocks can be sent without copying them.
    #[must_use]
    pub fn sends_cached(&self) -> bool {
        self.directory.data.sends_cached()
    }

    /// True where the file system writes past its cache.
    #[must_use]
    pub fn writes_directly(&self) -> bool {
        self.directory.direct
    }

    /// Waits until the last checkpoint is made, after every session was closed.
    pub fn wait(self) {
        // A thread that panicked has said so; there is nothing to add.
        let _ = self.controller.join();
        let _ = self.checkpointer.join();
        if let Some(locator) = self.locator {
            let _ = locator.join();
        }
    }
}

fn choose_data_sync(directory: &DataDirectory, settings: &Settings) -> DataSync {
    settings.data_sync.unwrap_or_else(|| {
        let longer = directory.durable_write_takes_longer_by().unwrap_or_default();
        let chosen = DataSync::for_flush_time(longer);
        tracing::debug!(?longer, ?chosen, "a durable write was timed");
        chosen
    })
}

fn choose_new_space(directory: &DataDirectory, settings: &Settings) -> NewSpace {
    settings.new_space.unwrap_or_else(|| {
        let Some((first, again)) = directory.first_and_next_write_take() else { return NewSpace::Zeros };
        let chosen = NewSpace::for_write_times(first, again);
        tracing::debug!(?first, ?again, ?chosen, "first writes were timed");
        chosen
    })
}

/// `None` where nothing is known: then the disk gets all at once.
fn choose_reads_at_once(directory: &DataDirectory, settings: &Settings) -> Option<usize> {
    settings.reads_at_once.or_else(|| {
        let read = directory.read_takes()?;
        let chosen = Settings::reads_at_once_for(read);
        tracing::debug!(?read, chosen, "reads were timed");
        Some(chosen)
    })
}

fn recover_on_own_ring(
    directory: &DataDirectory,
    index: &MdbxIndex,
    settings: &Settings,
) -> Result<Recovered, OpenError> {
    let runtime = Runtime::new(RingConfig::default())?;
    let ring = runtime.ring();
    let data = directory.data.uncached().on(&ring);
    let journal = directory.journal.on(&ring);
    let file_system_bytes = directory.file_system_bytes().map_err(io_error("reading the file system's size"))?;
    let journal_bytes = settings.journal_bytes_for(file_system_bytes);
    runtime.block_on(async {
        let empty_journal = || empty_journal(directory, journal_bytes);
        if create_if_new(index, &data, &journal, journal_bytes, new_store_id()?, empty_journal).await? {
            tracing::info!(data = %directory.path().display(), journal_bytes, "there was no store: a new one was made");
        }
        directory.sync()?;
        let recovered = recover(&ring, index, &data, &journal, directory.stamp(), settings).await?;
        if recovered.damage.is_none() {
            // Only now: the index has raised its epoch, durably.
            directory.put_stamp(Stamp { store_id: recovered.meta.store_id, epoch: recovered.meta.epoch });
            if let Err(error) = directory.keep_journal() {
                tracing::warn!(%error, "the disk keeps no space for the journal: make room, or changes will wait for it");
            }
        }
        Ok(recovered)
    })
}

/// What the disk does not have is known before any of it is taken.
fn empty_journal(directory: &DataDirectory, bytes: u64) -> Result<(), RecoveryError> {
    directory.empty_journal(bytes).map_err(|source| match directory.journal_bytes_free() {
        Ok(Some(free_bytes)) if is_no_space(&source) => RecoveryError::NoJournalSpace { bytes, free_bytes, source },
        _ => io_error("making the journal")(source),
    })
}

fn new_store_id() -> Result<StoreId, RecoveryError> {
    let mut id = StoreId::default();
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| io_error("drawing a random number")(error.into()))?;
    Ok(id)
}

/// Checks the store at `path`, which nobody may be using; with `verify`, reads every block and hashes it. Changes nothing.
///
/// # Errors
///
/// [`OpenError`] where it cannot even be read. What merely does not agree is in the report.
pub fn check_store(
    path: &Path,
    lock_timeout: Duration,
    verify: bool,
    progress: &mut dyn FnMut(CheckProgress),
) -> Result<CheckReport, OpenError> {
    let directory = DataDirectory::open(path, Access::Read, lock_timeout)?;
    let index = MdbxIndex::open_read_only(&directory.index_path()).map_err(RecoveryError::from)?;
    let runtime = Runtime::new(RingConfig::default())?;
    let ring = runtime.ring();
    let data = directory.data.uncached().on(&ring);
    let journal = directory.journal.on(&ring);
    let verify = verify.then(window_blocks);
    let checked = runtime.block_on(check(&ring, &index, &data, &journal, directory.stamp(), verify, progress));
    checked.map_err(|error| match error {
        RecoveryError::NotMade => OpenDirectoryError::Missing(path.to_owned()).into(),
        error => error.into(),
    })
}
