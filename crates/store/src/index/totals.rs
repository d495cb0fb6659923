//! What is stored, counted by size class. Nothing is kept that follows from these numbers: neither sums nor bytes of extents.
//!
//! Numbers that were read from a damaged index may be anything, so sums wrap instead of overflowing.

use crate::extent::{SIZE_CLASSES, SizeClass};
use crate::record::Record;
use std::fmt;

/// Counts over all blocks, by size class.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Number of blocks; those of no bytes, which have no extent, last.
    pub blocks: [u64; SIZE_CLASSES + 1],
    /// Sum of their lengths.
    pub bytes_stored: [u64; SIZE_CLASSES],
}

/// Blocks of one size class, or without an extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClassTotals {
    /// Their size class; `None`: they have no extent.
    pub class: Option<SizeClass>,
    /// Number of blocks.
    pub blocks: u64,
    /// Sum of their lengths.
    pub bytes_stored: u64,
}

impl fmt::Display for ClassTotals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class {
            Some(class) => {
                write!(formatter, "{} blocks of {} bytes in extents of {class}", self.blocks, self.bytes_stored)
            }
            None => write!(formatter, "{} blocks of no bytes", self.blocks),
        }
    }
}

impl ClassTotals {
    /// Sum of their extents.
    #[must_use]
    pub fn bytes_allocated(&self) -> u64 {
        self.blocks.wrapping_mul(self.class.map_or(0, SizeClass::bytes))
    }

    /// Whether so many blocks can have so many bytes: each is longer than what the next smaller class holds, and there is one block
    /// of no bytes.
    fn is_possible(&self) -> bool {
        let Some(class) = self.class else { return self.blocks <= 1 };
        let shortest = class.smaller().map_or(1, |smaller| smaller.bytes() + 1);
        let bounds = self.blocks.checked_mul(shortest).zip(self.blocks.checked_mul(class.bytes()));
        bounds.is_some_and(|(least, most)| (least..=most).contains(&self.bytes_stored))
    }
}

impl Totals {
    /// Counts a block in.
    pub fn add(&mut self, record: Record) {
        self.change(record, u64::wrapping_add);
    }

    /// Counts a block out.
    pub fn subtract(&mut self, record: Record) {
        self.change(record, u64::wrapping_sub);
    }

    fn change(&mut self, record: Record, change: impl Fn(u64, u64) -> u64) {
        let class = record.extent().map_or(SIZE_CLASSES, |extent| extent.class().index());
        if let Some(blocks) = self.blocks.get_mut(class) {
            *blocks = change(*blocks, 1);
        }
        if let Some(bytes) = self.bytes_stored.get_mut(class) {
            *bytes = change(*bytes, u64::from(record.length()));
        }
    }

    /// Each size class, smallest first, and at last what has no extent.
    pub fn by_class(&self) -> impl Iterator<Item = ClassTotals> + '_ {
        let classes = SizeClass::all().map(Some).chain([None]);
        let bytes = self.bytes_stored.iter().copied().chain([0]);
        classes.zip(self.blocks).zip(bytes).map(|((class, blocks), bytes_stored)| ClassTotals {
            class,
            blocks,
            bytes_stored,
        })
    }

    /// Number of all blocks.
    #[must_use]
    pub fn block_count(&self) -> u64 {
        sum(self.blocks)
    }

    /// Sum of the lengths of all blocks.
    #[must_use]
    pub fn bytes_stored(&self) -> u64 {
        sum(self.bytes_stored)
    }

    /// Sum of the extents of all blocks.
    #[must_use]
    pub fn bytes_allocated(&self) -> u64 {
        sum(self.by_class().map(|class| class.bytes_allocated()))
    }

    /// What cannot be so, whatever is stored.
    #[must_use]
    pub fn impossible(&self) -> Option<ClassTotals> {
        self.by_class().find(|class| !class.is_possible())
    }
}

fn sum(numbers: impl IntoIterator<Item = u64>) -> u64 {
    numbers.into_iter().fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::{BLOCK_BYTES_MAX, Extent};
    use proptest::prelude::*;

    fn record(length: u32) -> Record {
        let extent = SizeClass::for_length(length).and_then(|class| Extent::new(class, 3));
        Record::new(extent, length).unwrap()
    }

    #[test]
    fn a_block_counts_in_its_class() {
        let mut totals = Totals::default();
        for length in [0, 1, 4096, 4097, 500_000, BLOCK_BYTES_MAX] {
            totals.add(record(length));
        }
        assert_eq!(totals.blocks, [2, 1, 0, 0, 0, 0, 0, 2, 1]);
        assert_eq!(totals.bytes_stored, [4097, 4097, 0, 0, 0, 0, 0, 500_000 + 524_288]);
        assert_eq!((totals.block_count(), totals.bytes_stored()), (6, 4097 + 4097 + 500_000 + 524_288));
        assert_eq!(totals.bytes_allocated(), 2 * 4096 + 8192 + 2 * 524_288);
        totals.subtract(record(0));
        totals.subtract(record(4097));
        assert_eq!((totals.blocks, totals.bytes_stored[1]), ([2, 0, 0, 0, 0, 0, 0, 2, 0], 0));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let impossible = |change: fn(&mut Totals)| {
            let mut totals = Totals::default();
            [1, 4096, 4097, 8192].into_iter().for_each(|length| totals.add(record(length)));
            change(&mut totals);
            totals.impossible().map(|class| class.class.map(SizeClass::number))
        };
        assert_eq!(impossible(|_| {}), None);
        assert_eq!(impossible(|totals| totals.add(Record::EMPTY)), None);
        assert_eq!(impossible(|totals| totals.bytes_stored[0] = 1), Some(Some(0)), "two blocks have two bytes");
        assert_eq!(impossible(|totals| totals.bytes_stored[1] += 4096), Some(Some(1)), "longer than their extents");
        assert_eq!(impossible(|totals| totals.bytes_stored[1] = 2 * 4096), Some(Some(1)), "a smaller class holds them");
        assert_eq!(impossible(|totals| totals.bytes_stored[7] = 1), Some(Some(7)), "bytes of no block");
        assert_eq!(impossible(|totals| totals.blocks[6] = u64::MAX), Some(Some(6)), "more than any number of bytes");
        assert_eq!(impossible(|totals| totals.blocks[8] = 2), Some(None), "there is one empty block");
    }

    proptest! {
        #[test]
        fn what_was_counted_is_possible_and_counting_back_leaves_nothing(
            lengths in proptest::collection::vec(1..=BLOCK_BYTES_MAX, 0..50),
        ) {
            let mut totals = Totals::default();
            lengths.iter().for_each(|length| totals.add(record(*length)));
            prop_assert_eq!(totals.impossible(), None);
            let allocated: u64 = lengths.iter().map(|length| record(*length).allocated_bytes()).sum();
            prop_assert_eq!((totals.block_count(), totals.bytes_allocated()), (lengths.len() as u64, allocated));
            lengths.iter().for_each(|length| totals.subtract(record(*length)));
            prop_assert_eq!(totals, Totals::default());
        }

        #[test]
        fn any_numbers_can_be_added_up(blocks: [u64; SIZE_CLASSES + 1], bytes_stored: [u64; SIZE_CLASSES]) {
            let totals = Totals { blocks, bytes_stored };
            let _ = (totals.block_count(), totals.bytes_stored(), totals.bytes_allocated(), totals.impossible());
        }
    }
}
