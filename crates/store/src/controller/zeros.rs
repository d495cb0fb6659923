//! Zeros ahead of need: how many, when, and for whom they come too slowly. Pure bookkeeping, like [`super::space`].
//!
//! Blocks that do not fill an extent of the largest class are to lie where something was written before, so zeros are written there
//! first. A disk on which those cannot keep up is too slow to write everything twice: then zeros *lag*, and nobody waits for them.

use super::ahead::Ahead;
use crate::extent::{MACROBLOCK_BYTES, SizeClass};
use std::time::Instant;

/// Zeros are written to up to this many macroblocks at a time.
const MACROBLOCKS_MAX: u64 = 64;
/// Extents of the largest class in a macroblock.
const EXTENTS_PER_MACROBLOCK: u64 = MACROBLOCK_BYTES / SizeClass::LARGEST.bytes();

#[derive(Default)]
pub(super) struct Zeros {
    steps: Ahead,
    /// Extents of the largest class that a step has taken.
    taken: u64,
    lag: bool,
    fail: bool,
    /// Bytes of unwritten space that were given out since the last step began, because zeros lag.
    given_out_bytes: u64,
}

impl Zeros {
    /// Less than this of what has been written is too little.
    pub(super) fn low_water_bytes(&self) -> u64 {
        self.steps.low_water_bytes()
    }

    /// True while a step is under way.
    pub(super) fn are_coming(&self) -> bool {
        self.steps.is_running()
    }

    /// Extents of the largest class to which zeros are being written: free, but not at hand.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// To how many extents the next step is to write, of `unwritten_bytes` in all; `None` where there is to be none now.
    pub(super) fn next(&mut self, unwritten_bytes: u64, now: Instant) -> Option<u32> {
        let there = unwritten_bytes.div_ceil(MACROBLOCK_BYTES);
        let macroblocks = self.steps.next(there.min(MACROBLOCKS_MAX), now)?;
        u32::try_from(macroblocks * EXTENTS_PER_MACROBLOCK).ok()
    }

    /// A step begins, with so many extents.
    pub(super) fn begin(&mut self, extents: u64, now: Instant) {
        self.steps.begin(now);
        self.taken = extents;
        self.given_out_bytes = 0;
    }

    /// The step has ended, with zeros in `written` extents; `left` others are as they were, the rest is lost. A few are tried later
    /// where some are left, none were written, or zeros lag. They lag no more when a whole step makes more of them than twice what was
    /// given out meanwhile.
    pub(super) fn end(&mut self, written: u64, left: u64, now: Instant) {
        self.lag &= left > 0 || 2 * self.given_out_bytes >= written * SizeClass::LARGEST.bytes();
        self.fail = written == 0 && left < self.taken;
        self.steps.end(left > 0 || written == 0 || self.lag, now);
        self.taken = 0;
    }

    /// Whether the last step only found places that cannot be written.
    pub(super) fn fail(&self) -> bool {
        self.fail
    }

    /// Somebody waits for zeros: they lag from now on if the step that is to bring them takes long.
    pub(super) fn are_waited_for(&mut self, now: Instant) {
        self.lag |= self.steps.is_slow(now);
    }

    /// Whether they lag.
    pub(super) fn lag(&self) -> bool {
        self.lag
    }

    /// Whether somebody who finds no space that was written should wait for them, and not take unwritten space: not while they lag, nor
    /// after the disk took less than it was given.
    pub(super) fn are_worth_waiting_for(&self) -> bool {
        !self.lag && !self.steps.was_refused()
    }

    /// So much was given out for that reason.
    pub(super) fn given_out(&mut self, bytes: u64) {
        self.given_out_bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Longer than a step may take, and long enough for another try.
    const LONG: Duration = Duration::from_secs(2);
    const PLENTY: u64 = 1 << 40;
    const STEP: u64 = 8;
    const STEP_BYTES: u64 = 4 * MACROBLOCK_BYTES;

    /// Zeros that lag, with a step under way.
    fn lagging(now: &mut Instant) -> Zeros {
        let mut zeros = Zeros::default();
        assert_eq!(zeros.next(PLENTY, *now), Some(8));
        zeros.begin(STEP, *now);
        *now += LONG;
        zeros.are_waited_for(*now);
        assert!(zeros.lag());
        zeros
    }

    #[test]
    fn they_lag_when_somebody_waits_for_a_step_that_takes_long() {
        let (mut zeros, now) = (Zeros::default(), Instant::now());
        zeros.are_waited_for(now + LONG);
        assert!(!zeros.lag(), "no step has begun");
        zeros.begin(STEP, now);
        zeros.are_waited_for(now);
        assert!(!zeros.lag(), "they may come at once");
        zeros.are_waited_for(now + LONG);
        assert!(zeros.lag());
    }

    #[test]
    fn they_keep_up_when_a_step_makes_more_than_twice_what_was_given_out() {
        for (given_out_bytes, lag) in [(STEP_BYTES / 2, true), (STEP_BYTES / 2 - 1, false)] {
            let mut now = Instant::now();
            let mut zeros = lagging(&mut now);
            zeros.given_out(given_out_bytes);
            zeros.end(STEP, 0, now);
            assert_eq!(zeros.lag(), lag, "{given_out_bytes}");
            assert_eq!(zeros.next(PLENTY, now).is_none(), lag, "the next try comes later, a step at once");
            assert!(zeros.next(PLENTY, now + LONG).is_some());
        }
    }

    #[test]
    fn a_step_that_made_nothing_ends_no_lag() {
        let mut now = Instant::now();
        let mut zeros = lagging(&mut now);
        zeros.end(0, STEP, now);
        assert!(zeros.lag() && !zeros.fail());
    }

    #[test]
    fn they_fail_where_a_step_writes_nothing_and_loses_places() {
        let (mut zeros, now) = (Zeros::default(), Instant::now());
        for (written, left, fail) in [(0, 0, true), (0, 1, true), (1, 0, false), (0, STEP, false)] {
            zeros.begin(STEP, now);
            zeros.end(written, left, now);
            assert_eq!(zeros.fail(), fail, "{written} {left}");
            assert_eq!(zeros.next(PLENTY, now).is_some(), written > 0, "not again at once");
        }
    }

    #[test]
    fn they_go_on_to_lag_after_a_step_that_was_cut_short() {
        let mut now = Instant::now();
        let mut zeros = lagging(&mut now);
        zeros.end(2, STEP - 2, now);
        assert!(zeros.lag() && !zeros.are_worth_waiting_for());
        now += LONG;
        zeros.begin(STEP, now);
        zeros.end(STEP, 0, now);
        assert!(!zeros.lag() && zeros.are_worth_waiting_for());
    }

    #[test]
    fn a_new_step_counts_anew() {
        let mut now = Instant::now();
        let mut zeros = lagging(&mut now);
        zeros.given_out(STEP_BYTES);
        zeros.end(STEP, 0, now);
        now += LONG;
        assert!(zeros.next(PLENTY, now).is_some());
        zeros.begin(STEP, now);
        assert_eq!(zeros.taken(), 8);
        zeros.end(STEP, 0, now);
        assert_eq!((zeros.lag(), zeros.taken()), (false, 0));
    }
}
