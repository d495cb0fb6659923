//! Blocks whose names came ahead of their bytes. Pure bookkeeping.
//!
//! A frame may name blocks that are still being written: frame and bytes are on their way side by side, and the frame is published
//! when both are there. Should only the frame survive a crash, opening the store finds out by the hashes of what it names.
//!
//! Where such a write fails the frame may have reached the disk. So a removal of the name follows it, and until that is
//! durable nothing from the failed change on counts as durable: an opening would have to look at those bytes again.

use super::ports::WorkerId;
use crate::extent::Extent;
use crate::messages::{WriteFailure, WriteNumber};
use foldhash::fast::RandomState;
use std::collections::{BTreeSet, HashMap};

/// A change of the journal whose bytes could not be written.
struct Failed {
    sequence: u64,
    failure: WriteFailure,
}

/// What is being written, and what could not be.
#[derive(Default)]
pub(super) struct Writes {
    /// Announced and not reported: the number of the change, as soon as it has one.
    under_way: HashMap<(WorkerId, WriteNumber), Option<u64>, RandomState>,
    /// The changes among them.
    unwritten: BTreeSet<u64>,
    /// Until the removal of the name is published.
    failed: HashMap<Extent, Failed>,
}

/// What a reported write belonged to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reported {
    /// A change of the journal.
    Change(u64),
    /// A request that still waits.
    Waiting,
    /// A request that was answered without it.
    Answered,
}

impl Writes {
    /// A request came ahead of its bytes.
    pub(super) fn announce(&mut self, worker: WorkerId, write: WriteNumber) {
        self.under_way.insert((worker, write), None);
    }

    /// Its name is the change `sequence`.
    pub(super) fn became_change(&mut self, worker: WorkerId, write: WriteNumber, sequence: u64) {
        // Where the request has waited, its bytes may have been reported meanwhile.
        if let Some(change) = self.under_way.get_mut(&(worker, write)) {
            *change = Some(sequence);
            self.unwritten.insert(sequence);
        }
    }

    /// It was answered: its bytes are its worker's.
    pub(super) fn forget(&mut self, worker: WorkerId, write: WriteNumber) {
        self.under_way.remove(&(worker, write));
    }

    /// A write has ended.
    pub(super) fn report(&mut self, worker: WorkerId, write: WriteNumber) -> Reported {
        match self.under_way.remove(&(worker, write)) {
            Some(Some(sequence)) => {
                self.unwritten.remove(&sequence);
                Reported::Change(sequence)
            }
            Some(None) => Reported::Waiting,
            None => Reported::Answered,
        }
    }

    /// True when nothing up to `sequence` is still being written.
    pub(super) fn are_reported_up_to(&self, sequence: u64) -> bool {
        self.unwritten.first().is_none_or(|first| *first > sequence)
    }

    /// Changes whose bytes are being written: each may yet need a removal.
    pub(super) fn changes(&self) -> usize {
        self.unwritten.len()
    }

    /// The bytes of the change `sequence` could not be written to `extent`.
    pub(super) fn fail(&mut self, extent: Extent, sequence: u64, failure: WriteFailure) {
        self.failed.insert(extent, Failed { sequence, failure });
    }

    /// True where what lies in `extent` is not what its name says.
    pub(super) fn has_failed(&self, extent: Option<Extent>) -> bool {
        extent.is_some_and(|extent| self.failed.contains_key(&extent))
    }

    /// The removal of what could not be written to `extent` is published: why it could not.
    pub(super) fn take_failed(&mut self, extent: Extent) -> Option<WriteFailure> {
        Some(self.failed.remove(&extent)?.failure)
    }

    /// The last of the changes up to `sequence`, all published, that is durable with its bytes once their frames are.
    pub(super) fn whole_up_to(&self, sequence: u64) -> u64 {
        self.failed.values().map(|failed| failed.sequence.saturating_sub(1)).fold(sequence, u64::min)
    }

    /// Nothing will be published any more.
    pub(super) fn give_up(&mut self) {
        *self = Writes::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::SizeClass;

    #[test]
    fn a_change_is_reported_when_its_write_is_whoever_was_first() {
        let mut writes = Writes::default();
        writes.announce(0, 1);
        writes.announce(1, 1);
        writes.announce(0, 2);
        writes.became_change(0, 1, 7);
        writes.became_change(1, 1, 8);
        assert!(writes.are_reported_up_to(6) && !writes.are_reported_up_to(7));
        assert_eq!(writes.report(1, 1), Reported::Change(8));
        assert!(!writes.are_reported_up_to(8), "7 is not");
        assert_eq!(writes.report(0, 1), Reported::Change(7));
        assert!(writes.are_reported_up_to(8));
        assert_eq!(writes.report(0, 2), Reported::Waiting);
        writes.became_change(0, 2, 9);
        assert!(writes.are_reported_up_to(9), "its bytes were there before its name was a change");
        writes.announce(0, 3);
        writes.forget(0, 3);
        assert_eq!(writes.report(0, 3), Reported::Answered);
    }

    #[test]
    fn nothing_from_a_failed_change_on_is_durable_until_its_removal_is_published() {
        let mut writes = Writes::default();
        let extent = Extent::new(SizeClass::SMALLEST, 4).unwrap();
        assert_eq!(writes.whole_up_to(20), 20);
        writes.fail(extent, 12, WriteFailure::Suspect);
        assert_eq!((writes.whole_up_to(10), writes.whole_up_to(20)), (10, 11));
        assert!(writes.has_failed(Some(extent)) && !writes.has_failed(None));
        assert_eq!(writes.take_failed(extent), Some(WriteFailure::Suspect));
        assert_eq!((writes.take_failed(extent), writes.whole_up_to(20)), (None, 20));
    }
}
