//! Which pages of one macroblock are occupied: 256 bits, the durable free list of 1 MiB.
//!
//! Invariant: a bit is set for every page of an occupied extent, filled or not, so free extents can be derived from the
//! bits alone.

use crate::extent::{Extent, MACROBLOCK_BYTES, MACROBLOCK_PAGES, SizeClass};

/// The occupied pages of a macroblock. Bit `i` is page `i`; in bytes, bit `i % 8` of byte `i / 8`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PageMap([u64; 4]);

impl PageMap {
    /// Length of the encoded form.
    pub const ENCODED_BYTES: usize = 32;

    /// No page is occupied.
    pub const EMPTY: PageMap = PageMap([0; 4]);

    /// Reads the encoded form.
    #[must_use]
    pub fn decode(bytes: &[u8; PageMap::ENCODED_BYTES]) -> PageMap {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        PageMap(words)
    }

    /// The encoded form.
    #[must_use]
    pub fn encode(self) -> [u8; PageMap::ENCODED_BYTES] {
        let mut bytes = [0; PageMap::ENCODED_BYTES];
        for (word, bytes) in self.0.iter().zip(bytes.as_chunks_mut().0) {
            *bytes = word.to_le_bytes();
        }
        bytes
    }

    /// True where no page is occupied.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == PageMap::EMPTY
    }

    /// How many pages are occupied.
    #[must_use]
    pub fn occupied_pages(self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Sets the bits of an extent of this macroblock. False where one was set already.
    #[must_use]
    pub fn occupy(&mut self, extent: Extent) -> bool {
        let free = self.is_free(extent);
        self.change(extent, |word, mask| *word |= mask);
        free
    }

    /// Clears the bits of an extent of this macroblock. False where one was clear already.
    #[must_use]
    pub fn release(&mut self, extent: Extent) -> bool {
        let mut occupied = true;
        self.change(extent, |word, mask| {
            occupied &= *word & mask == mask;
            *word &= !mask;
        });
        occupied
    }

    /// True where no page of the extent is occupied.
    #[must_use]
    pub fn is_free(mut self, extent: Extent) -> bool {
        let mut free = true;
        self.change(extent, |word, mask| free &= *word & mask == 0);
        free
    }

    /// Applies `change` to each word that the extent has pages in, with the mask of those pages. Extents are aligned to their
    /// size, so one lies within a word or covers whole words.
    fn change(&mut self, extent: Extent, mut change: impl FnMut(&mut u64, u64)) {
        let (first, pages) = (extent.page_in_macroblock(), extent.class().pages());
        for (word, start) in self.0.iter_mut().zip((0..MACROBLOCK_PAGES).step_by(64)) {
            if pages >= 64 {
                if (first..first + pages).contains(&start) {
                    change(word, u64::MAX);
                }
            } else if (start..start + 64).contains(&first) {
                change(word, ((1 << pages) - 1) << (first - start));
            }
        }
    }

    /// Calls `found` with every largest free extent of macroblock `macroblock`, lowest first.
    pub fn free_extents(self, macroblock: u64, found: &mut impl FnMut(Extent)) {
        let per_macroblock = MACROBLOCK_BYTES / SizeClass::LARGEST.bytes();
        for number in macroblock * per_macroblock..(macroblock + 1) * per_macroblock {
            if let Some(extent) = Extent::new(SizeClass::LARGEST, number) {
                self.descend(extent, found);
            }
        }
    }

    fn descend(self, extent: Extent, found: &mut impl FnMut(Extent)) {
        if self.is_free(extent) {
            found(extent);
        } else if let Some(children) = extent.children() {
            for child in children {
                self.descend(child, found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extent(class: u8, number: u64) -> Extent {
        Extent::new(SizeClass::new(class).unwrap(), number).unwrap()
    }

    #[test]
    fn extents_set_and_clear_exactly_their_pages() {
        for class in SizeClass::all() {
            for number in 0..MACROBLOCK_BYTES / class.bytes() {
                let extent = extent(class.number(), number);
                let mut map = PageMap::EMPTY;
                assert!(map.occupy(extent));
                assert_eq!(u64::from(map.occupied_pages()), class.pages());
                assert!(!map.is_free(extent) && !map.occupy(extent));
                assert!(map.release(extent) && map.is_empty());
                assert!(!map.release(extent));
            }
        }
    }

    proptest! {
        #[test]
        fn free_extents_tile_what_is_not_occupied(bytes: [u8; 32], sparse: [u8; 32]) {
            let mut mixed = bytes;
            for (byte, sparse) in mixed.iter_mut().zip(sparse) {
                // Long free stretches as well as short ones.
                *byte &= if sparse > 64 { 0 } else { 0xff };
            }
            let map = PageMap::decode(&mixed);
            prop_assert_eq!(map.encode(), mixed);
            let mut tiled = map;
            let mut free = Vec::new();
            map.free_extents(3, &mut |extent| free.push(extent));
            for extent in &free {
                prop_assert_eq!(extent.macroblock(), 3);
                prop_assert!(tiled.occupy(*extent));
                if let Some(parent) = extent.parent() {
                    prop_assert!(!map.is_free(parent), "the largest free extents");
                }
            }
            prop_assert_eq!(tiled.occupied_pages(), 256);
            prop_assert!(free.is_sorted_by_key(|extent| extent.offset()));
        }
    }
}
