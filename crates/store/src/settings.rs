//! Everything about the engine that can be set, with its default, in one place.

use crate::extent::SIZE_CLASSES;
use std::time::Duration;

/// When a write is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// When its data and its name are on stable storage.
    #[default]
    Sync,
    /// When they are written; flushed every [`Settings::sync_interval`]. A crash of the process loses nothing, a power cut
    /// at most that.
    Relaxed,
}

impl Durability {
    /// Its name in configuration and statistics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Durability::Sync => "sync",
            Durability::Relaxed => "relaxed",
        }
    }
}

/// Who looks names up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LookupPath {
    /// Each worker by itself.
    #[default]
    Worker,
    /// The controller, asked by message. Slower; kept for comparison.
    Controller,
}

/// Settings of a store.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads that use the store.
    pub workers: usize,
    /// When a write is answered.
    pub durability: Durability,
    /// How often writes are flushed when [`Durability::Relaxed`].
    pub sync_interval: Duration,
    /// Who looks names up.
    pub lookup: LookupPath,
    /// The data file grows to at most this; `None`: as far as the disk goes.
    pub capacity_bytes: Option<u64>,
    /// Blank extents that each worker keeps at hand at least, by size class; demand raises it.
    pub pool_targets: [u32; SIZE_CLASSES],
    /// Names that a checkpoint gathers.
    pub checkpoint_names: usize,
    /// Size of the journal of a new store; `None`: by the size of the file system.
    pub journal_bytes: Option<u64>,
    /// How long to wait for another process to let go of the data directory.
    pub lock_timeout: Duration,
    /// Requests that a worker may have outstanding at the controller.
    pub requests_max: usize,
    /// Long reads that a worker can pin at a time, one a connection; more would hold back all reuse while they last.
    pub pins_max: usize,
    /// How long a write may wait for space, or for a stuck checkpoint, before it is refused.
    pub busy_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            workers: 1,
            durability: Durability::Sync,
            sync_interval: Duration::from_secs(1),
            lookup: LookupPath::Worker,
            capacity_bytes: None,
            pool_targets: [16, 4, 4, 2, 2, 2, 2, 2],
            checkpoint_names: 65_536,
            journal_bytes: None,
            lock_timeout: Duration::from_secs(10),
            requests_max: 1024,
            pins_max: 16_384,
            busy_timeout: Duration::from_secs(10),
        }
    }
}

/// While one generation is being checkpointed the active one may grow to this multiple of the target at which it is sealed.
const GENERATION_LIMIT: usize = 4;
/// A change takes at least this much of the journal.
const JOURNAL_BYTES_PER_CHANGE: u64 = 44;

/// Bytes of the smallest journal: room for frames, for a checkpoint's worth of them, and for removals when it is full.
pub const JOURNAL_BYTES_MIN: u64 = 4 << 20;
/// Bytes of the largest journal made by default.
pub const JOURNAL_BYTES_DEFAULT_MAX: u64 = 256 << 20;

impl Settings {
    /// Size of the journal of a new store on a file system of `file_system_bytes`.
    #[must_use]
    pub fn journal_bytes_for(&self, file_system_bytes: u64) -> u64 {
        let by_size = (file_system_bytes / 128).clamp(JOURNAL_BYTES_MIN, JOURNAL_BYTES_DEFAULT_MAX);
        let bytes = self.journal_bytes.unwrap_or(by_size).max(JOURNAL_BYTES_MIN);
        bytes - bytes % crate::extent::MACROBLOCK_BYTES
    }

    /// Changes that may have to go into the index without any space being found for them: what the active generation may hold
    /// when new names are refused, and removals beyond. Both lie in the journal, so there are no more than fit into it.
    #[must_use]
    pub(crate) fn names_ahead(&self, journal_bytes: u64) -> u64 {
        let by_target = self.checkpoint_names as u64 * (GENERATION_LIMIT as u64 + 1);
        by_target.min(journal_bytes / JOURNAL_BYTES_PER_CHANGE)
    }

    /// Changes that the active generation may hold before writes wait.
    pub(crate) fn generation_limit(&self) -> usize {
        self.checkpoint_names * GENERATION_LIMIT
    }

    /// Changes beyond that limit that are kept for removals: deletes go on when nothing else does.
    pub(crate) fn removals_reserve(&self) -> usize {
        (self.checkpoint_names / 4).max(64)
    }
}
