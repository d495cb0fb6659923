//! Writing blocks: those that are ready together and lie side by side in the file go to the disk as one write.
//!
//! The name of a small block is sent to the controller when its write begins, so that frame and bytes are on their way side by side.
//! A large one would keep the whole frame waiting: its name follows its bytes.

use super::exchange::{Announced, Exchange};
use crate::files::{BlockFile, Parts, write_fully};
use crate::hash::Hash;
use crate::messages::Request;
use crate::record::Record;
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

/// Blocks of up to this many bytes are announced when their write begins.
const ANNOUNCED_BYTES_MAX: usize = 64 << 10;

fn name_follows(bytes: usize) -> bool {
    bytes > ANNOUNCED_BYTES_MAX
}

/// What a block that is written is to be called.
#[derive(Clone, Copy)]
pub(super) struct Name {
    pub(super) hash: Hash,
    pub(super) record: Record,
    /// Generations that were dropped when the name was found absent.
    pub(super) seen: u64,
}

/// What became of a write.
pub(super) struct Written {
    pub(super) result: io::Result<()>,
    /// Set where the controller was told the name when the write began.
    pub(super) announced: Option<Announced>,
}

/// A block to be written.
struct Queued {
    name: Name,
    offset: u64,
    buffer: Buffer,
    bytes: usize,
    done: Rc<Done>,
}

#[derive(Default)]
struct Done {
    announced: Cell<Option<Announced>>,
    result: Cell<Option<io::Result<()>>>,
    waker: Cell<Option<Waker>>,
}

impl Done {
    fn finish(&self, result: io::Result<()>) {
        self.result.set(Some(result));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Blocks to be written at the end of the turn.
pub(super) struct WriteQueue<F> {
    ring: Ring,
    file: F,
    exchange: Rc<Exchange>,
    durable: bool,
    queued: RefCell<Vec<Queued>>,
    queued_bytes: Cell<usize>,
    /// Writes under way.
    in_flight: Cell<usize>,
    /// Blocks queued or being written whose names follow their bytes.
    unnamed: Cell<usize>,
}

impl<F: BlockFile> WriteQueue<F> {
    /// Writes to `file`; `durable`: a write is on stable storage when it is done.
    pub(super) fn new(ring: &Ring, file: F, exchange: &Rc<Exchange>, durable: bool) -> Rc<WriteQueue<F>> {
        Rc::new(WriteQueue {
            ring: ring.clone(),
            file,
            exchange: Rc::clone(exchange),
            durable,
            queued: RefCell::default(),
            queued_bytes: Cell::new(0),
            in_flight: Cell::new(0),
            unnamed: Cell::new(0),
        })
    }

    /// Blocks queued or being written whose names follow their bytes.
    pub(super) fn unnamed(&self) -> usize {
        self.unnamed.get()
    }

    /// Writes the first `bytes` of `buffer`, whole pages, at `offset`, where the block of this name will lie. It is written even
    /// where the future is dropped.
    pub(super) async fn write(&self, name: Name, offset: u64, buffer: Buffer, bytes: usize) -> Written {
        let done = Rc::new(Done::default());
        self.queued_bytes.set(self.queued_bytes.get() + bytes);
        let name_follows = name_follows(bytes);
        self.unnamed.set(self.unnamed.get() + usize::from(name_follows));
        self.queued.borrow_mut().push(Queued { name, offset, buffer, bytes, done: Rc::clone(&done) });
        let result = Outcome { done: Rc::clone(&done) }.await;
        self.unnamed.set(self.unnamed.get() - usize::from(name_follows));
        Written { result, announced: done.announced.take() }
    }

    /// Sends what was queued on its way, unless it is little and a write is under way already. To be called at the end of each
    /// turn: the end of a write makes one.
    pub(super) fn flush(self: &Rc<Self>) {
        let queued_bytes = self.queued_bytes.get();
        if queued_bytes == 0 || (self.in_flight.get() > 0 && queued_bytes < GATHERED_BYTES) {
            return;
        }
        self.queued_bytes.set(0);
        let queued = std::mem::take(&mut *self.queued.borrow_mut());
        for_each_group(queued, |write| (write.offset, write.bytes), |group| self.start(group));
    }

    fn start(self: &Rc<Self>, group: Vec<Queued>) {
        for write in &group {
            self.announce(write);
        }
        let queue = Rc::clone(self);
        self.ring.spawn(async move { queue.write_group(group).await }).detach();
    }

    /// Tells the controller what is being written, if that can be.
    fn announce(&self, write: &Queued) {
        if name_follows(write.bytes) {
            return;
        }
        let Name { hash, record, seen } = write.name;
        let announced =
            self.exchange.announce(|id, write| Request::Occupy { id, hash, record, seen, write: Some(write) });
        write.done.announced.set(announced);
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
                Ok(()) => done.finish(Ok(())),
                Err(error) if alone => done.finish(Err(repeat(error))),
                // One bad place must not fail its neighbours: each is tried alone.
                Err(_) => done.finish(write_fully(&self.file, vec![(buffer, bytes)], offset, self.durable).await.0),
            }
        }
    }
}

/// Lets `each` have groups of writes that lie side by side, none larger than one write may be. `place`: offset and bytes of a write.
fn for_each_group<T>(mut writes: Vec<T>, place: impl Fn(&T) -> (u64, usize), mut each: impl FnMut(Vec<T>)) {
    writes.sort_unstable_by_key(|write| place(write).0);
    let mut group = Vec::new();
    let (mut end, mut group_bytes) = (0, 0);
    for write in writes {
        let (offset, bytes) = place(&write);
        let joins = offset == end && group_bytes + bytes <= WRITE_BYTES_MAX && group.len() < WRITE_PARTS_MAX;
        if !joins && !group.is_empty() {
            each(std::mem::take(&mut group));
            group_bytes = 0;
        }
        end = offset + bytes as u64;
        group_bytes += bytes;
        group.push(write);
    }
    if !group.is_empty() {
        each(group);
    }
}

fn repeat(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

/// Waits for a write.
struct Outcome {
    done: Rc<Done>,
}

impl Future for Outcome {
    type Output = io::Result<()>;

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

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(writes: &[(u64, usize)]) -> Vec<Vec<(u64, usize)>> {
        let mut groups = Vec::new();
        for_each_group(writes.to_vec(), |write| *write, |group| groups.push(group));
        groups
    }

    #[test]
    fn neighbours_are_one_write_in_whatever_order_they_come() {
        assert_eq!(
            groups(&[(12_288, 4096), (0, 4096), (65_536, 8192), (4096, 8192)]),
            [vec![(0, 4096), (4096, 8192), (12_288, 4096)], vec![(65_536, 8192)]]
        );
        assert_eq!(groups(&[]), Vec::<Vec<_>>::new());
    }

    #[test]
    fn a_write_holds_no_more_than_it_may() {
        let large = 512 << 10;
        let lengths = |writes: Vec<(u64, usize)>| groups(&writes).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths((0..5).map(|number| (number * large as u64, large)).collect()), [2, 2, 1]);
        assert_eq!(lengths((0..300).map(|number| (number * 4096, 4096)).collect()), [128, 128, 44]);
    }
}
