//! What one worker counts, for anybody to read.

use crate::access::RefusalReason;
use crate::request::Method;
use crate::status::Status;
use buddy_store::histogram::{Histogram, HistogramSnapshot};
use buddy_store::statistics::{Counter, Gauge, TIME_BOUNDS_NS, nanoseconds};
use std::time::Duration;

/// Methods by which requests are counted.
const METHODS: [&str; 8] = ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "other", "malformed"];
/// Statuses, and behind them a place for requests that got no answer.
const STATUSES: usize = Status::ALL.len() + 1;
/// Classes of statuses, from 1xx, and behind them the same.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", NO_ANSWER];
/// The status of a request that got no answer: its client was gone.
const NO_ANSWER: &str = "none";

/// How a request is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RequestKind(usize);

impl RequestKind {
    /// What could not be read as a request.
    pub(crate) const MALFORMED: RequestKind = RequestKind(7);
}

impl From<Method> for RequestKind {
    fn from(method: Method) -> RequestKind {
        RequestKind(match method {
            Method::Get => 0,
            Method::Head => 1,
            Method::Put => 2,
            Method::Post => 3,
            Method::Delete => 4,
            Method::Options => 5,
            Method::Other => 6,
        })
    }
}

/// Connections that did not become any.
#[derive(Default)]
pub(crate) struct ConnectionCounters {
    /// Connections that were accepted.
    pub(crate) accepted: Counter,
    /// Of those, the ones that were too many.
    pub(crate) refused: Counter,
    /// Times that accepting began to fail, for want of descriptors or memory for example.
    pub(crate) failed: Counter,
}

/// How much of what a worker has is in use.
#[derive(Default)]
pub(crate) struct Levels {
    /// Bytes through its sockets, since the start.
    pub(crate) received_bytes: Gauge,
    pub(crate) sent_bytes: Gauge,
    /// Bytes of buffers for blocks that are received …
    pub(crate) upload_buffer_bytes: Gauge,
    /// … and for those that are sent.
    pub(crate) reply_buffer_bytes: Gauge,
    /// Buffers that hold received heads.
    pub(crate) receive_buffers: Gauge,
}

/// What one worker counts, in cache lines of its own.
#[repr(align(128))]
pub(crate) struct WorkerMetrics {
    requests: [[Counter; STATUSES]; METHODS.len()],
    times: [[Histogram<18>; CLASSES.len()]; METHODS.len()],
    refusals: [Counter; RefusalReason::ALL.len()],
    pub(crate) connections: ConnectionCounters,
    pub(crate) levels: Levels,
}

impl Default for WorkerMetrics {
    fn default() -> WorkerMetrics {
        WorkerMetrics {
            requests: std::array::from_fn(|_| std::array::from_fn(|_| Counter::default())),
            times: std::array::from_fn(|_| std::array::from_fn(|_| Histogram::new(&TIME_BOUNDS_NS))),
            refusals: std::array::from_fn(|_| Counter::default()),
            connections: ConnectionCounters::default(),
            levels: Levels::default(),
        }
    }
}

impl WorkerMetrics {
    /// Counts a request that its sender had no right to.
    pub(crate) fn count_refusal(&self, reason: RefusalReason) {
        if let Some(counter) = self.refusals.get(reason as usize) {
            counter.add(1);
        }
    }

    /// Counts a request that was answered with `code`, 0 where it was not, `time` after its head was complete.
    pub(crate) fn count_request(&self, kind: RequestKind, code: u16, time: Duration) {
        let status = Status::ALL.iter().position(|status| status.code == code).unwrap_or(STATUSES - 1);
        if let Some(counter) = self.requests.get(kind.0).and_then(|statuses| statuses.get(status)) {
            counter.add(1);
        }
        let class = usize::from(code / 100).checked_sub(1).unwrap_or(CLASSES.len() - 1);
        if let Some(histogram) = self.times.get(kind.0).and_then(|classes| classes.get(class)) {
            histogram.record(nanoseconds(time));
        }
    }
}

