//! Page-aligned buffers from a pool that is bounded in bytes.
//!
//! A buffer is a mapping of its own, so what is given back to the system is gone from the process at once, or, where it is large, a piece of a
//! [chunk](crate::chunk). Its address never moves. Sizes are powers of two from one page up. Who asks when nothing is left waits in line: that is the
//! back-pressure of everything built on it.

use crate::chunk::{CHUNK_BYTES, Chunks, Piece, UNIT_BYTES};
use crate::operation::IoBuffer;
use crate::wait_line::WaitLine;
use memmap2::{MmapMut, RemapOptions};
use std::cell::{Cell, RefCell};
use std::io;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// Size and alignment of a page of memory and of disk.
pub const PAGE_BYTES: usize = 4096;

/// Powers of two from 4 KiB: 4 KiB … 16 MiB.
const SIZE_CLASSES: usize = 13;

/// A pool of page-aligned buffers, at most `limit_bytes` of them in use or kept for the next to ask.
#[derive(Clone)]
pub struct BufferPool {
    inner: Rc<Inner>,
}

struct Inner {
    limit_bytes: usize,
    in_use_bytes: Cell<usize>,
    kept_bytes: Cell<usize>,
    /// Fewest kept bytes since the last trim: what was not needed at all.
    idle_bytes: Cell<usize>,
    kept: RefCell<[Vec<MmapMut>; SIZE_CLASSES]>,
    /// What no piece has of them is kept, too.
    chunks: Chunks,
    waiting: WaitLine,
}

impl BufferPool {
    /// A pool of at most `limit_bytes`.
    #[must_use]
    pub fn new(limit_bytes: usize) -> BufferPool {
        BufferPool {
            inner: Rc::new(Inner {
                limit_bytes,
                in_use_bytes: Cell::new(0),
                kept_bytes: Cell::new(0),
                idle_bytes: Cell::new(0),
                kept: RefCell::default(),
                chunks: Chunks::default(),
                waiting: WaitLine::default(),
            }),
        }
    }

    /// A buffer of at least `bytes`, its content unspecified, or `None` where the pool is exhausted or others wait.
    ///
    /// # Errors
    ///
    /// The system's, where it has no memory; `InvalidInput` where `bytes` is more than the pool may ever hold.
    pub fn try_take(&self, bytes: usize) -> io::Result<Option<Buffer>> {
        if !self.inner.waiting.is_empty() {
            return Ok(None);
        }
        self.take_now(bytes)
    }

    /// A buffer of at least `bytes`, its content unspecified. Waits in line where the pool is exhausted.
    ///
    /// # Errors
    ///
    /// As [`BufferPool::try_take`].
    pub async fn take(&self, bytes: usize) -> io::Result<Buffer> {
        if let Some(buffer) = self.try_take(bytes)? {
            return Ok(buffer);
        }
        self.inner.waiting.wait_for(|| self.take_now(bytes).transpose()).await
    }

    /// Bytes of the buffers that may be in use at a time.
    #[must_use]
    pub fn limit_bytes(&self) -> usize {
        self.inner.limit_bytes
    }

    /// True while somebody waits in line.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        !self.inner.waiting.is_empty()
    }

    /// Bytes that a buffer for `bytes` takes of a pool.
    #[must_use]
    pub fn size_for(bytes: usize) -> usize {
        bytes.max(PAGE_BYTES).next_power_of_two()
    }

    /// Bytes of the buffers in use.
    #[must_use]
    pub fn in_use_bytes(&self) -> usize {
        self.inner.in_use_bytes.get()
    }

    /// Gives buffers that nobody needed since the last call back to the system. Returns true while any are kept.
    pub fn trim(&self) -> bool {
        let inner = &*self.inner;
        let mut surplus = inner.idle_bytes.get();
        let mut kept = inner.kept.borrow_mut();
        for (class, maps) in kept.iter_mut().enumerate().rev() {
            let bytes = PAGE_BYTES << class;
            while surplus >= bytes && maps.pop().is_some() {
                inner.kept_bytes.set(inner.kept_bytes.get() - bytes);
                surplus -= bytes;
            }
        }
        inner.kept_bytes.set(inner.kept_bytes.get() - inner.chunks.give_back_idle(surplus));
        inner.idle_bytes.set(inner.kept_bytes.get());
        inner.kept_bytes.get() > 0
    }

    fn take_now(&self, bytes: usize) -> io::Result<Option<Buffer>> {
        let inner = &*self.inner;
        let size = BufferPool::size_for(bytes);
        let class = (size / PAGE_BYTES).trailing_zeros() as usize;
        if class >= SIZE_CLASSES || size > inner.limit_bytes {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a buffer of {size} bytes from a pool of {} bytes", inner.limit_bytes),
            ));
        }
        if inner.in_use_bytes.get() + size > inner.limit_bytes {
            return Ok(None);
        }
        let kept = inner.kept.borrow_mut().get_mut(class).and_then(Vec::pop).map(Memory::Mapping);
        let memory = match kept.or_else(|| inner.take_piece(size)) {
            Some(memory) => {
                inner.kept_bytes.set(inner.kept_bytes.get() - size);
                inner.idle_bytes.set(inner.idle_bytes.get().min(inner.kept_bytes.get()));
                memory
            }
            None => {
                inner.make_room(size);
                Memory::Mapping(MmapMut::map_anon(size)?)
            }
        };
        inner.in_use_bytes.set(inner.in_use_bytes.get() + size);
        Ok(Some(Buffer { memory: Some(memory), pool: Rc::clone(&self.inner) }))
    }
}

