//! A whole store on a simulated disk: controller, sessions and checkpointer on one ring, in virtual time.

use super::disk::{Cut, Disk, SimulatedFile};
use super::memory_index::{MemoryIndex, MemoryReader};
use crate::check::{CheckReport, check, window_blocks};
use crate::checkpoint::{CheckpointDone, CheckpointJob, checkpoint};
use crate::controller::{Checkpointer, Controller, Locator};
use crate::extent::SIZE_CLASSES;
use crate::files::BlockFile;
use crate::hash::Hash;
use crate::index::{Index, IndexError, IndexReader, Totals};
use crate::record::Record;
use crate::recovery::{RecoveryError, create_if_new, recover};
use crate::session::Session;
use crate::settings::{LookupPath, Settings};
use crate::shared::Shared;
use crate::wiring::{Wired, wire};
use buddy_ring::{BufferPool, Ring, Runtime};
use futures_channel::oneshot;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const DATA: usize = 0;
pub(crate) const JOURNAL: usize = 1;

pub(crate) type SimulatedSession = Session<SimulatedFile, MemoryReader>;

/// What survives a power cut.
pub(crate) struct World {
    pub(crate) disk: Disk,
    pub(crate) index: MemoryIndex,
    pub(crate) settings: Settings,
    pub(crate) blocks: Vec<Block>,
    /// A checkpoint takes this long, beside its operations.
    pub(crate) checkpoint_pause: Duration,
    /// Small by default, so that the journal is written round many times.
    pub(crate) journal_bytes: u64,
    seed: u64,
    boots: u64,
}

/// A block that clients store.
#[derive(Clone)]
pub(crate) struct Block {
    pub(crate) hash: Hash,
    pub(crate) bytes: Vec<u8>,
}

impl Block {
    pub(crate) fn new(bytes: Vec<u8>) -> Block {
        Block { hash: Hash::of(&bytes), bytes }
    }
}

/// What is to be counted where these blocks are stored, and no others.
pub(crate) fn totals_of<'a>(blocks: impl IntoIterator<Item = &'a Block>) -> Totals {
    let mut totals = Totals::default();
    for length in blocks.into_iter().map(|block| block.bytes.len()) {
        let class = (0..SIZE_CLASSES).find(|class| length <= 4096 << class).unwrap();
        if length == 0 {
            totals.blocks[SIZE_CLASSES] += 1;
        } else {
            totals.blocks[class] += 1;
            totals.bytes_stored[class] += length as u64;
        }
    }
    totals
}

/// Settings under which everything happens often: small generations, small pools.
pub(crate) fn small_settings(workers: usize) -> Settings {
    Settings {
        workers,
        pool_targets: [2; SIZE_CLASSES],
        checkpoint_names: 8,
        recent_reads: 16,
        reads_at_once: Some(2),
        requests_max: 16,
        pins_max: 2,
        sync_interval: Duration::from_millis(20),
        ..Settings::default()
    }
}

impl World {
    /// An empty disk, and `blocks` blocks of all sizes that clients may store.
    pub(crate) fn new(seed: u64, blocks: usize, settings: Settings) -> World {
        let mut random = fastrand::Rng::with_seed(seed);
        let blocks = (0..blocks)
            .map(|number| {
                let class = random.u32(0..8);
                let length = match random.u8(0..20) {
                    // There is one empty block.
                    _ if number == 0 => 0,
                    0..4 => 4096 << class,
                    _ => {
                        let class = random.u32(0..=class);
                        random.usize(1..=4096 << class)
                    }
                };
                // Bytes that differ in every page, cheaply.
                let mut bytes = vec![random.u8(1..); length];
                for page in bytes.chunks_mut(512) {
                    page[0] = random.u8(..);
                }
                bytes.iter_mut().take(8).for_each(|byte| *byte = random.u8(..));
                Block::new(bytes)
            })
            .collect();
        World {
            disk: Disk::new(seed, 2),
            index: MemoryIndex::default(),
            settings,
            blocks,
            checkpoint_pause: Duration::ZERO,
            journal_bytes: 1 << 20,
            seed,
            boots: 0,
        }
    }

    /// A ring for the next boot.
    pub(crate) fn runtime(&mut self) -> Runtime {
        self.boots += 1;
        Runtime::simulated(self.seed.wrapping_mul(1000).wrapping_add(self.boots))
    }

    /// Opens the store on `ring`. Never ends if the power goes meanwhile.
    pub(crate) async fn open(&self, ring: &Ring) -> Result<Open, RecoveryError> {
        let (data, journal) = (self.disk.file(DATA, ring), self.disk.file(JOURNAL, ring).uncached());
        create_if_new(&self.index, &data, &journal, self.journal_bytes, [7; 16], || Ok(())).await?;
        let recovered = recover(ring, &self.index, &data.uncached(), &journal, None, &self.settings).await?;
        self.disk.forget_cached();
        let checkpointer = SimulatedCheckpointer {
            ring: ring.clone(),
            disk: self.disk.clone(),
            index: self.index.clone(),
            pause: self.checkpoint_pause,
            checkpoints: Cell::new(0),
        };
        let locator = (self.settings.lookup == LookupPath::Controller).then(|| SimulatedLocator {
            ring: ring.clone(),
            disk: self.disk.clone(),
            index: self.index.clone(),
        });
        let Wired { shared, controller, sessions } =
            wire(&self.settings, &self.index, recovered, checkpointer, locator)?;
        let controller = controller.start(ring, data.clone(), journal);
        let sessions = sessions.into_iter().map(|session| session.start(ring, ring.remote(), data.clone())).collect();
        Ok(Open { ring: ring.clone(), shared, sessions, controller, buffers: BufferPool::new(64 << 20) })
    }

