//! When there must be more space, of which kind, and how much: the file grows, zeros are written, workers are asked for what their
//! pools do not need.

use super::Space;
use crate::controller::ledger::Owner;
use crate::controller::recall::Search;
use crate::extent::Extent;
use std::time::Instant;

/// The file grows by up to this many macroblocks at a time while it is asked for again and again …
const GROWTH_MACROBLOCKS_MAX: u64 = 256;
/// … a large file by one part in this many of it, because writes wait while the file system sets space aside …
const GROWTH_PART: u64 = 8;
/// … but by no more than this.
const GROWTH_MACROBLOCKS_LIMIT: u64 = 512;

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
            Search::Over if self.is_freeing() => Relief::Wait,
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
        let room = self.macroblocks_max.saturating_sub(file);
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

    /// Whether those who starve wait for zeros that come slowly: then they need not wait any longer.
    pub(crate) fn look_at_zeros(&mut self, now: Instant) {
        if self.starved.iter().any(|request| !request.whole) {
            self.zeros.are_waited_for(now);
        }
    }
}
