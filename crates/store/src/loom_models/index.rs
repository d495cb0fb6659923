//! An index of one name: what was committed, and snapshots of it.

use super::{name, record};
use crate::names::{Generation, SortedNames};
use crate::record::Record;
use loom::sync::atomic::{AtomicU64, Ordering};
use std::convert::Infallible;
use std::sync::Arc;

/// The number of the record that is committed; 0 where there is none.
pub(super) struct Index(AtomicU64);

impl Index {
    pub(super) fn new(number: u64) -> Arc<Index> {
        Arc::new(Index(AtomicU64::new(number)))
    }

    /// The checkpointer: the latest state of the name goes in.
    pub(super) fn commit(&self, generation: &Generation) {
        for (hash, state) in SortedNames::of(generation).iter() {
            assert_eq!(hash, name(1));
            self.0.store(state.record().map_or(0, |record| u64::from(record.length())), Ordering::Release);
        }
    }
}

/// A worker's reader, which keeps a snapshot while the number that it is passed stays the same, as `IndexReader` may.
pub(super) struct Reader {
    index: Arc<Index>,
    snapshot: Option<(u64, u64)>,
}

impl Reader {
    pub(super) fn new(index: &Arc<Index>) -> Reader {
        Reader { index: Arc::clone(index), snapshot: None }
    }

    pub(super) fn block(&mut self, generation: u64) -> Result<Option<Record>, Infallible> {
        let number = match self.snapshot {
            Some((of, number)) if of == generation => number,
            _ => self.index.0.load(Ordering::Acquire),
        };
        self.snapshot = Some((generation, number));
        Ok((number > 0).then(|| record(number)))
    }

    pub(super) fn rest(&mut self) {
        self.snapshot = None;
    }
}