impl Inner {
    /// A piece of a chunk, which is made where there is none and room for one.
    fn take_piece(&self, size: usize) -> Option<Memory> {
        if !(UNIT_BYTES..=CHUNK_BYTES).contains(&size) {
            return None;
        }
        let piece = self.chunks.take(size).or_else(|| {
            if self.in_use_bytes.get() + CHUNK_BYTES > self.limit_bytes {
                return None;
            }
            self.make_room(CHUNK_BYTES);
            self.chunks.add().ok()?;
            self.kept_bytes.set(self.kept_bytes.get() + CHUNK_BYTES);
            self.chunks.take(size)
        });
        piece.map(Memory::Piece)
    }

    /// Gives kept memory back to the system until `size` more bytes fit into the limit.
    fn make_room(&self, size: usize) {
        let mut kept = self.kept.borrow_mut();
        for (class, maps) in kept.iter_mut().enumerate().rev() {
            while self.in_use_bytes.get() + self.kept_bytes.get() + size > self.limit_bytes {
                if maps.pop().is_none() {
                    break;
                }
                self.kept_bytes.set(self.kept_bytes.get() - (PAGE_BYTES << class));
            }
        }
        let excess = (self.in_use_bytes.get() + self.kept_bytes.get() + size).saturating_sub(self.limit_bytes);
        if excess > 0 {
            self.kept_bytes.set(self.kept_bytes.get() - self.chunks.give_back(excess));
        }
        self.idle_bytes.set(self.idle_bytes.get().min(self.kept_bytes.get()));
    }

    fn give_back(&self, memory: Memory) {
        let size = memory.len();
        match memory {
            Memory::Piece(piece) => drop(piece),
            Memory::Mapping(map) => {
                let class = (size / PAGE_BYTES).trailing_zeros() as usize;
                if let Some(maps) = self.kept.borrow_mut().get_mut(class) {
                    maps.push(map);
                }
            }
        }
        self.kept_bytes.set(self.kept_bytes.get() + size);
        self.give_up(size);
    }

    /// So many bytes less are in use.
    fn give_up(&self, bytes: usize) {
        self.in_use_bytes.set(self.in_use_bytes.get() - bytes);
        self.waiting.wake_first();
    }
}

enum Memory {
    Mapping(MmapMut),
    Piece(Piece),
}

impl Memory {
    fn len(&self) -> usize {
        match self {
            Memory::Mapping(map) => map.len(),
            Memory::Piece(piece) => piece.len(),
        }
    }
}

/// A page-aligned piece of memory, given back to its pool when dropped. It may hold what its last user left.
pub struct Buffer {
    /// None only while being dropped.
    memory: Option<Memory>,
    pool: Rc<Inner>,
}

impl Buffer {
    /// Gives all but room for `bytes` back to the pool at once. The content of that room stays; it may move.
    ///
    /// # Errors
    ///
    /// The system's: the buffer is as it was.
    pub fn shrink(&mut self, bytes: usize) -> io::Result<()> {
        let size = BufferPool::size_for(bytes);
        let surplus = self.len().saturating_sub(size);
        match &mut self.memory {
            _ if surplus == 0 => return Ok(()),
            // SAFETY: the mapping is anonymous, so there is no end of a file to pass, and it becomes smaller. The mutable reference
            // shows that nobody looks at the bytes that go, the kernel included: what it works on is owned by the operation.
            Some(Memory::Mapping(map)) => unsafe { map.remap(size, RemapOptions::new()) }?,
            Some(Memory::Piece(piece)) if size >= UNIT_BYTES => {
                piece.shrink(size);
                self.pool.kept_bytes.set(self.pool.kept_bytes.get() + surplus);
            }
            Some(Memory::Piece(piece)) => {
                let mut map = MmapMut::map_anon(size)?;
                map.iter_mut().zip(piece.bytes()).for_each(|(target, source)| *target = *source);
                self.pool.kept_bytes.set(self.pool.kept_bytes.get() + piece.len());
                self.memory = Some(Memory::Mapping(map));
            }
            None => {}
        }
        self.pool.give_up(surplus);
        // What stays may have moved, beside what is kept of the piece.
        self.pool.make_room(0);
        Ok(())
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            Some(Memory::Mapping(map)) => map,
            Some(Memory::Piece(piece)) => piece.bytes(),
            None => &[],
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Some(Memory::Mapping(map)) => map,
            Some(Memory::Piece(piece)) => piece.bytes_mut(),
            None => &mut [],
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.pool.give_back(memory);
        }
    }
}

