//! When a frame begins: at once where it can, a little later where waiting makes it serve more, later still where the checkpointer
//! must keep up.

use super::{Controller, State};
use crate::crash_point::crash_point;
use crate::files::BlockFile;
use std::rc::Rc;
use std::time::Duration;

/// The longest that a frame is held back while the checkpointer is behind.
const PACE_MAX: Duration = Duration::from_millis(20);

/// The longest that a frame waits for blocks that are being written.
const GATHER_MAX: Duration = Duration::from_micros(200);

impl<F: BlockFile> Controller<F> {
    /// Sends what was gathered on its way, if nothing else is.
    pub(super) fn begin_frame(self: &Rc<Self>, state: &mut State) {
        if self.is_read_only() || self.is_paced(state) || self.waits_for_more(state) {
            return;
        }
        if let Some(frame) = state.journal.begin_frame() {
            crash_point(if frame.offset == 0 { "journal-begins-again" } else { "frame-begun" });
            state.frame_began = self.ring.now();
            let controller = Rc::clone(self);
            self.ring.spawn(async move { controller.write_frame(frame).await }).detach();
        }
    }

    /// While more blocks are being written than wait for the next frame, it waits for them, but not for long: a frame and its
    /// flush cost the same however many they serve. Where nobody else is writing nobody waits.
    fn waits_for_more(self: &Rc<Self>, state: &mut State) -> bool {
        let gathered = state.journal.gathered();
        let writing: u64 = self.shared.workers.iter().map(|worker| worker.writing.get()).sum();
        if gathered == 0 || state.journal.is_writing() || writing <= gathered as u64 {
            state.gathering_since = None;
            return false;
        }
        let now = self.ring.now();
        let since = *state.gathering_since.get_or_insert(now);
        let left = (since + GATHER_MAX).saturating_duration_since(now);
        if left.is_zero() {
            state.gathering_since = None;
            return false;
        }
        self.settle_after(left, state, |timers| &mut timers.gather, |_| {});
        true
    }

    fn is_paced(self: &Rc<Self>, state: &mut State) -> bool {
        let Some(until) = state.paced_until else { return false };
        let left = until.saturating_duration_since(self.ring.now());
        if left.is_zero() {
            state.paced_until = None;
            return false;
        }
        if !state.journal.is_idle() {
            self.settle_after(left, state, |timers| &mut timers.pace, |_| {});
        }
        true
    }

    /// While a generation is being checkpointed, from half of what the active one may hold on: holds frames back, the longer
    /// the fuller it is, so that the store slows before it stops.
    pub(super) fn pace(&self, state: &mut State) {
        let limit = state.generation_size.limit();
        let beyond = self.unsealed(state).saturating_sub(limit / 2);
        if state.sealed.is_some() && beyond > 0 {
            let share = beyond as f64 / (limit / 2).max(1) as f64;
            state.paced_until = Some(self.ring.now() + PACE_MAX.mul_f64(share.min(1.0)));
        }
    }
}
