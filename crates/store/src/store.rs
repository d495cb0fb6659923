//! A store on a real disk: its directory, its threads, and the way into it for workers.

use crate::check::{CheckProgress, CheckReport, check};
use crate::checkpoint::{CheckpointDone, CheckpointJob, checkpoint};
use crate::controller::{Checkpointer, Controller, ControllerParts, JournalWriter, Locator, Port};
use crate::files::{Access, DataDirectory, Descriptors, OpenDirectoryError, RealFile, Stamp};
use crate::hash::Hash;
use crate::index::{Index, IndexError, IndexReader, MdbxIndex, MdbxReader, StoreId};
use crate::messages::{Reply, Request, reply_queue_length, request_queue_length};
use crate::record::Record;
use crate::recovery::{Damage, Recovered, RecoveryError, create_if_new, io_error, recover};
use crate::session::{Session, SessionParts};
use crate::settings::{DataSync, LookupPath, NewSpace, Settings};
use crate::shared::Shared;
use buddy_ring::{Remote, Ring, RingConfig, Runtime, SetupError};
use futures_channel::oneshot;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, OnceLock, mpsc};
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
    worker: usize,
    settings: Settings,
    shared: Arc<Shared>,
    requests: rtrb::Producer<Request>,
    replies: rtrb::Consumer<Reply>,
    controller: Remote,
    remote: Arc<OnceLock<Remote>>,
    data: Descriptors,
    reader: MdbxReader,
}

impl Attachment {
    /// Starts the session on the ring of the worker's thread.
    #[must_use]
    pub fn start(self, ring: &Ring) -> Rc<RealSession> {
        // Set once: this takes the attachment.
        let _ = self.remote.set(ring.remote());
        Session::start(
            ring,
            SessionParts {
                worker: self.worker,
                settings: self.settings,
                shared: self.shared,
                requests: self.requests,
                replies: self.replies,
                controller: self.controller,
                data: self.data.on(ring),
                reader: self.reader,
            },
        )
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
            ..settings.clone()
        };
        let index = MdbxIndex::open(&directory.index_path()).map_err(RecoveryError::from)?;
        let recovered = recover_on_own_ring(&directory, &index, settings)?;
        let shared = Shared::new(settings);
        shared.statistics.set_index_sizes(index.sizes());
        shared.add_quarantined(recovered.quarantined.iter().copied());
        match &recovered.damage {
            Some(damage) => open_read_only(&shared, damage),
            None => index.trust_pages().map_err(RecoveryError::from)?,
        }
        let (checkpoints, checkpointer) = start_checkpointer(index.clone())?;
        let (locator, locator_thread) = match settings.lookup {
            LookupPath::Worker => (None, None),
            LookupPath::Controller => {
                let (locator, thread) = start_locator(&index)?;
                (Some(locator), Some(thread))
            }
        };
        let mut ports = Vec::new();
        let mut ends = Vec::new();
        for _ in 0..settings.workers {
            let (requests, requests_end) = rtrb::RingBuffer::new(request_queue_length(settings.requests_max));
            let (replies_end, replies) = rtrb::RingBuffer::new(reply_queue_length(settings.requests_max));
            let remote = Arc::new(OnceLock::new());
            ports.push(Port::new(requests_end, replies_end, Arc::clone(&remote)));
            ends.push((requests, replies, remote));
        }
        let seed = ControllerSeed {
            settings: settings.clone(),
            shared: Arc::clone(&shared),
            data: directory.data.clone(),
            journal: directory.journal.clone(),
            ports,
            recovered,
            checkpoints,
            locator,
        };
        let (controller, controller_remote) = start_controller(seed)?;
        let mut attachments = Vec::new();
        for (worker, (requests, replies, remote)) in ends.into_iter().enumerate() {
            attachments.push(Attachment {
                worker,
                settings: settings.clone(),
                shared: Arc::clone(&shared),
                requests,
                replies,
                controller: controller_remote.clone(),
                remote,
                data: directory.data.clone(),
                reader: index.reader().map_err(RecoveryError::from)?,
            });
        }
        Ok((Store { shared, controller, checkpointer, locator: locator_thread, directory }, attachments))
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
        if create_if_new(index, &data, &journal, journal_bytes, new_store_id()?).await? {
            tracing::info!(data = %directory.path().display(), journal_bytes, "there was no store: a new one was made");
        }
        directory.sync()?;
        let recovered = recover(&ring, index, &data, &journal, directory.stamp(), settings).await?;
        if recovered.damage.is_none() {
            // Only now: the index has raised its epoch, durably.
            directory.put_stamp(Stamp { store_id: recovered.meta.store_id, epoch: recovered.meta.epoch });
        }
        Ok(recovered)
    })
}

