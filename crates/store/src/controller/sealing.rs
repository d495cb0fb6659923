//! Sealing a generation and having it checkpointed.
//!
//! At a border between frames the active generation is published as sealed and an empty one takes its place. Only durable
//! records may enter the index, so the checkpoint begins when every frame up to the border is durable with its data. When it is
//! committed the generation is dropped and its part of the journal is free.

use super::frames::Border;
use super::{Controller, State, Stopping};
use crate::checkpoint::{CheckpointDone, CheckpointJob};
use crate::crash_point::crash_point;
use crate::files::BlockFile;
use crate::index::{IndexError, Meta, Totals};
use crate::names::Generation;
use crate::quarantine::Quarantined;
use crate::settings::GenerationSize;
use crate::statistics::nanoseconds;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A generation is sealed when its frames fill this part of the journal: one may be sealed while the active one grows to more than
/// twice as much.
const JOURNAL_SHARE: u64 = 4;
/// When nothing was changed for this long, what the generation has goes into the index: its memory and its part of the journal are
/// free then, and opening after a crash has nothing to do.
const QUIET: Duration = Duration::from_secs(10);
/// With fewer changes that is not worth writing the index's pages.
const QUIET_CHANGES_MIN: usize = 1024;
/// After the index had no space a checkpoint is tried again.
const CHECKPOINT_RETRY: Duration = Duration::from_secs(1);

/// The generation that is being checkpointed.
pub(super) struct Sealed {
    generation: Arc<Generation>,
    quarantined: Vec<Quarantined>,
    border: Border,
    /// What is stored once it is in the index.
    totals: Totals,
    /// Of the generations from then on.
    next_size: GenerationSize,
    /// The last one of an orderly stop.
    last: bool,
    started: bool,
    /// When its first change was published; 0: it has none.
    oldest_change_ms: u64,
}

impl Sealed {
    pub(super) fn oldest_change_ms(&self) -> u64 {
        self.oldest_change_ms
    }
}

impl<F: BlockFile> Controller<F> {
    /// Seals the active generation when it has reached its target of names or of journal bytes, or when nobody changes anything.
    pub(super) fn seal_if_due(self: &Rc<Self>, state: &mut State) {
        if state.sealed.is_some() || state.journal.is_writing() || self.is_read_only() {
            return;
        }
        let active = self.shared.names.load().active().len();
        let full = active >= state.generation_size.target()
            || state.journal.active_bytes() >= state.journal.capacity_bytes() / JOURNAL_SHARE
            // Without a checkpoint those that wait would wait for ever.
            || !state.deferred.is_empty();
        let last = state.stopping == Stopping::LastCheckpoint && state.journal.is_idle() && state.deferred.is_empty();
        let due = last || state.index_space_is_due || (full && active > 0) || self.is_quiet(state, active);
        if due {
            state.index_space_is_due = false;
            self.seal(state, last);
        }
    }

    /// True where there was no frame for a while but `changes` are worth a checkpoint. Where there was one it looks again later.
    fn is_quiet(self: &Rc<Self>, state: &mut State, changes: usize) -> bool {
        if changes < QUIET_CHANGES_MIN {
            return false;
        }
        let quiet = self.ring.now().saturating_duration_since(state.frame_began) >= QUIET;
        if !quiet {
            self.settle_after(QUIET, state, |timers| &mut timers.quiet, |_| {});
        }
        quiet
    }

    fn seal(self: &Rc<Self>, state: &mut State, last: bool) {
        let border = state.journal.begin_generation();
        // The new one may become as large as it may be now, and as it may be when this checkpoint is made.
        let next_size = self.settings.generation_size(state.totals.block_count());
        let entries = state.generation_size.changes_max().max(next_size.changes_max());
        let Some(generation) = self.shared.names.seal(entries) else { return };
        crash_point("generation-sealed");
        let quarantined = std::mem::take(&mut state.quarantined);
        let (totals, oldest_change_ms) = (state.totals, std::mem::take(&mut state.oldest_change_ms));
        state.sealed =
            Some(Sealed { generation, quarantined, border, totals, next_size, last, started: false, oldest_change_ms });
        self.start_checkpoint_if_durable(state);
    }

