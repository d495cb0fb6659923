//! Writing a frame, publishing what it made durable, and flushing.
//!
//! The order after a frame and all that it names are durable (relaxed: written): publish its names, advance the clock for its removals, answer. Published
//! before answered, so whoever is told sees it; tagged after published, so whoever could have seen the block is waited for.

use super::frames::FrameToWrite;
use super::in_flight::{Change, InFlight};
use super::{Controller, State};
use crate::crash_point::crash_point;
use crate::files::{BlockFile, is_no_space, is_shortage, write_fully};
use crate::messages::{Refusal, Reply, WriteFailure};
use crate::names::{NameState, Stages};
use crate::quarantine::Quarantined;
use crate::record::Record;
use crate::settings::DataSync;
use crate::statistics::{nanoseconds, now_ms};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a frame waits for space. All changes wait with it, and so does the end of the process.
const SPACE_PATIENCE: Duration = Duration::from_secs(30);

impl<F: BlockFile> Controller<F> {
    pub(super) async fn write_frame(self: Rc<Self>, frame: FrameToWrite) {
        let durable = !self.is_relaxed() && !self.is_flushed(frame.names_blocks);
        let written = self.write_frame_itself(&frame, durable).await;
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        match written {
            Ok(()) => {
                crash_point("frame-written");
                state.journal.frame_is_written();
                self.shared.statistics.frame_bytes.record(frame.bytes as u64);
                self.publish_if_whole(state);
            }
            Err(error) => self.stop_writing(state, format!("the journal could not be written: {error}")),
        }
        self.settle(state);
    }

    /// True where neither blocks nor the frame that names them are made durable by their writes: both files are flushed when
    /// all of it is written.
    fn is_flushed(&self, names_blocks: bool) -> bool {
        !self.is_relaxed() && self.settings.data_sync == Some(DataSync::PerFrame) && names_blocks
    }

    /// Where the system is short of something for a moment the same bytes are written again, to the same place: nothing of the frame was
    /// published, and the next one waits. So they are where there is no space, which only a journal needs that shares what it has with a
    /// copy; but not for ever.
    async fn write_frame_itself(&self, frame: &FrameToWrite, durable: bool) -> std::io::Result<()> {
        let take_buffer = async || self.buffers.take(frame.bytes).await;
        let mut buffer = self.patiently("a frame of the journal", is_shortage, take_buffer).await?;
        if let Some(target) = buffer.get_mut(..frame.bytes) {
            self.state.borrow_mut().journal.encode(frame, target);
        }
        let (mut parts, began) = (vec![(buffer, frame.bytes)], self.ring.now());
        let write = async || {
            let result;
            (result, parts) = write_fully(&self.journal_file, std::mem::take(&mut parts), frame.offset, durable).await;
            result
        };
        self.patiently("a frame of the journal", |error| self.may_pass(error, began), write).await
    }

    /// Whether what keeps a frame from being written, since `began`, may be over in a moment.
    fn may_pass(&self, error: &std::io::Error, began: Instant) -> bool {
        let waited = self.ring.now().saturating_duration_since(began);
        is_shortage(error) || (is_no_space(error) && waited < SPACE_PATIENCE)
    }

    /// Publishes the frame in flight when it and every block that it names are written; where that does not make them durable,
    /// when they are flushed.
    pub(super) fn publish_if_whole(self: &Rc<Self>, state: &mut State) {
        let Some((last, names_blocks)) = state.journal.written_frame() else { return };
        if !state.writes.are_reported_up_to(last) {
            return;
        }
        if self.is_flushed(names_blocks) {
            state.journal.begin_flush();
            let controller = Rc::clone(self);
            self.ring.spawn(async move { controller.flush_frame().await }).detach();
        } else {
            self.publish_frame(state);
        }
    }

