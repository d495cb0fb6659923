//! Space: which extents are free, held, or waiting for readers, and when the file must grow. Pure bookkeeping; the files are
//! the controller's.
//!
//! Every page of the file is free (in the allocator), held (in a pool or a request), occupied (by a name), or draining (its name
//! is removed, and a reader or a power cut could still find it), or quarantined (its bytes are damaged). Debug builds keep a ledger of all of them and check each
//! passage.

use super::ledger::{Ledger, Owner};
use super::ports::WorkerId;
use crate::allocator::Allocator;
use crate::clock::{Clock, Held};
use crate::extent::{Extent, ExtentRun, MACROBLOCK_BYTES, SizeClass};
use crate::messages::RequestId;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Growth begins with this many macroblocks at a time …
const GROWTH_MACROBLOCKS_MIN: u64 = 4;
/// … and doubles up to this many while it is asked for again and again.
const GROWTH_MACROBLOCKS_MAX: u64 = 64;
/// Growth that is asked for again within this time is too small.
const GROWTH_PACE: Duration = Duration::from_secs(1);
/// After growth was refused it is tried again only after this time: space may have been made on the disk.
const GROWTH_RETRY: Duration = Duration::from_secs(1);

/// Where the file cannot grow a request gets at most one part in this many of what is free.
const SHARE_OF_THE_LAST: u64 = 16;

/// A request for extents that could not be answered yet.
#[derive(Clone, Copy)]
pub(crate) struct Starved {
    pub(crate) worker: WorkerId,
    pub(crate) id: RequestId,
    pub(crate) class: SizeClass,
    pub(crate) count: u32,
    pub(crate) since: Instant,
}

/// Where the search for space stands when the file cannot grow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Recall {
    NotAsked,
    /// This many answers are still to come.
    Asked(usize),
}

/// A recall empties every pool: after one that found nothing, shortages within this time are not worth another, unless something
/// was freed since.
const RECALL_PACE: Duration = Duration::from_millis(100);

pub(crate) struct Space {
    allocator: Allocator,
    held: Held,
    /// Removed, but not durably yet: with the sequence numbers of their removals, ascending.
    undurable: VecDeque<(u64, Extent)>,
    pub(crate) starved: VecDeque<Starved>,
    recall: Recall,
    /// When a recall found nothing, if nothing was freed since.
    recalled_in_vain: Option<Instant>,
    capacity_bytes: Option<u64>,
    growing: bool,
    growth_macroblocks: u64,
    growth_began: Option<Instant>,
    growth_refused: Option<Instant>,
    ledger: Ledger,
}

