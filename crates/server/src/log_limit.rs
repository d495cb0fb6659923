//! How many lines about one thing a worker writes into the log: what happens very often must not fill a disk. Pure.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Lines about one thing, so many in a while. More are counted.
pub(crate) struct LogLimit {
    lines_max: u32,
    window: Duration,
    began: Cell<Option<Instant>>,
    lines: Cell<u32>,
    left_out: Cell<u64>,
}

/// What becomes of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Line {
    /// It is written; so many before it were not.
    Written {
        left_out: u64,
    },
    LeftOut,
}

impl LogLimit {
    /// At most `lines_max` lines in each `window`.
    pub(crate) const fn new(lines_max: u32, window: Duration) -> LogLimit {
        LogLimit { lines_max, window, began: Cell::new(None), lines: Cell::new(0), left_out: Cell::new(0) }
    }

    /// What becomes of one more line.
    pub(crate) fn next_line(&self, now: Instant) -> Line {
        if self.began.get().is_none_or(|began| now >= began + self.window) {
            self.began.set(Some(now));
            self.lines.set(0);
        }
        if self.lines.get() >= self.lines_max {
            self.left_out.set(self.left_out.get() + 1);
            return Line::LeftOut;
        }
        self.lines.set(self.lines.get() + 1);
        Line::Written { left_out: self.left_out.take() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_lines_are_written_and_the_others_are_counted() {
        const WINDOW: Duration = Duration::from_secs(1);
        let (limit, now) = (LogLimit::new(100, WINDOW), Instant::now());
        for _ in 0..100 {
            assert_eq!(limit.next_line(now), Line::Written { left_out: 0 });
        }
        for _ in 0..7 {
            assert_eq!(limit.next_line(now), Line::LeftOut);
        }
        assert_eq!(limit.next_line(now + WINDOW), Line::Written { left_out: 7 });
        assert_eq!(limit.next_line(now + WINDOW), Line::Written { left_out: 0 });
    }
}
