//! One worker's way into the store: find, read, put and delete blocks. Lives on its thread's ring and is never shared.
//!
//! | file | one idea |
//! | --- | --- |
//! | `exchange` | requests to the controller and their replies |
//! | `pools` | blank extents at hand, so that a put never waits for an allocation |
//! | `write_queue` | blocks that are ready and lie side by side go out as one write, large ones so many at a time |
//! | `put` | storing a block, from look-up to durable name |
//! | `enumerate` | whether a name leads to a block, and which names there are |
//! | `read` | reading blocks, from the page cache or from the disk |
//! | `read_queue` | of many blocks that only the disk has, it has half at a time |
//! | `verify` | whether a block is what was stored, and what becomes of one that is not |
//! | `scrub` | reading every block in turn, in the background |

mod enumerate;
mod exchange;
mod pools;
mod put;
mod read;
mod read_queue;
mod scrub;
mod verify;
mod write_queue;

pub use enumerate::{DamagedRows, Listed, Listing};
pub(crate) use pools::POOLS_BYTES_MAX;
pub use put::Stored;

use crate::clock::{ReadGuard, Reads};
use crate::error::StoreError;
use crate::files::BlockFile;
use crate::hash::{Hash, HashQueue};
use crate::index::IndexReader;
use crate::messages::{Reply, Request};
use crate::record::Record;
use crate::settings::{DataSync, Durability, LookupPath, Settings};
use crate::shared::Shared;
use crate::worker_statistics::WorkerStatistics;
use buddy_ring::{Remote, Ring};
use exchange::Exchange;
use pools::Pools;
use read_queue::ReadQueue;
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use write_queue::WriteQueue;

/// What a session is made of.
pub(crate) struct SessionParts<F, R> {
    pub(crate) worker: usize,
    pub(crate) settings: Settings,
    pub(crate) shared: Arc<Shared>,
    pub(crate) requests: rtrb::Producer<Request>,
    pub(crate) replies: rtrb::Consumer<Reply>,
    pub(crate) controller: Remote,
    pub(crate) data: F,
    pub(crate) reader: R,
}

/// One worker's way into the store.
pub struct Session<F, R> {
    ring: Ring,
    shared: Arc<Shared>,
    /// What this session counts.
    counted: Arc<WorkerStatistics>,
    settings: Settings,
    data: F,
    /// The same file, read past the cache.
    uncached: F,
    /// Whether each read may choose between the two.
    may_pass_cache: bool,
    reader: RefCell<R>,
    reads: Rc<Reads>,
    exchange: Rc<Exchange>,
    pools: Rc<Pools>,
    writes: Rc<WriteQueue<F>>,
    uncached_reads: Rc<ReadQueue<F>>,
    /// Blocks that are being stored.
    storing: Cell<usize>,
    look_ups_until_sample: Cell<u32>,
    /// Samples so far.
    samples: Cell<u32>,
    /// Reads until the next is expected to be cached.
    misses_expected: Cell<u32>,
    /// Blocks that were marked as read: see [`Session::note_read`].
    reads_noted: Cell<u32>,
    closed: Cell<bool>,
    /// Of what is received, and of what is read and verified.
    hash_queue: Rc<HashQueue>,
}

/// A block that was found. While this lives, its extent is not reused.
pub struct Found {
    hash: Hash,
    record: Record,
    guard: ReadGuard,
    /// Its bytes are to be hashed before anybody sees them.
    verify: bool,
    /// Generations that were dropped when it was found.
    seen: u64,
}

impl Found {
    /// Where the block lies.
    #[must_use]
    pub fn record(&self) -> Record {
        self.record
    }

    /// The bytes of the block that must be in memory before those of `part` may be handed out: all, where they are to be hashed.
    #[must_use]
    pub fn must_read(&self, part: Range<u32>) -> Range<u32> {
        if self.verify { 0..self.record.length() } else { part }
    }

    /// Whether the block is to be hashed when it is read.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.verify
    }

    /// From now on it is.
    pub fn verify(&mut self) {
        self.verify = true;
    }

    /// For a read that lasts: holds this block's extent alone, so that all others can be reused.
    pub fn pin(&mut self) {
        if let Some(extent) = self.record.extent() {
            self.guard.pin(extent);
        }
    }
}

/// The answer to a look-up, and how old it may be.
struct LookUp {
    found: Option<Found>,
    /// Generations that were dropped when it was made.
    seen: u64,
}

