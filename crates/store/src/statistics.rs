//! What the store holds and does, in numbers that anybody reads. Most are the controller's; what sessions count together, because it is
//! rare, is here, too. What each worker counts for itself is in `worker_statistics`.

use crate::extent::{SIZE_CLASSES, SizeClass};
use crate::histogram::Histogram;
use crate::index::{IndexSizes, Totals};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Bounds for the times of writes and flushes, and of requests, in nanoseconds: 50 µs to 30 s.
pub const TIME_BOUNDS_NS: [u64; 18] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];
/// Bounds for the times of checkpoints, in nanoseconds: 1 ms to 2 min.
const CHECKPOINT_BOUNDS_NS: [u64; 11] = [
    1_000_000,
    5_000_000,
    25_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
    30_000_000_000,
    120_000_000_000,
];
/// Bounds for numbers of things that are done together.
const COUNT_BOUNDS: [u64; 12] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096];
/// Bounds for bytes of frames.
const FRAME_BYTES_BOUNDS: [u64; 9] =
    [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20];

/// One number that one thread sets and any reads.
#[derive(Default, Debug)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// The present value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// A number that one thread counts up and any reads. Counting is a load and a store, both plain: no other thread is waited for.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    /// What was counted until now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts `more`. For the one thread that owns the counter: of two, one would undo what the other counts.
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }
}

/// A number that any thread counts up and any reads. For what is rare: counting takes its cache line from all others.
#[derive(Default, Debug)]
pub struct SharedCounter(AtomicU64);

impl SharedCounter {
    /// What was counted until now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts `more`.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
}

/// A time as histograms of times count it.
#[must_use]
pub fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What the store holds and does.
#[derive(Debug)]
pub struct Statistics {
    /// Number of blocks, as [`Totals`] has it; see [`Statistics::totals`].
    blocks: [Gauge; SIZE_CLASSES + 1],
    /// Sum of their lengths.
    bytes_stored: [Gauge; SIZE_CLASSES],
    /// Bytes of extents in pools, waiting for readers, or suspect.
    pub bytes_held: Gauge,
    /// Bytes of extents that could not be written: out of use until the store is opened again.
    pub bytes_suspect: Counter,
    /// Bytes of the data file.
    pub file_bytes: Gauge,
    /// Extents taken out of service for good …
    pub quarantined_extents: Gauge,
    /// … and their bytes.
    pub bytes_quarantined: Gauge,
    /// Blocks that were read to verify them, by the scrub …
    pub scrubbed_blocks: SharedCounter,
    /// … and their bytes.
    pub scrubbed_bytes: SharedCounter,
    /// Times that the scrub has gone through all blocks.
    pub scrub_passes: SharedCounter,
    /// How far it has come in this pass: the first eight bytes of the last name, as a number.
    pub scrub_position: Gauge,
    /// Reads that found other bytes than were stored.
    pub corrupt_reads: SharedCounter,
    /// Free extents by size class.
    free_extents: [Gauge; SIZE_CLASSES],
    /// Changes in the active generation.
    pub names_active: Gauge,
    /// Changes in the sealed generation.
    pub names_sealed: Gauge,
    /// Bytes of the journal that are still needed.
    pub journal_bytes_used: Gauge,
    /// Bytes of the journal.
    pub journal_bytes: Gauge,
    /// Bytes of the index file, allocated ahead of need.
    pub index_bytes: Gauge,
    /// Bytes of it that were ever used.
    pub index_used_bytes: Gauge,
    /// Checkpoints since the start.
    pub checkpoints: Counter,
    /// Frames since the start.
    pub frames: Counter,
    /// Records in them.
    pub records: Counter,
    /// Records of each frame.
    pub frame_records: Histogram<12>,
    /// Bytes of each frame.
    pub frame_bytes: Histogram<9>,
    /// Time from the beginning of a frame to its answers.
    pub frame_time: Histogram<18>,
    /// Time of each flush of the data file, or of data file and journal.
    pub flush_time: Histogram<18>,
    /// Time of each checkpoint.
    pub checkpoint_time: Histogram<11>,
    /// When the oldest change was made that is in no checkpoint yet, in milliseconds since 1970; 0 where there is none.
    pub oldest_change_ms: Gauge,
    /// Requests that the controller took at a time.
    pub batch_requests: Histogram<12>,
    /// Changes that wait for the next frame.
    pub changes_gathered: Gauge,
    /// Requests that wait for a checkpoint.
    pub requests_deferred: Gauge,
    /// Requests that wait for space.
    pub requests_starved: Gauge,
}