/// What can be done for requests that starve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Relief {
    /// Something is under way that may free or add space.
    Wait,
    /// Let the file grow by this many macroblocks.
    Grow(u64),
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
            recall: Recall::NotAsked,
            recalled_in_vain: None,
            capacity_bytes,
            growing: false,
            growth_macroblocks: GROWTH_MACROBLOCKS_MIN,
            growth_began: None,
            growth_refused: None,
        }
    }

    pub(crate) fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// Hands out blank extents: at least one, or none where there is no space now. Where the file cannot grow, nobody gets more than a
    /// share of what is left, however much was asked for: others wait for the rest.
    pub(crate) fn allocate(&mut self, class: SizeClass, count: u32) -> Vec<ExtentRun> {
        let count = if self.cannot_grow() {
            let share = self.allocator.free_bytes() / SHARE_OF_THE_LAST / class.bytes();
            count.min(u32::try_from(share).unwrap_or(u32::MAX)).max(1)
        } else {
            count
        };
        let mut runs = Vec::new();
        self.allocator.allocate(class, count, &mut runs);
        for extent in runs.iter().copied().flatten() {
            self.ledger.pass(extent, Owner::Free, Owner::Held);
        }
        runs
    }

    /// Takes blank extents back: they were never named, so nobody can be reading them.
    pub(crate) fn take_back(&mut self, runs: Vec<ExtentRun>) {
        for extent in runs.into_iter().flatten() {
            self.recalled_in_vain = None;
            self.ledger.pass(extent, Owner::Held, Owner::Free);
            self.allocator.release(extent);
        }
    }

    /// False where no block can lie: beyond the file, or in what is free.
    pub(crate) fn can_be_occupied(&self, extent: Option<Extent>) -> bool {
        extent.is_none_or(|extent| extent.end() <= self.allocator.file_bytes() && !self.allocator.overlaps_free(extent))
    }

    /// A held extent is a block's from now on.
    pub(crate) fn occupy(&mut self, extent: Extent) {
        self.ledger.pass(extent, Owner::Held, Owner::Occupied);
    }

    /// A block's extent is nobody's from now on.
    pub(crate) fn quarantine(&mut self, extent: Extent) {
        self.ledger.pass(extent, Owner::Occupied, Owner::Quarantined);
    }

    /// The removal `sequence` of an extent's name is published.
    pub(crate) fn remove(&mut self, sequence: u64, extent: Extent) {
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
        let (allocator, ledger, in_vain) = (&mut self.allocator, &mut self.ledger, &mut self.recalled_in_vain);
        self.held.drain(clock, |extent| {
            *in_vain = None;
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
        if self.growing {
            return Relief::Wait;
        }
        if let Some(macroblocks) = self.growth(now) {
            return Relief::Grow(macroblocks);
        }
        match self.recall {
            Recall::NotAsked
                if self.recalled_in_vain.is_some_and(|at| now.saturating_duration_since(at) < RECALL_PACE) =>
            {
                Relief::None
            }
            Recall::NotAsked => Relief::Recall,
            Recall::Asked(1..) => Relief::Wait,
            Recall::Asked(0) if !self.held.only_pinned() || self.waits_for_flush() => Relief::Wait,
            Recall::Asked(0) => {
                self.recalled_in_vain = Some(now);
                Relief::None
            }
        }
    }

    /// How many macroblocks to grow ahead of need, if free space runs low.
    pub(crate) fn growth_ahead(&mut self, now: Instant) -> Option<u64> {
        let low_water = self.growth_macroblocks * MACROBLOCK_BYTES / 2;
        if self.growing || self.allocator.free_bytes() >= low_water { None } else { self.growth(now) }
    }

    /// How many macroblocks the file can grow by now; `None` where it cannot.
    fn growth(&mut self, now: Instant) -> Option<u64> {
        if self.growth_refused.is_some_and(|refused| now.saturating_duration_since(refused) < GROWTH_RETRY) {
            return None;
        }
        let room = self
            .capacity_bytes
            .map_or(u64::MAX, |capacity| capacity.saturating_sub(self.allocator.file_bytes()) / MACROBLOCK_BYTES);
        if room == 0 {
            return None;
        }
        let hurried = self.growth_began.is_some_and(|began| now.saturating_duration_since(began) < GROWTH_PACE);
        self.growth_macroblocks = if hurried {
            (self.growth_macroblocks * 2).min(GROWTH_MACROBLOCKS_MAX)
        } else {
            (self.growth_macroblocks / 2).max(GROWTH_MACROBLOCKS_MIN)
        };
        Some(self.growth_macroblocks.min(room))
    }

    /// Growth has begun.
    pub(crate) fn growth_begins(&mut self, now: Instant) {
        self.growing = true;
        self.growth_began = Some(now);
    }

    /// Growth has ended: the file has `macroblocks` more, zeroed and flushed. `refused`: the disk gave less than was asked.
    pub(crate) fn grown(&mut self, macroblocks: u64, refused: bool, now: Instant) {
        self.growing = false;
        self.growth_refused = refused.then_some(now);
        self.ledger.grow(macroblocks);
        self.allocator.grow(macroblocks);
    }

    /// True where the file cannot grow and little is free: pools should keep next to nothing.
    pub(crate) fn is_short(&self) -> bool {
        self.cannot_grow() && self.allocator.free_bytes() < self.allocator.file_bytes() / 16
    }

    /// True where the capacity is reached, or the disk gave less than was asked when the file was to grow.
    fn cannot_grow(&self) -> bool {
        let full =
            self.capacity_bytes.is_some_and(|capacity| self.allocator.file_bytes() + MACROBLOCK_BYTES > capacity);
        full || self.growth_refused.is_some()
    }

    /// The workers were asked; `answers` will come.
    pub(crate) fn recall_asked(&mut self, answers: usize) {
        self.recall = Recall::Asked(answers);
    }

    /// Workers have answered, each for one class, or have left without.
    pub(crate) fn recall_answered(&mut self, count: usize) {
        if let Recall::Asked(answers) = &mut self.recall {
            *answers = answers.saturating_sub(count);
        }
    }

    /// True while answers of a recall are to come: there is one recall at a time.
    pub(crate) fn is_recalling(&self) -> bool {
        matches!(self.recall, Recall::Asked(1..))
    }

    /// Nobody starves any more: the next shortage begins with a recall again.
    pub(crate) fn recall_is_over(&mut self) {
        if !self.is_recalling() {
            self.recall = Recall::NotAsked;
        }
    }

    /// Debug builds: free, held, occupied and draining pages tile the file.
    pub(crate) fn check(&self) {
        self.ledger.check(&self.allocator);
    }
}
