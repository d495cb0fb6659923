//! The controller's ends of the queues to its workers.

use crate::extent::SizeClass;
use crate::messages::{Reply, Request};
use buddy_ring::{Remote, Ring};
use std::sync::{Arc, OnceLock};

/// Number of a worker.
pub(crate) type WorkerId = usize;

/// The queues to and from one worker.
pub struct Port {
    requests: rtrb::Consumer<Request>,
    replies: rtrb::Producer<Reply>,
    /// Set by the worker before it sends its first request.
    worker: Arc<OnceLock<Remote>>,
    /// Replies were sent in this turn.
    sent: bool,
    /// Answers to recalls that are to come.
    recalled: usize,
    detached: bool,
}

impl Port {
    /// The controller's ends of the queues to a worker, and the way to wake its ring.
    pub(crate) fn new(
        requests: rtrb::Consumer<Request>,
        replies: rtrb::Producer<Reply>,
        worker: Arc<OnceLock<Remote>>,
    ) -> Port {
        Port { requests, replies, worker, sent: false, recalled: 0, detached: false }
    }
}

/// All workers.
pub(crate) struct Ports(Vec<Port>);

/// What was taken from the queues in one turn.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) requests: u64,
    /// Answers to recalls, or places of those that will not come.
    pub(crate) recalls_answered: usize,
}

impl Ports {
    pub(crate) fn new(ports: Vec<Port>) -> Ports {
        Ports(ports)
    }

    /// Takes every request from every queue.
    pub(crate) fn take(&mut self, mut each: impl FnMut(WorkerId, Request)) -> Taken {
        let mut taken = Taken::default();
        for (worker, port) in self.0.iter_mut().enumerate() {
            let Ok(chunk) = port.requests.read_chunk(port.requests.slots()) else { continue };
            for request in chunk {
                taken.requests += 1;
                match request {
                    Request::Detach => {
                        port.detached = true;
                        // It left without having seen them.
                        taken.recalls_answered += std::mem::take(&mut port.recalled);
                        continue;
                    }
                    Request::Return { recalled: true, .. } => {
                        port.recalled = port.recalled.saturating_sub(1);
                        taken.recalls_answered += 1;
                    }
                    _ => {}
                }
                each(worker, request);
            }
        }
        taken
    }

    /// Queues a reply. The worker is woken at the end of the turn, if it sleeps.
    pub(crate) fn send(&mut self, worker: WorkerId, reply: Reply) {
        let Some(port) = self.0.get_mut(worker) else { return };
        port.sent = true;
        let full = port.replies.push(reply).is_err();
        debug_assert!(!full, "a worker has more requests outstanding than its reply queue has room for");
        if full {
            tracing::error!(worker, "a reply was lost: more requests were outstanding than allowed");
        }
    }

    /// Asks every worker that is still there for the blank extents of every class; returns how many answers will come.
    pub(crate) fn recall(&mut self) -> usize {
        let attached: Vec<_> =
            (0..self.0.len()).filter(|worker| self.0.get(*worker).is_some_and(|port| !port.detached)).collect();
        for worker in &attached {
            if let Some(port) = self.0.get_mut(*worker) {
                port.recalled += SizeClass::all().len();
            }
            for class in SizeClass::all() {
                self.send(*worker, Reply::Recall { class });
            }
        }
        attached.len() * SizeClass::all().len()
    }

    /// Wakes the workers that have been sent something and sleep.
    pub(crate) fn wake(&mut self, ring: &Ring) {
        for port in &mut self.0 {
            if std::mem::take(&mut port.sent)
                && let Some(worker) = port.worker.get()
            {
                worker.wake_from(ring);
            }
        }
    }

    /// True when no worker will send anything any more.
    pub(crate) fn all_detached(&self) -> bool {
        self.0.iter().all(|port| port.detached)
    }
}
