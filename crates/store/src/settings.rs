//! Everything about the engine that can be set, with its default, in one place.

use crate::extent::{PAGE_BYTES, SIZE_CLASSES};
use crate::journal::REMOVAL_BYTES;
use buddy_ring::BUSY_POLL_DEFAULT;
use std::time::Duration;

/// When a write is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// When its data and its name are on stable storage.
    #[default]
    Sync,
    /// When they are written; flushed every [`Settings::sync_interval`]. A crash of the process loses nothing, a power cut
    /// at most that and what a flush takes.
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

/// How the bytes of a block get to stable storage before its write is answered, where durability is [`Durability::Sync`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataSync {
    /// Each write does it by itself. Best where that takes little longer.
    PerWrite,
    /// One flush does it for a journal frame and all blocks that the frame names. Best where a flush takes time.
    PerFrame,
}

impl DataSync {
    /// What is best where a durable write takes `longer` than one that is not.
    #[must_use]
    pub fn for_flush_time(longer: Duration) -> DataSync {
        if longer > FLUSH_TIME_LITTLE { DataSync::PerFrame } else { DataSync::PerWrite }
    }
}

/// A flush that takes no longer than this is little beside what it takes to send one on its way separately.
const FLUSH_TIME_LITTLE: Duration = Duration::from_micros(500);

/// What is done about space that is new to the data file before blocks get there that do not fill the largest extents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NewSpace {
    /// Zeros are written there, ahead of need: then blocks only overwrite. Best where the file system takes long to note that something
    /// was written for the first time.
    Zeros,
    /// Nothing: blocks are the first to be written there. Best elsewhere, because everything is written once.
    Unwritten,
}

impl NewSpace {
    /// What is best where a first write takes `first`, and writing the same place again takes `again`. With zeros everything is written
    /// twice, so a first write has to cost more than that.
    #[must_use]
    pub fn for_write_times(first: Duration, again: Duration) -> NewSpace {
        if first > 2 * again { NewSpace::Zeros } else { NewSpace::Unwritten }
    }
}

/// Which blocks are hashed before they are handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum VerifyReads {
    /// None.
    #[default]
    Off,
    /// A sample.
    Sampled,
    /// All.
    All,
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
    /// How blocks are made durable when [`Durability::Sync`]; `None`: as a measurement at opening says.
    pub data_sync: Option<DataSync>,
    /// What is done about space that is new to the data file; `None`: as a measurement at opening says.
    pub new_space: Option<NewSpace>,
    /// Blocks that a worker has the disk read at a time, past the page cache, at least; more where half of those that are asked for are more;
    /// `None`: as a measurement at opening says.
    pub reads_at_once: Option<usize>,
    /// How often writes are flushed when [`Durability::Relaxed`].
    pub sync_interval: Duration,
    /// Which blocks are hashed before they are handed out.
    pub verify_reads: VerifyReads,
    /// Bytes a second that are read in the background to find damaged blocks; 0: none.
    pub scrub_bytes_per_second: u64,
    /// Who looks names up.
    pub lookup: LookupPath,
    /// The data file grows to at most this; `None`: as far as the disk goes.
    pub capacity_bytes: Option<u64>,
    /// Blank extents that each worker keeps at hand at least, by size class; demand raises it.
    pub pool_targets: [u32; SIZE_CLASSES],
    /// Names that a checkpoint gathers, in a store that is not small.
    pub checkpoint_names: usize,
    /// Blocks of which is remembered that they were read, so that those that are read again get into the page cache; a byte each.
    pub recent_reads: usize,
    /// Size of the journal of a new store; `None`: by the size of the file system.
    pub journal_bytes: Option<u64>,
    /// How long to wait for another process to let go of the data directory.
    pub lock_timeout: Duration,
    /// Requests that a worker may have outstanding at the controller.
    pub requests_max: usize,
    /// Long reads that a worker can pin at a time, one a connection; more would hold back all reuse while they last.
    pub pins_max: usize,
    /// How long a thread with nothing to do looks for work before it sleeps, where it has been busy lately; zero: it sleeps at once.
    pub busy_poll: Duration,
    /// How long a write may wait for space, or for a stuck checkpoint, before it is refused.
    pub busy_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            workers: 1,
            durability: Durability::Sync,
            data_sync: None,
            new_space: None,
            reads_at_once: None,
            sync_interval: Duration::from_secs(1),
            verify_reads: VerifyReads::Off,
            scrub_bytes_per_second: 0,
            lookup: LookupPath::Worker,
            capacity_bytes: None,
            pool_targets: [16, 4, 4, 2, 2, 2, 2, 2],
            checkpoint_names: 65_536,
            recent_reads: 65_536,
            journal_bytes: None,
            lock_timeout: Duration::from_secs(10),
            requests_max: 1024,
            pins_max: 16_384,
            busy_poll: BUSY_POLL_DEFAULT,
            busy_timeout: Duration::from_secs(10),
        }
    }
}

/// Bytes of the smallest journal: room for frames, for a checkpoint's worth of them, and for removals when it is full.
pub const JOURNAL_BYTES_MIN: u64 = 4 << 20;
/// Bytes of the largest journal made by default.
pub const JOURNAL_BYTES_DEFAULT_MAX: u64 = 256 << 20;

