//! Which pages of a file are cached, as the kernel has said a moment ago.

use buddy_store::Hash;
use buddy_store::extent::PAGE_BYTES;
use buddy_store::files::is_cached;
use std::cell::RefCell;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// What was cached a moment ago is taken to be cached still. Should it have been evicted in that time, a reply waits for the disk.
const TRUSTED_FOR: Duration = Duration::from_millis(500);
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
    /// Whether what was said at `then` is too long ago to be believed.
    pub(crate) fn is_outdated(then: Instant, now: Instant) -> bool {
        now.saturating_duration_since(then) >= TRUSTED_FOR
    }

    /// Whether every page of `range` of the file, which is of the block `hash`, is cached, so that sending it does not wait for the disk.
    pub(crate) fn holds(&self, file: BorrowedFd<'_>, hash: &Hash, range: Range<u64>, now: Instant) -> bool {
        self.held(hash, &range, now) || {
            // Where the kernel cannot tell, the block is read into memory.
            let cached = is_cached(file, range.start, range.end - range.start).unwrap_or(false);
            if cached {
                self.remember(Found { hash: *hash, range, at: now });
            }
            cached
        }
    }

    fn held(&self, hash: &Hash, range: &Range<u64>, now: Instant) -> bool {
        self.found.borrow().get(slot(range)).and_then(Option::as_ref).is_some_and(|found| {
            !PageCache::is_outdated(found.at, now)
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

#[cfg(test)]
mod tests {
    use super::*;

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
