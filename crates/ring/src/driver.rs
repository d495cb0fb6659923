//! The submission and completion queues of one ring, and the slots of operations in flight.
//!
//! Invariant: a slot is reused only after its operation's one completion was reaped, so a completion never reaches
//! another operation than its own.

use crate::operation::{Abandoned, Completion};
use io_uring::{EnterFlags, IoUring, opcode, squeue, types};
use slab::Slab;
use std::io;
use std::task::Waker;
use std::time::{Duration, Instant};

pub(crate) type SlotKey = usize;

/// `user_data` of a message whose only purpose is to end a wait.
pub(crate) const WAKE: u64 = u64::MAX;
/// `user_data` of a request to cancel: its own result says nothing that the cancelled operation's does not.
const CANCEL: u64 = u64::MAX - 1;

/// How often the kernel is asked to give up on what nobody waits for any more.
const CANCEL_INTERVAL: Duration = Duration::from_millis(100);

enum Slot {
    InFlight(Option<Waker>),
    Done(Completion),
    /// The future is gone; the payload waits for the completion.
    Abandoned(Box<dyn Abandoned>),
}

pub(crate) struct Driver {
    uring: IoUring,
    /// For entering the kernel to wait.
    wait_flags: EnterFlags,
    slots: Slab<Slot>,
    /// Completed payloads of dropped futures, discarded outside the driver: destructors may start operations.
    graveyard: Vec<(Box<dyn Abandoned>, Completion)>,
}

impl Driver {
    pub(crate) fn new(uring: IoUring) -> Driver {
        let mut wait_flags = EnterFlags::GETEVENTS;
        // A ring that waits for the next request does not wait for a disk: who watches the machine should not be told so.
        if uring.params().is_feature_no_iowait() {
            wait_flags |= EnterFlags::NO_IOWAIT;
        }
        Driver { uring, wait_flags, slots: Slab::new(), graveyard: Vec::new() }
    }