/// Bounds of what is remembered of reads where nobody has set it: 8 KiB to 16 MiB.
const RECENT_READS_MIN: usize = 1 << 13;
const RECENT_READS_MAX: usize = 1 << 24;

/// Names that a checkpoint gathers where there is memory for them, or nobody knows how much.
const CHECKPOINT_NAMES_MAX: usize = 1 << 19;
/// A name that waits for its checkpoint takes some 128 bytes, with all that belongs to it: together not more than one part in 128 of
/// what there is.
const MEMORY_BYTES_PER_NAME: u64 = 128 * 128;

/// The smallest block takes so much of the page cache: as many can be remembered as fit into it.
const MEMORY_BYTES_PER_RECENT_READ: u64 = PAGE_BYTES;

/// A worker takes at least so long for a block that it has the disk read: several times as long on a small processor.
const READ_ANSWERED_IN: Duration = Duration::from_micros(8);
/// What was just written a disk may read from a memory of its own: few are never too many.
const READS_AT_ONCE_MIN: usize = 4;

impl Settings {
    /// How many blocks a worker should have a disk read at a time that takes `read` for one: as many as it could answer meanwhile.
    #[must_use]
    pub fn reads_at_once_for(read: Duration) -> usize {
        usize::try_from(read.as_nanos().div_ceil(READ_ANSWERED_IN.as_nanos()))
            .unwrap_or(usize::MAX)
            .max(READS_AT_ONCE_MIN)
    }

    /// Of how many blocks should be remembered that they were read, on a machine with so much memory.
    #[must_use]
    pub fn recent_reads_for(memory_bytes: u64) -> usize {
        let blocks = usize::try_from(memory_bytes / MEMORY_BYTES_PER_RECENT_READ).unwrap_or(usize::MAX);
        blocks.clamp(RECENT_READS_MIN, RECENT_READS_MAX)
    }

    /// How many names a checkpoint should gather on a machine with so much memory. The more there are, the fewer pages of the index
    /// are written for each: with a million names stored, 262,144 instead of 65,536 make a PUT of 4 KiB a fifth cheaper, and with ten
    /// million 524,288 write two thirds of what 262,144 do.
    #[must_use]
    pub fn checkpoint_names_for(memory_bytes: u64) -> usize {
        let names = usize::try_from(memory_bytes / MEMORY_BYTES_PER_NAME).unwrap_or(usize::MAX);
        names.clamp(GENERATION_TARGET_MIN, CHECKPOINT_NAMES_MAX)
    }

    /// Size of the journal of a new store on a file system of `file_system_bytes`.
    #[must_use]
    pub fn journal_bytes_for(&self, file_system_bytes: u64) -> u64 {
        let by_size = (file_system_bytes / 128).clamp(JOURNAL_BYTES_MIN, JOURNAL_BYTES_DEFAULT_MAX);
        let bytes = self.journal_bytes.unwrap_or(by_size).max(JOURNAL_BYTES_MIN);
        bytes - bytes % crate::extent::MACROBLOCK_BYTES
    }

    /// The generation for a store of `blocks` blocks: a small store does with small ones, so that little space has to be kept
    /// ready for them in the index.
    pub(crate) fn generation_size(&self, blocks: u64) -> GenerationSize {
        let by_store = usize::try_from(blocks / 4).unwrap_or(usize::MAX).max(GENERATION_TARGET_MIN);
        GenerationSize { target: by_store.min(self.checkpoint_names) }
    }
}

/// The target of a generation is not below this because the store is small.
const GENERATION_TARGET_MIN: usize = 4096;
/// While one generation is being checkpointed the active one may grow to this multiple of its target …
const GENERATION_LIMIT: usize = 4;
/// … but by no more names than this: they take memory, and the index keeps space ready for them.
const GENERATION_GROWTH_MAX: usize = 3 << 16;
/// A change takes at least this much of the journal.
const JOURNAL_BYTES_PER_CHANGE: u64 = REMOVAL_BYTES as u64;

/// How many changes a generation gathers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GenerationSize {
    target: usize,
}

impl GenerationSize {
    /// At this many it is sealed, if no other is.
    pub(crate) fn target(self) -> usize {
        self.target
    }

    /// At this many writes wait.
    pub(crate) fn limit(self) -> usize {
        self.target.saturating_mul(GENERATION_LIMIT).min(self.target.saturating_add(GENERATION_GROWTH_MAX))
    }

    /// As many it can hold: beyond the limit there is room for removals, so that deletes go on when nothing else does.
    pub(crate) fn changes_max(self) -> usize {
        self.limit() + (self.target / 4).max(64)
    }

    /// Changes that its checkpoint may hold: they lie in the journal, so there are no more than fit into it.
    pub(crate) fn checkpoint_names_max(self, journal_bytes: u64) -> u64 {
        (self.changes_max() as u64).min(journal_bytes / JOURNAL_BYTES_PER_CHANGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_takes_longer_is_asked_for_more_at_once() {
        let chosen = [0, 5, 80, 1_000, 10_000].map(|read| Settings::reads_at_once_for(Duration::from_micros(read)));
        assert_eq!(chosen, [4, 4, 10, 125, 1_250]);
    }
}
