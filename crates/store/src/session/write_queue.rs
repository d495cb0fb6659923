//! Writing blocks: those that are ready together and lie side by side in the file go to the disk as one write.
//!
//! The name of a small block is sent to the controller when its write begins, so that frame and bytes are on their way side by side.
//! A large one would keep the whole frame waiting: its name follows its bytes. And of large ones the disk gets so much at a time as
//! keeps it busy, in the order in which they were ready: with more all of them would end late, and at once, and whoever sends the next
//! blocks would have waited meanwhile.

use super::exchange::{Announced, Exchange};
use crate::files::{BlockFile, Parts, write_fully};
use crate::hash::Hash;
use crate::messages::Request;
use crate::record::Record;
use buddy_ring::{Buffer, Outcomes, Ring};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;

/// One write takes at most this many bytes …
const WRITE_BYTES_MAX: usize = 1 << 20;
/// … and blocks.
const WRITE_PARTS_MAX: usize = 128;

/// While small blocks are being written those that are ready wait for each other, until there are this many bytes: neighbours then go
/// out as one write.
const GATHERED_BYTES: usize = 128 << 10;

/// Large blocks wait while this many bytes of them are being written. Fast disks need a quarter of it to be busy. What is tried once more
/// after a failed write is not counted.
const LARGE_BYTES_MAX: usize = 4 << 20;

/// Where this many bytes of large blocks wait, nobody need hurry to bring more.
const LARGE_BYTES_PLENTY: usize = LARGE_BYTES_MAX / 2;

/// Room for this many blocks is kept from turn to turn.
const CAPACITY_KEPT: usize = 256;

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
    /// Of what becomes of it.
    key: usize,
}

/// A block that is being written.
struct Started {
    offset: u64,
    bytes: usize,
    announced: Option<Announced>,
    key: usize,
}

/// Blocks of one kind, small or large.
#[derive(Default)]
struct Lane {
    queued: RefCell<Vec<Queued>>,
    queued_bytes: Cell<usize>,
    /// Being written.
    started_bytes: Cell<usize>,
}

impl Lane {
    fn push(&self, write: Queued) {
        self.queued_bytes.set(self.queued_bytes.get() + write.bytes);
        self.queued.borrow_mut().push(write);
    }

    /// How many may be written now, if they are small: all, or, while others are being written, none until there are enough of them.
    fn ready_gathered(&self) -> usize {
        let may_start = self.started_bytes.get() == 0 || self.queued_bytes.get() >= GATHERED_BYTES;
        if may_start { self.queued.borrow().len() } else { 0 }
    }

    /// How many may be written now, if they are large: those that there is room for.
    fn ready_in_turn(&self) -> usize {
        let mut bytes = self.started_bytes.get();
        let has_room = |write: &&Queued| {
            let has_room = bytes < LARGE_BYTES_MAX;
            bytes += write.bytes;
            has_room
        };
        self.queued.borrow().iter().take_while(has_room).count()
    }
}

