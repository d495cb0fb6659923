//! Flushes that can be believed, and those of what is answered before it is durable.
//!
//! What a flush that fails has lost, the system may tell that flush alone: one that runs beside it succeeds, and may be heard of first. So
//! the success of a flush of the data file counts only when every other that was under way at its end has ended, too, and writing was not
//! stopped. Each waits for those that end after it, so none wait for each other.

use super::{Controller, State};
use crate::crash_point::crash_point;
use crate::files::{BlockFile, was_not_begun};
use crate::statistics::nanoseconds;
use futures_channel::oneshot;
use std::rc::Rc;

/// Flushes when writes are answered before they are durable.
#[derive(Default)]
pub(super) struct FlushState {
    /// A flush is due at the end of the interval.
    scheduled: bool,
    running: bool,
    /// Somebody cannot wait for the interval.
    urgent: bool,
    /// Last sequence number that is published.
    pub(super) published: u64,
}

/// The flushes of the data file that are under way.
#[derive(Default)]
pub(super) struct DataFlushes {
    begun: u64,
    under_way: Vec<DataFlush>,
}

struct DataFlush {
    number: u64,
    /// Others that have ended and wait for this one: they are told by being dropped.
    awaited_by: Vec<oneshot::Sender<()>>,
}

impl DataFlushes {
    /// A flush begins. Returns its number.
    fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.under_way.push(DataFlush { number: self.begun, awaited_by: Vec::new() });
        self.begun
    }

    /// Flush `number` has ended. Returns the ends of those that are still under way.
    fn end(&mut self, number: u64) -> Vec<oneshot::Receiver<()>> {
        self.under_way.retain(|flush| flush.number != number);
        let others = self.under_way.iter_mut().map(|flush| {
            let (told, end) = oneshot::channel();
            flush.awaited_by.push(told);
            end
        });
        others.collect()
    }
}

impl<F: BlockFile> Controller<F> {
    /// Makes durable what was written to the data file before. False where that cannot be believed: writing is stopped.
    pub(super) async fn flush_data(self: &Rc<Self>) -> bool {
        let (began, number) = (self.ring.now(), self.state.borrow_mut().data_flushes.begin());
        self.flush_or_stop(&self.data).await;
        let time = self.ring.now().saturating_duration_since(began);
        self.shared.statistics.flush_time.record(nanoseconds(time));
        let others = self.state.borrow_mut().data_flushes.end(number);
        for other in others {
            // It says nothing, it is dropped.
            let _ = other.await;
        }
        !self.is_read_only()
    }

    /// The same of the journal. One flush of it at a time is under way.
    pub(super) async fn flush_journal(self: &Rc<Self>) -> bool {
        self.flush_or_stop(&self.journal_file).await;
        !self.is_read_only()
    }

    async fn flush_or_stop(self: &Rc<Self>, file: &F) {
        // What the system has not begun has lost nothing.
        if let Err(error) = self.patiently("a flush", was_not_begun, async || file.flush().await).await {
            let mut state = self.state.borrow_mut();
            self.stop_writing(&mut state, format!("a flush failed: {error}"));
            // Who waited hears of it now, however long other flushes take.
            self.settle(&mut state);
        }
    }

    pub(super) fn schedule_flush(self: &Rc<Self>, state: &mut State) {
        if !std::mem::replace(&mut state.flush.scheduled, true) {
            let controller = Rc::clone(self);
            self.after(self.settings.sync_interval, move |state| {
                state.flush.scheduled = false;
                controller.flush_now(state);
            });
        }
    }

    /// Makes what is published durable, if it is not; once more where that is being done already.
    pub(super) fn flush_now(self: &Rc<Self>, state: &mut State) {
        if state.flush.published <= state.journal.durable_sequence() || self.is_read_only() {
            return;
        }
        if std::mem::replace(&mut state.flush.running, true) {
            state.flush.urgent = true;
            return;
        }
        let controller = Rc::clone(self);
        self.ring.spawn(async move { controller.flush().await }).detach();
    }

    async fn flush(self: Rc<Self>) {
        // Every write up to here had completed before its name was published: the flushes begin after it. Data first: a name
        // must not outlive its bytes.
        let published = self.state.borrow().flush.published;
        let flushed = self.flush_data().await && {
            crash_point("data-flushed");
            self.flush_journal().await
        };
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        state.flush.running = false;
        if flushed {
            self.became_durable(state, published);
        }
        if std::mem::take(&mut state.flush.urgent) {
            self.flush_now(state);
        }
        self.settle(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_waits_for_those_that_end_after_it() {
        let mut flushes = DataFlushes::default();
        let (first, second, third) = (flushes.begin(), flushes.begin(), flushes.begin());
        let mut for_second = flushes.end(second);
        assert_eq!(for_second.len(), 2);
        assert_eq!(for_second[0].try_recv(), Ok(None), "the first is under way");
        assert_eq!(flushes.end(first).len(), 1);
        assert!(for_second[0].try_recv().is_err(), "the first has ended");
        assert_eq!(for_second[1].try_recv(), Ok(None), "the third has not");
        assert!(flushes.end(third).is_empty());
        assert!(for_second[1].try_recv().is_err());
    }
}