    /// Starts the checkpoint of the sealed generation when everything in it is durable; sees to it that it will be.
    pub(super) fn start_checkpoint_if_durable(self: &Rc<Self>, state: &mut State) {
        let durable = state.journal.durable_sequence();
        let Some(sealed) = &mut state.sealed else { return };
        if sealed.started {
            return;
        }
        if sealed.border.sequence > durable {
            self.flush_now(state);
            return;
        }
        sealed.started = true;
        let next_size = sealed.next_size;
        let job = CheckpointJob {
            generation: Arc::clone(&sealed.generation),
            quarantined: sealed.quarantined.clone(),
            meta: Meta {
                store_id: state.journal.store_id(),
                epoch: state.journal.epoch(),
                sequence: sealed.border.sequence,
                journal_bytes: state.journal.capacity_bytes(),
                journal_offset: sealed.border.offset,
                journal_crc: sealed.border.crc,
                clean: sealed.last,
                totals: sealed.totals,
            },
            names_max: next_size.checkpoint_names_max(state.journal.capacity_bytes()),
        };
        let outcome = self.checkpointer.start(job);
        let began = self.ring.now();
        let controller = Rc::clone(self);
        self.ring
            .spawn(async move {
                let outcome = outcome.await.unwrap_or_else(|_| {
                    Err(IndexError::System { action: "written", reason: "the checkpointer has ended".to_owned() })
                });
                let time = controller.ring.now().saturating_duration_since(began);
                controller.shared.statistics.checkpoint_time.record(nanoseconds(time));
                let mut state = controller.state.borrow_mut();
                controller.checkpoint_ended(&mut state, outcome, next_size);
                controller.settle(&mut state);
            })
            .detach();
    }

    fn checkpoint_ended(
        self: &Rc<Self>,
        state: &mut State,
        outcome: Result<CheckpointDone, IndexError>,
        next_size: GenerationSize,
    ) {
        match outcome {
            Ok(done) => {
                if done.space_ahead.is_ok() {
                    state.generation_size = next_size;
                }
                self.checkpoint_succeeded(state, &done);
            }
            Err(error) if error.may_pass() => {
                tracing::warn!(%error, "a checkpoint failed and is tried again; meanwhile names stay in the journal");
                state.index_has_space &= !matches!(error, IndexError::Full(_));
                self.after_retry(state);
            }
            Err(error) => self.stop_writing(state, format!("a checkpoint failed: {error}")),
        }
    }

    fn checkpoint_succeeded(self: &Rc<Self>, state: &mut State, done: &CheckpointDone) {
        let Some(sealed) = state.sealed.take() else { return };
        self.shared.names.drop_sealed();
        crash_point("generation-dropped");
        state.journal.release(&sealed.border);
        debug_assert_eq!(done.totals, sealed.totals, "the index and the controller count the same");
        match &done.space_ahead {
            Ok(()) => {}
            Err(error) if error.may_pass() => {
                if state.index_has_space {
                    tracing::warn!(%error, "the index cannot be sure of its space: new blocks are refused until it can");
                }
                // The next checkpoint, be it an empty one, tries again.
                let try_again = |state: &mut State| state.index_space_is_due = true;
                self.settle_after(CHECKPOINT_RETRY, state, |timers| &mut timers.index_space, try_again);
            }
            // What failed may have been a flush.
            Err(error) => self.stop_writing(state, format!("space for the index could not be set aside: {error}")),
        }
        state.index_has_space = done.space_ahead.is_ok();
        self.tell_oldest_change(state);
        self.shared.statistics.checkpoints.add(1);
        self.shared.statistics.set_index_sizes(done.index_sizes);
        if sealed.last {
            state.stopping = Stopping::Stopped;
        }
    }

    /// Tries the checkpoint again after a while. A store that is stopping does not wait: its journal has everything.
    fn after_retry(self: &Rc<Self>, state: &mut State) {
        if state.stopping == Stopping::LastCheckpoint {
            state.stopping = Stopping::Stopped;
            return;
        }
        let controller = Rc::clone(self);
        self.after(CHECKPOINT_RETRY, move |state| {
            if let Some(sealed) = &mut state.sealed {
                sealed.started = false;
            }
            controller.start_checkpoint_if_durable(state);
        });
    }

    /// When all workers have left: the last checkpoint, then the end.
    pub(super) fn stop_if_due(self: &Rc<Self>, state: &mut State) {
        if state.stopping == Stopping::Running && state.ports.all_detached() {
            state.stopping = Stopping::LastCheckpoint;
            self.flush_now(state);
            self.seal_if_due(state);
        }
        if state.stopping == Stopping::LastCheckpoint && self.is_read_only() {
            state.stopping = Stopping::Stopped;
        }
        if state.stopping == Stopping::Stopped
            && let Some(waker) = state.awaited.take()
        {
            waker.wake();
        }
    }
}
