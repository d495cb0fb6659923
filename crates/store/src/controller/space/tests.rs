use super::*;
use crate::extent::{MACROBLOCK_BYTES, PAGE_BYTES};
use std::time::Duration;

fn starved(space: &mut Space, class: SizeClass) {
    space.starved.push_back(AllocationRequest {
        worker: 0,
        id: 1,
        class,
        count: 1,
        whole: false,
        since: Instant::now(),
    });
}

#[test]
fn whole_blocks_take_what_nobody_has_written_and_others_wait_for_zeros() {
    let (mut space, now) = (Space::new(Allocator::new(), None, 1), Instant::now());
    let (large, small) = (SizeClass::LARGEST, SizeClass::SMALLEST);
    starved(&mut space, small);
    assert_eq!(space.relief(now), Relief::Grow(4));
    space.growth_begins(now);
    assert_eq!(space.relief(now), Relief::Wait);
    space.grown(4, false, false, now);
    assert_eq!(space.allocate(large, 2, true).into_iter().flatten().count(), 2);
    assert!(space.allocate(small, 1, false).is_empty(), "nothing of it is split before zeros are written");
    assert!(space.allocate(large, 1, false).is_empty(), "nor written in part");
    assert_eq!(space.relief(now), Relief::Zero(6));
    let extents = space.zeroing_begins(4, now);
    assert_eq!((extents.len(), space.free_counts()[7]), (4, 6), "free, if not at hand");
    assert_eq!(space.relief(now), Relief::Wait);
    let (written, unwritten) = extents.split_at(3);
    space.zeroed(written, unwritten, now);
    assert_eq!(space.relief(now), Relief::Recall, "not again at once where the disk has no space");
    let taken: Vec<_> = space.allocate(small, 1, false).into_iter().flatten().collect();
    assert_eq!(taken[0].offset(), written[0].offset());
    // What has been written is kept for small blocks while there is little of it.
    let last: Vec<_> = space.allocate(large, 3, true).into_iter().flatten().collect();
    assert_eq!(last[..3].iter().map(|extent| extent.number()).collect::<Vec<_>>(), [5, 6, 7]);
    assert_eq!(space.allocator().free_bytes(), 3 * large.bytes() - PAGE_BYTES);
    assert_eq!(
        space.allocate(large, 3, true).into_iter().flatten().count(),
        2,
        "but not from those who find nothing else"
    );
    space.check();
}

/// A file of one macroblock, which cannot grow, and two blocks that fill it.
fn full() -> (Space, Vec<Extent>) {
    let mut space = Space::new(Allocator::new(), Some(MACROBLOCK_BYTES), 1);
    space.grown(1, true, false, Instant::now());
    let mut blocks = Vec::new();
    for _ in 0..2 {
        blocks.extend(space.allocate(SizeClass::LARGEST, 1, true).into_iter().flatten());
    }
    blocks.iter().for_each(|extent| space.occupy(*extent));
    (space, blocks)
}

#[test]
fn a_removal_is_waited_for_even_after_a_search_in_vain() {
    let ((mut space, blocks), now) = (full(), Instant::now());
    starved(&mut space, SizeClass::SMALLEST);
    assert_eq!(space.relief(now), Relief::Recall);
    space.recall.asked(0);
    assert_eq!(space.relief(now), Relief::None);
    space.recall.is_over();
    assert_eq!(space.relief(now), Relief::None, "another search would be in vain");
    space.remove(1, blocks[0]);
    assert_eq!(space.relief(now), Relief::Recall);
    space.recall.asked(0);
    assert_eq!(space.relief(now), Relief::Wait, "until the removal is durable");
    let clock = Clock::new(1, 1);
    space.removals_are_durable(1, &clock);
    space.drain(&clock);
    assert_eq!(space.relief(now), Relief::Wait);
    let unread = space.take_unread().unwrap();
    assert_eq!((unread, space.take_unread()), (blocks[0], None));
    assert_eq!(space.relief(now), Relief::Wait, "until the cache has forgotten it");
    assert!(space.allocate(SizeClass::SMALLEST, 1, false).is_empty());
    space.free_unread(unread);
    assert_eq!(space.allocate(SizeClass::SMALLEST, 1, false).len(), 1);
    space.check();
}

#[test]
fn nobody_waits_for_zeros_that_the_disk_refuses() {
    let (mut space, now) = (Space::new(Allocator::new(), None, 1), Instant::now());
    let small = SizeClass::SMALLEST;
    space.grown(4, false, false, now);
    let extents = space.zeroing_begins(8, now);
    space.zeroed(&extents[..1], &extents[1..], now);
    assert_eq!(space.allocate(small, 500, false).into_iter().flatten().count(), 128, "what was written comes first");
    assert_eq!(space.allocate(small, 1, false).into_iter().flatten().count(), 1);
    space.check();
}

#[test]
fn what_comes_back_unwritten_is_unwritten() {
    let (mut space, now) = (Space::new(Allocator::new(), None, 1), Instant::now());
    space.grown(4, false, false, now);
    let unwritten = space.allocator().unwritten_bytes();
    let runs = space.allocate(SizeClass::LARGEST, 3, true);
    space.take_back(runs);
    assert_eq!(space.allocator().unwritten_bytes(), unwritten);
    let named = space.allocate(SizeClass::LARGEST, 1, true).into_iter().flatten().next().unwrap();
    space.occupy(named);
    space.remove(1, named);
    let clock = Clock::new(1, 1);
    space.removals_are_durable(1, &clock);
    space.drain(&clock);
    let unread = space.take_unread().unwrap();
    space.free_unread(unread);
    assert_eq!(space.allocator().unwritten_bytes(), unwritten - named.bytes(), "it has been written");
    space.check();
}

