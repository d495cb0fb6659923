//! The buddy allocator: which extents of the data file are free. Pure: no files, no threads, no clock.
//!
//! Some free extents of the largest class are *unwritten*: the file system has set them aside, and nobody has written there yet. Their
//! first write costs the file system a note, so only whole blocks go there, and they are never split, unless nothing else is to be had
//! soon: then they are counted as written before they are.
//!
//! Invariants: free extents do not overlap and lie inside the file; two buddies are never both free (they would have
//! merged), except in the largest class. Everything else (occupied, held by pools, waiting for readers) is known to others
//! only, see `ledger`.

use crate::extent::{Extent, ExtentRun, MACROBLOCK_BYTES, SIZE_CLASSES, SizeClass};
use crate::free_set::FreeSet;
use crate::page_map::PageMap;
use std::ops::Range;

/// Free extents by size class.
#[derive(Default, Debug)]
pub struct Allocator {
    free: [FreeSet; SIZE_CLASSES],
    /// Free as well, of the largest class.
    unwritten: FreeSet,
    macroblocks: u64,
}

impl Allocator {
    /// An allocator of an empty file.
    #[must_use]
    pub fn new() -> Allocator {
        Allocator::default()
    }

    /// Goes on up to the end of this macroblock, of which `occupied` says what is not free; those before it are. Passed over where that
    /// is not ahead: it is damage, which others report.
    pub fn grow_occupied(&mut self, macroblock: u64, occupied: PageMap) {
        let Some(free_before) = macroblock.checked_sub(self.macroblocks) else { return };
        self.grow(free_before);
        occupied.free_extents(macroblock, &mut |extent| {
            self.set(extent.class()).insert(extent.number());
        });
        self.macroblocks = macroblock + 1;
    }

    #[allow(clippy::indexing_slicing)] // A class is below SIZE_CLASSES by construction.
    fn set(&mut self, class: SizeClass) -> &mut FreeSet {
        &mut self.free[class.index()]
    }

    /// Adds macroblocks at the end of the file, each two free extents of the largest class.
    pub fn grow(&mut self, macroblocks: u64) {
        let numbers = self.extend(macroblocks);
        self.set(SizeClass::LARGEST).insert_range(numbers);
    }

    /// The same, of space that nobody has written yet.
    pub fn grow_unwritten(&mut self, macroblocks: u64) {
        let numbers = self.extend(macroblocks);
        self.unwritten.insert_range(numbers);
    }

    /// Moves the end of the file; returns the numbers of the new extents of the largest class.
    fn extend(&mut self, macroblocks: u64) -> Range<u64> {
        let per_macroblock = MACROBLOCK_BYTES / SizeClass::LARGEST.bytes();
        let first = self.macroblocks * per_macroblock;
        self.macroblocks += macroblocks;
        first..self.macroblocks * per_macroblock
    }

    /// Takes up to `count` extents of `class`, lowest-numbered first, and appends them to `runs`, neighbours joined. Where the
    /// class has none it splits the lowest extent of the next larger class that has one. Returns how many were taken: fewer
    /// than asked only where nothing is left.
    pub fn allocate(&mut self, class: SizeClass, count: u32, runs: &mut Vec<ExtentRun>) -> u32 {
        let mut taken = 0;
        while taken < count {
            if let Some((number, run)) = self.set(class).take_first_run(count - taken) {
                taken += run;
                if let Some(first) = Extent::new(class, number) {
                    append(runs, ExtentRun::new(first, run));
                }
            } else if !self.split_for(class) {
                break;
            }
        }
        taken
    }

    /// Takes up to `count` unwritten extents, lowest-numbered first, and appends them to `runs`, neighbours joined. Returns how many.
    /// [`Allocator::release`] takes them back as written ones.
    pub fn take_unwritten(&mut self, count: u32, runs: &mut Vec<ExtentRun>) -> u32 {
        let mut taken = 0;
        while taken < count
            && let Some((number, run)) = self.unwritten.take_first_run(count - taken)
        {
            taken += run;
            if let Some(first) = Extent::new(SizeClass::LARGEST, number) {
                append(runs, ExtentRun::new(first, run));
            }
        }
        taken
    }

    /// Counts up to `count` unwritten extents, the lowest-numbered, as written from now on.
    pub fn count_as_written(&mut self, count: u32) {
        let mut runs = Vec::new();
        self.take_unwritten(count, &mut runs);
        runs.into_iter().flatten().for_each(|extent| self.release(extent));
    }

    /// Takes an unwritten extent back that is still unwritten.
    pub fn release_unwritten(&mut self, extent: Extent) {
        debug_assert!(!self.overlaps_free(extent), "{extent} is free already");
        self.unwritten.insert(extent.number());
    }