/// Requests of all workers that their senders had no right to.
pub(super) fn refusals<'a>(
    workers: impl Iterator<Item = &'a WorkerMetrics> + Clone,
) -> impl Iterator<Item = (&'static str, u64)> {
    RefusalReason::ALL.into_iter().map(move |reason| {
        let of_worker = |worker: &WorkerMetrics| worker.refusals.get(reason as usize).map(Counter::get);
        (reason.name(), workers.clone().filter_map(of_worker).sum())
    })
}

/// Requests of all workers that came in with a method and were answered with a status.
pub(super) fn requests<'a>(
    workers: impl Iterator<Item = &'a WorkerMetrics> + Clone,
) -> Vec<(&'static str, String, u64)> {
    let mut counts = Vec::new();
    for (method, name) in METHODS.iter().enumerate() {
        for status in 0..STATUSES {
            let of_worker =
                |worker: &WorkerMetrics| worker.requests.get(method).and_then(|all| all.get(status)).map(Counter::get);
            let count: u64 = workers.clone().filter_map(of_worker).sum();
            // So that the family is never without a series.
            let always = (method, status) == (0, 0);
            if count > 0 || always {
                let code = Status::ALL.get(status).map_or(NO_ANSWER.to_owned(), |status| status.code.to_string());
                counts.push((*name, code, count));
            }
        }
    }
    counts
}

/// Times of requests of all workers, by method and class of status.
pub(super) fn times<'a>(
    workers: impl Iterator<Item = &'a WorkerMetrics> + Clone,
) -> Vec<(&'static str, &'static str, HistogramSnapshot)> {
    let mut times = Vec::new();
    for (method, name) in METHODS.iter().enumerate() {
        for (class, class_name) in CLASSES.iter().enumerate() {
            let of_worker = |worker: &WorkerMetrics| Some(worker.times.get(method)?.get(class)?.snapshot());
            let sum = workers.clone().filter_map(of_worker).reduce(|mut sum, next| {
                sum.add(&next);
                sum
            });
            let always = (*name, *class_name) == ("GET", "2xx");
            if let Some(sum) = sum.filter(|sum| sum.count > 0 || always) {
                times.push((*name, *class_name, sum));
            }
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_all_workers_are_added_up_by_method_and_status() {
        let workers = [WorkerMetrics::default(), WorkerMetrics::default()];
        let get = RequestKind::from(Method::Get);
        for worker in &workers {
            worker.count_request(get, 404, Duration::from_millis(1));
        }
        workers[0].count_request(RequestKind::from(Method::Put), 507, Duration::from_secs(60));
        workers[1].count_request(RequestKind::from(Method::Other), 0, Duration::ZERO);
        workers[1].count_request(RequestKind::MALFORMED, 400, Duration::ZERO);
        let expected =
            [("GET", "200", 0), ("GET", "404", 2), ("PUT", "507", 1), ("other", "none", 1), ("malformed", "400", 1)];
        let counted = requests(workers.iter());
        let counted: Vec<_> =
            counted.iter().map(|(method, status, count)| (*method, status.as_str(), *count)).collect();
        assert_eq!(counted, expected);
        let timed = times(workers.iter());
        let kinds: Vec<_> = timed.iter().map(|(method, class, time)| (*method, *class, time.count)).collect();
        let expected =
            [("GET", "2xx", 0), ("GET", "4xx", 2), ("PUT", "5xx", 1), ("other", "none", 1), ("malformed", "4xx", 1)];
        assert_eq!(kinds, expected);
        assert_eq!(timed[2].2.cumulative.last().unwrap().1, 0, "a minute is beyond every bound");
    }

    #[test]
    fn every_status_has_a_class() {
        assert!(Status::ALL.iter().all(|status| (100..600).contains(&status.code)));
        assert_eq!(Status::ALL[0], Status::OK, "what is counted most is found first");
    }
}
