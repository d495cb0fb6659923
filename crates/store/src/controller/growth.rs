//! Relief for requests that find no space: the file grows, ahead of need where it can; where it cannot, pools give back what
//! they do not need; only then is there no space.
//!
//! The order within growth: zeros are written at the end of the file, flushed, and only then handed out. So the file's length is
//! durable before anything refers to it, and a first write into new space is an overwrite.

use super::requests::allocate_now;
use super::space::{Relief, Starved};
use super::{Controller, State};
use crate::crash_point::crash_point;
use crate::extent::MACROBLOCK_BYTES;
use crate::files::{BlockFile, write_fully};
use crate::messages::{Refusal, Reply};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Requests that starve are looked at this often, to refuse those that have waited too long.
const STARVED_INTERVAL: Duration = Duration::from_millis(250);

/// Zeros are written in pieces of this size: one macroblock.
#[allow(clippy::cast_possible_truncation)]
const GROWTH_WRITE_BYTES: usize = MACROBLOCK_BYTES as usize;

impl<F: BlockFile> Controller<F> {
    /// Serves those who starve, and does for the rest what can be done.
    pub(super) fn relieve(self: &Rc<Self>, state: &mut State) {
        for _ in 0..state.space.starved.len() {
            if let Some(request) = state.space.starved.pop_front()
                && !allocate_now(state, request)
            {
                state.space.starved.push_back(request);
            }
        }
        if self.is_read_only() {
            return self.refuse_starved(state, Refusal::ReadOnly);
        }
        let now = self.ring.now();
        if state.space.starved.is_empty() {
            state.space.recall_is_over();
            if let Some(macroblocks) = state.space.growth_ahead(now) {
                self.begin_growth(state, macroblocks);
            }
            return;
        }
        self.refuse_after_too_long(state, now);
        match state.space.relief(now) {
            Relief::Wait if state.space.waits_for_flush() => self.flush_now(state),
            Relief::Wait => {}
            Relief::Grow(macroblocks) => self.begin_growth(state, macroblocks),
            Relief::Recall => {
                let answers = state.ports.recall();
                state.space.recall_asked(answers);
            }
            Relief::None => {
                self.refuse_starved(state, Refusal::NoSpace);
                state.space.recall_is_over();
            }
        }
    }

    /// Refuses those that have waited too long: readers that do not end, or a disk that does not answer. Looks again later.
    fn refuse_after_too_long(self: &Rc<Self>, state: &mut State, now: Instant) {
        let too_long = |request: &Starved| now.saturating_duration_since(request.since) >= self.settings.busy_timeout;
        for _ in 0..state.space.starved.len() {
            match state.space.starved.pop_front() {
                Some(request) if too_long(&request) => {
                    let failed = Reply::Failed { id: request.id, refusal: Refusal::Busy };
                    state.ports.send(request.worker, failed);
                }
                Some(request) => state.space.starved.push_back(request),
                None => {}
            }
        }
        if !state.space.starved.is_empty() && !std::mem::replace(&mut state.timers.starved, true) {
            let controller = Rc::clone(self);
            self.after(STARVED_INTERVAL, move |state| {
                state.timers.starved = false;
                controller.settle(state);
            });
        }
    }

    fn refuse_starved(&self, state: &mut State, refusal: Refusal) {
        while let Some(request) = state.space.starved.pop_front() {
            state.ports.send(request.worker, Reply::Failed { id: request.id, refusal });
        }
    }

    fn begin_growth(self: &Rc<Self>, state: &mut State, macroblocks: u64) {
        state.space.growth_begins(self.ring.now());
        let start = state.space.allocator().file_bytes();
        let controller = Rc::clone(self);
        self.ring
            .spawn(async move {
                let (grown, error) = controller.write_zeros(start, macroblocks).await;
                crash_point("growth-written");
                // Nothing of it is handed out before the flush.
                let flushed = if grown > 0 { controller.data.flush().await } else { Ok(()) };
                crash_point("growth-flushed");
                let mut state = controller.state.borrow_mut();
                let state = &mut *state;
                match flushed {
                    Ok(()) => {
                        if let Some(error) = &error {
                            tracing::warn!(%error, file_bytes = start + grown * MACROBLOCK_BYTES, "the data file cannot grow");
                        }
                        state.space.grown(grown, error.is_some(), controller.ring.now());
                    }
                    Err(error) => controller.stop_writing(state, format!("a flush failed: {error}")),
                }
                controller.settle(state);
            })
            .detach();
    }

    /// Extends the file by up to `macroblocks` of zeros; returns by how many, and what ended it early.
    async fn write_zeros(&self, start: u64, macroblocks: u64) -> (u64, Option<std::io::Error>) {
        let mut zeros = match self.buffers.take(GROWTH_WRITE_BYTES).await {
            Ok(buffer) => buffer,
            Err(error) => return (0, Some(error)),
        };
        zeros.fill(0);
        let mut parts = vec![(zeros, GROWTH_WRITE_BYTES)];
        for macroblock in 0..macroblocks {
            let offset = start + macroblock * MACROBLOCK_BYTES;
            let (result, returned) = write_fully(&self.data, parts, offset, false).await;
            parts = returned;
            if let Err(error) = result {
                return (macroblock, Some(error));
            }
        }
        (macroblocks, None)
    }
}