    /// Splits the lowest extent of the smallest larger class that has one, down to `class`.
    fn split_for(&mut self, class: SizeClass) -> bool {
        let mut larger = class.larger();
        while let Some(source) = larger {
            if let Some((number, _)) = self.set(source).take_first_run(1) {
                self.split(Extent::new(source, number), class);
                return true;
            }
            larger = source.larger();
        }
        false
    }

    fn split(&mut self, extent: Option<Extent>, class: SizeClass) {
        let Some(mut extent) = extent else { return };
        while extent.class() > class {
            let Some([lower, upper]) = extent.children() else { return };
            self.set(upper.class()).insert(upper.number());
            extent = lower;
        }
        self.set(class).insert(extent.number());
    }

    /// Gives an extent back, merging it with its buddy as long as that is free.
    pub fn release(&mut self, extent: Extent) {
        debug_assert!(extent.end() <= self.file_bytes(), "{extent} lies beyond the file");
        debug_assert!(!self.overlaps_free(extent), "{extent} is free already");
        let mut merged = extent;
        while let Some(parent) = merged.parent() {
            if !self.set(merged.class()).remove(merged.buddy().number()) {
                break;
            }
            merged = parent;
        }
        self.set(merged.class()).insert(merged.number());
    }

    /// True where any byte of `extent` is free.
    #[must_use]
    pub fn overlaps_free(&self, extent: Extent) -> bool {
        let mut covering = Some(extent);
        while let Some(larger) = covering {
            if self.free.get(larger.class().index()).is_some_and(|set| set.contains(larger.number())) {
                return true;
            }
            if larger.class() == SizeClass::LARGEST && self.unwritten.contains(larger.number()) {
                return true;
            }
            covering = larger.parent();
        }
        self.overlaps_free_parts(extent)
    }

    fn overlaps_free_parts(&self, extent: Extent) -> bool {
        extent.children().is_some_and(|children| {
            children.into_iter().any(|child| {
                self.free.get(child.class().index()).is_some_and(|set| set.contains(child.number()))
                    || self.overlaps_free_parts(child)
            })
        })
    }

    /// Bytes of the file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.macroblocks * MACROBLOCK_BYTES
    }

    /// Number of macroblocks of the file.
    #[must_use]
    pub fn macroblocks(&self) -> u64 {
        self.macroblocks
    }

    /// Bytes of all free extents.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.written_bytes() + self.unwritten_bytes()
    }

    /// Of them, what has been written before.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        SizeClass::all().zip(&self.free).map(|(class, set)| class.bytes() * set.count()).sum()
    }

    /// And what has not.
    #[must_use]
    pub fn unwritten_bytes(&self) -> u64 {
        SizeClass::LARGEST.bytes() * self.unwritten.count()
    }

    /// Numbers of free extents, by size class.
    #[must_use]
    pub fn free_counts(&self) -> [u64; SIZE_CLASSES] {
        let mut counts = self.free.each_ref().map(FreeSet::count);
        if let Some(largest) = counts.last_mut() {
            *largest += self.unwritten.count();
        }
        counts
    }

    /// All free extents, by class and number.
    pub fn free_extents(&self) -> impl Iterator<Item = Extent> + '_ {
        SizeClass::all()
            .zip(&self.free)
            .chain([(SizeClass::LARGEST, &self.unwritten)])
            .flat_map(|(class, set)| set.iter().filter_map(move |number| Extent::new(class, number)))
    }
}

