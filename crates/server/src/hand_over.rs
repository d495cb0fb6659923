//! Passing accepted connections on to workers that have fewer.
//!
//! The kernel spreads connections over the listeners by a hash of their addresses, which leaves few connections spread badly. A
//! worker that accepts one while another has fewer passes the socket on to the one with the fewest; that happens before anything was
//! received, and once.

use crate::admission::Admission;
use buddy_ring::{Remote, Ring, Socket};
use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, OnceLock, mpsc};

/// The ways to hand a socket to each worker.
#[derive(Clone)]
pub(crate) struct HandOver {
    workers: Arc<[(mpsc::Sender<Passed>, OnceLock<Remote>)]>,
}

/// Sockets that other workers pass to one.
pub(crate) type Inbox = mpsc::Receiver<Passed>;

/// A socket on its way.
pub(crate) struct Passed {
    descriptor: OwnedFd,
    admission: Admission,
}

impl HandOver {
    /// For `workers` workers; each takes its inbox.
    pub(crate) fn new(workers: usize) -> (HandOver, Vec<Inbox>) {
        let (senders, inboxes): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::channel()).unzip();
        let workers = senders.into_iter().map(|sender| (sender, OnceLock::new())).collect();
        (HandOver { workers }, inboxes)
    }

    /// Lets others wake worker `number`, and calls `arrived` with each socket that they pass to it.
    pub(crate) fn receive(
        &self,
        number: usize,
        inbox: Inbox,
        ring: &Ring,
        arrived: impl Fn(Socket, Admission) + 'static,
    ) {
        if let Some((_, remote)) = self.workers.get(number) {
            // Set once, by the worker itself.
            let _ = remote.set(ring.remote());
        }
        let (inbox, ring_of_hook) = (Rc::new(RefCell::new(inbox)), ring.clone());
        ring.on_turn_start(move || {
            while let Ok(Passed { descriptor, admission }) = inbox.borrow().try_recv() {
                arrived(Socket::new(&ring_of_hook, descriptor), admission);
            }
        });
    }

    /// Passes a socket to worker `target`. Gives it back where that cannot be done, if it is still there.
    pub(crate) fn pass(
        &self,
        socket: Socket,
        admission: Admission,
        target: usize,
        from: &Ring,
    ) -> Result<(), Option<(Socket, Admission)>> {
        let Some((sender, Some(remote))) = self.workers.get(target).map(|(sender, remote)| (sender, remote.get()))
        else {
            return Err(Some((socket, admission)));
        };
        let descriptor = socket.into_descriptor().ok_or(None)?;
        match sender.send(Passed { descriptor, admission }) {
            Ok(()) => {
                remote.wake_from(from);
                Ok(())
            }
            Err(mpsc::SendError(Passed { descriptor, admission })) => {
                Err(Some((Socket::new(from, descriptor), admission)))
            }
        }
    }
}
