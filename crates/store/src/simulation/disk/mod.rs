//! A disk with a volatile write cache, on a simulated ring.
//!
//! The model: a write that completed is seen by every later read, but is on the medium only when a flush that began after its
//! completion has ended, or when it was itself durable (as with FUA: itself and nothing else). A power cut keeps none, all, or
//! some of what is not on the medium, torn at sectors or pages, in any order; writes in flight likewise. A file's new length is as
//! volatile as its bytes, also where space was set aside without writing. A crash of the process alone loses nothing that was handed to the disk, and makes nothing of it durable.
//!
//! What must never happen is asserted, in `file`: two writes in flight that overlap, a write over bytes that are being read, or over
//! pages that the page cache still has.
//!
//! | file | one idea |
//! | --- | --- |
//! | `contents` | bytes of a file that are on the medium, and that are not yet |
//! | `file` | a file, as the store uses it |
//! | `faults` | operations that are to fail |

mod contents;
mod faults;
mod file;

pub(crate) use faults::{Fault, Kind, PlannedFault};
pub(crate) use file::SimulatedFile;

use buddy_ring::Ring;
use contents::FileState;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// The longest that an operation takes …
const OPERATION_MAX: Duration = Duration::from_micros(300);
/// … and one that stalls.
pub(crate) const STALL_MAX: Duration = Duration::from_millis(12);

/// What happens to bytes that are not on the medium when the power goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cut {
    /// All are lost.
    LoseAll,
    /// The power does not go: only the process has died. What was in flight arrives or was never sent; what was volatile still is.
    Crash,
    /// Some are kept, in pieces.
    Random,
}

/// A disk with its files. Survives the ring it is used on.
#[derive(Clone)]
pub(crate) struct Disk {
    inner: Rc<Inner>,
}

struct Inner {
    files: RefCell<Vec<FileState>>,
    random: RefCell<fastrand::Rng>,
    /// Completions of writes and flushes so far: the points at which power can be cut.
    events: Cell<u64>,
    /// The power goes after this many events.
    cut_at: Cell<Option<u64>>,
    is_cut: Cell<bool>,
    faults: RefCell<Vec<PlannedFault>>,
    /// Pages that cannot be read before they are written again: file and number.
    unreadable: RefCell<BTreeSet<(usize, u64)>>,
    /// All files together hold at most this many bytes.
    capacity_bytes: Cell<u64>,
    /// The page cache has wrong bytes, and keeps them.
    cache_is_wrong: Cell<bool>,
    /// Now and then an operation takes much longer than others.
    stalls: Cell<bool>,
    /// Whether space can be set aside: by one disk in three it cannot.
    preallocates: bool,
}

impl Disk {
    pub(crate) fn new(seed: u64, files: usize) -> Disk {
        Disk {
            inner: Rc::new(Inner {
                files: RefCell::new((0..files).map(|_| FileState::default()).collect()),
                random: RefCell::new(fastrand::Rng::with_seed(seed)),
                events: Cell::new(0),
                cut_at: Cell::new(None),
                is_cut: Cell::new(false),
                faults: RefCell::default(),
                unreadable: RefCell::default(),
                capacity_bytes: Cell::new(u64::MAX),
                cache_is_wrong: Cell::new(false),
                stalls: Cell::new(false),
                preallocates: !seed.is_multiple_of(3),
            }),
        }
    }

    /// File `number`, used through `ring`.
    pub(crate) fn file(&self, number: usize, ring: &Ring) -> SimulatedFile {
        SimulatedFile::new(self, number, ring)
    }

    /// Number of completed writes and flushes.
    pub(crate) fn events(&self) -> u64 {
        self.inner.events.get()
    }

    /// Lets the power go after `event` completions in all.
    pub(crate) fn cut_power_at(&self, event: u64) {
        self.inner.cut_at.set(Some(event));
    }

    /// True once the power is gone: nothing completes any more.
    pub(crate) fn is_cut(&self) -> bool {
        self.inner.is_cut.get()
    }

    /// Lets operations fail, counted from now on.
    pub(crate) fn plan_faults(&self, faults: impl IntoIterator<Item = PlannedFault>) {
        self.inner.faults.borrow_mut().extend(faults);
    }