impl<F: BlockFile, R: IndexReader> Session<F, R> {
    /// Starts a session on `ring`.
    pub(crate) fn start(ring: &Ring, parts: SessionParts<F, R>) -> Rc<Session<F, R>> {
        let exchange = Exchange::new(ring, parts.requests, parts.controller, &parts.settings);
        let counted = parts.shared.workers.get(parts.worker).map(Arc::clone).unwrap_or_default();
        let pools = Pools::new(ring, &exchange, &parts.shared, &counted, &parts.settings);
        let per_frame = parts.settings.data_sync == Some(DataSync::PerFrame);
        let durable = parts.settings.durability == Durability::Sync && !per_frame;
        let reads_at_once = parts.settings.reads_at_once.unwrap_or(usize::MAX);
        let session = Rc::new(Session {
            ring: ring.clone(),
            reads: Reads::new(Arc::clone(&parts.shared.clock), parts.worker),
            writes: WriteQueue::new(ring, parts.data.clone(), &exchange, durable),
            uncached_reads: ReadQueue::new(ring, parts.data.uncached(), reads_at_once),
            shared: parts.shared,
            counted,
            settings: parts.settings,
            may_pass_cache: parts.data.may_pass_cache(),
            uncached: parts.data.uncached(),
            data: parts.data,
            reader: RefCell::new(parts.reader),
            exchange,
            pools,
            storing: Cell::new(0),
            look_ups_until_sample: Cell::new(0),
            samples: Cell::new(0),
            misses_expected: Cell::new(0),
            reads_noted: Cell::new(0),
            closed: Cell::new(false),
            hash_queue: HashQueue::on(ring),
        });
        let mut replies = parts.replies;
        ring.on_turn_start({
            let session = Rc::clone(&session);
            move || session.exchange.take_replies(&mut replies, &session.pools)
        });
        ring.on_turn_end({
            let session = Rc::clone(&session);
            move || {
                session.writes.gather();
                session.hash_queue.take_your_time(session.writes.has_plenty());
                session.tell_levels();
                // Before the writes, with which the kernel takes its time.
                session.exchange.wake_controller();
                session.writes.start();
                // A snapshot that outlived the turn would make the index grow.
                session.reader.borrow_mut().rest();
            }
        });
        session
    }

    /// Lets the controller know how many blocks are on their way to it, and everybody how much is in use.
    fn tell_levels(&self) {
        self.counted.writing.set(self.writes.unnamed() as u64);
        self.counted.requests_outstanding.set(self.exchange.outstanding() as u64);
        self.pools.tell_levels();
    }

    /// Fills the pools, so that the first puts need not wait. Does without where there is no space.
    pub async fn fill_pools(&self) {
        self.pools.fill().await;
    }

    /// What all sessions of the store share.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Hashes what is received on this ring together with what is read on it and verified.
    #[must_use]
    pub fn hash_queue(&self) -> &HashQueue {
        &self.hash_queue
    }

    /// The settings of the store.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Finds a block.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub async fn find(&self, hash: &Hash) -> Result<Option<Found>, StoreError> {
        Ok(self.counted.count_failure(self.look_up(hash).await)?.found)
    }

    async fn look_up(&self, hash: &Hash) -> Result<LookUp, StoreError> {
        // The clock is published before anything is looked at, here or there.
        let guard = self.reads.begin();
        let (record, seen) = self.locate(hash).await?;
        let verify = self.must_verify();
        Ok(LookUp { found: record.map(|record| Found { hash: *hash, record, guard, verify, seen }), seen })
    }

    /// Where a name leads, and how old the answer may be. Whoever reads there has begun a read before.
    async fn locate(&self, hash: &Hash) -> Result<(Option<Record>, u64), StoreError> {
        match self.settings.lookup {
            LookupPath::Worker => self.look_up_here(hash),
            LookupPath::Controller => {
                match self.exchange.request_in_time(|id| Request::Locate { id, hash: *hash }).await? {
                    Reply::Located { record, seen, .. } => Ok((record, seen)),
                    Reply::Failed { refusal, .. } => Err(refusal.into()),
                    _ => Err(StoreError::Internal("an unexpected reply to Locate")),
                }
            }
        }
    }

    fn look_up_here(&self, hash: &Hash) -> Result<(Option<Record>, u64), StoreError> {
        Ok(self.shared.names.look_up(hash, |seen| self.reader.borrow_mut().block(hash, seen))?)
    }

    /// A store that stopped writing cannot say what its next opening will find, even where nothing is to be changed: a change that
    /// failed may have reached the journal.
    fn refuse_if_read_only(&self) -> Result<(), StoreError> {
        if self.shared.health.read_only().is_some() { Err(StoreError::ReadOnly) } else { Ok(()) }
    }

    /// Removes a name. False where it led nowhere.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub async fn delete(&self, hash: &Hash) -> Result<bool, StoreError> {
        self.counted.count_failure(self.delete_uncounted(hash).await)
    }

    async fn delete_uncounted(&self, hash: &Hash) -> Result<bool, StoreError> {
        loop {
            let look_up = self.look_up(hash).await;
            self.refuse_if_read_only()?;
            let LookUp { found, seen } = look_up?;
            let Some(record) = found.map(|found| found.record()) else { return Ok(false) };
            match self.exchange.request_in_time(|id| Request::Release { id, hash: *hash, record, seen }).await? {
                Reply::Released { existed, .. } => return Ok(existed),
                Reply::Retry { .. } => {}
                Reply::Failed { refusal, .. } => return Err(refusal.into()),
                _ => return Err(StoreError::Internal("an unexpected reply to Release")),
            }
        }
    }

    /// The descriptor whose cached pages may be sent for a block without copying them, if that is safe here.
    #[must_use]
    pub fn cached_descriptor(&self, found: &Found) -> Option<BorrowedFd<'_>> {
        if found.verify { None } else { self.data.cached_descriptor() }
    }

    /// Ends the session: waits for what is being stored, gives back every blank extent, and tells the controller.
    pub async fn close(&self) {
        self.closed.set(true);
        while self.storing.get() > 0 {
            self.ring.sleep(Duration::from_millis(1)).await;
        }
        self.pools.give_back_all().await;
        self.exchange.detach();
    }
}
