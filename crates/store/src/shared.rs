//! What all threads of a store share.

use crate::clock::Clock;
use crate::health::Health;
use crate::names::Names;
use crate::quarantine::Quarantined;
use crate::recent_reads::RecentReads;
use crate::settings::Settings;
use crate::statistics::Statistics;
use crate::worker_statistics::WorkerStatistics;
use std::sync::{Arc, Mutex, PoisonError};

/// Names, clock, health and counters of one store.
pub struct Shared {
    /// The published names.
    pub names: Names,
    /// The reuse clock.
    pub clock: Arc<Clock>,
    /// Whether the store can write.
    pub health: Health,
    /// Blocks that were read lately.
    pub recent_reads: RecentReads,
    /// Extents that are out of service. Changed and looked at rarely.
    pub quarantine: Mutex<Vec<Quarantined>>,
    /// What it holds and does.
    pub statistics: Statistics,
    /// What each worker does, counted by itself.
    pub workers: Box<[Arc<WorkerStatistics>]>,
}

impl Shared {
    /// For a store with these settings.
    #[must_use]
    pub fn new(settings: &Settings) -> Arc<Shared> {
        Arc::new(Shared {
            names: Names::new(settings.generation_size_max().changes_max()),
            clock: Clock::new(settings.workers, settings.pins_max),
            health: Health::default(),
            recent_reads: RecentReads::new(settings.recent_reads),
            quarantine: Mutex::default(),
            statistics: Statistics::default(),
            workers: (0..settings.workers).map(|_| Arc::default()).collect(),
        })
    }

    /// Adds extents that are out of service.
    pub(crate) fn add_quarantined(&self, quarantined: impl IntoIterator<Item = Quarantined>) {
        let mut all = self.quarantine.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(quarantined);
        self.statistics.quarantined_extents.set(all.len() as u64);
        self.statistics.bytes_quarantined.set(all.iter().map(|quarantined| quarantined.extent.bytes()).sum());
    }
}
