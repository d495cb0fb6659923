//! Making space ahead of need: little at a time at first, more while it is asked for again and again.

use crate::extent::MACROBLOCK_BYTES;
use std::time::{Duration, Instant};

/// It begins with this many macroblocks at a time.
const MACROBLOCKS_MIN: u64 = 4;
/// What is asked for again within this time was too little.
const PACE: Duration = Duration::from_secs(1);
/// What was refused is tried again only after this time: space may have been made on the disk.
const RETRY: Duration = Duration::from_secs(1);
/// A step that takes longer than this for each macroblock is slow: the disk takes less than a gigabyte a second.
const SLOW: Duration = Duration::from_millis(1);

/// One way to make space, of which one step at a time is under way.
pub(super) struct Ahead {
    /// Of the next step, unless it comes soon or late.
    macroblocks: u64,
    running: bool,
    began: Option<Instant>,
    refused: Option<Instant>,
}

impl Default for Ahead {
    fn default() -> Ahead {
        Ahead { macroblocks: MACROBLOCKS_MIN, running: false, began: None, refused: None }
    }
}

impl Ahead {
    pub(super) fn is_running(&self) -> bool {
        self.running
    }

    /// Less than this at hand is too little.
    pub(super) fn low_water_bytes(&self) -> u64 {
        self.macroblocks * MACROBLOCK_BYTES / 2
    }

    /// How many macroblocks the next step is to make, `macroblocks_max` at most; `None` where one is under way, or was refused a
    /// moment ago.
    pub(super) fn next(&mut self, macroblocks_max: u64, now: Instant) -> Option<u64> {
        let soon_after =
            |then: Option<Instant>, time| then.is_some_and(|then| now.saturating_duration_since(then) < time);
        if self.running || macroblocks_max == 0 || soon_after(self.refused, RETRY) {
            return None;
        }
        let wanted = if soon_after(self.began, PACE) { self.macroblocks * 2 } else { self.macroblocks / 2 };
        self.macroblocks = wanted.min(macroblocks_max).max(MACROBLOCKS_MIN);
        Some(self.macroblocks.min(macroblocks_max))
    }

    pub(super) fn begin(&mut self, now: Instant) {
        self.running = true;
        self.began = Some(now);
    }

    /// Whether the step that is under way takes long.
    pub(super) fn is_slow(&self, now: Instant) -> bool {
        let macroblocks = u32::try_from(self.macroblocks).unwrap_or(u32::MAX);
        self.running && self.began.is_some_and(|began| now.saturating_duration_since(began) > SLOW * macroblocks)
    }

    /// `refused`: the disk gave less than was asked, or it is not worth another step at once.
    pub(super) fn end(&mut self, refused: bool, now: Instant) {
        self.running = false;
        self.refused = refused.then_some(now);
    }

    /// True from a refusal to the next step that gave all.
    pub(super) fn was_refused(&self) -> bool {
        self.refused.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_grow_while_they_come_soon_and_shrink_again() {
        let (mut ahead, mut now) = (Ahead::default(), Instant::now());
        let mut steps = Vec::new();
        for pause in [Duration::ZERO, PACE / 2, PACE / 2, PACE / 2, PACE * 2, PACE * 2, PACE * 2] {
            now += pause;
            steps.push(ahead.next(12, now).unwrap());
            ahead.begin(now);
            assert_eq!(ahead.next(12, now), None, "one at a time");
            ahead.end(false, now);
        }
        assert_eq!(steps, [4, 8, 12, 12, 6, 4, 4]);
        assert_eq!(ahead.next(0, now), None);
        assert_eq!(ahead.next(3, now), Some(3), "what there is");
    }

    #[test]
    fn a_step_is_slow_that_takes_long_for_its_size() {
        let (mut ahead, now) = (Ahead::default(), Instant::now());
        assert!(!ahead.is_slow(now + SLOW * 100), "none is under way");
        ahead.begin(now);
        assert!(!ahead.is_slow(now + SLOW * 4));
        assert!(ahead.is_slow(now + SLOW * 5));
    }

    #[test]
    fn after_a_refusal_it_is_tried_again_later() {
        let (mut ahead, now) = (Ahead::default(), Instant::now());
        ahead.begin(now);
        ahead.end(true, now);
        assert!(ahead.was_refused());
        assert_eq!(ahead.next(100, now + RETRY / 2), None);
        assert_eq!(ahead.next(100, now + RETRY), Some(4));
        ahead.begin(now + RETRY);
        ahead.end(false, now + RETRY);
        assert!(!ahead.was_refused());
    }
}