    pub(crate) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.uring.submitter()
    }

    /// Queues an operation.
    ///
    /// # Safety
    ///
    /// What `entry` points to must stay valid until the completion of the returned slot.
    pub(crate) unsafe fn submit(&mut self, entry: squeue::Entry) -> SlotKey {
        let key = self.slots.insert(Slot::InFlight(None));
        self.push(entry.user_data(key as u64));
        key
    }

    fn push(&mut self, entry: squeue::Entry) {
        loop {
            // SAFETY: callers vouch for what the entry points to: `submit` by its contract, the others point to nothing.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
            // The queue is full: hand it to the kernel, taking in completions so that it can accept more.
            self.enter();
            self.reap();
        }
    }

    /// The operation's completion, or notes whom to wake.
    pub(crate) fn poll(&mut self, key: SlotKey, waker: &Waker) -> Option<Completion> {
        match self.slots.get_mut(key)? {
            Slot::Done(completion) => {
                let completion = *completion;
                self.slots.remove(key);
                Some(completion)
            }
            Slot::InFlight(Some(waiting)) if waiting.will_wake(waker) => None,
            Slot::InFlight(waiting) => {
                *waiting = Some(waker.clone());
                None
            }
            Slot::Abandoned(_) => None,
        }
    }

    /// Takes over the payload of a future that is being dropped; gives it back if the operation is over.
    pub(crate) fn abandon(
        &mut self,
        key: SlotKey,
        payload: Box<dyn Abandoned>,
    ) -> Option<(Box<dyn Abandoned>, Completion)> {
        match self.slots.get_mut(key)? {
            Slot::Done(completion) => {
                let completion = *completion;
                self.slots.remove(key);
                Some((payload, completion))
            }
            slot => {
                *slot = Slot::Abandoned(payload);
                None
            }
        }
    }

    /// Asks the kernel to give up on an operation; it completes in any case.
    pub(crate) fn cancel(&mut self, key: SlotKey) {
        self.push(opcode::AsyncCancel::new(key as u64).build().user_data(CANCEL));
    }

    /// Whether the kernel has completions that it hands over when it is entered.
    pub(crate) fn has_deferred(&mut self) -> bool {
        let submission = self.uring.submission();
        submission.taskrun() || submission.cq_overflow()
    }

    /// Hands queued operations to the kernel and runs what it has deferred, without waiting.
    pub(crate) fn enter(&mut self) {
        let queued = self.uring.submission().len();
        if queued == 0 && !self.has_deferred() {
            return;
        }
        let queued = u32::try_from(queued).unwrap_or(u32::MAX);
        // SAFETY: no argument is passed, and every queued entry was vouched for in `push`.
        let entered = unsafe { self.uring.submitter().enter::<()>(queued, 0, EnterFlags::GETEVENTS.bits(), None) };
        outlive(entered.map(drop));
    }

    /// Like [`Driver::enter`], then waits for a completion or for `timeout`.
    pub(crate) fn enter_and_wait(&mut self, timeout: Option<Duration>) {
        let queued = u32::try_from(self.uring.submission().len()).unwrap_or(u32::MAX);
        let submitter = self.uring.submitter();
        let entered = match timeout {
            // SAFETY: no argument is passed, and every queued entry was vouched for in `push`.
            None => unsafe { submitter.enter::<()>(queued, 1, self.wait_flags.bits(), None) },
            Some(timeout) => {
                let timespec = types::Timespec::from(timeout);
                let arguments = types::SubmitArgs::new().timespec(&timespec);
                let flags = self.wait_flags | EnterFlags::EXT_ARG;
                // SAFETY: the argument is as the flags say; as above.
                unsafe { submitter.enter(queued, 1, flags.bits(), Some(&arguments)) }
            }
        };
        outlive(entered.map(drop));
    }

    /// Moves completions to their slots and wakes who waits for them.
    pub(crate) fn reap(&mut self) {
        for entry in self.uring.completion() {
            let completion = Completion { result: entry.result(), flags: entry.flags() };
            let Ok(key) = SlotKey::try_from(entry.user_data()) else { continue };
            let Some(slot) = self.slots.get_mut(key) else { continue };
            match std::mem::replace(slot, Slot::Done(completion)) {
                Slot::InFlight(Some(waker)) => waker.wake(),
                // Nobody has looked at it yet. An operation completes once.
                Slot::InFlight(None) | Slot::Done(_) => {}
                Slot::Abandoned(payload) => {
                    self.slots.remove(key);
                    self.graveyard.push((payload, completion));
                }
            }
        }
    }

    /// Payloads to be discarded by the caller, once it no longer borrows the driver.
    pub(crate) fn take_graveyard(&mut self) -> Vec<(Box<dyn Abandoned>, Completion)> {
        std::mem::take(&mut self.graveyard)
    }

    /// Asks the kernel to give up on everything that nobody waits for any more, and waits until it has, but not for long: what it has
    /// begun it may have to end. False where there is nothing.
    pub(crate) fn outlast_abandoned(&mut self) -> bool {
        let abandoned: Vec<_> = self.abandoned().collect();
        for key in &abandoned {
            self.cancel(*key);
        }
        let until = Instant::now() + CANCEL_INTERVAL;
        while self.abandoned().next().is_some() {
            // That a cancellation was taken up completes as well: only time says when to ask again.
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.enter_and_wait(Some(left));
            self.reap();
        }
        !abandoned.is_empty()
    }

    fn abandoned(&self) -> impl Iterator<Item = SlotKey> {
        self.slots.iter().filter_map(|(key, slot)| matches!(slot, Slot::Abandoned(_)).then_some(key))
    }
}

impl Drop for Driver {
    /// Waits until the kernel is done with every buffer. Futures are gone by now: each holds the ring.
    fn drop(&mut self) {
        while self.outlast_abandoned() {}
        for (payload, completion) in self.take_graveyard() {
            payload.discard(completion);
        }
    }
}

/// A wait that timed out or was interrupted is no error, and a kernel that is out of memory or has no room for completions is
/// tried again. Anything else means that completions are lost: operations would hang for ever, so the process ends.
#[allow(clippy::panic)]
fn outlive(entered: io::Result<()>) {
    let Err(error) = entered else { return };
    match error.raw_os_error() {
        Some(libc::ETIME | libc::EINTR) => {}
        Some(libc::EBUSY | libc::EAGAIN | libc::ENOMEM) => std::thread::sleep(Duration::from_millis(1)),
        _ => panic!("io_uring failed: {error}"),
    }
}