    /// Limits what all files together may hold.
    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.inner.capacity_bytes.set(bytes);
    }

    /// The page cache forgets everything.
    pub(crate) fn forget_cached(&self) {
        self.inner.files.borrow_mut().iter_mut().for_each(FileState::forget_all_cached);
    }

    /// From now on a bit is wrong in all that is read through the page cache.
    pub(crate) fn spoil_cache(&self) {
        self.inner.cache_is_wrong.set(true);
    }

    /// How many reads of a file are under way.
    pub(crate) fn reading(&self, file: usize) -> usize {
        self.inner.files.borrow()[file].reading.len()
    }

    /// From now on an operation in sixteen takes up to [`STALL_MAX`].
    pub(crate) fn stall_now_and_then(&self) {
        self.inner.stalls.set(true);
    }

    /// After a power cut or a crash: decides what has survived. Nothing may be using the disk.
    pub(crate) fn restore(&self, cut: Cut) {
        let mut random = self.inner.random.borrow_mut();
        for file in self.inner.files.borrow_mut().iter_mut() {
            file.restore(cut, &mut random);
        }
        self.inner.is_cut.set(false);
        self.inner.cut_at.set(None);
        self.inner.faults.borrow_mut().clear();
    }

    /// Changes bits of a file behind everybody's back.
    pub(crate) fn corrupt(&self, file: usize, offset: u64, mask: u8) {
        self.inner.files.borrow_mut()[file].corrupt(offset, mask);
    }

    /// Cuts a file short, or lengthens it with zeros.
    pub(crate) fn truncate(&self, file: usize, length: u64) {
        self.inner.files.borrow_mut()[file].truncate(length);
    }

    /// The bytes of a file as reads would see them.
    pub(crate) fn contents(&self, file: usize, range: Range<u64>) -> Vec<u8> {
        let files = self.inner.files.borrow();
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
        files[file].read(range.start, &mut bytes);
        bytes
    }

    /// An operation takes a while, in virtual time.
    pub(crate) async fn take_time(&self, ring: &Ring) {
        let duration = {
            let mut random = self.inner.random.borrow_mut();
            let stalls = self.inner.stalls.get() && random.u8(0..16) == 0;
            let longest = if stalls { STALL_MAX } else { OPERATION_MAX };
            longest.mul_f64(random.f64())
        };
        ring.sleep(duration).await;
        if self.is_cut() {
            std::future::pending::<()>().await;
        }
    }

    /// Counts a completion. The power may go right after it, before anybody hears of it.
    pub(crate) async fn completed(&self) {
        let events = self.inner.events.get() + 1;
        self.inner.events.set(events);
        if self.inner.cut_at.get().is_some_and(|cut_at| events >= cut_at) {
            self.inner.is_cut.set(true);
            std::future::pending::<()>().await;
        }
    }

    fn free_bytes(&self) -> u64 {
        self.inner.capacity_bytes.get().saturating_sub(self.used_bytes())
    }

    fn used_bytes(&self) -> u64 {
        self.inner.files.borrow().iter().map(|file| file.length).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::contents::PAGE;
    use super::*;
    use crate::files::{BlockFile, Parts};
    use buddy_ring::{BufferPool, Runtime};

    fn parts(byte: u8, pages: usize) -> Parts {
        let mut buffer = BufferPool::new(1 << 20).try_take(pages * PAGE).unwrap().unwrap();
        buffer.fill(byte);
        vec![(buffer, pages * PAGE)]
    }

    #[test]
    fn only_a_flush_that_began_later_or_its_own_durability_saves_a_write() {
        let runtime = Runtime::simulated(1);
        let disk = Disk::new(1, 1);
        let file = disk.file(0, &runtime.ring());
        runtime.block_on(async {
            let _ = file.write(parts(1, 2), 0, false).await;
            file.flush().await.unwrap();
            let _ = file.write(parts(2, 1), 0, false).await;
            let _ = file.write(parts(3, 1), 4096, true).await;
            let _ = file.write(parts(4, 1), 8192, false).await;
        });
        assert_eq!(disk.contents(0, 0..1), [2]);
        assert_eq!(file.length().unwrap(), 12_288);
        disk.restore(Cut::LoseAll);
        assert_eq!(disk.contents(0, 0..1), [1], "neither a durable write nor an earlier flush saves others");
        assert_eq!(disk.contents(0, 4096..4097), [3]);
        assert_eq!(file.length().unwrap(), 8192, "a length is as volatile as bytes");
    }

    #[test]
    fn the_power_goes_before_anybody_hears_of_the_last_completion() {
        let runtime = Runtime::simulated(1);
        let disk = Disk::new(1, 1);
        let file = disk.file(0, &runtime.ring());
        disk.cut_power_at(2);
        let ended = runtime.run(async {
            let _ = file.write(parts(1, 1), 0, true).await;
            let _ = file.write(parts(2, 1), 4096, true).await;
        });
        assert!(ended.is_none() && disk.is_cut());
        drop(runtime);
        disk.restore(Cut::LoseAll);
        assert_eq!(disk.contents(0, 4096..4097), [2]);
    }
}