    /// Flushes blocks and frame, side by side, then publishes the frame. Should the frame alone become durable, opening the store finds
    /// out by the hashes of what it names.
    async fn flush_frame(self: Rc<Self>) {
        let controller = Rc::clone(&self);
        let data = self.ring.spawn(async move { controller.flush_data().await });
        let journal = self.flush_journal().await;
        let flushed = data.await && journal;
        let mut state = self.state.borrow_mut();
        if flushed {
            self.publish_frame(&mut state);
        }
        self.settle(&mut state);
    }

    fn publish_frame(self: &Rc<Self>, state: &mut State) {
        if let Some(frame) = state.journal.end_frame() {
            crash_point("frame-durable");
            // Before the answers: whoever has one finds it counted.
            let time = self.ring.now().saturating_duration_since(state.frame_began);
            self.shared.statistics.frame_time.record(nanoseconds(time));
            self.publish(state, frame);
            crash_point("frame-answered");
        }
    }

    fn publish(self: &Rc<Self>, state: &mut State, frame: InFlight) {
        let last = frame.last_sequence();
        let stages = self.shared.names.load();
        if state.oldest_change_ms == 0 && !frame.changes.is_empty() {
            state.oldest_change_ms = now_ms();
            self.tell_oldest_change(state);
        }
        for (sequence, change) in (frame.first_sequence..).zip(&frame.changes) {
            self.publish_change(state, &stages, sequence, change);
        }
        crash_point("frame-published");
        state.flush.published = state.writes.whole_up_to(last);
        if self.is_relaxed() {
            self.schedule_flush(state);
        } else {
            self.became_durable(state, state.flush.published);
        }
        self.shared.statistics.frames.add(1);
        self.shared.statistics.records.add(frame.changes.len() as u64);
        self.shared.statistics.frame_records.record(frame.changes.len() as u64);
        self.pace(state);
        for (worker, reply) in frame.into_answers() {
            state.ports.send(worker, reply);
        }
    }

    fn publish_change(&self, state: &mut State, stages: &Stages, sequence: u64, change: &Change) {
        if let NameState::Occupied(record) = change.state
            && state.writes.has_failed(record.extent())
        {
            // Nobody shall see it; its removal, which follows, says what the name leads to.
            return;
        }
        let taken = stages.active().insert(&change.hash, change.state);
        debug_assert!(taken, "admission keeps room for every change that is gathered");
        state.pending.published(&change.hash, sequence);
        match (change.state, change.removed) {
            (NameState::Occupied(record), _) => state.totals.add(record),
            (NameState::Removed, Some(record)) => self.publish_removal(state, sequence, change, record),
            (NameState::Removed, None) => {}
        }
    }

    /// Sees to the extent of a block whose name is removed.
    fn publish_removal(&self, state: &mut State, sequence: u64, change: &Change, record: Record) {
        let Some(extent) = record.extent() else { return state.totals.subtract(record) };
        match state.writes.take_failed(extent) {
            None => state.totals.subtract(record),
            // It was never counted.
            Some(WriteFailure::NoSpace | WriteFailure::Shortage) => {}
            Some(WriteFailure::Suspect) => return,
        }
        if change.quarantined {
            let quarantined = Quarantined::now(extent, change.hash);
            state.space.quarantine(extent);
            state.quarantined.push(quarantined);
            self.shared.add_quarantined([quarantined]);
        } else {
            state.space.remove(sequence, extent);
        }
    }

    /// Everything up to `sequence` is durable with its data, unless a flush has failed meanwhile.
    pub(super) fn became_durable(self: &Rc<Self>, state: &mut State, sequence: u64) {
        if self.is_read_only() {
            return;
        }
        state.journal.set_durable(sequence);
        state.space.removals_are_durable(sequence, &self.shared.clock);
        self.start_checkpoint_if_durable(state);
    }

    /// Stops writing for good: what waited gets an error, its names are never published.
    pub(super) fn stop_writing(self: &Rc<Self>, state: &mut State, reason: String) {
        self.shared.health.turn_read_only(reason);
        state.writes.give_up();
        for (worker, reply) in state.journal.give_up() {
            if let Some(id) = reply.id() {
                state.ports.send(worker, Reply::Failed { id, refusal: Refusal::ReadOnly });
            }
        }
    }
}
