//! What all threads of a store share.

use crate::clock::Clock;
use crate::health::Health;
use crate::names::Names;
use crate::quarantine::Quarantined;
use crate::recent_reads::RecentReads;
use crate::settings::{GenerationSize, Settings};
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
    /// For a store with these settings, of which the first generation of names is to be so large.
    #[must_use]
    pub(crate) fn new(settings: &Settings, generation_size: GenerationSize) -> Arc<Shared> {
        Arc::new(Shared {
            names: Names::new(generation_size.changes_max()),
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
        // Added, not summed anew: where a disk decays there may be very many, one at a time.
        let mut bytes = self.statistics.bytes_quarantined.get();
        all.extend(quarantined.into_iter().inspect(|quarantined| bytes += quarantined.extent.bytes()));
        self.statistics.quarantined_extents.set(all.len() as u64);
        self.statistics.bytes_quarantined.set(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::{Extent, SizeClass};
    use crate::hash::Hash;

    #[test]
    fn what_is_out_of_service_is_counted_as_it_comes() {
        let settings = Settings::default();
        let shared = Shared::new(&settings, settings.generation_size(0));
        let extent = |class, number| Quarantined::now(Extent::new(class, number).unwrap(), Hash::of(b"x"));
        shared.add_quarantined([extent(SizeClass::SMALLEST, 1), extent(SizeClass::LARGEST, 1)]);
        shared.add_quarantined([extent(SizeClass::SMALLEST, 2)]);
        let statistics = &shared.statistics;
        let bytes = 2 * SizeClass::SMALLEST.bytes() + SizeClass::LARGEST.bytes();
        assert_eq!((statistics.quarantined_extents.get(), statistics.bytes_quarantined.get()), (3, bytes));
    }
}
