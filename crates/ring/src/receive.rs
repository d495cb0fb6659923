//! Buffers that the kernel picks only when bytes have arrived, so that a connection that waits holds none.
//!
//! A *provided buffer ring* (Linux 5.19): an array of buffer addresses shared with the kernel. A receive takes the next
//! one when data is there; the chunk gives it back when dropped. When all are taken, receivers wait in line for one: that is
//! how a worker that is out of buffers stops reading from sockets.
//!
//! Invariant: a buffer's number is in the shared array exactly while nobody in this process may look at its bytes.

use crate::buffer::PAGE_BYTES;
use crate::operation::{Completion, Operation, Payload};
use crate::runtime::Ring;
use crate::socket::{RECVSEND_POLL_FIRST, Socket};
use crate::wait_line::WaitLine;
use io_uring::{opcode, squeue, types};
use memmap2::MmapMut;
use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// The group number under which the kernel knows the buffers; a ring has one group.
const GROUP: u16 = 0;

/// The buffers of one ring that receives take from as they need them.
#[derive(Clone)]
pub struct ReceiveBuffers {
    inner: Rc<Inner>,
}

struct Inner {
    ring: Ring,
    /// The array shared with the kernel.
    entries: RefCell<MmapMut>,
    /// First byte of `_memory`. Never a reference to all of it: the kernel writes into the buffers it holds.
    first_byte: *mut u8,
    _memory: MmapMut,
    count: u16,
    buffer_bytes: usize,
    tail: Cell<u16>,
    /// Buffers that the kernel has, as far as completions were looked at.
    free: Cell<u16>,
    /// How often a buffer was given to the kernel.
    given: Cell<u64>,
    waiting: WaitLine,
}

impl ReceiveBuffers {
    /// Gives the kernel `count` buffers of `buffer_bytes` each. `count` is rounded up to a power of two, at most 32,768.
    ///
    /// # Errors
    ///
    /// The system's: no memory, or a kernel older than 5.19.
    pub fn new(ring: &Ring, count: u16, buffer_bytes: usize) -> io::Result<ReceiveBuffers> {
        let count = count.clamp(1, 1 << 15).next_power_of_two();
        let mut memory = MmapMut::map_anon(usize::from(count) * buffer_bytes)?;
        let entries_bytes = (usize::from(count) * size_of::<types::BufRingEntry>()).next_multiple_of(PAGE_BYTES);
        let mut entries = MmapMut::map_anon(entries_bytes)?;
        let address = entries.as_mut_ptr().addr() as u64;
        // SAFETY: the array is page-aligned, zeroed and large enough for `count` entries; it is unregistered before it is
        // unmapped (see `Drop`).
        let registered = ring
            .with_driver(|driver| unsafe { driver.submitter().register_buf_ring_with_flags(address, count, GROUP, 0) });
        registered.unwrap_or_else(|| Err(io::ErrorKind::Unsupported.into()))?;
        let buffers = ReceiveBuffers {
            inner: Rc::new(Inner {
                ring: ring.clone(),
                entries: RefCell::new(entries),
                first_byte: memory.as_mut_ptr(),
                _memory: memory,
                count,
                buffer_bytes,
                tail: Cell::new(0),
                free: Cell::new(0),
                given: Cell::new(0),
                waiting: WaitLine::default(),
            }),
        };
        for id in 0..count {
            buffers.inner.give_to_kernel(id);
        }
        Ok(buffers)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.inner.count
    }

