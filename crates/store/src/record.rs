//! Where a block lies: what a name leads to.

use crate::extent::{BLOCK_BYTES_MAX, Extent, PAGE_BYTES, SizeClass};

/// The place of one block. Invariant: the extent is of the smallest class that holds the length; the empty block, and only
/// it, has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    extent: Option<Extent>,
    length: u32,
}

impl Record {
    /// The class number that stands for "no extent".
    pub const NO_EXTENT: u8 = 255;

    /// The record of the empty block.
    pub const EMPTY: Record = Record { extent: None, length: 0 };

    /// A block of `length` bytes in `extent`; `None` where that breaks the invariant.
    #[must_use]
    pub fn new(extent: Option<Extent>, length: u32) -> Option<Record> {
        let fits = length <= BLOCK_BYTES_MAX && extent.map(Extent::class) == SizeClass::for_length(length);
        fits.then_some(Record { extent, length })
    }

    /// Its extent; `None` for the empty block.
    #[must_use]
    pub const fn extent(self) -> Option<Extent> {
        self.extent
    }

    /// Length of the block in bytes.
    #[must_use]
    pub const fn length(self) -> u32 {
        self.length
    }

    /// Bytes of the pages that the block fills, the last one perhaps in part: what is written.
    #[must_use]
    pub fn written_bytes(self) -> u64 {
        u64::from(self.length).next_multiple_of(PAGE_BYTES)
    }

    /// Bytes of its extent.
    #[must_use]
    pub fn allocated_bytes(self) -> u64 {
        self.extent.map_or(0, Extent::bytes)
    }

    /// The extent as it is stored: class number and number, [`Record::NO_EXTENT`] and 0 where there is none.
    #[must_use]
    pub(crate) fn stored_extent(self) -> (u8, u64) {
        self.extent.map_or((Record::NO_EXTENT, 0), |extent| (extent.class().number(), extent.number()))
    }

    /// The reverse of [`Record::stored_extent`]; `None` for what cannot have been stored.
    #[must_use]
    pub(crate) fn from_stored(class: u8, number: u64, length: u32) -> Option<Record> {
        if class == Record::NO_EXTENT {
            return if number == 0 { Record::new(None, length) } else { None };
        }
        Record::new(Some(Extent::new(SizeClass::new(class)?, number)?), length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_could_have_been_stored_is_a_record() {
        assert_eq!(Record::from_stored(255, 0, 0), Some(Record::EMPTY));
        assert_eq!(Record::from_stored(255, 1, 0), None);
        assert_eq!(Record::from_stored(255, 0, 1), None);
        assert_eq!(Record::from_stored(0, 5, 0), None, "the empty block has no extent");
        assert_eq!(Record::from_stored(8, 5, 4096), None);
        assert_eq!(Record::from_stored(1, 5, 4096), None, "a smaller class would hold it");
        assert_eq!(Record::from_stored(0, 5, 4097), None);
        assert_eq!(Record::from_stored(7, u64::MAX, 524_288), None);
        assert_eq!(Record::from_stored(7, 3, 524_289), None);
        let record = Record::from_stored(3, 7, 20_000).unwrap();
        assert_eq!((record.stored_extent(), record.length(), record.written_bytes()), ((3, 7), 20_000, 20_480));
    }
}
