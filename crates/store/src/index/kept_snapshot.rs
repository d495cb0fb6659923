//! The index as it was before a change, for the case that the change cannot be written.
//!
//! Where writing or flushing a commit fails libmdbx takes no snapshots any more, for good. Those that there are can still be read, and
//! nothing was written over their pages: so one is taken with each change, and given up when that is committed.
//!
//! It is the last one, and ends where a look-up in it comes upon a damaged page, after which libmdbx answers nothing more in it: what only
//! the index knows cannot be read then until the next start.

use super::IndexError;
use super::transaction::ReadTransaction;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A snapshot that all readers share, once they can take none of their own. Until then nobody waits for the lock.
pub(super) struct KeptSnapshot {
    transaction: Mutex<ReadTransaction>,
}

impl KeptSnapshot {
    /// To be taken by `transaction`.
    pub(super) fn new(transaction: ReadTransaction) -> KeptSnapshot {
        KeptSnapshot { transaction: Mutex::new(transaction) }
    }

    /// Takes one of what was committed last, in place of the one before.
    pub(super) fn take(&self) -> Result<(), IndexError> {
        self.lock().renew()
    }

    /// Gives it up: there are newer ones.
    pub(super) fn give_up(&self) {
        self.lock().reset();
    }

    /// Reads in it, where there is one.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, IndexError>,
    ) -> Option<Result<T, IndexError>> {
        let transaction = self.lock();
        transaction.is_live().then(|| read(&transaction))
    }

    fn lock(&self) -> MutexGuard<'_, ReadTransaction> {
        self.transaction.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
