//! What is carried out even where nobody waits for it any more.

use crate::runtime::Ring;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A future that goes on as a task of its own where it is dropped before it has ended. Up to then it is part of the task that waits
/// for it: that costs less than a task from the beginning. Made by [`Ring::uncancelled`].
#[must_use = "it is carried out when it is awaited or dropped"]
pub struct Uncancelled<F: Future + 'static>
where
    F::Output: 'static,
{
    ring: Ring,
    /// None once it has ended.
    future: Option<Pin<Box<F>>>,
}

impl Ring {
    /// Has `future` carried out, whether what this returns is awaited to the end or dropped.
    pub fn uncancelled<F: Future + 'static>(&self, future: F) -> Uncancelled<F>
    where
        F::Output: 'static,
    {
        Uncancelled { ring: self.clone(), future: Some(Box::pin(future)) }
    }
}

impl<F: Future + 'static> Future for Uncancelled<F>
where
    F::Output: 'static,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        let Some(future) = &mut this.future else { return Poll::Pending };
        let poll = future.as_mut().poll(context);
        if poll.is_ready() {
            this.future = None;
        }
        poll
    }
}

impl<F: Future + 'static> Drop for Uncancelled<F>
where
    F::Output: 'static,
{
    fn drop(&mut self) {
        if let Some(future) = self.future.take() {
            self.ring.spawn(future).detach();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::runtime::Runtime;
    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::Duration;

    #[test]
    fn it_ends_whether_it_is_awaited_given_up_or_never_looked_at() {
        let runtime = Runtime::simulated(3);
        let ring = runtime.ring();
        runtime.block_on(async {
            let ended = Rc::new(Cell::new(0));
            let work = || {
                let (inner, ended) = (ring.clone(), Rc::clone(&ended));
                ring.uncancelled(async move {
                    inner.sleep(Duration::from_millis(10)).await;
                    ended.set(ended.get() + 1);
                    ended.get()
                })
            };
            assert_eq!(work().await, 1);
            assert!(ring.timeout(Duration::from_millis(5), work()).await.is_err());
            drop(work());
            ring.sleep(Duration::from_millis(20)).await;
            assert_eq!(ended.get(), 3);
        });
        assert_eq!(ring.tasks(), 0);
    }

    #[test]
    fn it_ends_with_its_ring() {
        let held = Rc::new(());
        let runtime = Runtime::simulated(3);
        let (ring, inner) = (runtime.ring(), Rc::clone(&held));
        let work = ring.uncancelled(async move {
            std::future::pending::<()>().await;
            drop(inner);
        });
        ring.spawn(work).detach();
        drop((runtime, ring));
        assert_eq!(Rc::strong_count(&held), 1);
    }
}
