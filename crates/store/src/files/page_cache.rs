//! Asking the kernel which pages of a file are cached.

use crate::extent::PAGE_BYTES;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// `cachestat(2)`, since Linux 6.5; the same number on every architecture.
const SYS_CACHESTAT: libc::c_long = 451;

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

/// Whether every page of a range is cached; `None` where the kernel cannot tell. A page counts from when it is being read.
#[must_use]
pub fn is_cached(file: BorrowedFd<'_>, offset: u64, length: u64) -> Option<bool> {
    let pages = (offset + length).div_ceil(PAGE_BYTES) - offset / PAGE_BYTES;
    statistics(file, offset, length).map(|statistics| statistics.cached >= pages)
}

/// Pages of a range that are cached; `None` where the kernel cannot tell.
pub(super) fn cached_pages(file: BorrowedFd<'_>, offset: u64, length: u64) -> Option<u64> {
    statistics(file, offset, length).map(|statistics| statistics.cached)
}

/// Pages of a range that are newer than what the disk has; `None` where the kernel cannot tell.
#[cfg(test)]
pub(super) fn unwritten_pages(file: BorrowedFd<'_>, offset: u64, length: u64) -> Option<u64> {
    statistics(file, offset, length).map(|statistics| statistics.dirty + statistics.writeback)
}

fn statistics(file: BorrowedFd<'_>, offset: u64, length: u64) -> Option<Statistics> {
    static UNSUPPORTED: AtomicBool = AtomicBool::new(false);
    if UNSUPPORTED.load(Ordering::Relaxed) {
        return None;
    }
    let range = StatisticsRange { offset, length };
    let mut statistics = Statistics::default();
    // SAFETY: both structs have the layout that the kernel expects and live through the call; the descriptor is open.
    let result = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut statistics, 0) };
    if result != 0 {
        UNSUPPORTED.store(true, Ordering::Relaxed);
        return None;
    }
    Some(statistics)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_file_that_was_just_written_is_cached_and_what_is_behind_its_end_is_not() {
        let path = std::env::temp_dir().join(format!("buddy-cachestat-{}", std::process::id()));
        std::fs::write(&path, vec![1; 100_000]).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let is_cached = |offset, length| is_cached(file.as_fd(), offset, length);
        let Some(cached) = is_cached(0, 100_000) else {
            return eprintln!("this kernel has no cachestat: large blocks are copied");
        };
        assert!(cached);
        assert_eq!(is_cached(0, 200_000), Some(false), "there is nothing behind the end");
        assert_eq!((is_cached(4095, 2), is_cached(8191, 90_000)), (Some(true), Some(true)), "parts of pages");
        assert_eq!(is_cached(102_399, 2), Some(false), "the second of two pages is behind the end");
    }
}
