//! Requests to the controller and their replies.
//!
//! Invariant: at most `requests_max` requests are outstanding, beside the answers to recalls, which have slots of their own.
//! So neither queue can overflow. The controller is woken once a turn, and only if it sleeps.
//!
//! Names may wait long for a checkpoint, and do not take the last slots: removals, for which a part of the journal is kept, look-ups and
//! requests for extents do not stand in line behind them.

use super::pools::Pools;
use crate::StoreError;
use crate::extent::SizeClass;
use crate::messages::{RECALL_SLOTS, Reply, Request, RequestId, WriteFailure, WriteNumber};
use crate::settings::Settings;
use buddy_ring::{Elapsed, Outcomes, Remote, Ring, WaitLine};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// One slot in so many is for requests that bring no name.
const KEPT_FROM_NAMES: usize = 16;

/// A worker's side of its two queues.
pub(crate) struct Exchange {
    ring: Ring,
    requests: RefCell<rtrb::Producer<Request>>,
    controller: Remote,
    /// Requests without their replies, and replies that nobody has taken yet.
    replies: Outcomes<Reply>,
    names: Slots,
    others: Slots,
    /// How long clients wait in line.
    patience: Duration,
    /// Something was sent in this turn.
    sent: Cell<bool>,
    /// Writes that were announced so far.
    announced: Cell<WriteNumber>,
}

/// How many requests may be outstanding for one more of a kind to be sent, and who waits until there are fewer.
struct Slots {
    outstanding_max: usize,
    line: WaitLine,
}

impl Slots {
    fn new(outstanding_max: usize) -> Slots {
        Slots { outstanding_max, line: WaitLine::default() }
    }
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
        settings: &Settings,
    ) -> Rc<Exchange> {
        let requests_max = settings.requests_max;
        Rc::new(Exchange {
            ring: ring.clone(),
            requests: RefCell::new(requests),
            controller,
            replies: Outcomes::default(),
            names: Slots::new(requests_max - requests_max / KEPT_FROM_NAMES),
            others: Slots::new(requests_max),
            patience: settings.busy_timeout,
            sent: Cell::new(false),
            announced: Cell::new(0),
        })
    }

    /// Sends a request that brings no name and waits for its reply. Waits in line while too many are outstanding. The request is
    /// carried out even where the future is dropped after it was sent.
    pub(crate) async fn request(&self, make: impl FnOnce(RequestId) -> Request) -> Reply {
        if !self.may_send(&self.others) {
            self.room(&self.others).await;
        }
        self.reply(self.send(make)).await
    }

    /// The same of what a client asks for, which does not wait in line for ever: then nothing was sent.
    pub(super) async fn request_in_time(&self, make: impl FnOnce(RequestId) -> Request) -> Result<Reply, StoreError> {
        self.request_in_time_among(&self.others, make).await
    }

    /// The same of an `Occupy`.
    pub(super) async fn occupy(&self, make: impl FnOnce(RequestId) -> Request) -> Result<Reply, StoreError> {
        self.request_in_time_among(&self.names, make).await
    }

    async fn request_in_time_among(
        &self,
        slots: &Slots,
        make: impl FnOnce(RequestId) -> Request,
    ) -> Result<Reply, StoreError> {
        if !self.may_send(slots) {
            // In a box, because it is rare, and every request would keep room for it.
            let room = Box::pin(self.ring.timeout(self.patience, self.room(slots)));
            room.await.map_err(|Elapsed| StoreError::Busy)?;
        }
        Ok(self.reply(self.send(make)).await)
    }

    /// Waits in line until one more may be outstanding.
    async fn room(&self, slots: &Slots) {
        slots.line.wait_for(|| self.has_room(slots).then_some(())).await;
    }

    /// Sends an `Occupy` ahead of its bytes, unless too many requests are outstanding.
    pub(super) fn announce(&self, make: impl FnOnce(RequestId, WriteNumber) -> Request) -> Option<Announced> {
        if !self.may_send(&self.names) {
            return None;
        }
        let write = self.announced.get();
        self.announced.set(write + 1);
        Some(Announced { key: self.send(|id| make(id, write)), write })
    }

    /// Says what became of an announced write, and waits for the reply.
    pub(super) async fn report(&self, announced: Announced, failure: Option<WriteFailure>) -> Reply {
        self.push(Request::Written { write: announced.write, failure });
        self.reply(announced.key).await
    }

    async fn reply(&self, key: usize) -> Reply {
        let _room = MakesRoom(self);
        self.replies.wait(key).await
    }

    fn has_room(&self, slots: &Slots) -> bool {
        self.replies.len() < slots.outstanding_max
    }

    /// Without waiting, that is.
    fn may_send(&self, slots: &Slots) -> bool {
        self.has_room(slots) && slots.line.is_empty()
    }

    /// Lets those who are first in line look for room.
    fn wake_first(&self) {
        self.others.line.wake_first();
        self.names.line.wake_first();
    }

    fn send(&self, make: impl FnOnce(RequestId) -> Request) -> usize {
        let key = self.replies.expect();
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
        let Some(unheard) = self.replies.finish(key, reply) else { return };
        self.wake_first();
        // What nobody waits for must not be lost.
        if let Reply::Allocated { runs, .. } = unheard {
            pools.put_runs(runs);
        }
    }

    /// Returns every blank extent of a class, even if there is none.
    fn answer_recall(&self, class: SizeClass, pools: &Pools) {
        let runs = pools.take_all(class);
        debug_assert!(self.replies.len() < self.others.outstanding_max + RECALL_SLOTS, "one recall a class");
        let key = self.send(|id| Request::Return { id, runs, recalled: true });
        drop(self.replies.wait(key));
    }

    /// Requests that wait for their reply.
    pub(crate) fn outstanding(&self) -> usize {
        self.replies.len()
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

/// Lets the next in line look for room when a request is over, or nobody waits for it any more.
struct MakesRoom<'a>(&'a Exchange);

impl Drop for MakesRoom<'_> {
    fn drop(&mut self) {
        self.0.wake_first();
    }
}
