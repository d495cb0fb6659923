//! The reuse clock: an extent is handed out again only when nobody can still be reading what lay there.
//!
//! The protocol, strictly in this order:
//!
//! - A reader loads the clock, publishes that value as the oldest read of its worker (unless an older one stands), then a
//!   `SeqCst` fence, and only then looks the name up.
//! - The controller publishes a removal, then a `SeqCst` fence, tags the extent with the clock's value *t*, and advances the
//!   clock. The extent is free when every worker's published value is past *t*.
//!
//! Of the two fences one comes first. If the reader's does, the controller sees a published value of at most *t* and waits. If
//! the controller's does, the reader's look-up sees the removal and never learns of the extent.
//!
//! A read that lasts is *pinned*: its worker stores the extent in a slot and then raises its clock, so that a client that
//! trickles holds its own extent and not everybody's. The controller loads the clocks first and the slots after.

use crate::extent::{Extent, SizeClass};
use crate::sync::{AtomicU64, AtomicUsize, Ordering, fence, zeros};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// Published by a worker that reads nothing: past every tag.
const IDLE: u64 = u64::MAX;
/// A slot that holds no extent: memory that nobody has touched yet.
const UNPINNED: u64 = 0;

/// What controller and workers share.
pub struct Clock {
    now: AtomicU64,
    workers: Box<[WorkerClock]>,
}

/// One worker's side, on a cache line of its own.
#[repr(align(128))]
struct WorkerClock {
    oldest: AtomicU64,
    pins: Box<[AtomicU64]>,
    /// Slots below this may hold an extent; those from here on never did.
    pins_used: AtomicUsize,
}

/// An extent in 64 bits, never [`UNPINNED`]: numbers have at most 51 bits.
fn encode(extent: Extent) -> u64 {
    (extent.number() << 3 | u64::from(extent.class().number())) + 1
}

impl Clock {
    /// A clock for `workers` workers, each with slots for `pins` reads that last.
    #[must_use]
    pub fn new(workers: usize, pins: usize) -> Arc<Clock> {
        let worker = || WorkerClock { oldest: AtomicU64::new(IDLE), pins: zeros(pins), pins_used: AtomicUsize::new(0) };
        Arc::new(Clock { now: AtomicU64::new(1), workers: (0..workers).map(|_| worker()).collect() })
    }

    /// For the controller, after it has published removals: the tag of their extents. Advances the clock.
    #[must_use]
    pub fn tag_removals(&self) -> u64 {
        fence(Ordering::SeqCst);
        self.now.fetch_add(1, Ordering::Release)
    }

    /// For the controller: extents with a tag below this are read by nobody, unless they are pinned. To be called before
    /// [`Clock::pinned_extents`].
    #[must_use]
    pub fn oldest_read(&self) -> u64 {
        self.workers.iter().map(|worker| worker.oldest.load(Ordering::Acquire)).min().unwrap_or(IDLE)
    }

    /// For the controller, after [`Clock::oldest_read`]: the extents that long reads hold, one for each read.
    pub fn pinned_extents(&self) -> impl Iterator<Item = Extent> {
        let pins =
            self.workers.iter().flat_map(|worker| worker.pins.iter().take(worker.pins_used.load(Ordering::Acquire)));
        pins.filter_map(|pin| decode(pin.load(Ordering::Acquire)))
    }
}

fn decode(pin: u64) -> Option<Extent> {
    let pin = pin.checked_sub(1)?;
    Extent::new(SizeClass::new((pin & 7) as u8)?, pin >> 3)
}

/// The reads of one worker, oldest first. Used on its thread only.
pub struct Reads {
    clock: Arc<Clock>,
    worker: usize,
    /// Clock values at which reads began, ascending, with how many of each are under way.
    under_way: RefCell<VecDeque<(u64, u32)>>,
    /// Slots that were used and are free again.
    free_pins: RefCell<Vec<usize>>,
}

impl Reads {
    /// The reads of worker `worker`.
    #[must_use]
    pub fn new(clock: Arc<Clock>, worker: usize) -> Rc<Reads> {
        Rc::new(Reads { clock, worker, under_way: RefCell::default(), free_pins: RefCell::default() })
    }

    /// True while any read is under way that is not pinned.
    #[must_use]
    pub fn any_under_way(&self) -> bool {
        !self.under_way.borrow().is_empty()
    }