/// Blocks to be written.
pub(super) struct WriteQueue<F> {
    ring: Ring,
    file: F,
    exchange: Rc<Exchange>,
    durable: bool,
    small: Lane,
    large: Lane,
    /// Writes that were gathered and are to begin at the end of this turn.
    grouped: RefCell<Vec<(Vec<Started>, Parts)>>,
    outcomes: Outcomes<Written>,
    /// Blocks being written whose names follow their bytes.
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
            small: Lane::default(),
            large: Lane::default(),
            grouped: RefCell::default(),
            outcomes: Outcomes::default(),
            unnamed: Cell::new(0),
        })
    }

    /// Blocks being written whose names follow their bytes.
    pub(super) fn unnamed(&self) -> usize {
        self.unnamed.get()
    }

    /// Whether the disk has enough to do for a while, and a large block that comes now would only wait.
    pub(super) fn has_plenty(&self) -> bool {
        self.large.queued_bytes.get() >= LARGE_BYTES_PLENTY
    }

    /// The lane of blocks that take so many bytes.
    fn lane(&self, bytes: usize) -> &Lane {
        if name_follows(bytes) { &self.large } else { &self.small }
    }

    /// Writes the first `bytes` of `buffer`, whole pages, at `offset`, where the block of this name will lie. It is written even
    /// where the future is dropped.
    pub(super) fn write(&self, name: Name, offset: u64, buffer: Buffer, bytes: usize) -> impl Future<Output = Written> {
        let key = self.outcomes.expect();
        self.lane(bytes).push(Queued { name, offset, buffer, bytes, key });
        // Not an `async fn`, which would keep room for what is queued by now.
        self.outcomes.wait(key)
    }

    /// Makes writes of what may be written now, and tells the controller the names of small blocks. To be called at the end of each turn:
    /// the end of a write makes one.
    pub(super) fn gather(&self) {
        self.group_first(&self.small, self.small.ready_gathered());
        self.group_first(&self.large, self.large.ready_in_turn());
    }

    /// Asks the kernel to write what was [gathered](WriteQueue::gather).
    pub(super) fn start(self: &Rc<Self>) {
        for (started, parts) in self.grouped.borrow_mut().drain(..) {
            let queue = Rc::clone(self);
            self.ring.spawn_polled(async move { queue.write_group(started, parts).await }).detach();
        }
    }

    /// Makes writes of the first `count` blocks that wait in `lane`, and tells the controller their names.
    fn group_first(&self, lane: &Lane, count: usize) {
        if count == 0 {
            return;
        }
        let mut queued = lane.queued.borrow_mut();
        let Some(first) = queued.get_mut(..count) else { return };
        first.sort_unstable_by_key(|write| write.offset);
        let mut rest = queued.drain(..count);
        while let together @ 1.. = first_group(rest.as_slice(), |write| (write.offset, write.bytes)) {
            self.group(lane, rest.by_ref().take(together), together);
        }
        drop(rest);
        if queued.is_empty() {
            queued.shrink_to(CAPACITY_KEPT);
        }
    }

    /// Makes a write of `count` blocks that lie side by side.
    fn group(&self, lane: &Lane, group: impl Iterator<Item = Queued>, count: usize) {
        let (mut parts, mut started) = (Parts::with_capacity(count), Vec::with_capacity(count));
        for write in group {
            lane.queued_bytes.set(lane.queued_bytes.get() - write.bytes);
            lane.started_bytes.set(lane.started_bytes.get() + write.bytes);
            self.unnamed.set(self.unnamed.get() + usize::from(name_follows(write.bytes)));
            let announced = self.announce(&write);
            started.push(Started { offset: write.offset, bytes: write.bytes, announced, key: write.key });
            parts.push((write.buffer, write.bytes));
        }
        self.grouped.borrow_mut().push((started, parts));
    }

    /// Tells the controller what is being written, if that can be.
    fn announce(&self, write: &Queued) -> Option<Announced> {
        if name_follows(write.bytes) {
            return None;
        }
        let Name { hash, record, seen } = write.name;
        self.exchange.announce(|id, write| Request::Occupy { id, hash, record, seen, write: Some(write) })
    }

    async fn write_group(self: Rc<Self>, group: Vec<Started>, parts: Parts) {
        let Some(offset) = group.first().map(|first| first.offset) else { return };
        let (result, parts) = write_fully(&self.file, parts, offset, self.durable).await;
        for (_, bytes) in &parts {
            let lane = self.lane(*bytes);
            lane.started_bytes.set(lane.started_bytes.get() - bytes);
        }
        let alone = parts.len() == 1;
        for (started, part) in group.into_iter().zip(parts) {
            match &result {
                Ok(()) => self.end(started, Ok(())),
                Err(error) if alone => self.end(started, Err(repeat(error))),
                // One bad place must not fail its neighbours: each is tried alone. All at once, because each may take long to
                // fail, and the frame that names them, with everybody who waits for it, waits for the last.
                Err(_) => {
                    let queue = Rc::clone(&self);
                    self.ring.spawn(async move { queue.write_alone(started, part).await }).detach();
                }
            }
        }
    }

    async fn write_alone(&self, started: Started, part: (Buffer, usize)) {
        let (result, _) = write_fully(&self.file, vec![part], started.offset, self.durable).await;
        self.end(started, result);
    }

    fn end(&self, Started { bytes, announced, key, .. }: Started, result: io::Result<()>) {
        self.unnamed.set(self.unnamed.get() - usize::from(name_follows(bytes)));
        self.outcomes.finish(key, Written { result, announced });
    }
}

/// How many of `writes`, ascending by offset, lie side by side from the first on and are no more than one write may be. `place`:
/// offset and bytes of a write.
fn first_group<T>(writes: &[T], place: impl Fn(&T) -> (u64, usize)) -> usize {
    let mut next = writes.first().map_or(0, |first| place(first).0);
    let mut group_bytes = 0;
    let belongs = |write: &&T| {
        let (offset, bytes) = place(write);
        let joins = offset == next && group_bytes + bytes <= WRITE_BYTES_MAX;
        next = offset + bytes as u64;
        group_bytes += bytes;
        joins
    };
    writes.iter().take(WRITE_PARTS_MAX).take_while(belongs).count()
}

fn repeat(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(writes: &[(u64, usize)]) -> Vec<Vec<(u64, usize)>> {
        let (mut groups, mut rest) = (Vec::new(), writes);
        while !rest.is_empty() {
            let (group, others) = rest.split_at(first_group(rest, |write| *write));
            groups.push(group.to_vec());
            rest = others;
        }
        groups
    }

    #[test]
    fn neighbours_are_one_write() {
        assert_eq!(
            groups(&[(0, 4096), (4096, 8192), (12_288, 4096), (65_536, 8192)]),
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