impl Default for Statistics {
    fn default() -> Statistics {
        let gauge = Gauge::default;
        Statistics {
            blocks: Default::default(),
            bytes_stored: Default::default(),
            bytes_held: gauge(),
            bytes_suspect: Counter::default(),
            file_bytes: gauge(),
            quarantined_extents: gauge(),
            bytes_quarantined: gauge(),
            scrubbed_blocks: SharedCounter::default(),
            scrubbed_bytes: SharedCounter::default(),
            scrub_passes: SharedCounter::default(),
            scrub_position: gauge(),
            corrupt_reads: SharedCounter::default(),
            free_extents: Default::default(),
            names_active: gauge(),
            names_sealed: gauge(),
            journal_bytes_used: gauge(),
            journal_bytes: gauge(),
            index_bytes: gauge(),
            index_used_bytes: gauge(),
            checkpoints: Counter::default(),
            frames: Counter::default(),
            records: Counter::default(),
            frame_records: Histogram::new(&COUNT_BOUNDS),
            frame_bytes: Histogram::new(&FRAME_BYTES_BOUNDS),
            frame_time: Histogram::new(&TIME_BOUNDS_NS),
            flush_time: Histogram::new(&TIME_BOUNDS_NS),
            checkpoint_time: Histogram::new(&CHECKPOINT_BOUNDS_NS),
            oldest_change_ms: gauge(),
            batch_requests: Histogram::new(&COUNT_BOUNDS),
            changes_gathered: gauge(),
            requests_deferred: gauge(),
            requests_starved: gauge(),
        }
    }
}

/// Free extents of one size class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FreeExtents {
    /// Their size class.
    pub class: SizeClass,
    /// Number of them.
    pub count: u64,
}

impl FreeExtents {
    /// Their bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.count * self.class.bytes()
    }
}

impl Statistics {
    /// What is stored.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            blocks: self.blocks.each_ref().map(Gauge::get),
            bytes_stored: self.bytes_stored.each_ref().map(Gauge::get),
        }
    }

    pub(crate) fn set_totals(&self, totals: &Totals) {
        self.blocks.iter().zip(totals.blocks).for_each(|(gauge, count)| gauge.set(count));
        self.bytes_stored.iter().zip(totals.bytes_stored).for_each(|(gauge, bytes)| gauge.set(bytes));
    }

    /// Free extents, smallest first.
    pub fn free_extents(&self) -> impl Iterator<Item = FreeExtents> + '_ {
        SizeClass::all().zip(&self.free_extents).map(|(class, gauge)| FreeExtents { class, count: gauge.get() })
    }

    pub(crate) fn set_free_extents(&self, counts: [u64; SIZE_CLASSES]) {
        self.free_extents.iter().zip(counts).for_each(|(gauge, count)| gauge.set(count));
    }

    pub(crate) fn set_index_sizes(&self, sizes: IndexSizes) {
        self.index_bytes.set(sizes.file_bytes);
        self.index_used_bytes.set(sizes.used_bytes);
    }

    /// For how long the oldest change has waited for a checkpoint.
    #[must_use]
    pub fn checkpoint_lag(&self) -> Duration {
        match self.oldest_change_ms.get() {
            0 => Duration::ZERO,
            oldest => Duration::from_millis(now_ms().saturating_sub(oldest)),
        }
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
