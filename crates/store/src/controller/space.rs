//! Space: which extents are free, held, or waiting for readers, and when the file must grow. Pure bookkeeping; the files are
//! the controller's.
//!
//! Every page of the file is free (in the allocator), held (in a pool or a request), occupied (by a name), or draining (its name
//! is removed, and a reader or a power cut could still find it), or quarantined (its bytes are damaged). Debug builds keep a ledger of all of them and check each
//! passage.

use super::ahead::Ahead;
use super::ledger::{Ledger, Owner};
use super::ports::WorkerId;
use super::recall::{Recall, Search};
use super::zeros::Zeros;
use crate::allocator::Allocator;
use crate::clock::{Clock, Held};
use crate::extent::{Extent, ExtentRun, MACROBLOCK_BYTES, SIZE_CLASSES, SizeClass};
use crate::free_set::FreeSet;
use crate::messages::RequestId;
use std::collections::VecDeque;
use std::time::Instant;

/// The file grows by up to this many macroblocks at a time while it is asked for again and again …
const GROWTH_MACROBLOCKS_MAX: u64 = 256;
/// … a large file by one part in this many of it, because writes wait while the file system sets space aside …
const GROWTH_PART: u64 = 8;
/// … but by no more than this.
const GROWTH_MACROBLOCKS_LIMIT: u64 = 512;

/// Where the file cannot grow a request gets at most one part in this many of what is free.
const SHARE_OF_THE_LAST: u64 = 16;

/// A request for extents that could not be answered yet.
#[derive(Clone, Copy)]
pub(crate) struct Starved {
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
    /// Removed, but not durably yet: with the sequence numbers of their removals, ascending.
    undurable: VecDeque<(u64, Extent)>,
    pub(crate) starved: VecDeque<Starved>,
    pub(super) recall: Recall,
    capacity_bytes: Option<u64>,
    growth: Ahead,
    zeros: Zeros,
    /// Of the largest class: handed out unwritten, and neither named nor given back since.
    held_unwritten: FreeSet,
    ledger: Ledger,
}

/// What can be done for requests that starve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Relief {
    /// Something is under way that may free or add space.
    Wait,
    /// Let the file grow by this many macroblocks.
    Grow(u64),
    /// Write zeros to so many unwritten extents.
    Zero(u32),
    /// Ask the workers for what their pools do not need.
    Recall,
    /// There is nothing left to try.
    None,
}

