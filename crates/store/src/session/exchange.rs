//! Requests to the controller and their replies.
//!
//! Invariant: at most `requests_max` requests are outstanding, beside the answers to recalls, which have slots of their own.
//! So neither queue can overflow. The controller is woken once a turn, and only if it sleeps.

use super::pools::Pools;
use crate::extent::SizeClass;
use crate::messages::{RECALL_SLOTS, Reply, Request, RequestId, WriteFailure, WriteNumber};
use buddy_ring::{Remote, Ring, WaitLine};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A request without its reply.
enum Waiting {
    Asked(Option<Waker>),
    Answered(Reply),
    /// Nobody waits any more.
    Abandoned,
}

/// A worker's side of its two queues.
pub(crate) struct Exchange {
    ring: Ring,
    requests: RefCell<rtrb::Producer<Request>>,
    controller: Remote,
    waiting: RefCell<Slab<Waiting>>,
    requests_max: usize,
    line: WaitLine,
    /// Something was sent in this turn.
    sent: Cell<bool>,
    /// Writes that were announced so far.
    announced: Cell<WriteNumber>,
}

/// An `Occupy` that was sent ahead of its bytes. Its write must be reported, and its reply taken.
pub(super) struct Announced {
    key: usize,
    write: WriteNumber,
}

impl Exchange {
    pub(crate) fn new(
        ring: &Ring,
        requests: rtrb::Producer<Request>,
        controller: Remote,
        requests_max: usize,
    ) -> Rc<Exchange> {
        Rc::new(Exchange {
            ring: ring.clone(),
            requests: RefCell::new(requests),
            controller,
            waiting: RefCell::default(),
            requests_max,
            line: WaitLine::default(),
            sent: Cell::new(false),
            announced: Cell::new(0),
        })
    }

    /// Sends a request and waits for its reply. Waits in line while too many are outstanding. The request is carried out even
    /// where the future is dropped after it was sent.
    pub(crate) async fn request(&self, make: impl FnOnce(RequestId) -> Request) -> Reply {
        if !self.has_room() || !self.line.is_empty() {
            self.line.wait_for(|| self.has_room().then_some(())).await;
        }
        let key = self.send(make);
        Answer { exchange: self, key }.await
    }

    /// Sends an `Occupy` ahead of its bytes, unless too many requests are outstanding.
    pub(super) fn announce(&self, make: impl FnOnce(RequestId, WriteNumber) -> Request) -> Option<Announced> {
        if !self.has_room() || !self.line.is_empty() {
            return None;
        }
        let write = self.announced.get();
        self.announced.set(write + 1);
        Some(Announced { key: self.send(|id| make(id, write)), write })
    }

    /// Says what became of an announced write, and waits for the reply.
    pub(super) async fn report(&self, announced: Announced, failure: Option<WriteFailure>) -> Reply {
        self.push(Request::Written { write: announced.write, failure });
        Answer { exchange: self, key: announced.key }.await
    }

    fn has_room(&self) -> bool {
        self.waiting.borrow().len() < self.requests_max
    }

    fn send(&self, make: impl FnOnce(RequestId) -> Request) -> usize {
        let key = self.waiting.borrow_mut().insert(Waiting::Asked(None));
        self.push(make(RequestId::try_from(key).unwrap_or(RequestId::MAX)));
        key
    }

    fn push(&self, request: Request) {
        let full = self.requests.borrow_mut().push(request).is_err();
        debug_assert!(!full, "more requests are outstanding than the queue has room for");
        self.sent.set(true);
    }

    /// Takes every reply, and wakes who waits for it.
    pub(crate) fn take_replies(&self, replies: &mut rtrb::Consumer<Reply>, pools: &Pools) {
        let Ok(chunk) = replies.read_chunk(replies.slots()) else { return };
        for reply in chunk {
            match (reply.id(), reply) {
                (Some(id), reply) => self.answer(id as usize, reply, pools),
                (None, Reply::Recall { class }) => self.answer_recall(class, pools),
                (None, _) => {}
            }
        }
        // The ring may go to sleep after this: what was sent must be seen.
        self.wake_controller();
    }

    fn answer(&self, key: usize, reply: Reply, pools: &Pools) {
        let mut waiting = self.waiting.borrow_mut();
        let Some(slot) = waiting.get_mut(key) else { return };
        match std::mem::replace(slot, Waiting::Abandoned) {
            Waiting::Asked(waker) => {
                *slot = Waiting::Answered(reply);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Waiting::Abandoned | Waiting::Answered(_) => {
                waiting.remove(key);
                drop(waiting);
                self.line.wake_first();
                // What nobody waits for must not be lost.
                if let Reply::Allocated { runs, .. } = reply {
                    pools.put_runs(runs);
                }
            }
        }
    }

    /// Returns every blank extent of a class, even if there is none.
    fn answer_recall(&self, class: SizeClass, pools: &Pools) {
        let runs = pools.take_all(class);
        debug_assert!(self.waiting.borrow().len() < self.requests_max + RECALL_SLOTS, "one recall a class");
        let key = self.send(|id| Request::Return { id, runs, recalled: true });
        if let Some(slot) = self.waiting.borrow_mut().get_mut(key) {
            *slot = Waiting::Abandoned;
        }
    }

    /// Requests that wait for their reply.
    pub(crate) fn outstanding(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Wakes the controller, if it sleeps and was sent something.
    pub(crate) fn wake_controller(&self) {
        if self.sent.take() {
            self.controller.wake_from(&self.ring);
        }
    }

    /// Tells the controller that nothing more will come.
    pub(crate) fn detach(&self) {
        let full = self.requests.borrow_mut().push(Request::Detach).is_err();
        debug_assert!(!full, "there is a slot for it");
        // Not at the end of the turn: the ring may end before.
        self.controller.wake();
    }
}

/// Waits for one reply.
struct Answer<'a> {
    exchange: &'a Exchange,
    key: usize,
}

impl Future for Answer<'_> {
    type Output = Reply;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        let mut waiting = self.exchange.waiting.borrow_mut();
        match waiting.get_mut(self.key) {
            Some(slot @ Waiting::Answered(_)) => match std::mem::replace(slot, Waiting::Abandoned) {
                Waiting::Answered(reply) => Poll::Ready(reply),
                _ => Poll::Pending,
            },
            Some(slot) => {
                *slot = Waiting::Asked(Some(context.waker().clone()));
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        let mut waiting = self.exchange.waiting.borrow_mut();
        let Some(slot) = waiting.get_mut(self.key) else { return };
        match slot {
            // The reply is still to come.
            Waiting::Asked(_) => *slot = Waiting::Abandoned,
            Waiting::Answered(_) | Waiting::Abandoned => {
                waiting.remove(self.key);
                drop(waiting);
                self.exchange.line.wake_first();
            }
        }
    }
}
