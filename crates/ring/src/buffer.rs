//! Page-aligned buffers from a pool that is bounded in bytes.
//!
//! A buffer is a mapping of its own, so what is given back to the system is gone from the process at once, and its
//! address never moves. Sizes are powers of two from one page up. Who asks when nothing is left waits in line: that is the
//! back-pressure of everything built on it.

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
        let kept = inner.kept.borrow_mut().get_mut(class).and_then(Vec::pop);
        let map = match kept {
            Some(map) => {
                inner.kept_bytes.set(inner.kept_bytes.get() - size);
                inner.idle_bytes.set(inner.idle_bytes.get().min(inner.kept_bytes.get()));
                map
            }
            None => {
                inner.make_room(size);
                MmapMut::map_anon(size)?
            }
        };
        inner.in_use_bytes.set(inner.in_use_bytes.get() + size);
        Ok(Some(Buffer { map: Some(map), pool: Rc::clone(&self.inner) }))
    }
}

impl Inner {
    /// Gives kept buffers of other sizes back to the system until `size` more bytes fit into the limit.
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
        self.idle_bytes.set(self.idle_bytes.get().min(self.kept_bytes.get()));
    }

    fn give_back(&self, map: MmapMut) {
        let size = map.len();
        let class = (size / PAGE_BYTES).trailing_zeros() as usize;
        self.in_use_bytes.set(self.in_use_bytes.get() - size);
        if let Some(maps) = self.kept.borrow_mut().get_mut(class) {
            maps.push(map);
            self.kept_bytes.set(self.kept_bytes.get() + size);
        }
        self.waiting.wake_first();
    }
}

/// A page-aligned piece of memory, given back to its pool when dropped. It may hold what its last user left.
pub struct Buffer {
    /// None only while being dropped.
    map: Option<MmapMut>,
    pool: Rc<Inner>,
}

impl Buffer {
    /// Gives all but room for `bytes` back to the system at once. The content of that room stays, and where it is.
    ///
    /// # Errors
    ///
    /// The system's: the buffer is as it was.
    pub fn shrink(&mut self, bytes: usize) -> io::Result<()> {
        let size = BufferPool::size_for(bytes);
        let Some(map) = self.map.as_mut().filter(|map| size < map.len()) else { return Ok(()) };
        let surplus = map.len() - size;
        // SAFETY: the mapping is anonymous, so there is no end of a file to pass, and it becomes smaller. The mutable reference shows
        // that nobody looks at the bytes that go, the kernel included: what it works on is owned by the operation.
        unsafe { map.remap(size, RemapOptions::new()) }?;
        self.pool.in_use_bytes.set(self.pool.in_use_bytes.get() - surplus);
        self.pool.waiting.wake_first();
        Ok(())
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.map.as_deref_mut().unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(map) = self.map.take() {
            self.pool.give_back(map);
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
}
