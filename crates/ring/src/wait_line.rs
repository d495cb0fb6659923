//! Waiting in line for something of which there is only so much.
//!
//! First come, first served. Who stands first is woken when there may be some; when the first leaves, served or having given
//! up, the next is woken, so a place given up never swallows a wake.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// A line of tasks of one thread.
#[derive(Default)]
pub struct WaitLine {
    /// Who to wake, by ticket; tickets ascend.
    places: RefCell<BTreeMap<u64, Option<Waker>>>,
    next_ticket: Cell<u64>,
}

impl WaitLine {
    /// True where nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.borrow().is_empty()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.borrow().len()
    }

    /// Stands in line until `attempt`, made only while first, gives something.
    pub async fn wait_for<T>(&self, attempt: impl FnMut() -> Option<T>) -> T {
        self.stand().turn(attempt).await
    }

    /// Takes a place in line, kept until it is dropped.
    pub(crate) fn stand(&self) -> Place<'_> {
        let ticket = self.next_ticket.get();
        self.next_ticket.set(ticket + 1);
        self.places.borrow_mut().insert(ticket, None);
        Place { line: self, ticket }
    }

    /// To be called when there may be something for the first in line.
    pub fn wake_first(&self) {
        let waker = self.places.borrow_mut().first_entry().and_then(|mut first| first.get_mut().take());
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A place in line.
pub(crate) struct Place<'a> {
    line: &'a WaitLine,
    ticket: u64,
}

impl Place<'_> {
    /// Waits until this place is first and `attempt`, made only then, gives something.
    pub(crate) async fn turn<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> T {
        poll_fn(|context| {
            if self.is_first()
                && let Some(taken) = attempt()
            {
                return Poll::Ready(taken);
            }
            if let Some(waker) = self.line.places.borrow_mut().get_mut(&self.ticket) {
                *waker = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    fn is_first(&self) -> bool {
        self.line.places.borrow().first_key_value().is_some_and(|(first, _)| *first == self.ticket)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let was_first = self.is_first();
        self.line.places.borrow_mut().remove(&self.ticket);
        if was_first {
            self.line.wake_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Runtime;
    use std::rc::Rc;
    use std::time::Duration;

    #[test]
    fn a_place_given_up_swallows_no_wake_and_leaves_nothing_behind() {
        let runtime = Runtime::simulated(1);
        let ring = runtime.ring();
        runtime.block_on(async {
            let line = Rc::new(WaitLine::default());
            let stock = Rc::new(Cell::new(0));
            let waiter = |patience_ms: u64| {
                let (line, stock, ring) = (Rc::clone(&line), Rc::clone(&stock), ring.clone());
                async move {
                    let take = || (stock.get() > 0).then(|| stock.set(stock.get() - 1));
                    ring.timeout(Duration::from_millis(patience_ms), line.wait_for(take)).await.is_ok()
                }
            };
            let first = ring.spawn(waiter(10));
            ring.sleep(Duration::from_millis(1)).await;
            let second = ring.spawn(waiter(1000));
            let impatient: Vec<_> = (0..100).map(|_| ring.spawn(waiter(5))).collect();
            ring.sleep(Duration::from_millis(7)).await;
            for task in impatient {
                assert!(!task.await);
            }
            assert_eq!(line.places.borrow().len(), 2, "who left from the middle is gone");
            // The wake goes to the first, whose time runs out in the same turn in which it would be polled.
            ring.sleep(Duration::from_millis(1)).await;
            stock.set(1);
            line.wake_first();
            assert!(first.await);
            ring.sleep(Duration::from_millis(5)).await;
            stock.set(1);
            line.wake_first();
            assert!(second.await);
            assert!(line.is_empty());
        });
    }
}
