//! Asking the kernel which pages of a file are cached.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// `cachestat(2)`, since Linux 6.5; the same number on every architecture.
const SYS_CACHESTAT: libc::c_long = 451;
const PAGE_BYTES: u64 = 4096;

/// `struct cachestat_range` of `linux/mman.h`.
#[repr(C)]
struct Range {
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

/// Whether every page of a range is cached, so that sending it does not wait for the disk. Where the kernel cannot tell, the
/// answer is no: the block is read into memory then.
pub(crate) fn is_cached(file: BorrowedFd<'_>, offset: u64, length: u64) -> bool {
    static UNSUPPORTED: AtomicBool = AtomicBool::new(false);
    if UNSUPPORTED.load(Ordering::Relaxed) {
        return false;
    }
    let range = Range { offset, length };
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
}
