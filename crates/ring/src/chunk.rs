//! Memory for large buffers: chunks, each of which the system backs with one huge page where it can, cut into pieces.
//!
//! A disk is told of a buffer page by page where those pages lie anywhere, so a large write takes a hundred of a virtual disk's
//! descriptors, and the kernel visits each of its pages; a piece of a huge page is one range. `docs/performance.md` has what that brings.
//!
//! Invariant: units of a chunk that are marked as taken belong to one piece, or have gone back to the system and to nobody. A chunk is
//! unmapped when its last piece is gone and the list does not keep it.

use memmap2::{Advice, MmapMut, MmapRaw, UncheckedAdvice};
use std::cell::{Cell, RefCell};
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;

/// Bytes of a chunk, and its alignment: a huge page of most processors.
pub(crate) const CHUNK_BYTES: usize = 2 << 20;
/// Pieces are whole numbers of units, a power of two of them.
pub(crate) const UNIT_BYTES: usize = CHUNK_BYTES / u32::BITS as usize;

/// The chunks of a pool.
#[derive(Default)]
pub(crate) struct Chunks {
    chunks: RefCell<Vec<Rc<Chunk>>>,
}

impl Chunks {
    /// A piece of `bytes` of a chunk that there is.
    pub(crate) fn take(&self, bytes: usize) -> Option<Piece> {
        self.chunks.borrow().iter().find_map(|chunk| Chunk::take(chunk, bytes))
    }

    /// Makes a chunk. It counts as memory that is kept.
    pub(crate) fn add(&self) -> io::Result<()> {
        self.chunks.borrow_mut().push(Rc::new(Chunk::map()?));
        Ok(())
    }

    /// Gives memory that no piece has back to the system: chunks without pieces, if they have no more than `bytes`, and those of which
    /// a part went back before. Returns how many bytes.
    pub(crate) fn give_back_whole(&self, bytes: usize) -> usize {
        let mut given = 0;
        self.chunks.borrow_mut().retain(|chunk| {
            let kept = chunk.kept_bytes();
            let goes = chunk.is_unused() && (given + kept <= bytes || chunk.lost.get() != 0);
            given += if goes { kept } else { 0 };
            !goes
        });
        given
    }

    /// The same of chunks with pieces, too: at least `bytes`, where there are so many.
    pub(crate) fn give_back(&self, bytes: usize) -> usize {
        let mut given = self.give_back_whole(bytes.next_multiple_of(CHUNK_BYTES));
        for chunk in self.chunks.borrow().iter() {
            if given >= bytes {
                break;
            }
            given += chunk.lose(!chunk.taken.get());
        }
        given
    }

    /// The same of chunks with pieces, too, but at most `bytes`, and of those only what no piece has had since the last call.
    pub(crate) fn give_back_idle(&self, bytes: usize) -> usize {
        let mut given = self.give_back_whole(bytes);
        for chunk in self.chunks.borrow().iter() {
            let idle = !chunk.used.replace(chunk.taken.get());
            if given + bytes_of(idle) <= bytes {
                given += chunk.lose(idle);
            }
        }
        given
    }
}

#[cfg(test)]
impl Chunks {
    /// Bytes that no piece has and the system has not got back.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.chunks.borrow().iter().map(|chunk| chunk.kept_bytes()).sum()
    }
}

struct Chunk {
    start: NonNull<u8>,
    /// Units that are a piece's, or lost.
    taken: Cell<u32>,
    /// Units whose memory went back to the system: they are not used again.
    lost: Cell<u32>,
    /// Units that are taken, or were at some time since memory was last given back for being idle.
    used: Cell<u32>,
    /// Without references to its memory: those are the pieces'.
    map: MmapRaw,
}

impl Chunk {
    fn map() -> io::Result<Chunk> {
        // Twice as many addresses as memory: somewhere in it a chunk is aligned.
        let map = MmapRaw::from(MmapMut::map_anon(2 * CHUNK_BYTES)?);
        let offset = map.as_ptr().align_offset(CHUNK_BYTES);
        // Where the system has no huge pages it is cut into small ones, as any memory.
        let _ = map.advise_range(Advice::HugePage, offset, CHUNK_BYTES);
        let start = NonNull::new(map.as_mut_ptr().wrapping_add(offset)).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Chunk { start, taken: Cell::new(0), lost: Cell::new(0), used: Cell::new(0), map })
    }

    fn take(chunk: &Rc<Chunk>, bytes: usize) -> Option<Piece> {
        let (taken, units) = (chunk.taken.get(), bytes.div_ceil(UNIT_BYTES));
        let first = (0..u32::BITS as usize).step_by(units).find(|first| taken & units_mask(*first, units) == 0)?;
        let mask = units_mask(first, units);
        chunk.taken.set(taken | mask);
        chunk.used.set(chunk.used.get() | mask);
        Some(Piece { chunk: Rc::clone(chunk), first, units })
    }

    fn is_unused(&self) -> bool {
        self.taken.get() == self.lost.get()
    }

    /// Bytes that no piece has and the system has not got back.
    fn kept_bytes(&self) -> usize {
        bytes_of(!self.taken.get())
    }

    /// Gives these units back to the system, which no piece has. Returns how many bytes.
    fn lose(&self, units: u32) -> usize {
        debug_assert_eq!(units & self.taken.get(), 0, "a piece has it");
        let offset = self.start.as_ptr().addr() - self.map.as_ptr().addr();
        for unit in (0..u32::BITS as usize).filter(|unit| units & units_mask(*unit, 1) != 0) {
            // SAFETY: no piece has this unit, and none will: nobody reads what becomes zero.
            let advised = unsafe {
                self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset + unit * UNIT_BYTES, UNIT_BYTES)
            };
            // It fails only for what is no mapping.
            debug_assert!(advised.is_ok());
        }
        self.lost.set(self.lost.get() | units);
        self.taken.set(self.taken.get() | units);
        bytes_of(units)
    }
}

fn bytes_of(units: u32) -> usize {
    units.count_ones() as usize * UNIT_BYTES
}

/// The units `first..first + count` of a chunk, a bit each.
fn units_mask(first: usize, count: usize) -> u32 {
    let ones = u64::MAX >> (u64::BITS as usize - count);
    u32::try_from(ones << first & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

/// A part of a chunk, which is nobody else's.
pub(crate) struct Piece {
    chunk: Rc<Chunk>,
    first: usize,
    /// A power of two.
    units: usize,
}

impl Piece {
    pub(crate) fn len(&self) -> usize {
        self.units * UNIT_BYTES
    }

    /// Keeps the first `bytes` of it, rounded up to units.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let units = bytes.div_ceil(UNIT_BYTES).min(self.units);
        let surplus = units_mask(self.first, self.units) & !units_mask(self.first, units);
        self.chunk.taken.set(self.chunk.taken.get() & !surplus);
        self.units = units;
    }

    fn pointer(&self) -> *mut u8 {
        // SAFETY: the units of a piece are within its chunk.
        unsafe { self.chunk.start.as_ptr().add(self.first * UNIT_BYTES) }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: initialised memory of a mapping that lives as long as the piece; by the invariant nobody else has it, and who changes
        // it borrows the piece mutably.
        unsafe { std::slice::from_raw_parts(self.pointer(), self.len()) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; this borrow is the only one.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(), self.len()) }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.chunk.taken.set(self.chunk.taken.get() & !units_mask(self.first, self.units));
    }
}
