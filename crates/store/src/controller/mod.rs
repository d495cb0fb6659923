//! The controller: one thread that owns names and space, and makes all that waits durable with one write.
//!
//! A cycle: take every request from every worker, sorted by kind; apply releases, then occupies, then allocations; put what changed
//! into one frame of the journal. When the frame is durable, and the bytes of its names are: publish its names, advance the clock
//! for its removals, answer. While a frame is on its way the next is gathered. Nothing here waits for a checkpoint, and nothing
//! reads the index.
//!
//! | file | one idea |
//! | --- | --- |
//! | `ports` | the queues to the workers |
//! | `naming` | what a request means for a name |
//! | `frames` | gathering changes into frames |
//! | `in_flight` | changes, and the frame that is on its way with some of them |
//! | `freeing` | what nobody reads any more is forgotten by the page cache, and free |
//! | `space` | what is free, held, draining; when to grow |
//! | `writes` | which blocks are being written, and which could not be |
//! | `reports` | what becomes of names that came ahead of their bytes |
//! | `ledger` | debug builds: who owns each page |
//! | `requests` | applying one batch of requests |
//! | `pacing` | when a frame begins |
//! | `publishing` | writing a frame, publishing it |
//! | `flushing` | flushes that can be believed |
//! | `shortage` | waiting for what the system is short of |
//! | `sealing` | sealing a generation and its checkpoint |
//! | `ahead` | how much space is made at a time |
//! | `relief` | what is done for requests that find no space |
//! | `growth` | making space: the file grows, and zeros are written |

mod ahead;
mod flushing;
mod frames;
mod freeing;
mod growth;
mod in_flight;
mod ledger;
mod naming;
mod pacing;
mod ports;
mod publishing;
mod recall;
mod relief;
mod reports;
mod requests;
mod sealing;
mod shortage;
mod space;
mod writes;
mod zeros;

pub(crate) use frames::JournalWriter;
#[cfg(all(test, loom))]
pub(crate) use naming::{OccupyVerdict, ReleaseVerdict};
pub use ports::Port;

use crate::allocator::Allocator;
use crate::checkpoint::{CheckpointDone, CheckpointJob};
use crate::extent::SizeClass;
use crate::files::BlockFile;
use crate::hash::Hash;
use crate::index::{IndexError, Totals};
use crate::quarantine::Quarantined;
use crate::record::Record;
use crate::settings::{Durability, GenerationSize, Settings};
use crate::shared::Shared;
use buddy_ring::{BufferPool, Ring};
use flushing::{DataFlushes, FlushState};
use futures_channel::oneshot;
use in_flight::Change;
pub(crate) use naming::PendingNames;
use ports::Ports;
use requests::{Batch, Deferred};
use sealing::Sealed;
use space::Space;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};
use writes::Writes;

/// Buffers of the controller: a frame and what growth writes.
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// Carries checkpoints out, one at a time, somewhere the controller does not wait.
pub trait Checkpointer {
    /// Begins a checkpoint.
    fn start(&self, job: CheckpointJob) -> oneshot::Receiver<Result<CheckpointDone, IndexError>>;
}

/// Looks names up in the index for the controller, which never does.
pub trait Locator {
    /// Begins a look-up.
    fn start(&self, hash: Hash) -> oneshot::Receiver<Result<Option<Record>, IndexError>>;
}

/// What a controller is made of.
pub(crate) struct ControllerParts<F> {
    pub(crate) settings: Settings,
    pub(crate) shared: Arc<Shared>,
    pub(crate) data: F,
    pub(crate) journal_file: F,
    pub(crate) ports: Vec<Port>,
    pub(crate) allocator: Allocator,
    pub(crate) journal: JournalWriter,
    pub(crate) totals: Totals,
    pub(crate) generation_size: GenerationSize,
    pub(crate) index_has_space: bool,
    pub(crate) checkpointer: Box<dyn Checkpointer>,
    pub(crate) locator: Option<Box<dyn Locator>>,
}

/// The controller of one store, on the ring of its thread.
pub(crate) struct Controller<F> {
    ring: Ring,
    settings: Settings,
    shared: Arc<Shared>,
    data: F,
    journal_file: F,
    buffers: BufferPool,
    checkpointer: Box<dyn Checkpointer>,
    locator: Option<Box<dyn Locator>>,
    state: RefCell<State>,
}

/// Everything that changes.
struct State {
    ports: Ports,
    batch: Batch,
    pending: PendingNames,
    journal: JournalWriter,
    space: Space,
    writes: Writes,
    totals: Totals,
    /// Of the active generation: the index has space for it.
    generation_size: GenerationSize,
    /// Requests that wait for a checkpoint.
    deferred: VecDeque<Deferred>,
    sealed: Option<Sealed>,
    /// When the first change of the active generation was published, in milliseconds since 1970; 0: there is none.
    oldest_change_ms: u64,
    /// Extents taken out of service in the active generation.
    quarantined: Vec<Quarantined>,
    /// False while the index cannot be sure of its space: names are no longer taken in, removals are.
    index_has_space: bool,
    /// A checkpoint is due only to see whether it has its space again.
    index_space_is_due: bool,
    /// When the last frame began.
    frame_began: Instant,
    /// No frame begins before this: the checkpointer is to keep up.
    paced_until: Option<Instant>,
    /// Since then the next frame waits for blocks that are being written.
    gathering_since: Option<Instant>,
    flush: FlushState,
    data_flushes: DataFlushes,
    timers: Timers,
    /// What nobody reads any more is being freed.
    freeing: bool,
    stopping: Stopping,
    /// Who waits for the end.
    awaited: Option<Waker>,
}