// SAFETY: the bytes are a memory mapping, initialised by the system, which stays where it is until the buffer is dropped.
unsafe impl IoBuffer for Buffer {
    fn stable_pointer(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }

    fn capacity(&self) -> usize {
        self.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Runtime;
    use std::time::Duration;

    #[test]
    fn buffers_are_aligned_and_as_large_as_asked() {
        let pool = BufferPool::new(1 << 20);
        for bytes in [0, 1, 4096, 4097, 524_288] {
            let buffer = pool.try_take(bytes).unwrap().unwrap();
            assert!(buffer.len() >= bytes);
            assert_eq!(buffer.as_ptr().addr() % PAGE_BYTES, 0);
        }
        assert_eq!(pool.in_use_bytes(), 0);
    }

    #[test]
    fn the_limit_holds_and_room_is_made_from_other_sizes() {
        let pool = BufferPool::new(16 * PAGE_BYTES);
        let small: Vec<_> = (0..16).map(|_| pool.try_take(1).unwrap().unwrap()).collect();
        assert!(pool.try_take(1).unwrap().is_none());
        drop(small);
        let large = pool.try_take(16 * PAGE_BYTES).unwrap();
        assert!(large.is_some());
        assert_eq!(pool.inner.kept_bytes.get(), 0);
        assert!(pool.try_take(17 * PAGE_BYTES).is_err(), "more than the pool may ever hold is an error, not a wait");
    }

    #[test]
    fn who_waits_is_served_in_line_and_may_leave_it() {
        let runtime = Runtime::simulated(1);
        let ring = runtime.ring();
        let pool = BufferPool::new(2 * PAGE_BYTES);
        runtime.block_on(async {
            let held = pool.take(2 * PAGE_BYTES).await.unwrap();
            let large = ring.spawn({
                let pool = pool.clone();
                async move { pool.take(2 * PAGE_BYTES).await.unwrap().len() }
            });
            let impatient = ring.spawn({
                let (pool, ring) = (pool.clone(), ring.clone());
                async move { ring.timeout(Duration::from_millis(1), pool.take(1)).await.is_err() }
            });
            ring.sleep(Duration::from_millis(5)).await;
            assert!(impatient.await, "the second in line cannot overtake the first");
            drop(held);
            assert_eq!(large.await, 2 * PAGE_BYTES);
            assert!(pool.try_take(1).unwrap().is_some(), "nobody waits any more");
        });
    }

    #[test]
    fn a_buffer_that_shrinks_keeps_its_bytes_and_serves_who_waits() {
        let runtime = Runtime::simulated(1);
        let ring = runtime.ring();
        let pool = BufferPool::new(16 * PAGE_BYTES);
        runtime.block_on(async {
            let mut large = pool.take(16 * PAGE_BYTES).await.unwrap();
            large[..PAGE_BYTES + 1].fill(7);
            let waiting = ring.spawn({
                let pool = pool.clone();
                async move { pool.take(8 * PAGE_BYTES).await.unwrap() }
            });
            ring.sleep(Duration::from_millis(1)).await;
            assert!(pool.is_awaited());
            large.shrink(16 * PAGE_BYTES).unwrap();
            large.shrink(17 * PAGE_BYTES).unwrap();
            assert_eq!(large.len(), 16 * PAGE_BYTES, "it does not grow");
            let address = large.as_ptr();
            large.shrink(PAGE_BYTES + 1).unwrap();
            assert_eq!((large.len(), large.as_ptr()), (2 * PAGE_BYTES, address));
            let mut served = waiting.await;
            served.fill(1);
            assert!(large[..PAGE_BYTES + 1].iter().all(|byte| *byte == 7));
            assert_eq!((pool.in_use_bytes(), pool.is_awaited()), (10 * PAGE_BYTES, false));
            drop((large, served));
            assert_eq!((pool.in_use_bytes(), pool.inner.kept_bytes.get()), (0, 10 * PAGE_BYTES));
            assert_eq!(pool.take(2 * PAGE_BYTES).await.unwrap().len(), 2 * PAGE_BYTES, "it is kept as what it became");
        });
    }

    #[test]
    fn trimming_gives_back_what_was_not_needed() {
        let pool = BufferPool::new(1 << 20);
        drop(pool.try_take(1 << 19).unwrap());
        assert!(pool.trim(), "it was needed since the last trim");
        assert!(!pool.trim(), "it was not needed since");
        assert_eq!(pool.inner.kept_bytes.get(), 0);
    }

    /// Slow clients of which each has a little of another chunk do not keep the rest of it.
    #[test]
    fn trimming_gives_back_what_lies_beside_a_piece() {
        let pool = BufferPool::new(4 * CHUNK_BYTES);
        let mut held: Vec<_> = (0..4).map(|_| pool.try_take(CHUNK_BYTES).unwrap().unwrap()).collect();
        for buffer in &mut held {
            buffer.shrink(UNIT_BYTES).unwrap();
            buffer.fill(7);
        }
        assert!(pool.trim(), "it was needed since the last trim");
        let again = pool.try_take(CHUNK_BYTES / 2).unwrap().unwrap();
        assert!(!pool.trim(), "nothing else was needed since");
        assert_eq!(pool.in_use_bytes(), 4 * UNIT_BYTES + CHUNK_BYTES / 2);
        drop(again);
        assert_eq!(pool.inner.kept_bytes.get(), CHUNK_BYTES / 2);
        assert!(pool.trim() && !pool.trim());
        assert_eq!(pool.inner.kept_bytes.get(), 0);
        assert!(held.iter().all(|buffer| buffer.iter().all(|byte| *byte == 7)));
        assert!(pool.try_take(CHUNK_BYTES).unwrap().is_some(), "there is room for another chunk");
        held.clear();
        assert_eq!((pool.in_use_bytes(), pool.trim()), (0, true));
    }

    /// Buffers of all sizes are taken, shrunk and given back by chance.
    #[test]
    fn no_byte_is_two_buffers_and_the_limit_holds_whatever_comes() {
        const LIMIT: usize = 3 * CHUNK_BYTES;
        let mut random = fastrand::Rng::with_seed(1);
        let pool = BufferPool::new(LIMIT);
        let mut held: Vec<(Buffer, u8)> = Vec::new();
        let mut refused = 0;
        for round in 0..20_000_usize {
            let mark = round.to_le_bytes()[0];
            match random.u8(0..10) {
                0..5 => match pool.try_take(PAGE_BYTES << random.u8(0..10)).unwrap() {
                    Some(mut buffer) => {
                        mark_ends(&mut buffer, mark);
                        held.push((buffer, mark));
                    }
                    None => refused += 1,
                },
                5..8 if !held.is_empty() => drop(held.swap_remove(random.usize(..held.len()))),
                8 if !held.is_empty() => {
                    let which = random.usize(..held.len());
                    let (buffer, mark) = &mut held[which];
                    buffer.shrink(random.usize(1..=buffer.len())).unwrap();
                    assert_eq!(buffer[0], *mark, "its beginning stays");
                    mark_ends(buffer, *mark);
                }
                _ if random.u8(..16) == 0 => drop(pool.trim()),
                _ => {}
            }
            for (buffer, mark) in &held {
                assert_eq!((buffer[0], buffer[buffer.len() - 1]), (*mark, *mark), "round {round}");
            }
            let in_use: usize = held.iter().map(|(buffer, _)| buffer.len()).sum();
            let mapped: usize = pool.inner.kept.borrow().iter().flatten().map(|map| map.len()).sum();
            assert_eq!(pool.in_use_bytes(), in_use);
            assert_eq!(pool.inner.kept_bytes.get(), mapped + pool.inner.chunks.kept_bytes());
            assert!(in_use + pool.inner.kept_bytes.get() <= LIMIT, "round {round}");
        }
        assert!(refused > 100);
        held.clear();
        pool.trim();
        assert!(!pool.trim(), "nothing is kept of what nobody needs");
        assert_eq!((pool.in_use_bytes(), pool.inner.chunks.kept_bytes()), (0, 0));
    }

    fn mark_ends(buffer: &mut Buffer, mark: u8) {
        let last = buffer.len() - 1;
        (buffer[0], buffer[last]) = (mark, mark);
    }

    #[test]
    fn large_buffers_share_chunks() {
        let pool = BufferPool::new(4 * CHUNK_BYTES);
        let large: Vec<_> = (0..4).map(|_| pool.try_take(1 << 19).unwrap().unwrap()).collect();
        let start = large[0].as_ptr().addr();
        assert_eq!(start % CHUNK_BYTES, 0);
        assert!(large.iter().zip(0..).all(|(buffer, number)| buffer.as_ptr().addr() == start + (number << 19)));
        assert_eq!((pool.in_use_bytes(), pool.inner.kept_bytes.get()), (CHUNK_BYTES, 0));
    }
}