fn new_store_id() -> Result<StoreId, RecoveryError> {
    let mut id = StoreId::default();
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| io_error("drawing a random number")(error.into()))?;
    Ok(id)
}

/// Publishes the names that cannot be brought into the index, and forbids writing.
pub(crate) fn open_read_only(shared: &Shared, damage: &Damage) {
    shared.names.publish(Arc::clone(&damage.names));
    shared.health.distrust_data();
    shared.health.turn_read_only(damage.reason.clone());
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(OpenError::Thread)
}

/// Everything the controller's thread is started with.
struct ControllerSeed {
    settings: Settings,
    shared: Arc<Shared>,
    data: Descriptors,
    journal: Descriptors,
    ports: Vec<Port>,
    recovered: Recovered,
    checkpoints: CheckpointThread,
    locator: Option<LocatorThread>,
}

fn start_controller(seed: ControllerSeed) -> Result<(JoinHandle<()>, Remote), OpenError> {
    let (started, has_started) = mpsc::channel();
    let handle = thread("controller", move || {
        let config = RingConfig { busy_poll: seed.settings.busy_poll, ..RingConfig::default() };
        let runtime = match Runtime::new(config) {
            Ok(runtime) => runtime,
            Err(error) => return drop(started.send(Err(error))),
        };
        let ring = runtime.ring();
        let Recovered { meta, allocator, quarantined: _, generation_size, index_has_space, damage: _ } = seed.recovered;
        let journal = JournalWriter::new(&meta);
        let controller = Controller::start(
            &ring,
            ControllerParts {
                settings: seed.settings,
                shared: seed.shared,
                data: seed.data.on(&ring),
                journal_file: seed.journal.on(&ring),
                ports: seed.ports,
                allocator,
                journal,
                totals: meta.totals,
                generation_size,
                index_has_space,
                checkpointer: Box::new(seed.checkpoints),
                locator: seed.locator.map(|locator| Box::new(locator) as Box<dyn Locator>),
            },
        );
        drop(started.send(Ok(ring.remote())));
        runtime.block_on(controller.stopped());
    })?;
    match has_started.recv() {
        Ok(Ok(remote)) => Ok((handle, remote)),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(OpenError::Thread(io::Error::other("the controller ended before it began"))),
    }
}

type CheckpointOrder = (CheckpointJob, oneshot::Sender<Result<CheckpointDone, IndexError>>);

/// The thread that is the only writer of the index.
struct CheckpointThread {
    orders: mpsc::Sender<CheckpointOrder>,
}

impl Checkpointer for CheckpointThread {
    fn start(&self, job: CheckpointJob) -> oneshot::Receiver<Result<CheckpointDone, IndexError>> {
        let (sender, receiver) = oneshot::channel();
        // Where the thread is gone the receiver says so.
        let _ = self.orders.send((job, sender));
        receiver
    }
}

fn start_checkpointer(index: MdbxIndex) -> Result<(CheckpointThread, JoinHandle<()>), OpenError> {
    let (orders, receiver) = mpsc::channel::<CheckpointOrder>();
    let handle = thread("checkpointer", move || {
        for (job, answer) in receiver {
            let outcome = checkpoint(&index, &job);
            // The generation goes before the answer: nobody but the views holds it then.
            drop(job);
            let _ = answer.send(outcome);
        }
    })?;
    Ok((CheckpointThread { orders }, handle))
}

type Located = Result<Option<Record>, IndexError>;

/// The thread that looks names up for the controller.
struct LocatorThread {
    questions: mpsc::Sender<(Hash, oneshot::Sender<Located>)>,
}

impl Locator for LocatorThread {
    fn start(&self, hash: Hash) -> oneshot::Receiver<Located> {
        let (sender, receiver) = oneshot::channel();
        // Where the thread is gone the receiver says so.
        let _ = self.questions.send((hash, sender));
        receiver
    }
}

fn start_locator(index: &MdbxIndex) -> Result<(LocatorThread, JoinHandle<()>), OpenError> {
    let (questions, receiver) = mpsc::channel::<(Hash, oneshot::Sender<Located>)>();
    let mut reader = index.reader().map_err(RecoveryError::from)?;
    let handle = thread("locator", move || {
        let mut look_ups = 0;
        for (hash, answer) in receiver {
            // Each look-up takes a snapshot of its own: a new number asks for one.
            look_ups += 1;
            let found = reader.block(&hash, look_ups);
            reader.rest();
            let _ = answer.send(found);
        }
    })?;
    Ok((LocatorThread { questions }, handle))
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
    let checked = runtime.block_on(check(&ring, &index, &data, &journal, directory.stamp(), verify, progress));
    checked.map_err(|error| match error {
        RecoveryError::NotMade => OpenDirectoryError::Missing(path.to_owned()).into(),
        error => error.into(),
    })
}