    /// Decides what has survived, after the ring of the last boot is gone.
    pub(crate) fn restore(&self, cut: Cut) {
        self.disk.restore(cut);
    }

    /// Where the journal of the last boot begins.
    pub(crate) fn journal_offset(&self) -> u64 {
        self.index.reader().unwrap().meta().unwrap().unwrap().journal_offset
    }

    /// Checks the store as it lies there, every byte of it; `None` where it has not come into being.
    pub(crate) fn check(&mut self) -> Option<CheckReport> {
        self.check_in_windows(window_blocks())
    }

    /// The same, with so many blocks at a time.
    pub(crate) fn check_in_windows(&mut self, blocks: usize) -> Option<CheckReport> {
        self.index.reader().unwrap().meta().unwrap()?;
        Some(self.try_check(blocks).unwrap())
    }

    /// The same of a store that may not be fit to be checked.
    pub(crate) fn try_check(&mut self, blocks: usize) -> Result<CheckReport, RecoveryError> {
        let runtime = self.runtime();
        let ring = runtime.ring();
        let [data, journal] = [DATA, JOURNAL].map(|file| self.disk.file(file, &ring).uncached());
        runtime.block_on(check(&ring, &self.index, &data, &journal, None, Some(blocks), &mut |_| {}))
    }

    /// Opens the store on a ring of its own, to see why it cannot be opened.
    pub(crate) fn try_open(&mut self) -> Option<RecoveryError> {
        let runtime = self.runtime();
        let error = runtime.block_on(self.open(&runtime.ring())).err();
        drop(runtime);
        self.restore(Cut::Crash);
        error
    }
}

/// A store that is open.
pub(crate) struct Open {
    pub(crate) ring: Ring,
    pub(crate) shared: Arc<Shared>,
    pub(crate) sessions: Vec<Rc<SimulatedSession>>,
    controller: Rc<Controller<SimulatedFile>>,
    pub(crate) buffers: BufferPool,
}

impl Open {
    /// Stores a block through a session.
    pub(crate) async fn put(&self, session: usize, block: &Block) -> Result<crate::session::Stored, crate::StoreError> {
        let mut buffer = self.buffers.take(block.bytes.len()).await.unwrap();
        buffer[..block.bytes.len()].copy_from_slice(&block.bytes);
        let length = u32::try_from(block.bytes.len()).unwrap();
        self.sessions[session].put(block.hash, buffer, length).await
    }

    /// Looks a block up through a session, and reads it if it is there: every byte must be its own.
    pub(crate) async fn get(&self, session: usize, block: &Block) -> Result<bool, crate::StoreError> {
        let session = &self.sessions[session];
        let Some(found) = session.find(&block.hash).await? else { return Ok(false) };
        assert_eq!(found.record().length() as usize, block.bytes.len(), "{} leads to another length", block.hash);
        let buffer = self.buffers.take(block.bytes.len()).await.unwrap();
        // A part of every other one.
        let length = found.record().length();
        let range = found.must_read(if length % 2 == 0 { 0..length } else { length / 3..length - length / 5 });
        let own = &block.bytes[range.start as usize..range.end as usize];
        let (result, buffer) = session.read(found, range, buffer, 0).await;
        result?;
        assert!(&buffer[..own.len()] == own, "{} leads to bytes that are not its own", block.hash);
        Ok(true)
    }

    /// Stops in order: nothing may be held afterwards, but extents that could not be written.
    pub(crate) async fn stop(self) {
        for session in &self.sessions {
            session.close().await;
        }
        self.controller.stopped().await;
        if self.shared.health.read_only().is_none() {
            // What was removed last is being forgotten by the cache.
            self.ring.sleep(Duration::from_secs(1)).await;
            let statistics = &self.shared.statistics;
            assert_eq!(statistics.bytes_held.get(), statistics.bytes_suspect.get(), "extents have leaked");
        }
    }
}

/// Carries checkpoints out after a while. The power may go before and after the commit.
struct SimulatedCheckpointer {
    ring: Ring,
    disk: Disk,
    index: MemoryIndex,
    pause: Duration,
    checkpoints: Cell<u64>,
}

impl Checkpointer for SimulatedCheckpointer {
    fn start(&self, job: CheckpointJob) -> oneshot::Receiver<Result<CheckpointDone, IndexError>> {
        let (sender, receiver) = oneshot::channel();
        let (ring, disk, index, pause) = (self.ring.clone(), self.disk.clone(), self.index.clone(), self.pause);
        self.checkpoints.set(self.checkpoints.get() + 1);
        let tells_at_once = self.checkpoints.get().is_multiple_of(2);
        self.ring
            .spawn(async move {
                ring.sleep(pause).await;
                for _ in 0..3 {
                    disk.take_time(&ring).await;
                }
                disk.completed().await;
                let outcome = checkpoint(&index, &job);
                disk.completed().await;
                if !tells_at_once {
                    disk.take_time(&ring).await;
                }
                let _ = sender.send(outcome);
            })
            .detach();
        receiver
    }
}

struct SimulatedLocator {
    ring: Ring,
    disk: Disk,
    index: MemoryIndex,
}

impl Locator for SimulatedLocator {
    fn start(&self, hash: Hash) -> oneshot::Receiver<Result<Option<Record>, IndexError>> {
        let (sender, receiver) = oneshot::channel();
        let (ring, disk, index) = (self.ring.clone(), self.disk.clone(), self.index.clone());
        self.ring
            .spawn(async move {
                disk.take_time(&ring).await;
                let found = index.reader().and_then(|mut reader| reader.block(&hash, 1));
                disk.take_time(&ring).await;
                let _ = sender.send(found);
            })
            .detach();
        receiver
    }
}