fn append(runs: &mut Vec<ExtentRun>, run: ExtentRun) {
    if !runs.last_mut().is_some_and(|last| last.try_append(run)) {
        runs.push(run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::{MACROBLOCK_PAGES, PAGE_BYTES};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn extent(class: u8, number: u64) -> Extent {
        Extent::new(SizeClass::new(class).unwrap(), number).unwrap()
    }

    fn allocate_one(allocator: &mut Allocator, class: u8) -> Option<Extent> {
        let mut runs = Vec::new();
        allocator.allocate(SizeClass::new(class).unwrap(), 1, &mut runs);
        runs.first_mut().and_then(ExtentRun::pop_first)
    }

    fn free(allocator: &Allocator) -> Vec<String> {
        allocator.free_extents().map(|extent| extent.to_string()).collect()
    }

    /// The example of the design.
    #[test]
    fn splits_and_merges_as_the_example_tells() {
        let mut allocator = Allocator::new();
        assert_eq!(allocate_one(&mut allocator, 0), None, "an empty file has nothing");
        allocator.grow(1);
        assert_eq!(allocate_one(&mut allocator, 0), Some(extent(0, 0)));
        assert_eq!(free(&allocator), ["4k_1", "8k_1", "16k_1", "32k_1", "64k_1", "128k_1", "256k_1", "512k_1"]);
        assert_eq!(allocate_one(&mut allocator, 0), Some(extent(0, 1)));
        assert_eq!(allocate_one(&mut allocator, 3), Some(extent(3, 1)));
        assert_eq!(free(&allocator), ["8k_1", "16k_1", "64k_1", "128k_1", "256k_1", "512k_1"]);
        allocator.release(extent(0, 0));
        allocator.release(extent(0, 1));
        assert_eq!(free(&allocator), ["32k_0", "64k_1", "128k_1", "256k_1", "512k_1"]);
        allocator.release(extent(3, 1));
        assert_eq!(free(&allocator), ["512k_0", "512k_1"]);
    }

    #[test]
    fn many_at_once_lie_side_by_side() {
        let mut allocator = Allocator::new();
        allocator.grow(1);
        let mut runs = Vec::new();
        assert_eq!(allocator.allocate(SizeClass::SMALLEST, 16, &mut runs), 16);
        assert_eq!(runs, [ExtentRun::new(extent(0, 0), 16)]);
        assert_eq!(allocator.allocate(SizeClass::LARGEST, 3, &mut runs), 1, "only one is left whole");
        assert_eq!(allocator.allocate(SizeClass::SMALLEST, 1000, &mut runs), 112, "and everything else in pages");
        assert_eq!(allocator.free_bytes(), 0);
    }

    #[test]
    fn an_extent_overlaps_what_is_free_around_it_and_within() {
        let mut allocator = Allocator::new();
        allocator.grow(1);
        let pages = u32::try_from(MACROBLOCK_PAGES).unwrap();
        assert_eq!(allocator.allocate(SizeClass::SMALLEST, pages, &mut Vec::new()), pages);
        let overlaps = |allocator: &Allocator, page: u64| {
            (0..8u8).map(|class| allocator.overlaps_free(extent(class, page >> class))).collect::<Vec<_>>()
        };
        assert_eq!(overlaps(&allocator, 5), [false; 8]);
        allocator.release(extent(0, 5));
        assert_eq!(overlaps(&allocator, 5), [true; 8]);
        assert_eq!(overlaps(&allocator, 7), [false, false, true, true, true, true, true, true]);
        assert_eq!(overlaps(&allocator, 5 + MACROBLOCK_PAGES / 2), [false; 8]);
        allocator.release(extent(0, 4));
        assert_eq!(overlaps(&allocator, 4), [true; 8], "they have become one");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Grow,
        GrowUnwritten,
        /// So many unwritten extents are taken, and so many of them given back as they are, the others as written.
        Write(u32, usize),
        Allocate(u8, u32),
        Release(usize),
        Reopen,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => Just(Step::Grow),
            1 => Just(Step::GrowUnwritten),
            1 => (1..5u32, 0..5usize).prop_map(|(count, unwritten)| Step::Write(count, unwritten)),
            8 => (0..8u8, 1..20u32).prop_map(|(class, count)| Step::Allocate(class, count)),
            8 => any::<usize>().prop_map(Step::Release),
            1 => Just(Step::Reopen),
        ]
    }

    /// The plainest model: one flag a page.
    #[derive(Default)]
    struct Model {
        occupied: Vec<bool>,
    }

    impl Model {
        fn pages(extent: Extent) -> std::ops::Range<usize> {
            usize::try_from(extent.offset() / PAGE_BYTES).unwrap()..usize::try_from(extent.end() / PAGE_BYTES).unwrap()
        }

        fn is_free(&self, extent: Extent) -> bool {
            self.occupied[Model::pages(extent)].iter().all(|occupied| !occupied)
        }

        fn set(&mut self, extent: Extent, occupied: bool) {
            for page in &mut self.occupied[Model::pages(extent)] {
                assert_ne!(*page, occupied);
                *page = occupied;
            }
        }

        /// The largest free extents: each is free, its parent is not.
        fn largest_free(&self) -> Vec<Extent> {
            let pages = self.occupied.len() as u64;
            SizeClass::all()
                .flat_map(|class| (0..pages / class.pages()).map(move |number| Extent::new(class, number).unwrap()))
                .filter(|extent| self.is_free(*extent) && extent.parent().is_none_or(|parent| !self.is_free(parent)))
                .collect()
        }

        fn page_maps(&self) -> Vec<(u64, PageMap)> {
            let mut maps = Vec::new();
            for (macroblock, pages) in self.occupied.chunks(usize::try_from(MACROBLOCK_PAGES).unwrap()).enumerate() {
                let mut map = PageMap::EMPTY;
                for (page, occupied) in pages.iter().enumerate() {
                    if *occupied {
                        assert!(map.occupy(extent(0, macroblock as u64 * MACROBLOCK_PAGES + page as u64)));
                    }
                }
                if !map.is_empty() {
                    maps.push((macroblock as u64, map));
                }
            }
            maps
        }
    }

    proptest! {
        #[test]
        fn growing_at_once_is_growing_step_by_step(steps in proptest::collection::vec((0..1200u64, any::<bool>()), 1..6)) {
            let (mut at_once, mut step_by_step) = (Allocator::new(), Allocator::new());
            for (macroblocks, unwritten) in steps {
                let grow: fn(&mut Allocator, u64) =
                    if unwritten { Allocator::grow_unwritten } else { Allocator::grow };
                grow(&mut at_once, macroblocks);
                (0..macroblocks).for_each(|_| grow(&mut step_by_step, 1));
                prop_assert_eq!(at_once.macroblocks(), step_by_step.macroblocks());
                prop_assert_eq!(at_once.unwritten_bytes(), step_by_step.unwritten_bytes());
                prop_assert_eq!(at_once.free_counts(), step_by_step.free_counts());
                prop_assert!(at_once.free_extents().eq(step_by_step.free_extents()));
            }
        }

        #[test]
        fn agrees_with_one_flag_a_page(steps in proptest::collection::vec(step(), 1..80)) {
            let mut model = Model::default();
            let mut allocator = Allocator::new();
            let mut taken = Vec::new();
            let (mut unwritten, mut taken_unwritten) = (BTreeSet::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Grow if model.occupied.len() < 1024 => {
                        allocator.grow(1);
                        model.occupied.resize(model.occupied.len() + 256, false);
                    }
                    Step::GrowUnwritten if model.occupied.len() < 1024 => {
                        allocator.grow_unwritten(1);
                        let first = model.occupied.len() as u64 / SizeClass::LARGEST.pages();
                        unwritten.extend([extent(7, first), extent(7, first + 1)]);
                        model.occupied.resize(model.occupied.len() + 256, false);
                    }
                    Step::Grow | Step::GrowUnwritten => {}
                    Step::Write(count, left) => {
                        let mut runs = Vec::new();
                        let got = allocator.take_unwritten(count, &mut runs);
                        prop_assert_eq!(got as usize, unwritten.len().min(count as usize));
                        for (number, extent) in runs.into_iter().flatten().enumerate() {
                            prop_assert_eq!(unwritten.pop_first(), Some(extent), "the lowest first");
                            prop_assert!(!allocator.overlaps_free(extent));
                            taken_unwritten.push((extent, number < left));
                        }
                        for (extent, unchanged) in taken_unwritten.drain(..) {
                            if unchanged {
                                allocator.release_unwritten(extent);
                                unwritten.insert(extent);
                            } else {
                                allocator.release(extent);
                            }
                        }
                    }
                    Step::Allocate(class, count) => {
                        let class = SizeClass::new(class).unwrap();
                        let mut runs = Vec::new();
                        let got = allocator.allocate(class, count, &mut runs);
                        let extents: Vec<_> = runs.into_iter().flatten().collect();
                        prop_assert_eq!(extents.len(), got as usize);
                        for extent in &extents {
                            prop_assert_eq!(extent.class(), class);
                            prop_assert!(!unwritten.iter().any(|other| Model::pages(*other).contains(&Model::pages(*extent).start)));
                            model.set(*extent, true);
                        }
                        if got < count {
                            let left = model.largest_free();
                            prop_assert!(left.iter().all(|free| free.class() < class || unwritten.contains(free)));
                        }
                        taken.extend(extents);
                    }
                    Step::Release(choice) if !taken.is_empty() => {
                        let extent = taken.swap_remove(choice % taken.len());
                        model.set(extent, false);
                        allocator.release(extent);
                    }
                    Step::Release(_) => {}
                    Step::Reopen => {
                        let macroblocks = allocator.macroblocks();
                        allocator = Allocator::new();
                        for (macroblock, map) in model.page_maps() {
                            allocator.grow_occupied(macroblock, map);
                        }
                        allocator.grow(macroblocks - allocator.macroblocks());
                        unwritten.clear();
                    }
                }
                let mut expected = model.largest_free();
                expected.sort_unstable();
                let mut found: Vec<_> = allocator.free_extents().collect();
                found.sort_unstable();
                prop_assert_eq!(found, expected);
                prop_assert_eq!(allocator.unwritten_bytes(), unwritten.len() as u64 * SizeClass::LARGEST.bytes());
                prop_assert!(unwritten.iter().all(|extent| allocator.overlaps_free(*extent)));
            }
            for extent in taken.drain(..) {
                allocator.release(extent);
            }
            prop_assert_eq!(allocator.free_bytes(), allocator.file_bytes());
            prop_assert!(allocator.free_extents().all(|extent| extent.class() == SizeClass::LARGEST));
        }
    }
}
