//! Extents: where bytes live in the data file, and the buddy arithmetic between them. Nothing is stored that can be computed.
//!
//! A size class is a number 0…7: 4 KiB, 8 KiB … 512 KiB. An extent is `(class, number)`; it starts at `number × class size`.
//! Its buddy is `number ^ 1` in the same class, its parent `(class + 1, number / 2)`.

use std::fmt;

/// Bytes of a page, the smallest extent.
pub const PAGE_BYTES: u64 = 4096;
/// The same, as lengths in memory are counted.
#[allow(clippy::cast_possible_truncation)]
pub(crate) const PAGE: usize = PAGE_BYTES as usize;
/// Number of size classes.
pub const SIZE_CLASSES: usize = 8;
/// Bytes of a macroblock, the unit in which the data file grows.
pub const MACROBLOCK_BYTES: u64 = 1 << 20;
/// The largest data file has so many macroblocks, 4 PiB: the index numbers them in 32 bits.
pub const MACROBLOCKS_MAX: u64 = 1 << 32;
/// The macroblocks of a file of so many bytes. What lies beyond the largest data file does not exist, as a partial macroblock does not.
#[must_use]
pub const fn macroblocks_in(bytes: u64) -> u64 {
    let macroblocks = bytes / MACROBLOCK_BYTES;
    if macroblocks < MACROBLOCKS_MAX { macroblocks } else { MACROBLOCKS_MAX }
}

/// Pages of a macroblock.
pub const MACROBLOCK_PAGES: u64 = MACROBLOCK_BYTES / PAGE_BYTES;
/// Bytes of the largest block.
pub const BLOCK_BYTES_MAX: u32 = 524_288;

/// One of the eight sizes of extents: 4 KiB << class.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SizeClass(u8);

impl SizeClass {
    /// 4 KiB.
    pub const SMALLEST: SizeClass = SizeClass(0);
    /// 512 KiB.
    pub const LARGEST: SizeClass = SizeClass(7);

    /// The class with this number, if there is one.
    #[must_use]
    pub const fn new(class: u8) -> Option<SizeClass> {
        if class <= SizeClass::LARGEST.0 { Some(SizeClass(class)) } else { None }
    }

    /// All classes, smallest first.
    pub fn all() -> impl DoubleEndedIterator<Item = SizeClass> + ExactSizeIterator {
        const CLASSES: [SizeClass; SIZE_CLASSES] = {
            let mut classes = [SizeClass(0); SIZE_CLASSES];
            let mut class = 0;
            while class < SIZE_CLASSES {
                #[allow(clippy::cast_possible_truncation, clippy::indexing_slicing)]
                {
                    classes[class] = SizeClass(class as u8);
                }
                class += 1;
            }
            classes
        };
        CLASSES.into_iter()
    }

    /// The smallest class whose extents hold `length` bytes; `None` for the empty block, which needs no extent, and for
    /// more than [`BLOCK_BYTES_MAX`].
    #[must_use]
    pub fn for_length(length: u32) -> Option<SizeClass> {
        if length == 0 || length > BLOCK_BYTES_MAX {
            return None;
        }
        let pages = u64::from(length).div_ceil(PAGE_BYTES);
        u8::try_from(pages.next_power_of_two().trailing_zeros()).ok().and_then(SizeClass::new)
    }

    /// The number of the class, 0…7.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The number of the class, for arrays of [`SIZE_CLASSES`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Bytes of an extent of this class.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        PAGE_BYTES << self.0
    }

    /// Pages of an extent of this class.
    #[must_use]
    pub const fn pages(self) -> u64 {
        1 << self.0
    }

    /// The next smaller class.
    #[must_use]
    pub const fn smaller(self) -> Option<SizeClass> {
        match self.0.checked_sub(1) {
            Some(class) => Some(SizeClass(class)),
            None => None,
        }
    }

    /// The next larger class.
    #[must_use]
    pub const fn larger(self) -> Option<SizeClass> {
        SizeClass::new(self.0 + 1)
    }
}

impl fmt::Display for SizeClass {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}k", self.bytes() / 1024)
    }
}

impl fmt::Debug for SizeClass {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A piece of the data file: `number` counts extents of the same class from the start of the file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    class: SizeClass,
    number: u64,
}

impl Extent {
    /// The largest number whose offset still fits into a signed 64-bit file offset, in any class.
    const NUMBER_MAX: u64 = (i64::MAX as u64) / PAGE_BYTES / (1 << 7) - 1;

    /// The extent `number` of `class`. `None` where its end would lie beyond any file.
    #[must_use]
    pub const fn new(class: SizeClass, number: u64) -> Option<Extent> {
        let shift = SizeClass::LARGEST.0 - class.0;
        if number >> shift <= Extent::NUMBER_MAX { Some(Extent { class, number }) } else { None }
    }

    /// The size class.
    #[must_use]
    pub const fn class(self) -> SizeClass {
        self.class
    }

