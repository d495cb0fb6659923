//! How long a body or a reply may take: there must be progress every so often, and on the whole so many bytes a second.

use crate::worker::Worker;
use buddy_ring::{Deadline, Limited, Ring};
use std::future::Future;
use std::time::{Duration, Instant};

/// The limits of one transfer.
#[derive(Clone)]
pub(crate) struct Pace {
    ring: Ring,
    /// Time without progress.
    step: Duration,
    /// When all of it must be over.
    end: Instant,
}

impl Pace {
    /// For a body of up to so many bytes, from now on.
    pub(crate) fn of_body(worker: &Worker, bytes: usize) -> Pace {
        Pace::new(worker, worker.limits.body_timeout, bytes)
    }

    /// For a reply of so many bytes, from now on.
    pub(crate) fn of_reply(worker: &Worker, bytes: usize) -> Pace {
        Pace::new(worker, worker.limits.send_timeout, bytes)
    }

    fn new(worker: &Worker, step: Duration, bytes: usize) -> Pace {
        let seconds = bytes as u64 / u64::from(worker.limits.bytes_per_second_min.max(1));
        Pace { ring: worker.ring.clone(), step, end: worker.ring.now() + step + Duration::from_secs(seconds) }
    }

    /// Gives back time that was not the client's.
    pub(crate) fn give_back(&mut self, time: Duration) {
        self.end += time;
    }

    /// True when it has taken as long as it may.
    pub(crate) fn is_over(&self) -> bool {
        self.ring.now() >= self.end
    }

    /// Runs one step until there is no progress for too long, or the whole takes too long.
    pub(crate) fn limit<'a, F: Future>(&self, deadline: &'a Deadline, step: F) -> Limited<&'a Deadline, F> {
        deadline.set(self.step.min(self.end.saturating_duration_since(self.ring.now())));
        deadline.limit(step)
    }
}
