//! Counters that the controller keeps up and anybody reads.

use crate::extent::SIZE_CLASSES;
use crate::index::IndexSizes;
use std::sync::atomic::{AtomicU64, Ordering};

/// One number, written by one thread and read by any.
#[derive(Default, Debug)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// The present value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }
}

/// What the store holds and does.
#[derive(Default, Debug)]
pub struct Statistics {
    /// Number of blocks.
    pub blocks: Gauge,
    /// Sum of their lengths.
    pub bytes_stored: Gauge,
    /// Sum of the extents of stored blocks.
    pub bytes_allocated: Gauge,
    /// Bytes of extents in pools, waiting for readers, or suspect.
    pub bytes_held: Gauge,
    /// Bytes of extents that could not be written: out of use until the store is opened again.
    pub bytes_suspect: Gauge,
    /// Bytes of free extents.
    pub bytes_free: Gauge,
    /// Bytes of the data file.
    pub file_bytes: Gauge,
    /// Extents taken out of service for good …
    pub quarantined_extents: Gauge,
    /// … and their bytes.
    pub bytes_quarantined: Gauge,
    /// Blocks that were read to verify them, by the scrub …
    pub scrubbed_blocks: Gauge,
    /// … and their bytes.
    pub scrubbed_bytes: Gauge,
    /// Times that the scrub has gone through all blocks.
    pub scrub_passes: Gauge,
    /// Reads that found other bytes than were stored.
    pub corrupt_reads: Gauge,
    /// Free extents by size class.
    pub free_extents: [Gauge; SIZE_CLASSES],
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
    pub checkpoints: Gauge,
    /// Frames since the start.
    pub frames: Gauge,
    /// Records in them.
    pub records: Gauge,
}

impl Statistics {
    pub(crate) fn set_index_sizes(&self, sizes: IndexSizes) {
        self.index_bytes.set(sizes.file_bytes);
        self.index_used_bytes.set(sizes.used_bytes);
    }
}