#[test]
fn zeros_that_fail_everywhere_do_not_let_the_file_grow() {
    let (mut space, now) = (Space::new(Allocator::new(), None, 1), Instant::now());
    space.grown(4, false, false, now);
    assert_eq!(space.zeroing_ahead(now), Some(8));
    let extents = space.zeroing_begins(8, now);
    assert_eq!(extents.len(), 8);
    space.zeroed(&[], &[], now);
    assert_eq!((space.growth_ahead(now), space.zeroing_ahead(now)), (None, None));
    starved(&mut space, SizeClass::SMALLEST);
    assert_eq!(space.relief(now), Relief::Grow(4), "for somebody who needs it");
}

#[test]
fn zeros_leave_some_space_where_the_file_cannot_grow() {
    let (mut space, now) = (Space::new(Allocator::new(), Some(4 * MACROBLOCK_BYTES), 1), Instant::now());
    space.grown(4, false, false, now);
    starved(&mut space, SizeClass::SMALLEST);
    assert_eq!(space.relief(now), Relief::Zero(4));
    assert_eq!(space.zeroing_begins(4, now).len(), 4);
    let later = now + Duration::from_secs(2);
    assert!(!space.wants_back_what_is_not_zeroed());
    space.look_at_zeros(later);
    assert!(space.wants_back_what_is_not_zeroed());
    assert_eq!(space.allocate(SizeClass::SMALLEST, 1, false).len(), 1);
}

#[test]
fn space_is_not_called_short_for_ever() {
    let (mut space, mut now) = (Space::new(Allocator::new(), None, 1), Instant::now());
    space.grown(64, true, true, now);
    let mut held = Vec::new();
    while !space.is_short() {
        held.extend(space.allocate(SizeClass::LARGEST, 1, true));
    }
    assert!(space.allocator().free_bytes() > 2 * MACROBLOCK_BYTES, "more than the least");
    assert_eq!(space.growth_ahead(now), None, "the disk was full a moment ago");
    now += Duration::from_secs(2);
    assert_eq!(space.growth_ahead(now), Some(4));
    space.growth_begins(now);
    space.grown(4, true, false, now);
    assert!(!space.is_short());
}

#[test]
fn a_large_file_is_not_short_of_space_while_its_pools_could_be_filled() {
    let macroblocks = 64 << 10;
    let mut space = Space::new(Allocator::new(), Some(macroblocks * MACROBLOCK_BYTES), 2);
    space.grown(macroblocks, true, false, Instant::now());
    let pools = 2 * POOLS_BYTES_MAX;
    while space.allocator().free_bytes() > pools + MACROBLOCK_BYTES {
        space.allocate(SizeClass::LARGEST, 1024, true);
    }
    assert!(space.allocator().free_bytes() < macroblocks * MACROBLOCK_BYTES / 128);
    assert!(!space.is_short());
    while space.allocator().free_bytes() >= pools {
        space.allocate(SizeClass::LARGEST, 1, true);
    }
    assert!(space.is_short());
}

#[test]
fn nobody_waits_for_zeros_that_come_slowly() {
    let (mut space, mut now) = (Space::new(Allocator::new(), None, 1), Instant::now());
    let small = SizeClass::SMALLEST;
    let slow = Duration::from_secs(2);
    space.grown(32, false, false, now);
    starved(&mut space, small);
    assert_eq!(space.relief(now), Relief::Zero(8));
    let extents = space.zeroing_begins(8, now);
    space.look_at_zeros(now);
    assert!(space.allocate(small, 1, false).is_empty(), "they may come at once");
    now += slow;
    space.look_at_zeros(now);
    assert_eq!(space.allocate(small, 600, false).into_iter().flatten().count(), 600);
    space.starved.clear();
    space.zeroed(&extents, &[], now);
    assert_eq!(space.zeroing_ahead(now), None, "more was asked for than half of what was made");
    assert_eq!(space.allocate(small, 2000, false).into_iter().flatten().count(), 40 + 8 * 128);
    now += slow;
    assert_eq!(space.zeroing_ahead(now), Some(8));
    let extents = space.zeroing_begins(8, now);
    assert_eq!(space.allocate(small, 500, false).into_iter().flatten().count(), 500);
    space.zeroed(&extents, &[], now);
    assert_eq!(space.allocate(small, 2000, false).into_iter().flatten().count(), 12 + 8 * 128);
    assert!(space.allocate(small, 1, false).is_empty(), "they keep up");
    assert_eq!(space.zeroing_ahead(now), Some(16));
    space.check();
}

#[test]
fn no_file_has_more_macroblocks_than_the_index_can_number() {
    let (max, mib) = (MACROBLOCKS_MAX, MACROBLOCK_BYTES);
    for (capacity, most) in [(None, max), (Some(u64::MAX), max), (Some(max * mib), max), (Some(3 * mib - 1), 2)] {
        assert_eq!(macroblocks_max(capacity), most);
    }
    assert_eq!(u32::try_from(MACROBLOCKS_MAX - 1), Ok(u32::MAX));
    let mut space = Space::new(Allocator::new(), Some(2 * mib), 1);
    assert_eq!(space.growth_ahead(Instant::now()), Some(2));
}
