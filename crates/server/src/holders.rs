//! Who holds memory for a body that is still arriving, and who of them gives way while others wait for some.
//!
//! Nobody is judged while nobody waits. While somebody does:
//!
//! - A body is trusted with room for all of it as long as it moves: [`STEP_BYTES`] every [`STALL`]. One that does not is *slow* from
//!   then on: it keeps room for what it has and gets more only as it has filled that, twice as much each time.
//! - Slow bodies, and those that wait for more room while they hold some, have at most half of the memory. Where slow ones have more,
//!   those that have not moved for longest are ended.
//!
//! So whoever holds memory without using it holds about what it has sent, and half of the memory goes from hand to hand: who is fast
//! is served, however many slow ones there are. Since holders that wait have at most half, they cannot wait for each other for ever.

use buddy_ring::BufferPool;
use slab::Slab;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// A body that has not moved for so long is slow.
pub(crate) const STALL: Duration = Duration::from_millis(50);
/// Fewer bytes than this are no move.
const STEP_BYTES: usize = 4096;
/// The part of the memory that slow bodies may have: one in so many.
const SLOW_SHARE: usize = 2;

/// What a holder is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Demand {
    /// To give back what it has not filled.
    Shrink,
    /// To give back everything.
    End,
}

/// How a holder may be served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Room {
    /// It is given back and taken as the body arrives.
    Elastic,
    /// It is needed as a whole.
    Fixed,
}

/// One body, and its memory.
struct Holder {
    connection: usize,
    room: Room,
    size: usize,
    filled: usize,
    /// What was filled when it last moved …
    filled_then: usize,
    /// … and when that was.
    moved_at: Instant,
    is_slow: bool,
    waits: bool,
    demand: Option<Demand>,
}

impl Holder {
    /// What it keeps when it shrinks. There is always room to go on.
    fn size_needed(&self) -> usize {
        match self.room {
            Room::Elastic => BufferPool::size_for(self.filled + 1).min(self.size),
            Room::Fixed => self.size,
        }
    }

    /// What it has when it has done what it was asked to.
    fn size_to_be(&self) -> usize {
        match self.demand {
            None => self.size,
            Some(Demand::Shrink) => self.size_needed(),
            Some(Demand::End) => 0,
        }
    }
}

/// All of a worker.
pub(crate) struct Holders {
    holders: Slab<Holder>,
    slow_bytes_max: usize,
}

impl Holders {
    /// For memory of so many bytes.
    pub(crate) fn new(limit_bytes: usize) -> Holders {
        Holders { holders: Slab::new(), slow_bytes_max: limit_bytes / SLOW_SHARE }
    }

    /// A body begins to arrive on a connection, in `size` bytes. Returns its key.
    pub(crate) fn insert(&mut self, connection: usize, room: Room, size: usize, now: Instant) -> usize {
        self.holders.insert(Holder {
            connection,
            room,
            size,
            filled: 0,
            filled_then: 0,
            moved_at: now,
            is_slow: false,
            waits: false,
            demand: None,
        })
    }

    /// A body has arrived, or is given up.
    pub(crate) fn remove(&mut self, key: usize) {
        self.holders.try_remove(key);
    }

    /// So much of a body has arrived.
    pub(crate) fn moved(&mut self, key: usize, filled: usize, now: impl FnOnce() -> Instant) {
        if let Some(holder) = self.holders.get_mut(key) {
            holder.filled = filled;
            if filled >= holder.filled_then.saturating_add(STEP_BYTES) {
                (holder.filled_then, holder.moved_at) = (filled, now());
            }
        }
    }

    /// So much more of it is done.
    pub(crate) fn advanced(&mut self, key: usize, bytes: usize, now: impl FnOnce() -> Instant) {
        if let Some(filled) = self.holders.get(key).map(|holder| holder.filled) {
            self.moved(key, filled.saturating_add(bytes), now);
        }
    }

    /// What a body was asked to do and has not done, and the size that it may keep.
    pub(crate) fn demand(&self, key: usize) -> Option<(Demand, usize)> {
        let holder = self.holders.get(key)?;
        Some((holder.demand?, holder.size_needed()))
    }

    /// A body has shrunk or grown.
    pub(crate) fn resized(&mut self, key: usize, size: usize) {
        if let Some(holder) = self.holders.get_mut(key) {
            holder.size = size;
            holder.demand = holder.demand.filter(|demand| *demand != Demand::Shrink);
        }
    }

    /// The size for a body that needs room for `needed` bytes now, and for `all` in the end.
    pub(crate) fn larger_size(&self, key: usize, needed: usize, all: usize) -> usize {
        match self.holders.get(key) {
            Some(holder) if holder.is_slow => needed.max(holder.size * 2).min(all),
            _ => all,
        }
    }

    /// A body begins to wait in line for more room. False where those that wait would hold too much.
    pub(crate) fn begin_waiting(&mut self, key: usize) -> bool {
        let waiting: usize =
            self.holders.iter().filter(|(_, holder)| holder.waits).map(|(_, holder)| holder.size).sum();
        match self.holders.get_mut(key) {
            Some(holder) if waiting + holder.size <= self.slow_bytes_max => {
                holder.waits = true;
                true
            }
            _ => false,
        }
    }

    /// It waits no longer: it was not to blame for the time.
    pub(crate) fn end_waiting(&mut self, key: usize, now: Instant) {
        if let Some(holder) = self.holders.get_mut(key) {
            (holder.waits, holder.moved_at) = (false, now);
        }
    }

    /// Judges all of them, because somebody waits. Returns the connections of those that are asked to do something now.
    pub(crate) fn review(&mut self, now: Instant) -> Vec<usize> {
        let mut asked = Vec::new();
        let mut slow_bytes = 0;
        for (_, holder) in &mut self.holders {
            let is_stalled = now.saturating_duration_since(holder.moved_at) >= STALL;
            if is_stalled && !holder.is_slow && !holder.waits {
                holder.is_slow = true;
                if holder.size_needed() < holder.size {
                    holder.demand = Some(Demand::Shrink);
                    asked.push(holder.connection);
                }
            }
            if holder.is_slow || holder.waits {
                slow_bytes += holder.size_to_be();
            }
        }
        if slow_bytes > self.slow_bytes_max {
            self.end_some(slow_bytes, &mut asked);
        }
        asked
    }

    /// Ends those that have not moved for longest, until slow ones have no more than they may.
    fn end_some(&mut self, mut slow_bytes: usize, asked: &mut Vec<usize>) {
        let slow = self.holders.iter().filter(|(_, holder)| holder.is_slow && !holder.waits);
        let receiving = slow.filter(|(_, holder)| holder.demand != Some(Demand::End));
        let mut oldest: BinaryHeap<_> = receiving.map(|(key, holder)| Reverse((holder.moved_at, key))).collect();
        while slow_bytes > self.slow_bytes_max
            && let Some(Reverse((_, key))) = oldest.pop()
            && let Some(holder) = self.holders.get_mut(key)
        {
            slow_bytes -= holder.size_to_be();
            holder.demand = Some(Demand::End);
            asked.push(holder.connection);
        }
    }
}

#[cfg(test)]
mod tests;
