//! The search for space in the pools of the workers, where the file cannot grow: one at a time, and not at once again after one that
//! found nothing. Pure bookkeeping.

use std::time::{Duration, Instant};

/// A recall empties every pool: after one that found nothing, shortages within this time are not worth another, unless something
/// was freed since.
const PACE: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(super) struct Recall {
    /// Answers that are still to come; `None`: nobody was asked.
    awaited: Option<usize>,
    /// When one found nothing, if nothing was freed since.
    in_vain: Option<Instant>,
}

/// How a search stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Search {
    /// It is worth to ask the workers.
    Due,
    /// One found nothing a moment ago.
    InVain,
    /// Answers are to come.
    UnderWay,
    /// All have answered.
    Over,
}

impl Recall {
    pub(super) fn stands(&self, now: Instant) -> Search {
        match self.awaited {
            None if self.in_vain.is_some_and(|at| now.saturating_duration_since(at) < PACE) => Search::InVain,
            None => Search::Due,
            Some(1..) => Search::UnderWay,
            Some(0) => Search::Over,
        }
    }

    /// The workers were asked; `answers` will come.
    pub(super) fn asked(&mut self, answers: usize) {
        self.awaited = Some(answers);
    }

    /// Workers have answered, each for one class, or have left without.
    pub(super) fn answered(&mut self, count: usize) {
        if let Some(awaited) = &mut self.awaited {
            *awaited = awaited.saturating_sub(count);
        }
    }

    /// True while answers are to come.
    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.awaited, Some(1..))
    }

    /// The search that is over has found nothing.
    pub(super) fn was_in_vain(&mut self, now: Instant) {
        self.in_vain = Some(now);
    }

    /// Something was freed, or is about to be: another search may find it.
    pub(super) fn something_was_freed(&mut self) {
        self.in_vain = None;
    }

    /// Nobody starves any more: the next shortage begins with a search again.
    pub(super) fn is_over(&mut self) {
        if !self.is_under_way() {
            self.awaited = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_ends_with_its_answers_and_is_not_repeated_in_vain() {
        let (mut recall, now) = (Recall::default(), Instant::now());
        assert_eq!(recall.stands(now), Search::Due);
        recall.asked(2);
        recall.answered(1);
        recall.is_over();
        assert_eq!(recall.stands(now), Search::UnderWay, "one at a time");
        recall.answered(5);
        assert_eq!(recall.stands(now), Search::Over);
        recall.was_in_vain(now);
        recall.is_over();
        assert_eq!((recall.stands(now), recall.stands(now + PACE)), (Search::InVain, Search::Due));
        recall.something_was_freed();
        assert_eq!(recall.stands(now), Search::Due);
    }
}