impl Space {
    pub(crate) fn new(allocator: Allocator, capacity_bytes: Option<u64>) -> Space {
        Space {
            ledger: Ledger::new(&allocator),
            allocator,
            held: Held::default(),
            undurable: VecDeque::new(),
            starved: VecDeque::new(),
            recall: Recall::default(),
            capacity_bytes,
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

    /// Whether those who starve wait for zeros that come slowly: then they need not wait any longer.
    pub(crate) fn look_at_zeros(&mut self, now: Instant) {
        if self.starved.iter().any(|request| !request.whole) {
            self.zeros.are_waited_for(now);
        }
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

    /// Frees what nobody can read any more. `forget` makes the page cache forget the range first, so that the next block there
    /// is never seen with old bytes.
    pub(crate) fn drain(&mut self, clock: &Clock, mut forget: impl FnMut(Extent)) {
        let (allocator, ledger, recall) = (&mut self.allocator, &mut self.ledger, &mut self.recall);
        self.held.drain(clock, |extent| {
            recall.something_was_freed();
            forget(extent);
            ledger.pass(extent, Owner::Draining, Owner::Free);
            allocator.release(extent);
        });
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

    /// What can be done for those who starve.
    pub(crate) fn relief(&mut self, now: Instant) -> Relief {
        let starves = |whole: bool| self.starved.iter().any(|request| request.whole == whole);
        let (whole, other) = (starves(true), starves(false));
        if other && let Some(extents) = self.zeroing(now) {
            return Relief::Zero(extents);
        }
        if (whole || self.allocator.unwritten_bytes() == 0)
            && let Some(macroblocks) = self.growth(now)
        {
            return Relief::Grow(macroblocks);
        }
        if self.growth.is_running() || self.zeros.are_coming() {
            return Relief::Wait;
        }
        match self.recall.stands(now) {
            Search::Due => Relief::Recall,
            Search::InVain => Relief::None,
            Search::UnderWay => Relief::Wait,
            Search::Over if !self.held.only_pinned() || self.waits_for_flush() => Relief::Wait,
            Search::Over => {
                self.recall.was_in_vain(now);
                Relief::None
            }
        }
    }

    /// How many macroblocks to grow ahead of need, if free space runs low, or is called short because the file could not grow the last
    /// time. Not where zeros fail: they would there, too.
    pub(crate) fn growth_ahead(&mut self, now: Instant) -> Option<u64> {
        let low = self.allocator.free_bytes() < self.growth.low_water_bytes() || self.is_short();
        if low && !self.zeros.fail() { self.growth(now) } else { None }
    }

    /// To how many unwritten extents to write zeros ahead of need, if what has been written runs low.
    pub(crate) fn zeroing_ahead(&mut self, now: Instant) -> Option<u32> {
        if self.allocator.written_bytes() >= self.zeros.low_water_bytes() { None } else { self.zeroing(now) }
    }

    /// How many macroblocks the file can grow by now; `None` where it cannot.
    fn growth(&mut self, now: Instant) -> Option<u64> {
        let file = self.allocator.macroblocks();
        let room = self.capacity_bytes.map_or(u64::MAX, |capacity| (capacity / MACROBLOCK_BYTES).saturating_sub(file));
        let at_most = (file / GROWTH_PART).clamp(GROWTH_MACROBLOCKS_MAX, GROWTH_MACROBLOCKS_LIMIT);
        self.growth.next(at_most.min(room), now)
    }

    /// To how many unwritten extents zeros can be written now; `None` where to none. Where the file cannot grow some of them are kept
    /// for those who cannot wait.
    fn zeroing(&mut self, now: Instant) -> Option<u32> {
        let unwritten = self.allocator.unwritten_bytes();
        self.zeros.next(if self.cannot_grow() { unwritten.div_ceil(2) } else { unwritten }, now)
    }

    /// Whether the disk gave less than was asked the last time.
    pub(crate) fn growth_was_refused(&self) -> bool {
        self.growth.was_refused()
    }

    /// Growth has begun.
    pub(crate) fn growth_begins(&mut self, now: Instant) {
        self.growth.begin(now);
    }

    /// Growth has ended: the file has `macroblocks` more, durably. `count_as_written`: they are full of zeros, or need none.
    /// `refused`: the disk gave less than was asked.
    pub(crate) fn grown(&mut self, macroblocks: u64, count_as_written: bool, refused: bool, now: Instant) {
        self.growth.end(refused, now);
        self.ledger.grow(macroblocks);
        if count_as_written {
            self.allocator.grow(macroblocks);
        } else {
            self.allocator.grow_unwritten(macroblocks);
        }
    }

    /// Takes up to `count` unwritten extents, to write zeros to them.
    pub(crate) fn zeroing_begins(&mut self, count: u32, now: Instant) -> Vec<Extent> {
        let mut runs = Vec::new();
        self.allocator.take_unwritten(count, &mut runs);
        let extents: Vec<_> = runs.into_iter().flatten().collect();
        self.zeros.begin(extents.len() as u64, now);
        for extent in &extents {
            self.ledger.pass(*extent, Owner::Free, Owner::Held);
        }
        extents
    }

    /// Whether the step of zeros that is under way is to end early: somebody waits for space, and zeros lag.
    pub(crate) fn wants_back_what_is_not_zeroed(&self) -> bool {
        self.zeros.lag() && !self.starved.is_empty()
    }

    /// Zeros were written to some extents, durably; others are as they were.
    pub(crate) fn zeroed(&mut self, written: &[Extent], unwritten: &[Extent], now: Instant) {
        self.zeros.end(written.len() as u64, unwritten.len() as u64, now);
        for extent in written.iter().chain(unwritten) {
            self.ledger.pass(*extent, Owner::Held, Owner::Free);
        }
        written.iter().for_each(|extent| self.allocator.release(*extent));
        unwritten.iter().for_each(|extent| self.allocator.release_unwritten(*extent));
    }

    /// True where the file cannot grow and little is free: pools should keep next to nothing.
    pub(crate) fn is_short(&self) -> bool {
        self.cannot_grow() && self.allocator.free_bytes() < self.allocator.file_bytes() / 16
    }

    /// True where the capacity is reached, or the disk gave less than was asked when the file was to grow.
    fn cannot_grow(&self) -> bool {
        let full =
            self.capacity_bytes.is_some_and(|capacity| self.allocator.file_bytes() + MACROBLOCK_BYTES > capacity);
        full || self.growth.was_refused()
    }

    /// Debug builds: free, held, occupied and draining pages tile the file.
    pub(crate) fn check(&self) {
        self.ledger.check(&self.allocator);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::PAGE_BYTES;
    use std::time::Duration;

    fn starved(space: &mut Space, class: SizeClass) {
        space.starved.push_back(Starved { worker: 0, id: 1, class, count: 1, whole: false, since: Instant::now() });
    }

    #[test]
    fn whole_blocks_take_what_nobody_has_written_and_others_wait_for_zeros() {
        let (mut space, now) = (Space::new(Allocator::new(), None), Instant::now());
        let (large, small) = (SizeClass::LARGEST, SizeClass::SMALLEST);
        starved(&mut space, small);
        assert_eq!(space.relief(now), Relief::Grow(4));
        space.growth_begins(now);
        assert_eq!(space.relief(now), Relief::Wait);
        space.grown(4, false, false, now);
        assert_eq!(space.allocate(large, 2, true).into_iter().flatten().count(), 2);
        assert!(space.allocate(small, 1, false).is_empty(), "nothing of it is split before zeros are written");
        assert!(space.allocate(large, 1, false).is_empty(), "nor written in part");
        assert_eq!(space.relief(now), Relief::Zero(6));
        let extents = space.zeroing_begins(4, now);
        assert_eq!((extents.len(), space.free_counts()[7]), (4, 6), "free, if not at hand");
        assert_eq!(space.relief(now), Relief::Wait);
        let (written, unwritten) = extents.split_at(3);
        space.zeroed(written, unwritten, now);
        assert_eq!(space.relief(now), Relief::Recall, "not again at once where the disk has no space");
        let taken: Vec<_> = space.allocate(small, 1, false).into_iter().flatten().collect();
        assert_eq!(taken[0].offset(), written[0].offset());
        // What has been written is kept for small blocks while there is little of it.
        let last: Vec<_> = space.allocate(large, 3, true).into_iter().flatten().collect();
        assert_eq!(last[..3].iter().map(|extent| extent.number()).collect::<Vec<_>>(), [5, 6, 7]);
        assert_eq!(space.allocator().free_bytes(), 3 * large.bytes() - PAGE_BYTES);
        assert_eq!(
            space.allocate(large, 3, true).into_iter().flatten().count(),
            2,
            "but not from those who find nothing else"
        );
        space.check();
    }

    /// A file of one macroblock, which cannot grow, and two blocks that fill it.
    fn full() -> (Space, Vec<Extent>) {
        let mut space = Space::new(Allocator::new(), Some(MACROBLOCK_BYTES));
        space.grown(1, true, false, Instant::now());
        let mut blocks = Vec::new();
        for _ in 0..2 {
            blocks.extend(space.allocate(SizeClass::LARGEST, 1, true).into_iter().flatten());
        }
        blocks.iter().for_each(|extent| space.occupy(*extent));
        (space, blocks)
    }

    #[test]
    fn a_removal_is_waited_for_even_after_a_search_in_vain() {
        let ((mut space, blocks), now) = (full(), Instant::now());
        starved(&mut space, SizeClass::SMALLEST);
        assert_eq!(space.relief(now), Relief::Recall);
        space.recall.asked(0);
        assert_eq!(space.relief(now), Relief::None);
        space.recall.is_over();
        assert_eq!(space.relief(now), Relief::None, "another search would be in vain");
        space.remove(1, blocks[0]);
        assert_eq!(space.relief(now), Relief::Recall);
        space.recall.asked(0);
        assert_eq!(space.relief(now), Relief::Wait, "until the removal is durable");
    }

    #[test]
    fn nobody_waits_for_zeros_that_the_disk_refuses() {
        let (mut space, now) = (Space::new(Allocator::new(), None), Instant::now());
        let small = SizeClass::SMALLEST;
        space.grown(4, false, false, now);
        let extents = space.zeroing_begins(8, now);
        space.zeroed(&extents[..1], &extents[1..], now);
        assert_eq!(
            space.allocate(small, 500, false).into_iter().flatten().count(),
            128,
            "what was written comes first"
        );
        assert_eq!(space.allocate(small, 1, false).into_iter().flatten().count(), 1);
        space.check();
    }

    #[test]
    fn what_comes_back_unwritten_is_unwritten() {
        let (mut space, now) = (Space::new(Allocator::new(), None), Instant::now());
        space.grown(4, false, false, now);
        let unwritten = space.allocator().unwritten_bytes();
        let runs = space.allocate(SizeClass::LARGEST, 3, true);
        space.take_back(runs);
        assert_eq!(space.allocator().unwritten_bytes(), unwritten);
        let named = space.allocate(SizeClass::LARGEST, 1, true).into_iter().flatten().next().unwrap();
        space.occupy(named);
        space.remove(1, named);
        let clock = Clock::new(1, 1);
        space.removals_are_durable(1, &clock);
        space.drain(&clock, |_| {});
        assert_eq!(space.allocator().unwritten_bytes(), unwritten - named.bytes(), "it has been written");
        space.check();
    }

    #[test]
    fn zeros_that_fail_everywhere_do_not_let_the_file_grow() {
        let (mut space, now) = (Space::new(Allocator::new(), None), Instant::now());
        space.grown(4, false, false, now);
        assert_eq!(space.zeroing_ahead(now), Some(8));
        let extents = space.zeroing_begins(8, now);
        assert_eq!(extents.len(), 8);
        space.zeroed(&[], &[], now);
        assert_eq!((space.growth_ahead(now), space.zeroing_ahead(now)), (None, None));
        starved(&mut space, SizeClass::SMALLEST);
        assert_eq!(space.relief(now), Relief::Grow(4), "for somebody who needs it");
    }

    #[test]
    fn zeros_leave_some_space_where_the_file_cannot_grow() {
        let (mut space, now) = (Space::new(Allocator::new(), Some(4 * MACROBLOCK_BYTES)), Instant::now());
        space.grown(4, false, false, now);
        starved(&mut space, SizeClass::SMALLEST);
        assert_eq!(space.relief(now), Relief::Zero(4));
        assert_eq!(space.zeroing_begins(4, now).len(), 4);
        let later = now + Duration::from_secs(2);
        assert!(!space.wants_back_what_is_not_zeroed());
        space.look_at_zeros(later);
        assert!(space.wants_back_what_is_not_zeroed());
        assert_eq!(space.allocate(SizeClass::SMALLEST, 1, false).len(), 1);
    }

    #[test]
    fn space_is_not_called_short_for_ever() {
        let (mut space, mut now) = (Space::new(Allocator::new(), None), Instant::now());
        space.grown(64, true, true, now);
        let mut held = Vec::new();
        while !space.is_short() {
            held.extend(space.allocate(SizeClass::LARGEST, 1, true));
        }
        assert!(space.allocator().free_bytes() > 2 * MACROBLOCK_BYTES, "more than the least");
        assert_eq!(space.growth_ahead(now), None, "the disk was full a moment ago");
        now += Duration::from_secs(2);
        assert_eq!(space.growth_ahead(now), Some(4));
        space.growth_begins(now);
        space.grown(4, true, false, now);
        assert!(!space.is_short());
    }

    #[test]
    fn nobody_waits_for_zeros_that_come_slowly() {
        let (mut space, mut now) = (Space::new(Allocator::new(), None), Instant::now());
        let small = SizeClass::SMALLEST;
        let slow = Duration::from_secs(2);
        space.grown(32, false, false, now);
        starved(&mut space, small);
        assert_eq!(space.relief(now), Relief::Zero(8));
        let extents = space.zeroing_begins(8, now);
        space.look_at_zeros(now);
        assert!(space.allocate(small, 1, false).is_empty(), "they may come at once");
        now += slow;
        space.look_at_zeros(now);
        assert_eq!(space.allocate(small, 600, false).into_iter().flatten().count(), 600);
        space.starved.clear();
        space.zeroed(&extents, &[], now);
        assert_eq!(space.zeroing_ahead(now), None, "more was asked for than half of what was made");
        assert_eq!(space.allocate(small, 2000, false).into_iter().flatten().count(), 40 + 8 * 128);
        now += slow;
        assert_eq!(space.zeroing_ahead(now), Some(8));
        let extents = space.zeroing_begins(8, now);
        assert_eq!(space.allocate(small, 500, false).into_iter().flatten().count(), 500);
        space.zeroed(&extents, &[], now);
        assert_eq!(space.allocate(small, 2000, false).into_iter().flatten().count(), 12 + 8 * 128);
        assert!(space.allocate(small, 1, false).is_empty(), "they keep up");
        assert_eq!(space.zeroing_ahead(now), Some(16));
        space.check();
    }
}
