//! What one worker's session counts. Each worker writes its own, in cache lines of its own, so that counting costs no worker anything
//! that another does.

use crate::error::StoreError;
use crate::extent::{SIZE_CLASSES, SizeClass};
use crate::session::Stored;
use crate::statistics::{Counter, Gauge};

/// Kinds of [`StoreError`], by name.
pub const ERROR_KINDS: [&str; 7] = ["no_space", "busy", "read_only", "index", "io", "corrupt", "internal"];

/// What one worker does.
// Two cache lines: processors fetch them in pairs.
#[repr(align(128))]
#[derive(Default, Debug)]
pub struct WorkerStatistics {
    /// Blocks that are being written and will ask for a name then.
    pub(crate) writing: Gauge,
    /// Requests to the controller that wait for their reply.
    pub requests_outstanding: Gauge,
    /// Blocks that were new, by size class; those of no bytes last.
    pub created: [Counter; SIZE_CLASSES + 1],
    /// The bytes of all of those.
    pub created_bytes: Counter,
    /// Blocks that were to be stored and were there already …
    pub existed: Counter,
    /// … and their bytes.
    pub existed_bytes: Counter,
    /// Blank extents at hand, by size class …
    pub pool_extents: [Gauge; SIZE_CLASSES],
    /// … and how many there should be.
    pub pool_targets: [Gauge; SIZE_CLASSES],
    /// Times that an extent was wanted and none was at hand.
    pub pool_dry: [Counter; SIZE_CLASSES],
    /// What went wrong, by [`ERROR_KINDS`].
    pub errors: [Counter; ERROR_KINDS.len()],
}

impl WorkerStatistics {
    /// Counts what came of storing a block.
    pub(crate) fn count_stored(&self, length: u32, result: &Result<Stored, StoreError>) {
        match result {
            Ok(Stored::Created) => {
                let class = SizeClass::for_length(length).map_or(SIZE_CLASSES, SizeClass::index);
                if let Some(counter) = self.created.get(class) {
                    counter.add(1);
                }
                self.created_bytes.add(u64::from(length));
            }
            Ok(Stored::Existed) => {
                self.existed.add(1);
                self.existed_bytes.add(u64::from(length));
            }
            Err(error) => self.count_error(error),
        }
    }

    /// Counts something that went wrong.
    pub(crate) fn count_error(&self, error: &StoreError) {
        let kind = match error {
            StoreError::NoSpace => 0,
            StoreError::Busy => 1,
            StoreError::ReadOnly => 2,
            StoreError::Index(_) => 3,
            StoreError::Io { .. } => 4,
            StoreError::Corrupt(_) => 5,
            StoreError::Internal(_) => 6,
        };
        if let Some(counter) = self.errors.get(kind) {
            counter.add(1);
        }
    }

    /// Counts what went wrong, if anything did.
    pub(crate) fn count_failure<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        result.inspect_err(|error| self.count_error(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_a_block_is_counted_in_its_place() {
        let statistics = WorkerStatistics::default();
        statistics.count_stored(0, &Ok(Stored::Created));
        statistics.count_stored(4096, &Ok(Stored::Created));
        statistics.count_stored(524_288, &Ok(Stored::Created));
        statistics.count_stored(5, &Ok(Stored::Existed));
        let created: Vec<u64> = statistics.created.iter().map(Counter::get).collect();
        assert_eq!(created, [1, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(statistics.created_bytes.get(), 4096 + 524_288);
        assert_eq!((statistics.existed.get(), statistics.existed_bytes.get()), (1, 5));
        let corrupt = StoreError::Corrupt(crate::Hash::of(b"x"));
        for error in [StoreError::NoSpace, corrupt, StoreError::Internal("x")] {
            statistics.count_stored(1, &Err(error));
        }
        let errors: Vec<_> = ERROR_KINDS.iter().zip(&statistics.errors).filter(|(_, count)| count.get() == 1).collect();
        assert_eq!(errors.iter().map(|(kind, _)| **kind).collect::<Vec<_>>(), ["no_space", "corrupt", "internal"]);
    }
}
