//! Why a block could not be stored, found, read or removed.

use crate::hash::Hash;
use crate::index::IndexError;
use crate::messages::Refusal;
use std::io;

/// What went wrong with one block.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The capacity is reached or the disk is full. Reads and deletes go on.
    #[error("there is no space left")]
    NoSpace,
    /// A checkpoint is stuck and the journal is full, or there was no memory: try again later.
    #[error("the store is busy: it waits for a checkpoint, or for memory")]
    Busy,
    /// The store does not write any more.
    #[error("the store is read-only")]
    ReadOnly,
    /// The index could not be read.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The data file could not be read or written.
    #[error("the data file could not be {action}: {source}")]
    Io {
        /// What was attempted, as a participle.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes are not those that were stored: a disk or memory has changed them, or changes were lost.
    #[error("block {0} is damaged: its bytes do not hash to its name; store it again")]
    Corrupt(Hash),
    /// Threads disagree about what they say to each other: a defect of this program.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

impl From<Refusal> for StoreError {
    fn from(refusal: Refusal) -> StoreError {
        match refusal {
            Refusal::NoSpace => StoreError::NoSpace,
            Refusal::Busy => StoreError::Busy,
            Refusal::ReadOnly => StoreError::ReadOnly,
            Refusal::Index => {
                StoreError::Index(IndexError::System { action: "read", reason: "the look-up failed".to_owned() })
            }
            Refusal::DamagedIndex => StoreError::Index(IndexError::Damaged("the look-up failed".to_owned())),
        }
    }
}
