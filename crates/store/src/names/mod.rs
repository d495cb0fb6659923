//! The names that are newer than the index: published by the controller, looked up by every worker without a lock.
//!
//! A name is *pending* (applied by the controller, not yet durable, private to it), then *active* (published), then *sealed* (being
//! checkpointed), then in the index. This module holds the two stages in the middle.

mod generation;
mod sorted;

pub use generation::{Generation, NameState};
pub(crate) use sorted::SortedNames;

use crate::hash::Hash;
use crate::record::Record;
use crate::sync::{ArcSwap, Guard};
use std::sync::Arc;

/// One consistent view of the published stages.
pub struct Stages {
    active: Arc<Generation>,
    sealed: Option<Arc<Generation>>,
    /// How many generations have gone into the index and were dropped.
    dropped: u64,
}

impl Stages {
    /// What the published stages say of a name: the newer one first. `None`: ask the index, in a snapshot taken after this
    /// view was loaded.
    #[must_use]
    pub fn get(&self, hash: &Hash) -> Option<NameState> {
        self.active.get(hash).or_else(|| self.sealed.as_ref()?.get(hash))
    }

    /// How many generations were dropped when this view was made. While it stays the same, no name has moved to where the
    /// stages do not show it.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The generation that takes names in.
    #[must_use]
    pub fn active(&self) -> &Arc<Generation> {
        &self.active
    }

    /// The generation that is being checkpointed.
    #[must_use]
    pub fn sealed(&self) -> Option<&Arc<Generation>> {
        self.sealed.as_ref()
    }
}

/// The published names. The controller alone changes them.
pub struct Names {
    stages: ArcSwap<Stages>,
}

impl Names {
    /// No names; the first generation holds up to `entries` changes.
    #[must_use]
    pub fn new(entries: usize) -> Names {
        let active = Arc::new(Generation::new(entries));
        Names { stages: ArcSwap::from_pointee(Stages { active, sealed: None, dropped: 0 }) }
    }

    /// The present view. Wait-free.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<Stages>> {
        self.stages.load()
    }

    /// Looks a name up: active names, sealed names, then `index`, in a snapshot taken after those: a name that moves from one to
    /// the next is found in one of them. `index` is passed how many generations were dropped; so is the caller, who can say
    /// with it how old the answer is.
    ///
    /// # Errors
    ///
    /// What `index` returns.
    pub fn look_up<E>(
        &self,
        hash: &Hash,
        index: impl FnOnce(u64) -> Result<Option<Record>, E>,
    ) -> Result<(Option<Record>, u64), E> {
        let stages = self.load();
        let seen = stages.dropped();
        let record = match stages.get(hash) {
            Some(state) => state.record(),
            None => index(seen)?,
        };
        Ok((record, seen))
    }

    /// Publishes names that were gathered before anybody could look, in place of the active generation.
    pub fn publish(&self, names: Arc<Generation>) {
        let stages = self.stages.load_full();
        debug_assert!(stages.active.is_empty(), "names would be lost");
        let (sealed, dropped) = (stages.sealed.clone(), stages.dropped);
        self.stages.store(Arc::new(Stages { active: names, sealed, dropped }));
    }

    /// Makes the active generation the sealed one and installs an empty one for up to `entries` changes. Does nothing while one is sealed.
    pub fn seal(&self, entries: usize) -> Option<Arc<Generation>> {
        let stages = self.stages.load_full();
        if stages.sealed.is_some() {
            return None;
        }
        let sealed = Arc::clone(&stages.active);
        self.stages.store(Arc::new(Stages {
            active: Arc::new(Generation::new(entries)),
            sealed: Some(Arc::clone(&sealed)),
            dropped: stages.dropped,
        }));
        Some(sealed)
    }

    /// Lets the sealed generation go, after its checkpoint has been committed.
    pub fn drop_sealed(&self) {
        let stages = self.stages.load_full();
        self.stages.store(Arc::new(Stages {
            active: Arc::clone(&stages.active),
            sealed: None,
            dropped: stages.dropped + u64::from(stages.sealed.is_some()),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_stage_hides_the_older_and_a_removal_is_an_entry() {
        let names = Names::new(16);
        let hash = Hash::of(b"x");
        names.load().active().insert(&hash, NameState::Occupied(Record::EMPTY));
        let sealed = names.seal(16).unwrap();
        assert_eq!(names.load().get(&hash), Some(NameState::Occupied(Record::EMPTY)));
        assert!(names.seal(16).is_none(), "one generation at a time");
        names.load().active().insert(&hash, NameState::Removed);
        assert_eq!(names.load().get(&hash), Some(NameState::Removed), "hides the sealed and the index");
        assert_eq!(sealed.get(&hash), Some(NameState::Occupied(Record::EMPTY)));
        assert_eq!(names.load().dropped(), 0);
        names.drop_sealed();
        assert_eq!(names.load().dropped(), 1);
        assert_eq!(names.load().get(&hash), Some(NameState::Removed));
    }
}
