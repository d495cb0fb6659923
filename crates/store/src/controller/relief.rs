//! Relief for requests that find no space: unwritten space is filled with zeros, or given out as it is where they come slowly, or the file
//! grows, ahead of need where it can; where it cannot, pools give back what they do not need; only then is there no space.

use super::requests::allocate_now;
use super::space::{AllocationRequest, Relief};
use super::{Controller, State};
use crate::files::BlockFile;
use crate::messages::{Refusal, Reply};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Requests that starve are looked at this often, to refuse those that have waited too long.
const STARVED_INTERVAL: Duration = Duration::from_millis(250);

impl<F: BlockFile> Controller<F> {
    /// Serves those who starve, and does for the rest what can be done.
    pub(super) fn relieve(self: &Rc<Self>, state: &mut State) {
        state.space.look_at_zeros(self.ring.now());
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
            state.space.recall.is_over();
            if let Some(macroblocks) = state.space.growth_ahead(now) {
                self.begin_growth(state, macroblocks);
            }
            if let Some(extents) = state.space.zeroing_ahead(now) {
                self.begin_zeroing(state, extents);
            }
            return;
        }
        self.refuse_after_too_long(state, now);
        match state.space.relief(now) {
            Relief::Wait if state.space.waits_for_flush() => self.flush_now(state),
            Relief::Wait => {}
            Relief::Grow(macroblocks) => self.begin_growth(state, macroblocks),
            Relief::Zero(extents) => self.begin_zeroing(state, extents),
            Relief::Recall => {
                let answers = state.ports.recall();
                state.space.recall.asked(answers);
            }
            Relief::None => {
                self.refuse_starved(state, Refusal::NoSpace);
                state.space.recall.is_over();
            }
        }
    }

    /// Refuses those that have waited too long: readers that do not end, or a disk that does not answer. Looks again later.
    fn refuse_after_too_long(self: &Rc<Self>, state: &mut State, now: Instant) {
        let too_long =
            |request: &AllocationRequest| now.saturating_duration_since(request.since) >= self.settings.busy_timeout;
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
        if !state.space.starved.is_empty() {
            self.settle_after(STARVED_INTERVAL, state, |timers| &mut timers.starved, |_| {});
        }
    }

    fn refuse_starved(&self, state: &mut State, refusal: Refusal) {
        while let Some(request) = state.space.starved.pop_front() {
            state.ports.send(request.worker, Reply::Failed { id: request.id, refusal });
        }
    }
}
