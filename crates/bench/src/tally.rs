//! What happened: latencies, bytes, failures.
//!
//! Counted are the requests that were due in the measured time, whenever they ended: a slow one at the end is not lost. Failures have no
//! latency; those of the warm-up are counted, too: nobody should overlook them.

use crate::plan::Operation;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;

/// Three digits are kept of each latency.
const SIGNIFICANT_DIGITS: u8 = 3;
/// Latencies up to an hour. Timeouts are shorter.
const LATENCY_MAX_NS: u64 = 3_600_000_000_000;

/// What kind of failure it was.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum FailureKind {
    /// A status that is not 2xx.
    Status(u16),
    Connect,
    Closed,
    Broken,
    TimedOut,
    Malformed,
    /// The body is not what was stored under that name.
    WrongBody,
    /// `PUT` was answered with something else than the name of the block.
    WrongName,
}

impl FailureKind {
    /// Whether the server may have done what it was asked for: it has the request, or a part of it, and has not said no.
    pub(crate) fn leaves_open(self) -> bool {
        !matches!(self, FailureKind::Status(_) | FailureKind::Connect)
    }

    /// As it stands in the report; `None` for a status.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            FailureKind::Status(_) => None,
            FailureKind::Connect => Some("connect"),
            FailureKind::Closed => Some("closed"),
            FailureKind::Broken => Some("broken"),
            FailureKind::TimedOut => Some("timeout"),
            FailureKind::Malformed => Some("malformed"),
            FailureKind::WrongBody => Some("wrong body"),
            FailureKind::WrongName => Some("wrong name"),
        }
    }
}

/// Of one kind of request.
pub(crate) struct OperationTally {
    pub(crate) latency_ns: Histogram<u64>,
    pub(crate) bytes: u64,
}

impl OperationTally {
    fn new() -> OperationTally {
        // The bounds are constants that make sense.
        #[allow(clippy::expect_used)]
        let latency_ns =
            Histogram::new_with_bounds(1, LATENCY_MAX_NS, SIGNIFICANT_DIGITS).expect("the bounds are in order");
        OperationTally { latency_ns, bytes: 0 }
    }

    pub(crate) fn add(&mut self, other: &OperationTally) {
        // Both have the same bounds.
        let _ = self.latency_ns.add(&other.latency_ns);
        self.bytes += other.bytes;
    }
}

/// Of all requests.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) operations: BTreeMap<Operation, OperationTally>,
    pub(crate) failures: BTreeMap<FailureKind, u64>,
    /// How many of them were due before the measurement.
    pub(crate) failed_in_warm_up: u64,
    pub(crate) first_failure: Option<String>,
    pub(crate) reconnects: u64,
    /// Blocks that were stored, the time before the measurement included.
    pub(crate) stored: u64,
    pub(crate) unsent: u64,
    /// Idle connections that were gone at the end.
    pub(crate) idle_closed: usize,
}

impl Tally {
    pub(crate) fn success(&mut self, operation: Operation, latency: Duration, bytes: u64) {
        let tally = self.operations.entry(operation).or_insert_with(OperationTally::new);
        tally.latency_ns.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        tally.bytes += bytes;
    }

    pub(crate) fn failure(&mut self, kind: FailureKind, describe: impl FnOnce() -> String) {
        *self.failures.entry(kind).or_default() += 1;
        self.first_failure.get_or_insert_with(describe);
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Those of the measured time.
    pub(crate) fn failed_in_measurement(&self) -> u64 {
        self.failed() - self.failed_in_warm_up
    }

    pub(crate) fn add(&mut self, other: Tally) {
        for (operation, tally) in &other.operations {
            self.operations.entry(*operation).or_insert_with(OperationTally::new).add(tally);
        }
        for (kind, count) in other.failures {
            *self.failures.entry(kind).or_default() += count;
        }
        self.first_failure = self.first_failure.take().or(other.first_failure);
        self.failed_in_warm_up += other.failed_in_warm_up;
        self.reconnects += other.reconnects;
        self.stored += other.stored;
        self.unsent += other.unsent;
        self.idle_closed += other.idle_closed;
    }

    /// All operations together.
    pub(crate) fn total(&self) -> OperationTally {
        let mut total = OperationTally::new();
        self.operations.values().for_each(|tally| total.add(tally));
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_of_threads_are_added() {
        let mut first = Tally::default();
        first.success(Operation::Get, Duration::from_millis(1), 4096);
        first.failure(FailureKind::Status(404), || "the first".to_owned());
        let mut second = Tally { reconnects: 2, stored: 5, failed_in_warm_up: 1, ..Tally::default() };
        second.success(Operation::Get, Duration::from_millis(3), 4096);
        second.success(Operation::Put, Duration::from_secs(10_000), 1);
        second.failure(FailureKind::Status(404), || "the second".to_owned());
        second.failure(FailureKind::Closed, || "the third".to_owned());
        first.add(second);
        let total = first.total();
        assert_eq!((total.latency_ns.len(), total.bytes, first.failed(), first.reconnects), (3, 8193, 3, 2));
        assert_eq!((first.stored, first.failed_in_measurement()), (5, 2));
        assert_eq!(first.failures[&FailureKind::Status(404)], 2);
        assert_eq!(first.first_failure.as_deref(), Some("the first"));
        let get = &first.operations[&Operation::Get];
        assert!(get.latency_ns.max().abs_diff(3_000_000) < 3_000);
        assert!(total.latency_ns.max() >= LATENCY_MAX_NS, "what is too long is not lost");
    }
}