    /// Begins a read: from here on no extent that a look-up finds is reused until the guard is dropped.
    #[must_use]
    pub fn begin(self: &Rc<Self>) -> ReadGuard {
        let began = self.clock.now.load(Ordering::Acquire);
        let mut under_way = self.under_way.borrow_mut();
        match under_way.back_mut() {
            Some((value, count)) if *value == began => *count += 1,
            Some(_) => under_way.push_back((began, 1)),
            None => {
                under_way.push_back((began, 1));
                self.publish(began);
            }
        }
        fence(Ordering::SeqCst);
        ReadGuard { reads: Rc::clone(self), began, pin: None }
    }

    fn publish(&self, oldest: u64) {
        if let Some(worker) = self.clock.workers.get(self.worker) {
            worker.oldest.store(oldest, Ordering::Release);
        }
    }

    fn end(&self, began: u64) {
        let mut under_way = self.under_way.borrow_mut();
        if let Ok(index) = under_way.binary_search_by_key(&began, |(value, _)| *value)
            && let Some((_, count)) = under_way.get_mut(index)
        {
            *count -= 1;
        }
        let mut raised = false;
        while under_way.front().is_some_and(|(_, count)| *count == 0) {
            under_way.pop_front();
            raised = true;
        }
        if raised {
            self.publish(under_way.front().map_or(IDLE, |(value, _)| *value));
        }
    }

    /// Stores the extent in a free slot; `None` where all are taken.
    fn pin(&self, extent: Extent) -> Option<usize> {
        let worker = self.clock.workers.get(self.worker)?;
        let reused = self.free_pins.borrow_mut().pop();
        let index = reused.unwrap_or_else(|| worker.pins_used.load(Ordering::Relaxed));
        worker.pins.get(index)?.store(encode(extent), Ordering::Release);
        if reused.is_none() {
            worker.pins_used.store(index + 1, Ordering::Release);
        }
        Some(index)
    }

    fn unpin(&self, index: usize) {
        if let Some(worker) = self.clock.workers.get(self.worker)
            && let Some(pin) = worker.pins.get(index)
        {
            pin.store(UNPINNED, Ordering::Release);
            let mut free = self.free_pins.borrow_mut();
            free.push(index);
            // When all are free there is nothing to look at any more.
            if free.len() == worker.pins_used.load(Ordering::Relaxed) {
                worker.pins_used.store(0, Ordering::Release);
                free.clear();
            }
        }
    }
}

/// A read under way. It ends when this is dropped.
pub struct ReadGuard {
    reads: Rc<Reads>,
    began: u64,
    pin: Option<usize>,
}

impl ReadGuard {
    /// For a read that lasts: holds `extent`, which it reads, alone, and lets everything else go. Where no slot is free it
    /// goes on holding everything.
    pub fn pin(&mut self, extent: Extent) {
        if self.pin.is_none() {
            self.pin = self.reads.pin(extent);
            if self.pin.is_some() {
                // The slot was stored before: whoever sees the raised clock sees the slot.
                self.reads.end(self.began);
            }
        }
    }
}

impl Drop for ReadGuard {
    fn drop(&mut self) {
        match self.pin {
            Some(index) => self.reads.unpin(index),
            None => self.reads.end(self.began),
        }
    }
}

/// Extents that are removed and may still be read. The controller's.
#[derive(Default)]
pub struct Held {
    /// With their tags, ascending.
    tagged: VecDeque<(u64, Extent)>,
    /// Past their tag, but held by a long read.
    pinned: Vec<Extent>,
    /// Those are to be looked at again.
    pins_are_due: bool,
    /// Empty; keeps its capacity.
    passed: Vec<Extent>,
}

impl Held {
    /// Takes in removed extents, tagged.
    pub fn push(&mut self, tag: u64, extent: Extent) {
        self.tagged.push_back((tag, extent));
    }

