//! What a request means for a name, given everything newer than the index. Pure.
//!
//! The newest says most: pending, then active, then sealed. Where they say nothing, what the worker saw in the index counts, but
//! only if no generation was dropped since it looked: otherwise the name may have moved to where neither side has seen it.
//! So the controller never reads the index.

use crate::hash::Hash;
use crate::names::{NameState, Stages};
use crate::record::Record;
use foldhash::fast::RandomState;
use std::collections::HashMap;

/// A change that is applied and not yet durable.
#[derive(Clone, Copy)]
struct Pending {
    state: NameState,
    /// Sequence number of the change.
    sequence: u64,
}

/// Changes that are applied and not yet durable, by name: the latest of each.
#[derive(Default)]
pub(crate) struct PendingNames(HashMap<Hash, Pending, RandomState>);

/// What is to be done for an `Occupy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OccupyVerdict {
    /// The name is new.
    Create,
    /// The name leads to a block, once the change with this number is durable (0: it is).
    Exists(u64),
    /// The worker must look again.
    Retry,
}

/// What is to be done for a `Release`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReleaseVerdict {
    /// The name leads to this block.
    Remove(Record),
    /// The name leads nowhere, once the change with this number is durable (0: it is).
    Absent(u64),
    /// The worker must look again.
    Retry,
}

impl PendingNames {
    pub(crate) fn judge_occupy(&self, stages: &Stages, hash: &Hash, seen: u64) -> OccupyVerdict {
        match self.state(stages, hash) {
            Some((NameState::Occupied(_), sequence)) => OccupyVerdict::Exists(sequence),
            Some((NameState::Removed, _)) => OccupyVerdict::Create,
            None if seen == stages.dropped() => OccupyVerdict::Create,
            None => OccupyVerdict::Retry,
        }
    }

    /// `record` is what the worker saw.
    pub(crate) fn judge_release(&self, stages: &Stages, hash: &Hash, record: Record, seen: u64) -> ReleaseVerdict {
        match self.state(stages, hash) {
            Some((NameState::Occupied(record), _)) => ReleaseVerdict::Remove(record),
            Some((NameState::Removed, sequence)) => ReleaseVerdict::Absent(sequence),
            None if seen == stages.dropped() => ReleaseVerdict::Remove(record),
            None => ReleaseVerdict::Retry,
        }
    }

    /// The newest state, with the number of the change that is not yet durable, or 0.
    fn state(&self, stages: &Stages, hash: &Hash) -> Option<(NameState, u64)> {
        match self.0.get(hash) {
            Some(pending) => Some((pending.state, pending.sequence)),
            None => stages.get(hash).map(|state| (state, 0)),
        }
    }

    /// The number of the latest change of a name, if that is not published.
    pub(crate) fn latest(&self, hash: &Hash) -> Option<u64> {
        Some(self.0.get(hash)?.sequence)
    }

    /// A change was applied.
    pub(crate) fn apply(&mut self, hash: Hash, state: NameState, sequence: u64) {
        self.0.insert(hash, Pending { state, sequence });
    }

    /// The change `sequence` of a name is published; a newer change of the same name stays pending.
    pub(crate) fn published(&mut self, hash: &Hash, sequence: u64) {
        if self.latest(hash) == Some(sequence) {
            self.0.remove(hash);
        }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::{Extent, SizeClass};
    use crate::names::Names;

    fn record(number: u64) -> Record {
        Record::new(Extent::new(SizeClass::SMALLEST, number), 10).unwrap()
    }

    #[test]
    fn the_newest_stage_decides_and_absence_is_trusted_only_if_nothing_moved() {
        let names = Names::new(16);
        let mut pending = PendingNames::default();
        let hash = Hash::of(b"x");
        assert_eq!(pending.judge_occupy(&names.load(), &hash, 0), OccupyVerdict::Create);
        pending.apply(hash, NameState::Occupied(record(1)), 7);
        assert_eq!(pending.judge_occupy(&names.load(), &hash, 0), OccupyVerdict::Exists(7), "once change 7 is durable");
        assert_eq!(pending.judge_release(&names.load(), &hash, record(9), 0), ReleaseVerdict::Remove(record(1)));
        names.load().active().insert(&hash, NameState::Occupied(record(1)));
        pending.apply(hash, NameState::Removed, 8);
        pending.published(&hash, 7);
        assert_eq!(pending.judge_release(&names.load(), &hash, record(1), 0), ReleaseVerdict::Absent(8));
        assert_eq!(pending.judge_occupy(&names.load(), &hash, 0), OccupyVerdict::Create);
        pending.published(&hash, 8);
        assert!(pending.is_empty());
        assert_eq!(pending.judge_occupy(&names.load(), &hash, 0), OccupyVerdict::Exists(0));
        let _ = names.seal(16);
        assert_eq!(pending.judge_occupy(&names.load(), &hash, 0), OccupyVerdict::Exists(0), "sealed");
        names.drop_sealed();
        assert_eq!(pending.judge_occupy(&names.load(), &hash, 0), OccupyVerdict::Retry, "it may be in the index now");
        assert_eq!(pending.judge_release(&names.load(), &hash, record(1), 0), ReleaseVerdict::Retry);
        assert_eq!(pending.judge_release(&names.load(), &hash, record(1), 1), ReleaseVerdict::Remove(record(1)));
    }
}
