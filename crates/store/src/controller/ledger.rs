//! Debug builds only: who owns each page of the file, and a check of every passage from one owner to another. Release builds
//! keep nothing.

use crate::allocator::Allocator;
use crate::extent::{Extent, MACROBLOCK_PAGES, PAGE_BYTES};

/// Who owns a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    /// The allocator.
    Free,
    /// A pool or a request.
    Held,
    /// A name.
    Occupied,
    /// Nobody, but it may still be read.
    Draining,
    /// Nobody, for good.
    Quarantined,
}

/// A file larger than this is not walked after each batch: passages are checked all the same.
const WALKED_PAGES_MAX: usize = 64 * 256;

/// The owner of each page.
pub(crate) struct Ledger {
    pages: Vec<Owner>,
}

impl Ledger {
    /// What the allocator does not have is occupied.
    pub(crate) fn new(allocator: &Allocator) -> Ledger {
        let mut ledger = Ledger { pages: Vec::new() };
        if cfg!(debug_assertions) {
            let pages = usize::try_from(allocator.macroblocks() * MACROBLOCK_PAGES).unwrap_or(0);
            ledger.pages.resize(pages, Owner::Occupied);
            for extent in allocator.free_extents() {
                ledger.pass(extent, Owner::Occupied, Owner::Free);
            }
        }
        ledger
    }

    /// New pages are free.
    pub(crate) fn grow(&mut self, macroblocks: u64) {
        if cfg!(debug_assertions) {
            let pages = usize::try_from(macroblocks * MACROBLOCK_PAGES).unwrap_or(0);
            self.pages.resize(self.pages.len() + pages, Owner::Free);
        }
    }

    /// An extent passes from one owner to another.
    pub(crate) fn pass(&mut self, extent: Extent, from: Owner, to: Owner) {
        if cfg!(debug_assertions) {
            let page = |offset: u64| usize::try_from(offset / PAGE_BYTES).unwrap_or(usize::MAX);
            let pages = self.pages.get_mut(page(extent.offset())..page(extent.end())).unwrap_or_default();
            assert!(!pages.is_empty(), "{extent} lies beyond the file");
            for owner in pages {
                assert_eq!(*owner, from, "{extent} passes from {from:?} to {to:?}");
                *owner = to;
            }
        }
    }

    /// The allocator has exactly the free pages; all others have another owner, so all together tile the file.
    pub(crate) fn check(&self, allocator: &Allocator) {
        if cfg!(debug_assertions) && self.pages.len() <= WALKED_PAGES_MAX {
            let mut expected = vec![false; self.pages.len()];
            for extent in allocator.free_extents() {
                let page = |offset: u64| usize::try_from(offset / PAGE_BYTES).unwrap_or(usize::MAX);
                for free in expected.get_mut(page(extent.offset())..page(extent.end())).unwrap_or_default() {
                    assert!(!*free, "{extent} overlaps another free extent");
                    *free = true;
                }
            }
            for (page, (owner, free)) in self.pages.iter().zip(expected).enumerate() {
                assert_eq!(*owner == Owner::Free, free, "page {page} is {owner:?}");
            }
        }
    }
}
