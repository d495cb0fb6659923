//! The threads of a store on a real disk, beside those of the workers: controller, checkpointer, and locator.

use crate::checkpoint::{CheckpointDone, CheckpointJob, checkpoint};
use crate::controller::{Checkpointer, Locator};
use crate::files::Descriptors;
use crate::hash::Hash;
use crate::index::{Index, IndexError, IndexReader, MdbxIndex};
use crate::record::Record;
use crate::recovery::RecoveryError;
use crate::store::OpenError;
use crate::wiring::ControllerSeed;
use buddy_ring::{Remote, RingConfig, Runtime};
use futures_channel::oneshot;
use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(OpenError::Thread)
}

/// Starts the controller, and says how to wake it. It ends when every session was closed and the last checkpoint is made.
pub(crate) fn start_controller(
    seed: ControllerSeed<CheckpointThread, LocatorThread>,
    data: Descriptors,
    journal: Descriptors,
) -> Result<(JoinHandle<()>, Remote), OpenError> {
    let (started, has_started) = mpsc::channel();
    let handle = thread("controller", move || {
        let config = RingConfig { busy_poll: seed.settings().busy_poll, ..RingConfig::default() };
        let runtime = match Runtime::new(config) {
            Ok(runtime) => runtime,
            Err(error) => return drop(started.send(Err(error))),
        };
        let ring = runtime.ring();
        let controller = seed.start(&ring, data.on(&ring), journal.on(&ring));
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
pub(crate) struct CheckpointThread {
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

/// Starts the checkpointer. It ends when its orders can come no more.
pub(crate) fn start_checkpointer(index: MdbxIndex) -> Result<(CheckpointThread, JoinHandle<()>), OpenError> {
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
pub(crate) struct LocatorThread {
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

/// Starts the locator. It ends when nobody can ask it any more.
pub(crate) fn start_locator(index: &MdbxIndex) -> Result<(LocatorThread, JoinHandle<()>), OpenError> {
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
