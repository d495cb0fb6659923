//! Results that tasks of one thread wait for, each under a key of its own.
//!
//! Invariant: a key is used again only after its result was handed in *and* taken (or nobody waits for it any more), so a result
//! never reaches another task than its own.

use slab::Slab;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// The results that are expected, and those that nobody has taken yet. Costs no allocation for each, as a channel would.
pub struct Outcomes<T> {
    slots: RefCell<Slab<Slot<T>>>,
}

enum Slot<T> {
    Expected(Option<Waker>),
    There(T),
    /// Nobody waits any more.
    Abandoned,
}

impl<T> Default for Outcomes<T> {
    fn default() -> Outcomes<T> {
        Outcomes { slots: RefCell::default() }
    }
}

impl<T> Outcomes<T> {
    /// A key for a result that is to be handed in, once, and waited for, once.
    #[must_use]
    pub fn expect(&self) -> usize {
        self.slots.borrow_mut().insert(Slot::Expected(None))
    }

    /// Waits for the result of `key`. Where the future is dropped, the result is nobody's.
    pub fn wait(&self, key: usize) -> Outcome<'_, T> {
        Outcome { outcomes: self, key: Some(key) }
    }

    /// Hands in the result of `key` and wakes who waits for it. Gives the result back where nobody does.
    pub fn finish(&self, key: usize, result: T) -> Option<T> {
        let mut slots = self.slots.borrow_mut();
        match slots.get_mut(key) {
            Some(slot @ Slot::Expected(_)) => {
                if let Slot::Expected(Some(waker)) = std::mem::replace(slot, Slot::There(result)) {
                    waker.wake();
                }
                None
            }
            Some(Slot::Abandoned) => {
                slots.remove(key);
                Some(result)
            }
            Some(Slot::There(_)) | None => Some(result),
        }
    }

    /// Makes the ring take another turn before it sleeps, by waking who waits for `key`: without a result it waits on. False where nobody
    /// does.
    pub fn wake(&self, key: usize) -> bool {
        if let Some(Slot::Expected(waker)) = self.slots.borrow_mut().get_mut(key)
            && let Some(waker) = waker.take()
        {
            waker.wake();
            return true;
        }
        false
    }

    /// Results that are expected or were not taken yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.borrow().len()
    }

    /// True where no result is expected and all were taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.borrow().is_empty()
    }
}

/// Waits for one result.
pub struct Outcome<'a, T> {
    outcomes: &'a Outcomes<T>,
    /// None once the result was taken.
    key: Option<usize>,
}

impl<T> Future for Outcome<'_, T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let this = self.get_mut();
        let Some(key) = this.key else { return Poll::Pending };
        let mut slots = this.outcomes.slots.borrow_mut();
        match slots.get_mut(key) {
            Some(Slot::Expected(Some(waiting))) if waiting.will_wake(context.waker()) => {}
            Some(Slot::Expected(waiting)) => *waiting = Some(context.waker().clone()),
            Some(Slot::There(_)) => {
                this.key = None;
                if let Slot::There(result) = slots.remove(key) {
                    return Poll::Ready(result);
                }
            }
            Some(Slot::Abandoned) | None => {}
        }
        Poll::Pending
    }
}

impl<T> Drop for Outcome<'_, T> {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut slots = self.outcomes.slots.borrow_mut();
        let unheard = match slots.get_mut(key) {
            Some(slot @ Slot::Expected(_)) => std::mem::replace(slot, Slot::Abandoned),
            Some(Slot::There(_) | Slot::Abandoned) => slots.remove(key),
            None => return,
        };
        // Outside the borrow: what a result holds may wake others.
        drop(slots);
        drop(unheard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Runtime;
    use std::rc::Rc;
    use std::time::Duration;

    #[test]
    fn each_result_reaches_who_waits_for_it_and_no_key_is_used_twice_at_a_time() {
        let runtime = Runtime::simulated(7);
        let ring = runtime.ring();
        runtime.block_on(async {
            let outcomes: Rc<Outcomes<usize>> = Rc::default();
            let keys: Vec<_> = (0..100).map(|_| outcomes.expect()).collect();
            // Some are there before anybody waits.
            keys.iter().filter(|key| **key % 3 == 0).for_each(|key| assert_eq!(outcomes.finish(*key, key * 2), None));
            let waiting: Vec<_> = keys
                .iter()
                .map(|key| {
                    let (outcomes, key) = (Rc::clone(&outcomes), *key);
                    ring.spawn(async move { outcomes.wait(key).await })
                })
                .collect();
            ring.sleep(Duration::from_millis(1)).await;
            // Woken without a result: it waits on.
            outcomes.wake(keys[1]);
            ring.sleep(Duration::from_millis(1)).await;
            keys.iter().filter(|key| **key % 3 != 0).for_each(|key| assert_eq!(outcomes.finish(*key, key * 2), None));
            for (key, task) in keys.iter().zip(waiting) {
                assert_eq!(task.await, key * 2);
            }
            assert!(outcomes.is_empty());
        });
    }

    #[test]
    fn what_nobody_waits_for_is_given_back_and_its_key_is_free_again_only_then() {
        let outcomes = Outcomes::default();
        let key = outcomes.expect();
        drop(outcomes.wait(key));
        assert_ne!(outcomes.expect(), key, "its result is still to come");
        assert_eq!(outcomes.finish(key, "late"), Some("late"));
        assert_eq!(outcomes.expect(), key);
        assert_eq!(outcomes.finish(key, "in time"), None);
        drop(outcomes.wait(key));
        assert_eq!(outcomes.len(), 1);
    }
}
