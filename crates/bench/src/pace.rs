//! When requests are to start.
//!
//! In a *closed loop* each connection sends its next request when it has the reply to the last. In an *open loop* requests are due at a
//! rate, whatever the server does: latency counts from when a request was due, so a server that stalls cannot hide the requests
//! that would have come meanwhile (*coordinated omission*). A request that is due before the end and finds no connection free until
//! then is counted as unsent.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// When the load begins, is measured, and ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pub(crate) start: Instant,
    pub(crate) measure: Instant,
    pub(crate) end: Instant,
}

/// When one thread's requests are due.
pub(crate) struct Pace {
    schedule: Schedule,
    /// None in a closed loop.
    rate: Option<Rate>,
}

struct Rate {
    interval: Duration,
    /// Of the first request after a phase's start.
    offset: Duration,
    /// Requests of the phase that were given out.
    warm_up: Cell<u64>,
    measured: Cell<u64>,
}

impl Pace {
    /// `per_second` requests in all, of which thread `index` of `threads` sends its part.
    pub(crate) fn new(schedule: Schedule, per_second: Option<f64>, index: usize, threads: usize) -> Pace {
        let rate = per_second.map(|rate| {
            let all = Duration::from_secs_f64(1.0 / rate);
            let scale = |count: usize| all.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
            Rate { interval: scale(threads), offset: scale(index), warm_up: Cell::new(0), measured: Cell::new(0) }
        });
        Pace { schedule, rate }
    }

    /// When the next request is due, which may lie in the past or in the future; `None` where there are no more.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        if now >= self.schedule.end {
            return None;
        }
        let Some(rate) = &self.rate else { return Some(now.max(self.schedule.start)) };
        if now < self.schedule.measure {
            let due = rate.due(self.schedule.start, &rate.warm_up);
            // What the warm-up could not send is not held against the measurement.
            if due < self.schedule.measure {
                return Some(due);
            }
        }
        let due = rate.due(self.schedule.measure, &rate.measured);
        if due < self.schedule.end {
            return Some(due);
        }
        rate.measured.set(rate.measured.get() - 1);
        None
    }

    /// When the last phase ends, whatever is due until then.
    pub(crate) fn end(&self) -> Instant {
        self.schedule.end
    }

    /// Requests that were due by `until` and that no connection was free for.
    pub(crate) fn unsent(&self, until: Instant) -> u64 {
        let Some(rate) = &self.rate else { return 0 };
        let until = until.min(self.schedule.end);
        let time = until.saturating_duration_since(self.schedule.measure).saturating_sub(rate.offset);
        let due = time.as_nanos().div_ceil(rate.interval.as_nanos().max(1));
        u64::try_from(due).unwrap_or(u64::MAX).saturating_sub(rate.measured.get())
    }
}

impl Rate {
    /// When the next request of a phase is due; it is given out by that.
    fn due(&self, start: Instant, given: &Cell<u64>) -> Instant {
        let number = given.replace(given.get() + 1);
        let nanos = self.interval.as_nanos().saturating_mul(u128::from(number));
        start + self.offset + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn schedule() -> Schedule {
        let start = Instant::now();
        Schedule { start, measure: start + 10 * MS, end: start + 30 * MS }
    }

    #[test]
    fn a_closed_loop_sends_until_the_end() {
        let schedule = schedule();
        let pace = Pace::new(schedule, None, 0, 1);
        for now in [schedule.start, schedule.measure, schedule.end - MS] {
            assert_eq!(pace.next(now), Some(now));
        }
        assert_eq!(pace.next(schedule.start - MS), Some(schedule.start), "not before the start");
        assert_eq!(pace.next(schedule.end), None);
        assert_eq!(pace.unsent(schedule.end), 0);
    }

    #[test]
    fn an_open_loop_gives_out_every_due_time_once_however_late() {
        let schedule = schedule();
        let paces: Vec<_> = (0..2).map(|index| Pace::new(schedule, Some(1000.0), index, 2)).collect();
        // The warm-up has 10 requests, of which a stall of 10 ms leaves all but the first unsent.
        assert_eq!(paces[0].next(schedule.start), Some(schedule.start));
        let late = schedule.end - MS;
        let mut due: Vec<Instant> = paces.iter().flat_map(|pace| std::iter::from_fn(|| pace.next(late))).collect();
        due.sort();
        let expected: Vec<Instant> = (0..20).map(|number| schedule.measure + number * MS).collect();
        assert_eq!(due, expected, "counted from when they were due, not from when they were sent");
        assert!(paces.iter().all(|pace| pace.unsent(schedule.end) == 0));
    }

    #[test]
    fn what_no_connection_was_free_for_is_unsent() {
        let schedule = schedule();
        let pace = Pace::new(schedule, Some(1000.0), 0, 1);
        assert_eq!(pace.next(schedule.measure), Some(schedule.measure));
        assert_eq!(pace.next(schedule.end), None);
        assert_eq!(pace.unsent(schedule.end), 19);
        assert_eq!(pace.unsent(schedule.end + MS), 19, "after the end nothing is due");
        // Stopped before.
        assert_eq!(pace.unsent(schedule.measure + 5 * MS), 4);
        assert_eq!(pace.unsent(schedule.start), 0, "the warm-up's do not count");
    }

    #[test]
    fn the_next_request_may_lie_ahead() {
        let schedule = schedule();
        let pace = Pace::new(schedule, Some(500.0), 0, 1);
        for number in 0..5 {
            assert_eq!(pace.next(schedule.start), Some(schedule.start + 2 * number * MS));
        }
        assert_eq!(pace.next(schedule.start), Some(schedule.measure), "the warm-up's are given out");
    }
}
