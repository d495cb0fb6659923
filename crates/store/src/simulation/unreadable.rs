//! Blocks of the last frame that cannot be read.

use super::disk::{Kind, PlannedFault};
use super::steps::{EIO, boot, outcome};
use super::world::{DATA, World, small_settings};

/// Blocks 1 and 2, the latter in the last frame.
fn with_a_last_frame(seed: u64) -> World {
    let mut world = World::new(seed, 3, small_settings(1));
    boot(&mut world, async |world, open| {
        open.put(0, &world.blocks[1]).await.unwrap();
        open.put(0, &world.blocks[2]).await.unwrap();
    });
    world
}

fn fail_reads(world: &World, count: usize) {
    world.disk.plan_faults((0..count).map(|_| PlannedFault { file: DATA, kind: Kind::Read, after: 0, fault: EIO }));
}

/// A torn write can be read: what cannot be read is damage, also in the last frame.
#[test]
fn an_unreadable_block_of_the_last_frame_is_a_fault() {
    let mut world = with_a_last_frame(35);
    fail_reads(&world, 2);
    let report = world.check().unwrap();
    assert_eq!((report.fault_count, report.unwritten), (2, 0), "{:?}", report.faults);
}

#[test]
fn a_block_that_cannot_be_read_at_first_is_read_again() {
    let mut world = with_a_last_frame(36);
    fail_reads(&world, 2);
    boot(&mut world, async |world, open| {
        assert_eq!(outcome(&open, &world.blocks[1]).await, "there");
        assert_eq!(outcome(&open, &world.blocks[2]).await, "there");
    });
}
