//! Space: which extents are free, held, or waiting for readers, and when there must be more. Pure bookkeeping; the files are the
//! controller's.
//!
//! Every page of the file is free (in the allocator), held (in a pool or a request), occupied (by a name), or draining (its name is
//! removed, and a reader or a power cut could still find it), or quarantined (its bytes are damaged). Debug builds keep a ledger of all
//! of them and check each passage.

mod making;
#[cfg(test)]
mod tests;

pub(crate) use making::Relief;

use super::ahead::Ahead;
use super::ledger::{Ledger, Owner};
use super::ports::WorkerId;
use super::recall::Recall;
use super::zeros::Zeros;
use crate::allocator::Allocator;
use crate::clock::{Clock, Held};
use crate::extent::{Extent, ExtentRun, MACROBLOCKS_MAX, SIZE_CLASSES, SizeClass, macroblocks_in};
use crate::free_set::FreeSet;
use crate::messages::RequestId;
use crate::session::POOLS_BYTES_MAX;
use std::collections::VecDeque;
use std::time::Instant;

/// Where the file cannot grow a request gets at most one part in this many of what is free.
const SHARE_OF_THE_LAST: u64 = 16;

/// A request for extents, which waits where there are none.
#[derive(Clone, Copy)]
pub(crate) struct AllocationRequest {
    pub(crate) worker: WorkerId,
    pub(crate) id: RequestId,
    pub(crate) class: SizeClass,
    pub(crate) count: u32,
    /// For blocks that fill their extents.
    pub(crate) whole: bool,
    pub(crate) since: Instant,
}

pub(crate) struct Space {
    allocator: Allocator,
    held: Held,
    /// Removed, and read by nobody any more.
    unread: VecDeque<Extent>,
    /// So many were taken from there and are not free yet.
    being_forgotten: usize,
    /// Removed, but not durably yet: with the sequence numbers of their removals, ascending.
    undurable: VecDeque<(u64, Extent)>,
    /// Requests that wait for space.
    pub(crate) starved: VecDeque<AllocationRequest>,
    pub(super) recall: Recall,
    macroblocks_max: u64,
    /// What the pools of all workers may hold: where more is free, nobody need save.
    short_bytes: u64,
    growth: Ahead,
    zeros: Zeros,
    /// Of the largest class: handed out unwritten, and neither named nor given back since.
    held_unwritten: FreeSet,
    ledger: Ledger,
}

/// How many macroblocks the data file may have, with a capacity or without.
fn macroblocks_max(capacity_bytes: Option<u64>) -> u64 {
    capacity_bytes.map_or(MACROBLOCKS_MAX, macroblocks_in)
}

impl Space {
    /// Of a file that may have so many bytes, for the pools of so many workers.
    pub(crate) fn new(allocator: Allocator, capacity_bytes: Option<u64>, workers: usize) -> Space {
        Space {
            ledger: Ledger::new(&allocator),
            allocator,
            held: Held::default(),
            unread: VecDeque::new(),
            being_forgotten: 0,
            undurable: VecDeque::new(),
            starved: VecDeque::new(),
            recall: Recall::default(),
            macroblocks_max: macroblocks_max(capacity_bytes),
            short_bytes: POOLS_BYTES_MAX.saturating_mul(workers as u64),
            growth: Ahead::default(),
            zeros: Zeros::default(),
            held_unwritten: FreeSet::default(),
        }
    }

    pub(crate) fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// Numbers of free extents, by size class.
    pub(crate) fn free_counts(&self) -> [u64; SIZE_CLASSES] {
        let mut counts = self.allocator.free_counts();
        if let Some(largest) = counts.last_mut() {
            *largest += self.zeros.taken();
        }
        counts
    }

    /// Hands out blank extents: at least one, or none where there is no space now. Where the file cannot grow, nobody gets more than a
    /// share of what is left, however much was asked for: others wait for the rest. `whole`: for blocks that fill them, which may be the
    /// first to write there; any other would leave the rest of its extent unwritten.
    pub(crate) fn allocate(&mut self, class: SizeClass, count: u32, whole: bool) -> Vec<ExtentRun> {
        let count = if self.cannot_grow() {
            let share = self.allocator.free_bytes() / SHARE_OF_THE_LAST / class.bytes();
            count.min(u32::try_from(share).unwrap_or(u32::MAX)).max(1)
        } else {
            count
        };
        let mut runs = Vec::new();
        let mut missing = count;
        if whole && self.allocator.written_bytes() <= self.zeros.low_water_bytes() {
            // What has been written is kept for those who need that.
            missing -= self.take_unwritten(missing, &mut runs);
        }
        missing -= self.allocator.allocate(class, missing, &mut runs);
        if whole {
            self.take_unwritten(missing, &mut runs);
        } else if runs.is_empty() && !self.zeros.are_worth_waiting_for() {
            self.allocate_ahead_of_zeros(class, missing, &mut runs);
        }
        for extent in runs.iter().copied().flatten() {
            self.ledger.pass(extent, Owner::Free, Owner::Held);
        }
        runs
    }

