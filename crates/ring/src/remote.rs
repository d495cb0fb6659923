//! Waking a ring from another thread, at no cost while it is awake.
//!
//! The protocol (no wake is lost):
//!
//! - the sleeper stores `sleeping = true`, then a `SeqCst` fence, then looks once more at everything that could hold
//!   work (ready queue, message queues); only if all is empty it enters the kernel to wait;
//! - the waker makes its work visible (a message in a queue), then a `SeqCst` fence, then looks at `sleeping`, and only
//!   if it is set clears it and sends a message to the ring (or, from a thread without a ring, writes to an eventfd).
//!
//! Of the two fences one comes first in the single total order of `SeqCst`: either the waker sees `sleeping`, or the sleeper
//! sees the work. A wake that arrives when the sleeper has already gone on costs one empty turn.

use crate::operation::{Completion, Operation, Payload};
use crate::runtime::Ring;
use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering, fence};
use crate::task::TaskId;
use io_uring::opcode;
use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, PoisonError};

#[cfg(all(test, loom))]
mod loom_models;

#[cfg(not(loom))]
thread_local! {
    /// Address of the [`Shared`] whose ring this thread is running: its own wakes need no bell.
    static RUNNING: Cell<usize> = const { Cell::new(0) };
}
#[cfg(loom)]
loom::thread_local! {
    static RUNNING: Cell<usize> = Cell::new(0);
}

/// What other threads may touch of a ring.
pub(crate) struct Shared {
    ready: Mutex<Vec<TaskId>>,
    sleeping: AtomicBool,
    /// None for a simulated ring, which never sleeps.
    doors: Option<Doors>,
    /// Rung instead of the doors.
    #[cfg(all(test, loom))]
    bell: loom_models::Bell,
}

/// While this lives, its thread runs a ring.
pub(crate) struct Running {
    before: usize,
}

impl Drop for Running {
    fn drop(&mut self) {
        // While a thread ends there may be nothing left to restore.
        let _ = RUNNING.try_with(|running| running.set(self.before));
    }
}

/// The two ways to make a sleeping ring's wait return.
pub(crate) struct Doors {
    /// A duplicate of the ring's descriptor, so that the number cannot come to mean another file.
    pub(crate) ring: OwnedFd,
    pub(crate) event: OwnedFd,
}

impl Shared {
    pub(crate) fn new(doors: Option<Doors>) -> Arc<Shared> {
        Arc::new(Shared {
            ready: Mutex::new(Vec::new()),
            sleeping: AtomicBool::new(false),
            doors,
            #[cfg(all(test, loom))]
            bell: loom_models::Bell::default(),
        })
    }

    fn ready(&self) -> MutexGuard<'_, Vec<TaskId>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a task, from any thread.
    pub(crate) fn push_ready(&self, id: TaskId) {
        self.ready().push(id);
        if !self.runs_here() && self.wake_is_due() {
            self.write_event();
        }
    }

    /// Notes that the calling thread runs this ring, until the result is dropped.
    pub(crate) fn enter(&self) -> Running {
        Running { before: RUNNING.with(|running| running.replace(std::ptr::from_ref(self).addr())) }
    }

    fn runs_here(&self) -> bool {
        RUNNING.with(Cell::get) == std::ptr::from_ref(self).addr()
    }

    /// Moves all ready tasks to `target`, which must be empty; both keep their capacity.
    pub(crate) fn take_ready(&self, target: &mut Vec<TaskId>) {
        std::mem::swap(&mut *self.ready(), target);
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready().is_empty()
    }

    /// Announces sleep, lets `last_look` look at everything that could hold work, and calls `wait` if nothing is ready after that.
    pub(crate) fn sleep(&self, last_look: impl FnOnce(), wait: impl FnOnce()) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        last_look();
        if !self.has_ready() {
            wait();
        }
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// True for exactly one waker of a ring that sleeps.
    fn wake_is_due(&self) -> bool {
        fence(Ordering::SeqCst);
        // Cleared only where it is set: who comes second writes nothing.
        self.sleeping.load(Ordering::Relaxed)
            && self.sleeping.compare_exchange(true, false, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn write_event(&self) {
        #[cfg(all(test, loom))]
        self.bell.ring();
        if let Some(doors) = &self.doors {
            // The counter is full only if 2^64 - 2 wakes are waiting: the ring will wake.
            let _ = rustix::io::write(&doors.event, &1u64.to_ne_bytes());
        }
    }
}

/// Wakes a ring from another thread. Cheap to clone; does nothing while the ring is awake.
#[derive(Clone)]
pub struct Remote {
    shared: Arc<Shared>,
}

/// A message to a ring on its way: keeps the target's descriptor alive, and falls back to the eventfd if it fails.
struct Message(Arc<Shared>);

impl Payload for Message {
    fn discard(self, completion: Completion) {
        if completion.result < 0 {
            self.0.write_event();
        }
    }
}

impl Remote {
    pub(crate) fn new(shared: Arc<Shared>) -> Remote {
        Remote { shared }
    }

    /// Wakes the ring if it sleeps. To be called after the work it shall find has been made visible.
    pub fn wake(&self) {
        if self.shared.wake_is_due() {
            self.shared.write_event();
        }
    }

    /// Like [`Remote::wake`], with a message from the caller's own ring: cheaper, sent when `from` next enters the kernel.
    ///
    /// Until then nobody else wakes the target, so this belongs at the end of a turn, or right before the ring sleeps: what the
    /// caller does in between delays others.
    pub fn wake_from(&self, from: &Ring) {
        if self.shared.wake_is_due() {
            let Some(doors) = &self.shared.doors else { return };
            let target = io_uring::types::Fd(doors.ring.as_raw_fd());
            let entry = opcode::MsgRingData::new(target, 0, crate::driver::WAKE, None).build();
            // SAFETY: the entry points to no memory; the descriptor stays open in the payload.
            unsafe { Operation::submit(from, entry, Message(Arc::clone(&self.shared))) }.detach();
        }
    }
}

/// An eventfd for [`Doors`].
pub(crate) fn event() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?)
}
