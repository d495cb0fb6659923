//! Lines in the log about requests that failed through no fault of their clients.

use crate::log_limit::{Line, LogLimit};
use std::fmt::Display;
use std::time::{Duration, Instant};

/// Each worker writes at most this many lines about each kind …
const LINES_MAX: u32 = 10;
/// … in this time. Requests fail as fast as clients send them.
const WINDOW: Duration = Duration::from_secs(1);

/// One worker's lines about requests that failed.
pub(crate) struct FailureLog {
    failed: LogLimit,
    memory: LogLimit,
    not_listed: LogLimit,
    taken_for_missing: LogLimit,
}

impl Default for FailureLog {
    fn default() -> FailureLog {
        let limit = || LogLimit::new(LINES_MAX, WINDOW);
        FailureLog { failed: limit(), memory: limit(), not_listed: limit(), taken_for_missing: limit() }
    }
}

impl FailureLog {
    /// Notes a request that could not be carried out.
    pub(crate) fn failed(&self, now: Instant, error: &impl Display) {
        if let Line::Written { left_out } = self.failed.next_line(now) {
            tracing::error!(%error, left_out = shown(left_out), "a request failed");
        }
    }

    /// Notes that a list lacks what `count` damaged rows of the index say.
    pub(crate) fn not_listed(&self, now: Instant, count: u64, error: &impl Display) {
        if let Line::Written { left_out } = self.not_listed.next_line(now) {
            tracing::error!(%error, count, left_out = shown(left_out), "the index is damaged: blocks are not listed");
        }
    }

    /// Notes that nobody knows whether a block is stored that was asked for.
    pub(crate) fn taken_for_missing(&self, now: Instant, error: &impl Display) {
        if let Line::Written { left_out } = self.taken_for_missing.next_line(now) {
            tracing::error!(%error, left_out = shown(left_out), "the index is damaged: a block counts as missing");
        }
    }

    /// Notes a request that there was no memory for: for `what`.
    pub(crate) fn no_memory(&self, now: Instant, what: &str, reason: &impl Display) {
        if let Line::Written { left_out } = self.memory.next_line(now) {
            tracing::warn!(%reason, left_out = shown(left_out), "there is no memory for {what}");
        }
    }
}

/// How many lines like this one were left out before it, where any were.
fn shown(left_out: u64) -> Option<u64> {
    (left_out > 0).then_some(left_out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::{Debug, Write};
    use std::sync::{Arc, Mutex};
    use tracing::field::{Field, Visit};
    use tracing::span;
    use tracing::{Event, Metadata, Subscriber};

    /// Keeps all lines.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            write!(self.0, "{field}={value:?} ").unwrap();
        }
    }

    impl Subscriber for Lines {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn event(&self, event: &Event<'_>) {
            let mut line = Line(format!("{} ", event.metadata().level()));
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    #[test]
    fn a_flood_of_one_kind_writes_only_so_many_lines_and_hides_no_other() {
        let (log, lines, now) = (FailureLog::default(), Lines::default(), Instant::now());
        tracing::subscriber::with_default(lines.clone(), || {
            (0..1000).for_each(|_| log.no_memory(now, "a reply", &"it is taken"));
            log.failed(now, &"it broke");
            (0..3).for_each(|_| log.no_memory(now + WINDOW, "a reply", &"it is taken"));
        });
        let lines = lines.0.lock().unwrap();
        assert_eq!(lines.len(), LINES_MAX as usize + 4, "{lines:#?}");
        assert_eq!(lines[0], "WARN message=there is no memory for a reply reason=it is taken ");
        assert_eq!(lines[LINES_MAX as usize], "ERROR message=a request failed error=it broke ");
        assert_eq!(
            lines[11],
            format!("WARN message=there is no memory for a reply reason=it is taken left_out={} ", 990)
        );
        assert_eq!(lines[12], lines[0]);
    }
}