    /// True where nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tagged.is_empty() && self.pinned.is_empty()
    }

    /// True where everything that is held is held by reads that last.
    #[must_use]
    pub fn only_pinned(&self) -> bool {
        self.tagged.is_empty()
    }

    /// Lets the next [`Held::drain`] look at what long reads hold. There may be many, so it does so only when told.
    pub fn look_at_pins_again(&mut self) {
        self.pins_are_due = true;
    }

    /// Calls `free` with every extent that nobody can read any more.
    pub fn drain(&mut self, clock: &Clock, mut free: impl FnMut(Extent)) {
        let look_at_pins = std::mem::take(&mut self.pins_are_due) && !self.pinned.is_empty();
        if self.tagged.is_empty() && !look_at_pins {
            return;
        }
        // The clocks first, the slots after.
        let oldest = clock.oldest_read();
        if look_at_pins {
            self.passed.append(&mut self.pinned);
        }
        while let Some((_, extent)) = self.tagged.pop_front_if(|(tag, _)| *tag < oldest) {
            self.passed.push(extent);
        }
        if self.passed.is_empty() {
            return;
        }
        // There may be many long reads, and few of what has passed: those are sought among these.
        self.passed.sort_unstable();
        let mut read_on: Vec<_> =
            clock.pinned_extents().filter(|extent| self.passed.binary_search(extent).is_ok()).collect();
        read_on.sort_unstable();
        for extent in self.passed.drain(..) {
            if read_on.binary_search(&extent).is_ok() {
                self.pinned.push(extent);
            } else {
                free(extent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(number: u64) -> Extent {
        Extent::new(SizeClass::new(2).unwrap(), number).unwrap()
    }

    fn drained(held: &mut Held, clock: &Clock) -> Vec<u64> {
        let mut free = Vec::new();
        held.look_at_pins_again();
        held.drain(clock, |extent| free.push(extent.number()));
        free
    }

    #[test]
    fn an_extent_waits_for_reads_that_began_before_its_removal_and_for_no_others() {
        let clock = Clock::new(2, 2);
        let (first, second) = (Reads::new(Arc::clone(&clock), 0), Reads::new(Arc::clone(&clock), 1));
        let mut held = Held::default();
        let before = first.begin();
        held.push(clock.tag_removals(), extent(1));
        let after = second.begin();
        held.push(clock.tag_removals(), extent(2));
        assert!(drained(&mut held, &clock).is_empty());
        drop(before);
        assert_eq!(drained(&mut held, &clock), [1]);
        let later = second.begin();
        drop(after);
        assert_eq!(drained(&mut held, &clock), [2]);
        drop(later);
        assert!(held.is_empty());
    }

    #[test]
    fn a_worker_publishes_its_oldest_read() {
        let clock = Clock::new(1, 1);
        let reads = Reads::new(Arc::clone(&clock), 0);
        let oldest = reads.begin();
        let _ = clock.tag_removals();
        let younger = reads.begin();
        let _ = clock.tag_removals();
        let youngest = reads.begin();
        assert_eq!(clock.oldest_read(), 1);
        drop(younger);
        assert_eq!(clock.oldest_read(), 1);
        drop(oldest);
        assert_eq!(clock.oldest_read(), 3);
        drop(youngest);
        assert_eq!(clock.oldest_read(), IDLE);
    }

    #[test]
    fn a_slot_that_nobody_has_touched_holds_nothing() {
        assert_eq!(decode(UNPINNED), None);
        for number in [0, (1 << 50) - 1] {
            let extent = Extent::new(SizeClass::SMALLEST, number);
            assert_eq!(decode(encode(extent.unwrap())), extent);
        }
        assert_eq!(Clock::new(2, 3).pinned_extents().count(), 0);
    }

    #[test]
    fn a_read_that_lasts_holds_its_own_extent_and_nothing_else() {
        let clock = Clock::new(1, 1);
        let reads = Reads::new(Arc::clone(&clock), 0);
        let mut held = Held::default();
        let mut slow = reads.begin();
        let mut slower = reads.begin();
        let tag = clock.tag_removals();
        held.push(tag, extent(1));
        held.push(tag, extent(2));
        slow.pin(extent(1));
        assert!(drained(&mut held, &clock).is_empty(), "another read of that time is under way");
        slower.pin(extent(2));
        assert!(drained(&mut held, &clock).is_empty(), "there was one slot: the second holds everything, as before");
        drop(slower);
        assert_eq!(drained(&mut held, &clock), [2]);
        assert!(held.only_pinned() && !held.is_empty());
        drop(slow);
        assert_eq!(drained(&mut held, &clock), [1]);
        assert!(held.is_empty());
    }
}
