//! One operation in flight, as a future that owns what the kernel works on.
//!
//! Invariant: memory that the kernel may still read or write is never freed. It belongs to the operation's *payload*;
//! the payload is given back with the result, and not before. A future dropped in flight moves its payload into the
//! operation's slot, where it waits for the completion (cancellation is asked for, and may come too late). A future that
//! is forgotten leaks its payload, which is safe too.

use crate::driver::SlotKey;
use crate::runtime::Ring;
use io_uring::{opcode, squeue, types};
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// What the kernel says at the end of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    /// Not negative: the operation's result; negative: an error number.
    pub(crate) result: i32,
    pub(crate) flags: u32,
}

impl Completion {
    /// The result as a count of bytes (or a descriptor), or the error.
    pub(crate) fn into_result(self) -> io::Result<usize> {
        usize::try_from(self.result).map_err(|_| io::Error::from_raw_os_error(self.result.saturating_neg()))
    }
}

/// What an operation owns while the kernel works on it.
pub(crate) trait Payload: 'static {
    /// Called with the completion of an operation whose future was dropped: releases what the kernel handed over.
    fn discard(self, _completion: Completion)
    where
        Self: Sized,
    {
    }
}

/// A payload in the slot of an operation whose future is gone.
pub(crate) trait Abandoned {
    fn discard(self: Box<Self>, completion: Completion);
}

impl<P: Payload> Abandoned for P {
    fn discard(self: Box<Self>, completion: Completion) {
        P::discard(*self, completion);
    }
}

/// A buffer that an operation may read from or write into.
///
/// # Safety
///
/// `stable_pointer` must return the address of at least `capacity` initialised bytes, which stay valid, unaliased by others
/// and at the same address until the value is dropped, even when the value itself is moved.
pub unsafe trait IoBuffer: 'static {
    /// Address of the first byte.
    fn stable_pointer(&mut self) -> *mut u8;
    /// Bytes that may be used.
    fn capacity(&self) -> usize;
}

// SAFETY: a vector's bytes live on the heap and do not move with it; only `len` bytes are offered, which are initialised.
unsafe impl IoBuffer for Vec<u8> {
    fn stable_pointer(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }

    fn capacity(&self) -> usize {
        self.len()
    }
}

/// What an operation on a file or socket owns: the buffer, and the descriptor, so that its number keeps meaning this file.
struct Transfer<B> {
    buffer: B,
    _descriptor: Arc<OwnedFd>,
}

impl<B: 'static> Payload for Transfer<B> {}

/// Runs an operation on a descriptor and at most one buffer.
///
/// # Safety
///
/// `entry` must name no memory but bytes of `buffer`, and no descriptor but `descriptor`.
pub(crate) async unsafe fn transfer<B: IoBuffer>(
    ring: &Ring,
    descriptor: &Arc<OwnedFd>,
    entry: squeue::Entry,
    buffer: B,
) -> (io::Result<usize>, B) {
    let payload = Transfer { buffer, _descriptor: Arc::clone(descriptor) };
    // SAFETY: by this function's contract; the buffer's address is stable, and both are owned by the payload.
    let operation = unsafe { Operation::submit(ring, entry, payload) };
    let (completion, payload) = operation.await;
    (completion.into_result(), payload.buffer)
}

/// Asks the kernel to give up on an operation of this ring on `descriptor`, and waits for nothing. Where there is one, it ends
/// with ECANCELED, or with what it had done by then; later ones are not harmed.
pub(crate) fn interrupt(ring: &Ring, descriptor: &Arc<OwnedFd>) {
    let target = types::Fd(descriptor.as_raw_fd());
    let entry = opcode::AsyncCancel2::new(types::CancelBuilder::fd(target)).build();
    let payload = Transfer { buffer: (), _descriptor: Arc::clone(descriptor) };
    // SAFETY: the entry names no memory, and the payload owns the descriptor, so that its number keeps meaning this socket.
    unsafe { Operation::submit(ring, entry, payload) }.detach();
}

/// An operation in flight. Resolves to the completion and the payload.
pub(crate) struct Operation<P: Payload> {
    ring: Ring,
    /// None on a simulated ring, which has no kernel behind it.
    key: Option<SlotKey>,
    /// None only once the completion was taken.
    payload: Option<P>,
}

impl<P: Payload> Operation<P> {
    /// Queues `entry`; it reaches the kernel when the ring next enters it.
    ///
    /// # Safety
    ///
    /// All memory and descriptors that `entry` names must be owned by `payload` and stay valid, at the same address, until
    /// `payload` is dropped, also when `payload` is moved.
    pub(crate) unsafe fn submit(ring: &Ring, entry: squeue::Entry, payload: P) -> Operation<P> {
        // SAFETY: by this function's contract, and because `payload` is kept until the completion: see the invariant above.
        let key = ring.with_driver(|driver| unsafe { driver.submit(entry) });
        Operation { ring: ring.clone(), key, payload: Some(payload) }
    }

    /// Lets the operation run to its end by itself, without asking for its cancellation.
    pub(crate) fn detach(mut self) {
        self.abandon();
    }

    /// Moves the payload into the slot. Returns true if the operation is still in flight.
    fn abandon(&mut self) -> bool {
        let (Some(key), Some(payload)) = (self.key.take(), self.payload.take()) else { return false };
        match self.ring.with_driver(|driver| driver.abandon(key, Box::new(payload))) {
            // It had completed already: what the kernel handed over is released here, outside the driver.
            Some(Some((payload, completion))) => {
                payload.discard(completion);
                false
            }
            _ => true,
        }
    }
}

impl<P: Payload> Drop for Operation<P> {
    fn drop(&mut self) {
        let key = self.key;
        if self.abandon()
            && let Some(key) = key
        {
            self.ring.with_driver(|driver| driver.cancel(key));
        }
    }
}

// Nothing points into the future itself, only into what the payload owns.
impl<P: Payload> Unpin for Operation<P> {}

impl<P: Payload> Future for Operation<P> {
    type Output = (Completion, P);

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let completion = match this.key {
            Some(key) => this.ring.with_driver(|driver| driver.poll(key, context.waker())).flatten(),
            None => Some(Completion { result: -libc::ENOSYS, flags: 0 }),
        };
        match (completion, this.payload.take()) {
            (Some(completion), Some(payload)) => {
                this.key = None;
                Poll::Ready((completion, payload))
            }
            (_, payload) => {
                this.payload = payload;
                Poll::Pending
            }
        }
    }
}