    fn take_unwritten(&mut self, count: u32, runs: &mut Vec<ExtentRun>) -> u32 {
        let mut unwritten = Vec::new();
        let taken = self.allocator.take_unwritten(count, &mut unwritten);
        for extent in unwritten.iter().copied().flatten() {
            self.held_unwritten.insert(extent.number());
        }
        runs.append(&mut unwritten);
        taken
    }

    fn allocate_ahead_of_zeros(&mut self, class: SizeClass, count: u32, runs: &mut Vec<ExtentRun>) {
        let wanted = u64::from(count) * class.bytes();
        let extents = wanted.div_ceil(SizeClass::LARGEST.bytes());
        self.allocator.count_as_written(u32::try_from(extents).unwrap_or(u32::MAX));
        let taken = self.allocator.allocate(class, count, runs);
        self.zeros.given_out(u64::from(taken) * class.bytes());
    }

    /// Whether this extent was handed out unwritten. True only once.
    fn was_unwritten(&mut self, extent: Extent) -> bool {
        extent.class() == SizeClass::LARGEST && self.held_unwritten.remove(extent.number())
    }

    /// Takes blank extents back: they were never named, so nobody can be reading them.
    pub(crate) fn take_back(&mut self, runs: Vec<ExtentRun>) {
        for extent in runs.into_iter().flatten() {
            self.recall.something_was_freed();
            self.ledger.pass(extent, Owner::Held, Owner::Free);
            if self.was_unwritten(extent) {
                self.allocator.release_unwritten(extent);
            } else {
                self.allocator.release(extent);
            }
        }
    }

    /// False where no block can lie: beyond the file, or in what is free.
    pub(crate) fn can_be_occupied(&self, extent: Option<Extent>) -> bool {
        extent.is_none_or(|extent| extent.end() <= self.allocator.file_bytes() && !self.allocator.overlaps_free(extent))
    }

    /// A held extent is a block's from now on.
    pub(crate) fn occupy(&mut self, extent: Extent) {
        self.was_unwritten(extent);
        self.ledger.pass(extent, Owner::Held, Owner::Occupied);
    }

    /// A block's extent is nobody's from now on.
    pub(crate) fn quarantine(&mut self, extent: Extent) {
        self.ledger.pass(extent, Owner::Occupied, Owner::Quarantined);
    }

    /// The removal `sequence` of an extent's name is published.
    pub(crate) fn remove(&mut self, sequence: u64, extent: Extent) {
        self.recall.something_was_freed();
        self.ledger.pass(extent, Owner::Occupied, Owner::Draining);
        self.undurable.push_back((sequence, extent));
    }

    /// Removals up to `sequence` are durable. The removals must have been published before: their extents are tagged now.
    pub(crate) fn removals_are_durable(&mut self, sequence: u64, clock: &Clock) {
        if self.undurable.front().is_none_or(|(removal, _)| *removal > sequence) {
            return;
        }
        let tag = clock.tag_removals();
        while let Some((_, extent)) = self.undurable.pop_front_if(|(removal, _)| *removal <= sequence) {
            self.held.push(tag, extent);
        }
    }

    /// Finds out what nobody can read any more: [`Space::take_unread`].
    pub(crate) fn drain(&mut self, clock: &Clock) {
        self.held.drain(clock, |extent| self.unread.push_back(extent));
    }

    /// True where there are extents that nobody can read any more.
    pub(crate) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// An extent that is to be freed as soon as the page cache has forgotten it, so that the next block there is never seen with old
    /// bytes.
    pub(crate) fn take_unread(&mut self) -> Option<Extent> {
        let extent = self.unread.pop_front()?;
        self.being_forgotten += 1;
        Some(extent)
    }

    /// Frees what [`Space::take_unread`] gave.
    pub(crate) fn free_unread(&mut self, extent: Extent) {
        self.being_forgotten -= 1;
        self.recall.something_was_freed();
        self.ledger.pass(extent, Owner::Draining, Owner::Free);
        self.allocator.release(extent);
    }

    /// Lets the next [`Space::drain`] look at what long reads hold.
    pub(crate) fn look_at_pins_again(&mut self) {
        self.held.look_at_pins_again();
    }

    /// True while removed extents wait for readers.
    pub(crate) fn is_draining(&self) -> bool {
        !self.held.is_empty()
    }

    /// True while removals wait to become durable.
    pub(crate) fn waits_for_flush(&self) -> bool {
        !self.undurable.is_empty()
    }

    /// True while removed extents become free soon, however long clients read.
    fn is_freeing(&self) -> bool {
        self.waits_for_flush() || self.has_unread() || self.being_forgotten > 0 || !self.held.only_pinned()
    }

    /// True where the file cannot grow and little is free, of it and of what pools may hold: they should keep next to nothing.
    pub(crate) fn is_short(&self) -> bool {
        let little = (self.allocator.file_bytes() / 16).min(self.short_bytes);
        self.cannot_grow() && self.allocator.free_bytes() < little
    }

    /// True where the capacity is reached, or the disk gave less than was asked when the file was to grow.
    fn cannot_grow(&self) -> bool {
        self.allocator.macroblocks() >= self.macroblocks_max || self.growth.was_refused()
    }

    /// Debug builds: free, held, occupied and draining pages tile the file.
    pub(crate) fn check(&self) {
        self.ledger.check(&self.allocator);
    }
}