    /// The number within the class.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.number
    }

    /// Offset of the first byte in the data file.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.number * self.class.bytes()
    }

    /// Bytes of the extent.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.class.bytes()
    }

    /// Offset of the first byte behind the extent.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.offset() + self.bytes()
    }

    /// The macroblock that the extent lies in.
    #[must_use]
    pub const fn macroblock(self) -> u64 {
        self.offset() / MACROBLOCK_BYTES
    }

    /// The first of its pages, counted from the start of its macroblock.
    #[must_use]
    pub const fn page_in_macroblock(self) -> u64 {
        self.offset() % MACROBLOCK_BYTES / PAGE_BYTES
    }

    /// The extent that it merges with.
    #[must_use]
    pub const fn buddy(self) -> Extent {
        Extent { class: self.class, number: self.number ^ 1 }
    }

    /// The extent that it and its buddy merge into; `None` in the largest class.
    #[must_use]
    pub const fn parent(self) -> Option<Extent> {
        match self.class.larger() {
            Some(class) => Some(Extent { class, number: self.number / 2 }),
            None => None,
        }
    }

    /// The two extents that it splits into, lower one first; `None` in the smallest class.
    #[must_use]
    pub const fn children(self) -> Option<[Extent; 2]> {
        match self.class.smaller() {
            Some(class) => {
                Some([Extent { class, number: self.number * 2 }, Extent { class, number: self.number * 2 + 1 }])
            }
            None => None,
        }
    }

    /// The next extent of the same class.
    pub(crate) const fn following(self, count: u64) -> Extent {
        Extent { class: self.class, number: self.number + count }
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}_{}", self.class, self.number)
    }
}

impl fmt::Debug for Extent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Extents of one class that lie side by side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExtentRun {
    first: Extent,
    count: u32,
}

impl ExtentRun {
    /// `count` extents, beginning with `first`.
    #[must_use]
    pub const fn new(first: Extent, count: u32) -> ExtentRun {
        ExtentRun { first, count }
    }

    /// How many extents there are.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.count
    }

    /// Their size class.
    #[must_use]
    pub const fn class(self) -> SizeClass {
        self.first.class
    }

    /// Takes the lowest extent out of the run.
    pub fn pop_first(&mut self) -> Option<Extent> {
        self.count = self.count.checked_sub(1)?;
        let first = self.first;
        self.first = first.following(1);
        Some(first)
    }

    /// Appends `other` where it lies right behind.
    pub(crate) fn try_append(&mut self, other: ExtentRun) -> bool {
        let adjacent = self.first.class == other.first.class
            && self.first.following(u64::from(self.count)) == other.first
            && self.count.checked_add(other.count).is_some();
        if adjacent {
            self.count += other.count;
        }
        adjacent
    }
}

impl IntoIterator for ExtentRun {
    type Item = Extent;
    type IntoIter = ExtentRunIterator;

    fn into_iter(self) -> ExtentRunIterator {
        ExtentRunIterator(self)
    }
}

/// The extents of a run, lowest first.
pub struct ExtentRunIterator(ExtentRun);

impl Iterator for ExtentRunIterator {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        self.0.pop_first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn extent(class: u8, number: u64) -> Extent {
        Extent::new(SizeClass::new(class).unwrap(), number).unwrap()
    }

    #[test]
    fn a_length_lies_in_the_smallest_class_that_holds_it() {
        let class = |length| SizeClass::for_length(length).map(SizeClass::number);
        assert_eq!(class(0), None);
        for number in 0..=7u8 {
            let bytes = 4096u32 << number;
            assert_eq!(class(bytes), Some(number));
            assert_eq!(class(bytes - 1), Some(number));
            assert_eq!(class(bytes + 1), (number < 7).then_some(number + 1));
        }
        assert_eq!(class(1), Some(0));
    }

    #[test]
    fn buddies_parents_and_children_agree() {
        for class in SizeClass::all() {
            for number in 0..9 {
                let extent = Extent::new(class, number).unwrap();
                assert_eq!(extent.buddy().buddy(), extent);
                assert_eq!(extent.parent(), extent.buddy().parent());
                if let Some(children) = extent.children() {
                    assert_eq!(children[0].buddy(), children[1]);
                    assert_eq!(children[0].offset(), extent.offset());
                    assert_eq!(children[1].end(), extent.end());
                    assert!(children.iter().all(|child| child.parent() == Some(extent)));
                }
            }
        }
    }

    #[test]
    fn names_say_where_an_extent_lies() {
        assert_eq!(extent(0, 1).to_string(), "4k_1");
        assert_eq!(extent(7, 3).to_string(), "512k_3");
        assert_eq!(extent(3, 33).macroblock(), 1);
        assert_eq!(extent(3, 33).page_in_macroblock(), 8);
    }

    #[test]
    fn a_file_has_whole_macroblocks_and_no_more_than_can_be_numbered() {
        let of = [0, (1 << 20) - 1, 1 << 20, (5 << 20) + 1, 1 << 52, (1 << 52) + (1 << 20), 1 << 53, u64::MAX];
        assert_eq!(of.map(macroblocks_in), [0, 0, 1, 5, 1 << 32, 1 << 32, 1 << 32, 1 << 32]);
    }

    #[test]
    fn numbers_beyond_any_file_are_refused() {
        for class in SizeClass::all() {
            assert!(Extent::new(class, u64::MAX / class.bytes()).is_none());
            let last = Extent::new(class, (1 << 50) >> class.number()).unwrap();
            assert!(i64::try_from(last.end()).is_ok());
        }
    }
}
