//! Reading what is not cached of a file, in the order in which it lies there.

use super::page_cache::cached_pages;
use crate::extent::PAGE_BYTES;
use crate::memory;
use std::os::fd::BorrowedFd;

/// Bytes that are read at a time …
const PIECE_BYTES: usize = 1 << 20;
/// … if more of their pages are not cached than one in so many.
const CACHED_SHARE: u64 = 8;
/// The part of the memory that may be read for: one in so many.
const MEMORY_SHARE: u64 = 2;
/// A disk reads so many pages in a row in the time in which it finds one anywhere. For many disks it is more.
const PAGES_PER_SEEK: u64 = 32;

/// Has the page cache hold the first `bytes` of `file`, if a change that needs `pages_needed` pages of them, one after the other and
/// each anywhere, would take longer than reading all. Where it cannot be done nothing is lost but time.
pub fn warm_up(file: BorrowedFd<'_>, bytes: u64, pages_needed: u64) {
    let finding_takes_longer = pages_needed.saturating_mul(PAGES_PER_SEEK) >= bytes / PAGE_BYTES;
    if !finding_takes_longer || bytes > memory::bytes() / MEMORY_SHARE {
        return;
    }
    let mut piece = vec![0; PIECE_BYTES];
    for offset in (0..bytes).step_by(PIECE_BYTES) {
        let pages = PIECE_BYTES as u64 / PAGE_BYTES;
        let Some(cached) = cached_pages(file, offset, PIECE_BYTES as u64) else { return };
        // What is wrong with the file is told by whoever needs what cannot be read.
        if cached + pages / CACHED_SHARE < pages && rustix::io::pread(file, &mut piece, offset).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn what_is_not_cached_is_read_where_many_pages_are_needed() {
        // Beside the test program, which lies on a disk, as temporary files need not.
        let program = std::env::current_exe().unwrap();
        let mut file = tempfile::tempfile_in(program.parent().unwrap()).unwrap();
        let pages = 1024;
        let bytes = pages * PAGE_BYTES;
        file.write_all(&vec![1; usize::try_from(bytes).unwrap()]).unwrap();
        file.sync_all().unwrap();
        let file = file.as_fd();
        // Half of it stays.
        rustix::fs::fadvise(file, bytes / 2, None, rustix::fs::Advice::DontNeed).unwrap();
        let Some(cached) = cached_pages(file, 0, bytes) else {
            return eprintln!("skipped: this kernel has no cachestat");
        };
        assert_eq!(cached, pages / 2);
        warm_up(file, bytes, 10);
        assert_eq!(cached_pages(file, 0, bytes), Some(pages / 2), "few pages are found one by one");
        warm_up(file, bytes, 100);
        assert_eq!(cached_pages(file, 0, bytes), Some(pages));
    }
}
