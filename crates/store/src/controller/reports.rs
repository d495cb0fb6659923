//! What becomes of names that came ahead of their bytes, when their writes have ended.

use super::in_flight::Change;
use super::ports::WorkerId;
use super::requests::{Deferred, Naming, answer_after};
use super::writes::Reported;
use super::{Controller, State};
use crate::extent::{Extent, ExtentRun};
use crate::files::BlockFile;
use crate::messages::{Reply, WriteFailure, WriteNumber};
use crate::names::NameState;

impl<F: BlockFile> Controller<F> {
    /// A write that was announced has ended.
    pub(super) fn written(
        &self,
        state: &mut State,
        worker: WorkerId,
        write: WriteNumber,
        failure: Option<WriteFailure>,
    ) {
        match (state.writes.report(worker, write), failure) {
            (Reported::Change(sequence), Some(failure)) => self.withdraw(state, sequence, failure),
            (Reported::Waiting, Some(failure)) => self.abandon_deferred(state, worker, write, failure),
            // Its worker sees to the extent.
            (Reported::Answered, _) | (_, None) => {}
        }
    }

    /// The bytes of a change that may have reached the journal could not be written: it is taken back.
    fn withdraw(&self, state: &mut State, sequence: u64, failure: WriteFailure) {
        let Some(Change { hash, state: NameState::Occupied(record), .. }) = state.journal.change(sequence) else {
            return;
        };
        let Some(extent) = record.extent() else { return };
        state.writes.fail(extent, sequence, failure);
        if failure == WriteFailure::Suspect {
            self.suspect(extent);
        }
        let removal = match state.pending.latest(&hash) {
            // A later change of the name has removed it already.
            Some(latest) if latest != sequence => latest,
            _ => state.change(Change::remove(hash, record)),
        };
        for (worker, reply) in state.journal.take_answers(sequence) {
            match reply {
                // Not before a crash cannot bring the block to light any more: its bytes may be there after all.
                Reply::Occupied { id, created: true } => answer_after(state, removal, worker, Reply::Taken { id }),
                // It stored the same block, and found it being stored.
                Reply::Occupied { id, created: false } => state.ports.send(worker, Reply::Retry { id }),
                reply => state.ports.send(worker, reply),
            }
        }
    }

    /// The bytes of a request that still waits could not be written: no frame names their extent.
    fn abandon_deferred(&self, state: &mut State, worker: WorkerId, write: WriteNumber, failure: WriteFailure) {
        let is_it = |deferred: &Deferred| deferred.naming.worker == worker && deferred.naming.write == Some(write);
        let Some(at) = state.deferred.iter().position(is_it) else { return };
        let Some(Deferred { naming: Naming { id, record, .. }, .. }) = state.deferred.remove(at) else { return };
        match (record.extent(), failure) {
            (Some(extent), WriteFailure::NoSpace | WriteFailure::Shortage) => {
                state.space.take_back(vec![ExtentRun::new(extent, 1)])
            }
            (Some(extent), WriteFailure::Suspect) => self.suspect(extent),
            (None, _) => {}
        }
        state.ports.send(worker, Reply::Taken { id });
    }

    pub(super) fn suspect(&self, extent: Extent) {
        tracing::warn!(%extent, "an extent could not be written: it is kept out of use until the store is opened again");
        self.shared.statistics.bytes_suspect.add(extent.bytes());
    }
}
