//! Whether a ring that has nothing to do looks again for a moment before it sleeps.
//!
//! Being woken takes longer than what a busy ring waits for: the scheduler has to place it, and on a virtual machine the hypervisor has
//! to start a processor that was halted. So a ring whose waits have been short lately polls for a little while, and lets others run
//! between two looks (`sched_yield`).
//!
//! Two rules keep that from harming anybody:
//!
//! - a ring whose waits have been long lately sleeps at once, so one that is idle, or asked now and then, spends nothing;
//! - whoever yields to another program gets the processor back when that has used up its time slice, whoever sleeps is placed as soon as
//!   it is woken. So a yield that took as long as a slice forbids polling for a while, and for longer each time in a row.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Polling is worth it where the average wait is not longer than so many times what polling may last …
const WORTHWHILE_FACTOR: u32 = 4;
/// … and one that lasted longer than so many times that is no worse than this: an idle night is forgotten after a few short waits.
const LONGEST_FACTOR: u32 = 16;
/// The last wait counts for one part in so many of the average.
const AVERAGED_WAITS: u32 = 4;
/// A yield of this length was a time slice of another program. The kernel's slices are 0.7 to 4 ms.
const SLICE: Duration = Duration::from_millis(1);
/// Polling rests for so many times what a slice took: at most one part in ten of the time is lost …
const REST_FACTOR: u32 = 10;
/// … doubled, so often at most, where the next slice is lost sooner after a rest than the rest was long.
const DOUBLINGS_MAX: u32 = 8;
/// No rest is longer: a process that was stopped while it yielded took longer than any slice.
const REST_MAX: Duration = Duration::from_secs(10);

/// What a ring knows of its waits.
pub(crate) struct BusyPoll {
    /// Polling lasts this long at most; zero: there is none.
    limit: Duration,
    average_wait: Cell<Duration>,
    rest: Cell<Option<Rest>>,
}

/// A time without polling.
#[derive(Clone, Copy)]
struct Rest {
    duration: Duration,
    end: Instant,
    /// How often it was doubled.
    doublings: u32,
}

impl BusyPoll {
    pub(crate) fn new(limit: Duration) -> BusyPoll {
        BusyPoll { limit, average_wait: Cell::new(limit * LONGEST_FACTOR), rest: Cell::new(None) }
    }

    /// How long to poll in a wait that begins now; `None`: not at all.
    pub(crate) fn duration(&self, now: Instant) -> Option<Duration> {
        let is_worthwhile = self.average_wait.get() <= self.limit * WORTHWHILE_FACTOR;
        let rests = self.rest.get().is_some_and(|rest| now < rest.end);
        (is_worthwhile && !rests && !self.limit.is_zero()).then_some(self.limit)
    }

    /// Takes in that polling found something. Time that others had meanwhile was not lost, so it does not count.
    pub(crate) fn found(&self) {
        self.average_in(self.limit);
    }

    /// Takes in how long a wait was that ended in sleep.
    pub(crate) fn slept(&self, wait: Duration) {
        self.average_in(wait.min(self.limit * LONGEST_FACTOR));
    }

    fn average_in(&self, wait: Duration) {
        self.average_wait.set((self.average_wait.get() * (AVERAGED_WAITS - 1) + wait) / AVERAGED_WAITS);
    }

    /// Takes in what a yield took that ended now. False where polling has to end.
    pub(crate) fn yielded(&self, took: Duration, now: Instant) -> bool {
        if took < SLICE {
            return true;
        }
        let doublings = match self.rest.get() {
            Some(rest) if now < rest.end + rest.duration => (rest.doublings + 1).min(DOUBLINGS_MAX),
            _ => 0,
        };
        let duration = took.saturating_mul(REST_FACTOR << doublings).min(REST_MAX);
        self.rest.set(Some(Rest { duration, end: now + duration, doublings }));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(50);

    fn after_short_waits(limit: Duration) -> BusyPoll {
        let poll = BusyPoll::new(limit);
        (0..20).for_each(|_| poll.slept(Duration::from_micros(30)));
        poll
    }

    #[test]
    fn a_ring_that_waits_briefly_polls() {
        assert_eq!(after_short_waits(LIMIT).duration(Instant::now()), Some(LIMIT));
    }

    #[test]
    fn a_new_ring_and_one_that_waits_for_long_sleep_at_once() {
        let now = Instant::now();
        assert_eq!(BusyPoll::new(LIMIT).duration(now), None);
        let poll = after_short_waits(LIMIT);
        // A client that asks every millisecond, and what waits for the disk in between.
        for _ in 0..10 {
            poll.slept(Duration::from_micros(900));
            poll.slept(Duration::from_micros(100));
        }
        assert_eq!(poll.duration(now), None);
    }

    #[test]
    fn a_long_sleep_is_forgotten_after_a_few_short_waits() {
        let poll = after_short_waits(LIMIT);
        poll.slept(Duration::from_secs(3600));
        assert_eq!(poll.duration(Instant::now()), None);
        (0..8).for_each(|_| poll.slept(Duration::from_micros(30)));
        assert_eq!(poll.duration(Instant::now()), Some(LIMIT));
    }

    #[test]
    fn without_a_limit_there_is_no_polling() {
        let poll = after_short_waits(Duration::ZERO);
        poll.slept(Duration::ZERO);
        assert_eq!(poll.duration(Instant::now()), None);
    }

    #[test]
    fn a_lost_time_slice_forbids_polling_for_a_while() {
        let (poll, now) = (after_short_waits(LIMIT), Instant::now());
        assert!(poll.yielded(Duration::from_micros(300), now), "as long as a turn of another thread");
        assert!(poll.duration(now).is_some());
        let slice = Duration::from_millis(4);
        assert!(!poll.yielded(slice, now));
        assert_eq!(poll.duration(now + slice * (REST_FACTOR - 1)), None);
        assert!(poll.duration(now + slice * REST_FACTOR).is_some());
    }

    #[test]
    fn a_slice_lost_soon_after_a_rest_makes_the_next_one_longer() {
        let (poll, slice) = (after_short_waits(LIMIT), Duration::from_millis(4));
        let rest_after = |now| {
            assert!(!poll.yielded(slice, now));
            poll.rest.get().unwrap()
        };
        let first = rest_after(Instant::now());
        let mut last = first;
        for doublings in 1..DOUBLINGS_MAX {
            last = rest_after(last.end + last.duration / 2);
            assert_eq!(last.duration, first.duration * (1 << doublings));
        }
        for _ in 0..3 {
            last = rest_after(last.end);
            assert_eq!(last.duration, REST_MAX);
        }
        assert_eq!(
            rest_after(last.end + last.duration).duration,
            first.duration,
            "polling went well for as long as it rested"
        );
    }
}
