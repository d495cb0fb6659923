//! How controller and sessions of a store are put together once it is open: what they share, and the queues between them. Threads and
//! files come from whoever starts them, so a simulation tests the wiring that a real store has.

use crate::controller::{Checkpointer, Controller, ControllerParts, JournalWriter, Locator, Port};
use crate::files::BlockFile;
use crate::index::{Index, IndexError, IndexReader};
use crate::messages::{Reply, Request, reply_queue_length, request_queue_length};
use crate::recovery::{Damage, Recovered};
use crate::session::{Session, SessionParts};
use crate::settings::Settings;
use crate::shared::Shared;
use buddy_ring::{Remote, Ring};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

/// A store that is open, before anything of it runs.
pub(crate) struct Wired<R, C, L> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) controller: ControllerSeed<C, L>,
    /// One for each worker.
    pub(crate) sessions: Vec<SessionSeed<R>>,
}

/// Everything that a controller is started with, but its files.
pub(crate) struct ControllerSeed<C, L> {
    settings: Settings,
    shared: Arc<Shared>,
    ports: Vec<Port>,
    recovered: Recovered,
    checkpointer: C,
    locator: Option<L>,
}

/// Everything that a session is started with, but its file and its controller.
pub(crate) struct SessionSeed<R> {
    worker: usize,
    settings: Settings,
    shared: Arc<Shared>,
    requests: rtrb::Producer<Request>,
    replies: rtrb::Consumer<Reply>,
    remote: Arc<OnceLock<Remote>>,
    reader: R,
}

/// Connects a store that was recovered with its workers.
pub(crate) fn wire<I: Index, C, L>(
    settings: &Settings,
    index: &I,
    recovered: Recovered,
    checkpointer: C,
    locator: Option<L>,
) -> Result<Wired<I::Reader, C, L>, IndexError> {
    let shared = Shared::new(settings, recovered.generation_size);
    shared.statistics.set_index_sizes(index.sizes());
    shared.add_quarantined(recovered.quarantined.iter().copied());
    if let Some(damage) = &recovered.damage {
        open_read_only(&shared, damage);
    }
    let (mut ports, mut sessions) = (Vec::new(), Vec::new());
    for worker in 0..settings.workers {
        let (requests, requests_end) = rtrb::RingBuffer::new(request_queue_length(settings.requests_max));
        let (replies_end, replies) = rtrb::RingBuffer::new(reply_queue_length(settings.requests_max));
        let remote = Arc::new(OnceLock::new());
        ports.push(Port::new(requests_end, replies_end, Arc::clone(&remote)));
        sessions.push(SessionSeed {
            worker,
            settings: settings.clone(),
            shared: Arc::clone(&shared),
            requests,
            replies,
            remote,
            reader: index.reader()?,
        });
    }
    let controller = ControllerSeed {
        settings: settings.clone(),
        shared: Arc::clone(&shared),
        ports,
        recovered,
        checkpointer,
        locator,
    };
    Ok(Wired { shared, controller, sessions })
}

/// Publishes the names that cannot be brought into the index, and forbids writing.
fn open_read_only(shared: &Shared, damage: &Damage) {
    shared.names.publish(Arc::clone(&damage.names));
    shared.health.distrust_data();
    shared.health.turn_read_only(damage.reason.clone());
}

impl<C: Checkpointer + 'static, L: Locator + 'static> ControllerSeed<C, L> {
    /// The settings of the store.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Starts the controller on the ring that its files belong to.
    pub(crate) fn start<F: BlockFile>(self, ring: &Ring, data: F, journal_file: F) -> Rc<Controller<F>> {
        let Recovered { meta, allocator, quarantined: _, generation_size, index_has_space, damage: _ } = self.recovered;
        Controller::start(
            ring,
            ControllerParts {
                settings: self.settings,
                shared: self.shared,
                data,
                journal_file,
                ports: self.ports,
                allocator,
                journal: JournalWriter::new(&meta),
                totals: meta.totals,
                generation_size,
                index_has_space,
                checkpointer: Box::new(self.checkpointer),
                locator: self.locator.map(|locator| Box::new(locator) as Box<dyn Locator>),
            },
        )
    }
}

impl<R: IndexReader> SessionSeed<R> {
    /// Starts the session on the ring of its worker, which its file belongs to.
    pub(crate) fn start<F: BlockFile>(self, ring: &Ring, controller: Remote, data: F) -> Rc<Session<F, R>> {
        // Set once: this takes the seed.
        let _ = self.remote.set(ring.remote());
        Session::start(
            ring,
            SessionParts {
                worker: self.worker,
                settings: self.settings,
                shared: self.shared,
                requests: self.requests,
                replies: self.replies,
                controller,
                data,
                reader: self.reader,
            },
        )
    }
}
