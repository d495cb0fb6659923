//! Asking the kernel which pages of a file are cached.

use buddy_store::Hash;
use std::cell::RefCell;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// `cachestat(2)`, since Linux 6.5; the same number on every architecture.
const SYS_CACHESTAT: libc::c_long = 451;
const PAGE_BYTES: u64 = 4096;

/// What was cached a moment ago is taken to be cached still. Should it have been evicted in that time, a reply waits for the disk.
const TRUSTED_FOR: Duration = Duration::from_millis(100);
/// Parts of the file that are remembered.
const REMEMBERED: usize = 1024;

/// Which parts of a file are cached. The kernel looks at every page to answer that, which for 512 KiB costs a tenth of what sending
/// them does: so it is not asked about the same block again and again.
#[derive(Default)]
pub(crate) struct PageCache {
    /// By offset; empty until something was found.
    found: RefCell<Vec<Option<Found>>>,
}

/// A part of a block that was cached.
struct Found {
    hash: Hash,
    range: Range<u64>,
    at: Instant,
}

impl PageCache {
    /// Whether every page of `range` of the file, which is of the block `hash`, is cached, so that sending it does not wait for the disk.
    pub(crate) fn holds(&self, file: BorrowedFd<'_>, hash: &Hash, range: Range<u64>, now: Instant) -> bool {
        self.held(hash, &range, now) || {
            let cached = is_cached(file, range.start, range.end - range.start);
            if cached {
                self.remember(Found { hash: *hash, range, at: now });
            }
            cached
        }
    }

    fn held(&self, hash: &Hash, range: &Range<u64>, now: Instant) -> bool {
        self.found.borrow().get(slot(range)).and_then(Option::as_ref).is_some_and(|found| {
            now.saturating_duration_since(found.at) < TRUSTED_FOR
                && found.hash == *hash
                && found.range.start <= range.start
                && range.end <= found.range.end
        })
    }

    fn remember(&self, part: Found) {
        let mut found = self.found.borrow_mut();
        found.resize_with(REMEMBERED, || None);
        if let Some(slot) = found.get_mut(slot(&part.range)) {
            *slot = Some(part);
        }
    }
}

/// Where a part is remembered: neighbours of every size class get different places.
fn slot(range: &Range<u64>) -> usize {
    let page = range.start / PAGE_BYTES;
    usize::try_from((page ^ page >> 7) % REMEMBERED as u64).unwrap_or(0)
}

/// `struct cachestat_range` of `linux/mman.h`.
#[repr(C)]
struct StatisticsRange {
    offset: u64,
    length: u64,
}

/// `struct cachestat` of `linux/mman.h`.
#[repr(C)]
#[derive(Default)]
struct Statistics {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Whether every page of a range is cached. Where the kernel cannot tell, the answer is no: the block is read into memory then.
fn is_cached(file: BorrowedFd<'_>, offset: u64, length: u64) -> bool {
    static UNSUPPORTED: AtomicBool = AtomicBool::new(false);
    if UNSUPPORTED.load(Ordering::Relaxed) {
        return false;
    }
    let range = StatisticsRange { offset, length };
    let mut statistics = Statistics::default();
    // SAFETY: both structs have the layout that the kernel expects and live through the call; the descriptor is open.
    let result = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut statistics, 0) };
    if result != 0 {
        UNSUPPORTED.store(true, Ordering::Relaxed);
        return false;
    }
    let pages = (offset + length).div_ceil(PAGE_BYTES) - offset / PAGE_BYTES;
    statistics.cached >= pages
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_file_that_was_just_written_is_cached_and_one_that_was_dropped_is_not() {
        let path = std::env::temp_dir().join(format!("buddy-cachestat-{}", std::process::id()));
        std::fs::write(&path, vec![1; 100_000]).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        if !is_cached(file.as_fd(), 0, 100_000) {
            return eprintln!("this kernel has no cachestat: large blocks are copied");
        }
        assert!(!is_cached(file.as_fd(), 0, 200_000), "there is nothing behind the end");
        assert!(is_cached(file.as_fd(), 4095, 2) && is_cached(file.as_fd(), 8191, 90_000), "parts of pages");
        assert!(!is_cached(file.as_fd(), 102_399, 2), "the second of two pages is behind the end");
    }

    #[test]
    fn what_was_found_is_believed_for_a_moment_and_of_that_block_alone() {
        let cache = PageCache::default();
        let (hash, other, now) = (Hash::of(b"1"), Hash::of(b"2"), Instant::now());
        assert!(!cache.held(&hash, &(4096..8192), now));
        cache.remember(Found { hash, range: 4096..65_536, at: now });
        assert!(cache.held(&hash, &(4096..65_536), now + TRUSTED_FOR / 2));
        assert!(cache.held(&hash, &(4097..5000), now));
        assert!(!cache.held(&hash, &(4096..65_537), now), "more than was looked at");
        assert!(!cache.held(&other, &(4096..65_536), now), "the extent is another block's");
        assert!(!cache.held(&hash, &(4096..65_536), now + TRUSTED_FOR), "too long ago");
    }
}
