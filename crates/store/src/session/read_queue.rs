//! Reading past the cache: of many blocks that are asked for at a time, the disk has half while the others are answered.
//!
//! Some disks end together what was asked of them together. Whoever is answered then asks again, all together, and disk and processor
//! would work in turns instead of side by side. And as a read ends the next leaves before anybody is answered: the disk
//! would have to wait for that.
//!
//! A disk that takes long for each read, and does many at a time, would only be held back: it has as many as a worker could answer
//! while one read takes ([`Settings::reads_at_once`](crate::settings::Settings::reads_at_once)), half or not, and nobody waits long for others.

use crate::clock::ReadGuard;
use crate::files::BlockFile;
use buddy_ring::{Buffer, Outcomes, Ring};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Who has waited for so long is read, whatever the disk has to do: what keeps it busy may be a part of it that does not answer.
const PATIENCE: Duration = Duration::from_millis(5);

/// What became of a read, and what it was done with.
type Done = (io::Result<usize>, Buffer, ReadGuard);

/// A read that is to begin.
struct Queued {
    buffer: Buffer,
    pages: Range<usize>,
    offset: u64,
    guard: ReadGuard,
    since: Instant,
    /// Of what becomes of it.
    key: usize,
}

/// Reads of one worker.
pub(super) struct ReadQueue<F> {
    ring: Ring,
    file: F,
    at_once: usize,
    queued: RefCell<VecDeque<Queued>>,
    /// How many the disk has.
    reading: Cell<usize>,
    outstanding: RecentMaximum,
    /// Whether a timer sees to it that nobody waits too long.
    alarm: Cell<bool>,
    outcomes: Outcomes<Done>,
}

impl<F: BlockFile> ReadQueue<F> {
    /// Reads `file`, at least `at_once` blocks at a time.
    pub(super) fn new(ring: &Ring, file: F, at_once: usize) -> Rc<ReadQueue<F>> {
        Rc::new(ReadQueue {
            ring: ring.clone(),
            file,
            at_once,
            queued: RefCell::default(),
            reading: Cell::new(0),
            outstanding: RecentMaximum::default(),
            alarm: Cell::new(false),
            outcomes: Outcomes::default(),
        })
    }

    /// Reads into `pages` of `buffer` from `offset`, all of them those of pages; may read less. `guard` lives until the file is done with
    /// the buffer, also where the future is dropped.
    pub(super) fn read(
        self: &Rc<Self>,
        buffer: Buffer,
        pages: Range<usize>,
        offset: u64,
        guard: ReadGuard,
    ) -> impl Future<Output = Done> {
        let key = self.outcomes.expect();
        let read = Queued { buffer, pages, offset, guard, since: self.ring.now(), key };
        self.queued.borrow_mut().push_back(read);
        self.outstanding.note(self.reading.get() + self.queued.borrow().len());
        self.begin_ready();
        self.see_to_alarm();
        // Not an `async fn`, which would keep room for what is queued by now.
        self.outcomes.wait(key)
    }

    /// Begins those that may begin. True where there were any.
    fn begin_ready(self: &Rc<Self>) -> bool {
        let at_once = self.at_once.max(self.outstanding.get().div_ceil(2));
        self.begin_while(|_| self.reading.get() < at_once)
    }

    /// Begins reads, those first that came first, as long as the next `may` begin. True where there were any.
    fn begin_while(self: &Rc<Self>, may: impl Fn(&Queued) -> bool) -> bool {
        let mut any = false;
        loop {
            let next = self.queued.borrow_mut().pop_front_if(|next| may(next));
            let Some(next) = next else { return any };
            self.begin(next);
            any = true;
        }
    }

    fn begin(self: &Rc<Self>, Queued { buffer, pages, offset, guard, key, .. }: Queued) {
        self.reading.set(self.reading.get() + 1);
        let queue = Rc::clone(self);
        let read = async move {
            let done = queue.file.read(buffer, pages, offset, guard).await;
            queue.end(key, done);
        };
        self.ring.spawn_polled(read).detach();
    }

    fn end(self: &Rc<Self>, key: usize, done: Done) {
        self.reading.set(self.reading.get() - 1);
        self.outstanding.forget();
        if self.begin_ready() {
            self.ring.submit_early();
        }
        self.outcomes.finish(key, done);
    }

    fn see_to_alarm(self: &Rc<Self>) {
        if !self.queued.borrow().is_empty() && !self.alarm.replace(true) {
            let queue = Rc::clone(self);
            self.ring.spawn(async move { queue.begin_late_ones().await }).detach();
        }
    }

    /// Begins who has waited too long, until nobody waits any more.
    async fn begin_late_ones(self: Rc<Self>) {
        let oldest = || self.queued.borrow().front().map(|oldest| oldest.since);
        while let Some(since) = oldest() {
            self.ring.sleep((since + PATIENCE).saturating_duration_since(self.ring.now())).await;
            let now = self.ring.now();
            self.begin_while(|next| next.since + PATIENCE <= now);
        }
        self.alarm.set(false);
    }
}

/// The largest of numbers that were noted lately. What a burst has noted is forgotten as reads end.
#[derive(Default)]
struct RecentMaximum {
    /// So many times the number.
    scaled: Cell<usize>,
}

impl RecentMaximum {
    /// One in so many parts is forgotten at a time.
    const PARTS: usize = 512;

    fn get(&self) -> usize {
        self.scaled.get().div_ceil(Self::PARTS)
    }

    fn note(&self, number: usize) {
        self.scaled.set(self.scaled.get().max(number * Self::PARTS));
    }

    fn forget(&self) {
        self.scaled.set(self.scaled.get() - self.scaled.get() / Self::PARTS);
    }
}