    /// Receives what is there into a buffer of the kernel's choice, waiting for the first byte, and for a buffer. An empty
    /// chunk is the end of the stream.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn receive(&self, socket: &Socket) -> io::Result<ReceivedChunk> {
        if !self.inner.ring.is_same(socket.ring()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket is another ring's"));
        }
        if self.inner.waiting.is_empty() && self.inner.free.get() > 0 {
            if let Some(chunk) = self.attempt(socket).await? {
                return Ok(chunk);
            }
        } else {
            // Who waits already comes first. Only who has something to receive may join: the others would have to wait for its client.
            socket.readable().await?;
        }
        // A place in line is kept until it is served: its bytes are there, so it is served at once when a buffer is.
        let place = self.inner.waiting.stand();
        let mut given = self.inner.given.get();
        if self.inner.free.get() > 0 {
            given = given.wrapping_sub(1);
        }
        loop {
            place.turn(|| (self.inner.given.get() != given).then_some(())).await;
            given = self.inner.given.get();
            if let Some(chunk) = self.attempt(socket).await? {
                return Ok(chunk);
            }
        }
    }

    /// One receive; `None` where the kernel found no buffer.
    async fn attempt(&self, socket: &Socket) -> io::Result<Option<ReceivedChunk>> {
        let length = u32::try_from(self.inner.buffer_bytes).unwrap_or(u32::MAX);
        let entry = opcode::Recv::new(socket.target(), std::ptr::null_mut(), length)
            .buf_group(GROUP)
            .ioprio(RECVSEND_POLL_FIRST)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        let payload = Selecting { buffers: self.clone(), _descriptor: Arc::clone(socket.descriptor()) };
        // SAFETY: the entry names no memory of its own; the shared buffers live as long as the payload, and the payload keeps
        // the descriptor.
        let operation = unsafe { Operation::submit(socket.ring(), entry, payload) };
        let (completion, _) = operation.await;
        let chunk = self.chunk(completion);
        let result = completion.into_result();
        socket.ring().traffic().count_received(&result);
        match result {
            Ok(_) => Ok(Some(chunk.unwrap_or_else(|| ReceivedChunk::empty(self)))),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Buffers that hold received bytes.
    #[must_use]
    pub fn in_use(&self) -> u16 {
        self.inner.count - self.inner.free.get()
    }

    /// The chunk that a completion handed over, if any.
    fn chunk(&self, completion: Completion) -> Option<ReceivedChunk> {
        let id = io_uring::cqueue::buffer_select(completion.flags).filter(|id| *id < self.inner.count)?;
        self.inner.free.set(self.inner.free.get() - 1);
        let length = usize::try_from(completion.result).unwrap_or(0);
        Some(ReceivedChunk { buffers: self.clone(), id: Some(id), length })
    }
}

impl Inner {
    /// Address of buffer `id`.
    fn buffer(&self, id: u16) -> *mut u8 {
        self.first_byte.wrapping_add(usize::from(id) * self.buffer_bytes)
    }

    /// Puts buffer `id` into the array that the kernel takes from.
    fn give_to_kernel(&self, id: u16) {
        let tail = self.tail.get();
        let index = usize::from(tail & (self.count - 1));
        let address = self.buffer(id).addr() as u64;
        let length = u32::try_from(self.buffer_bytes).unwrap_or(u32::MAX);
        let mut entries = self.entries.borrow_mut();
        let base: *mut types::BufRingEntry = entries.as_mut_ptr().cast();
        // SAFETY: `index` is below `count`, for which the array has room; entries are plain integers, and the kernel does
        // not read this one before the tail says so.
        let entry = unsafe { &mut *base.wrapping_add(index) };
        entry.set_addr(address);
        entry.set_len(length);
        entry.set_bid(id);
        // SAFETY: `base` is the address of the first entry of the array.
        let tail_pointer = unsafe { types::BufRingEntry::tail(base) };
        // SAFETY: the tail is an aligned u16 inside the array, valid as long as the array; the kernel reads it atomically.
        let shared_tail = unsafe { AtomicU16::from_ptr(tail_pointer.cast_mut()) };
        self.tail.set(tail.wrapping_add(1));
        self.free.set(self.free.get() + 1);
        self.given.set(self.given.get().wrapping_add(1));
        shared_tail.store(self.tail.get(), Ordering::Release);
        drop(entries);
        self.waiting.wake_first();
    }
}

impl Drop for Inner {
    /// Runs when no chunk and no receive is left: each holds the buffers.
    fn drop(&mut self) {
        let _ = self.ring.with_driver(|driver| driver.submitter().unregister_buf_ring(GROUP));
    }
}

/// A receive in flight: keeps the buffers alive, and gives back the one that a late completion took.
struct Selecting {
    buffers: ReceiveBuffers,
    _descriptor: Arc<OwnedFd>,
}

impl Payload for Selecting {
    fn discard(self, completion: Completion) {
        drop(self.buffers.chunk(completion));
    }
}

/// Received bytes. The buffer goes back to the kernel when the chunk is dropped.
pub struct ReceivedChunk {
    buffers: ReceiveBuffers,
    /// None where no buffer was needed.
    id: Option<u16>,
    length: usize,
}

impl ReceivedChunk {
    fn empty(buffers: &ReceiveBuffers) -> ReceivedChunk {
        ReceivedChunk { buffers: buffers.clone(), id: None, length: 0 }
    }
}

impl Deref for ReceivedChunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let Some(id) = self.id else { return &[] };
        // SAFETY: the kernel wrote `length` bytes into this buffer and left it to us until its number is given back, in
        // `drop`; the memory lives as long as `buffers`.
        unsafe { std::slice::from_raw_parts(self.buffers.inner.buffer(id), self.length) }
    }
}

impl Drop for ReceivedChunk {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.buffers.inner.give_to_kernel(id);
        }
    }
}
