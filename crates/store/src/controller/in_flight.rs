//! Changes of names, and the frame that is on its way with some of them. Pure.

use super::ports::WorkerId;
use crate::hash::Hash;
use crate::journal::JournalRecord;
use crate::messages::Reply;
use crate::names::NameState;
use crate::record::Record;

/// A change of a name, with what it replaces.
#[derive(Clone, Copy)]
pub(crate) struct Change {
    pub(crate) hash: Hash,
    pub(crate) state: NameState,
    /// The block that a removal removes.
    pub(crate) removed: Option<Record>,
    /// Its extent is damaged and not to be used again.
    pub(crate) quarantined: bool,
}

impl Change {
    /// The name leads to a block from now on.
    pub(super) fn occupy(hash: Hash, record: Record) -> Change {
        Change { hash, state: NameState::Occupied(record), removed: None, quarantined: false }
    }

    /// The name leads nowhere any more, and its block is removed.
    pub(super) fn remove(hash: Hash, record: Record) -> Change {
        Change { hash, state: NameState::Removed, removed: Some(record), quarantined: false }
    }

    /// As [`Change::remove`], because the block is damaged.
    pub(super) fn quarantine(hash: Hash, record: Record) -> Change {
        Change { quarantined: true, ..Change::remove(hash, record) }
    }

    /// True where it binds a name to bytes.
    pub(super) fn names_block(&self) -> bool {
        matches!(self.state, NameState::Occupied(record) if record.extent().is_some())
    }

    pub(super) fn journal_record(&self) -> JournalRecord {
        match self.state {
            NameState::Occupied(record) => JournalRecord::Occupied { hash: self.hash, record },
            NameState::Removed => match self.removed.and_then(Record::extent) {
                Some(extent) if self.quarantined => JournalRecord::Quarantined { hash: self.hash, extent },
                extent => JournalRecord::Removed { hash: self.hash, extent },
            },
        }
    }
}

/// A reply that waits for a change to be durable.
pub(super) struct Answer {
    pub(super) after: u64,
    pub(super) worker: WorkerId,
    pub(super) reply: Reply,
}

/// A frame on its way to the disk.
pub(crate) struct InFlight {
    pub(crate) changes: Vec<Change>,
    pub(crate) first_sequence: u64,
    pub(super) names_blocks: bool,
    pub(super) answers: Vec<Answer>,
    pub(super) progress: Progress,
}

/// How far a frame is on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Begun,
    /// What it names may still be being written.
    Written,
    /// It is written with all that it names, and both are being flushed.
    Flushing,
}

impl InFlight {
    /// Sequence number of its last change.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.first_sequence + self.changes.len() as u64 - 1
    }

    /// The replies that waited for it.
    pub(crate) fn into_answers(self) -> impl Iterator<Item = (WorkerId, Reply)> {
        self.answers.into_iter().map(|answer| (answer.worker, answer.reply))
    }
}