/// Which timers are set.
#[derive(Default)]
struct Timers {
    drain: bool,
    pace: bool,
    gather: bool,
    deferred: bool,
    starved: bool,
    index_space: bool,
    quiet: bool,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Stopping {
    #[default]
    Running,
    /// All workers have left: the last checkpoint is to be made, or under way.
    LastCheckpoint,
    Stopped,
}

impl State {
    /// Makes a change: it goes into the next frame, and from now on its name is as it says. Returns its sequence number.
    fn change(&mut self, change: Change) -> u64 {
        let sequence = self.journal.gather(change);
        self.pending.apply(change.hash, change.state, sequence);
        sequence
    }
}

impl<F: BlockFile> Controller<F> {
    /// Starts the controller on `ring`: it takes requests at the start of every turn.
    pub(crate) fn start(ring: &Ring, parts: ControllerParts<F>) -> Rc<Controller<F>> {
        let controller = Rc::new(Controller {
            ring: ring.clone(),
            data: parts.data,
            journal_file: parts.journal_file,
            buffers: BufferPool::new(BUFFER_BYTES_MAX),
            checkpointer: parts.checkpointer,
            locator: parts.locator,
            state: RefCell::new(State {
                space: Space::new(parts.allocator, parts.settings.capacity_bytes, parts.ports.len()),
                ports: Ports::new(parts.ports),
                batch: Batch::default(),
                pending: PendingNames::default(),
                journal: parts.journal,
                writes: Writes::default(),
                totals: parts.totals,
                generation_size: parts.generation_size,
                deferred: VecDeque::new(),
                sealed: None,
                oldest_change_ms: 0,
                quarantined: Vec::new(),
                index_has_space: parts.index_has_space,
                index_space_is_due: !parts.index_has_space,
                frame_began: ring.now(),
                paced_until: None,
                gathering_since: None,
                flush: FlushState::default(),
                data_flushes: DataFlushes::default(),
                timers: Timers::default(),
                freeing: false,
                stopping: Stopping::default(),
                awaited: None,
            }),
            shared: parts.shared,
            settings: parts.settings,
        });
        controller.settle(&mut controller.state.borrow_mut());
        ring.on_turn_start({
            let controller = Rc::clone(&controller);
            move || controller.cycle()
        });
        controller
    }

    /// Waits until every worker has left and the last checkpoint is made.
    pub(crate) async fn stopped(&self) {
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            if state.stopping == Stopping::Stopped {
                return Poll::Ready(());
            }
            state.awaited = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn is_relaxed(&self) -> bool {
        self.settings.durability == Durability::Relaxed
    }

    /// After anything has changed: does what can be done now.
    fn settle(self: &Rc<Self>, state: &mut State) {
        self.drain(state);
        // Before the next frame begins: under load there is no later moment between two frames. Before those that wait for room.
        self.seal_if_due(state);
        self.admit_deferred(state);
        self.relieve(state);
        self.begin_frame(state);
        self.stop_if_due(state);
        self.count(state);
        state.space.check();
        state.ports.wake(&self.ring);
    }

    /// Settles after a while, and does `work` before, unless that timer is set already.
    fn settle_after(
        self: &Rc<Self>,
        duration: Duration,
        state: &mut State,
        timer: fn(&mut Timers) -> &mut bool,
        work: impl FnOnce(&mut State) + 'static,
    ) {
        if std::mem::replace(timer(&mut state.timers), true) {
            return;
        }
        let controller = Rc::clone(self);
        self.after(duration, move |state| {
            *timer(&mut state.timers) = false;
            work(state);
            controller.settle(state);
        });
    }

    /// Runs `work` on the state after a while.
    fn after(self: &Rc<Self>, duration: Duration, work: impl FnOnce(&mut State) + 'static) {
        let controller = Rc::clone(self);
        self.ring
            .spawn(async move {
                controller.ring.sleep(duration).await;
                work(&mut controller.state.borrow_mut());
            })
            .detach();
    }

    /// Keeps the statistics up.
    fn count(&self, state: &State) {
        let statistics = &self.shared.statistics;
        let (file, free_extents) = (state.space.allocator().file_bytes(), state.space.free_counts());
        let free: u64 = SizeClass::all().zip(free_extents).map(|(class, count)| class.bytes() * count).sum();
        statistics.set_totals(&state.totals);
        statistics.set_free_extents(free_extents);
        statistics.file_bytes.set(file);
        let in_use = state.totals.bytes_allocated().saturating_add(statistics.bytes_quarantined.get());
        statistics.bytes_held.set(file.saturating_sub(free).saturating_sub(in_use));
        let stages = self.shared.names.load();
        statistics.names_active.set(stages.active().len() as u64);
        statistics.names_sealed.set(stages.sealed().map_or(0, |sealed| sealed.len() as u64));
        statistics.journal_bytes_used.set(state.journal.used_bytes());
        statistics.journal_bytes.set(state.journal.capacity_bytes());
        statistics.changes_gathered.set(state.journal.gathered() as u64);
        statistics.requests_deferred.set(state.deferred.len() as u64);
        statistics.requests_starved.set(state.space.starved.len() as u64);
        self.shared.health.set_space_is_short(state.space.is_short());
    }

    /// Says since when the oldest change waits for a checkpoint.
    fn tell_oldest_change(&self, state: &State) {
        let sealed = state.sealed.as_ref().map_or(0, Sealed::oldest_change_ms);
        self.shared.statistics.oldest_change_ms.set(if sealed > 0 { sealed } else { state.oldest_change_ms });
    }

    /// Why nothing is written any more, if so.
    fn is_read_only(&self) -> bool {
        self.shared.health.read_only().is_some()
    }
}
