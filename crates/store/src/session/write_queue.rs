//! Writing blocks: those that are ready together and lie side by side in the file go to the disk as one write.

use crate::extent::Extent;
use crate::files::{BlockFile, Parts, write_fully};
use buddy_ring::{Buffer, Ring};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// One write takes at most this many bytes …
const WRITE_BYTES_MAX: usize = 1 << 20;
/// … and blocks.
const WRITE_PARTS_MAX: usize = 128;

/// While a write is under way blocks that are ready wait for each other, until there are this many bytes: neighbours then go out
/// as one write.
const GATHERED_BYTES: usize = 128 << 10;

/// A block to be written.
struct Queued {
    offset: u64,
    buffer: Buffer,
    bytes: usize,
    done: Rc<Done>,
}

#[derive(Default)]
struct Done {
    result: Cell<Option<(io::Result<()>, Buffer)>>,
    waker: Cell<Option<Waker>>,
}

impl Done {
    fn finish(&self, result: io::Result<()>, buffer: Buffer) {
        self.result.set(Some((result, buffer)));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Blocks to be written at the end of the turn.
pub(super) struct WriteQueue<F> {
    ring: Ring,
    file: F,
    durable: bool,
    queued: RefCell<Vec<Queued>>,
    queued_bytes: Cell<usize>,
    /// Writes under way.
    in_flight: Cell<usize>,
}

impl<F: BlockFile> WriteQueue<F> {
    /// Writes to `file`; `durable`: a write is on stable storage when it is done.
    pub(super) fn new(ring: &Ring, file: F, durable: bool) -> Rc<WriteQueue<F>> {
        Rc::new(WriteQueue {
            ring: ring.clone(),
            file,
            durable,
            queued: RefCell::default(),
            queued_bytes: Cell::new(0),
            in_flight: Cell::new(0),
        })
    }

    /// Writes the first `bytes` of `buffer`, whole pages, at the start of `extent`. It is written even where the future is dropped.
    pub(super) fn write(
        &self,
        extent: Extent,
        buffer: Buffer,
        bytes: usize,
    ) -> impl Future<Output = (io::Result<()>, Buffer)> + use<F> {
        let done = Rc::new(Done::default());
        self.queued_bytes.set(self.queued_bytes.get() + bytes);
        self.queued.borrow_mut().push(Queued { offset: extent.offset(), buffer, bytes, done: Rc::clone(&done) });
        Written { done }
    }

    /// Sends what was queued on its way, unless it is little and a write is under way already. To be called at the end of each
    /// turn: the end of a write makes one.
    pub(super) fn flush(self: &Rc<Self>) {
        let queued_bytes = self.queued_bytes.get();
        if queued_bytes == 0 || (self.in_flight.get() > 0 && queued_bytes < GATHERED_BYTES) {
            return;
        }
        self.queued_bytes.set(0);
        let mut queued = std::mem::take(&mut *self.queued.borrow_mut());
        queued.sort_unstable_by_key(|write| write.offset);
        let mut group: Vec<Queued> = Vec::new();
        let (mut end, mut bytes) = (0, 0);
        for write in queued {
            let joins = write.offset == end && bytes + write.bytes <= WRITE_BYTES_MAX && group.len() < WRITE_PARTS_MAX;
            if !joins && !group.is_empty() {
                self.start(std::mem::take(&mut group));
                bytes = 0;
            }
            end = write.offset + write.bytes as u64;
            bytes += write.bytes;
            group.push(write);
        }
        self.start(group);
    }

    fn start(self: &Rc<Self>, group: Vec<Queued>) {
        let queue = Rc::clone(self);
        self.ring.spawn(async move { queue.write_group(group).await }).detach();
    }

    async fn write_group(&self, group: Vec<Queued>) {
        let Some(offset) = group.first().map(|first| first.offset) else { return };
        let mut parts: Parts = Vec::with_capacity(group.len());
        let mut waiting = Vec::with_capacity(group.len());
        for write in group {
            parts.push((write.buffer, write.bytes));
            waiting.push((write.offset, write.done));
        }
        self.in_flight.set(self.in_flight.get() + 1);
        let (result, parts) = write_fully(&self.file, parts, offset, self.durable).await;
        self.in_flight.set(self.in_flight.get() - 1);
        let alone = parts.len() == 1;
        for ((offset, done), (buffer, bytes)) in waiting.into_iter().zip(parts) {
            match &result {
                Ok(()) => done.finish(Ok(()), buffer),
                Err(error) if alone => done.finish(Err(repeat(error)), buffer),
                // One bad place must not fail its neighbours: each is tried alone.
                Err(_) => {
                    let (result, mut parts) =
                        write_fully(&self.file, vec![(buffer, bytes)], offset, self.durable).await;
                    if let Some((buffer, _)) = parts.pop() {
                        done.finish(result, buffer);
                    }
                }
            }
        }
    }
}

fn repeat(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

/// Waits for a write.
struct Written {
    done: Rc<Done>,
}

impl Future for Written {
    type Output = (io::Result<()>, Buffer);

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.done.result.take() {
            Some(done) => Poll::Ready(done),
            None => {
                self.done.waker.set(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }
}
