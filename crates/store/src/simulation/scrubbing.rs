//! The scrub keeps to its rate whatever it meets, and always lets others have their turn.

use super::steps::{boot, put_all};
use super::world::{Block, DATA, Open, World, small_settings};
use crate::settings::Settings;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

/// A store whose index has all its blocks, a page each.
fn filled(seed: u64, blocks: u64) -> World {
    let mut world = World::new(seed, 0, Settings { checkpoint_names: 1000, ..small_settings(1) });
    world.blocks = (0..blocks).map(|number| Block::new(number.to_le_bytes().repeat(512))).collect();
    // A checkpoint is due at a quarter of it.
    world.journal_bytes = 16 << 20;
    boot(&mut world, async |world, open| {
        put_all(world, &open).await;
        open.stop().await;
    });
    world
}

fn start_scrub(open: &Open, bytes_per_second: u64) {
    open.ring.spawn(Rc::clone(&open.sessions[0]).scrub(bytes_per_second)).detach();
}

/// Nothing is to be read of them: however many there are, others have their turn in between.
#[test]
fn names_that_are_gone_are_passed_over_a_few_a_turn() {
    let mut world = filled(46, 400);
    boot(&mut world, async |world, open| {
        for block in &world.blocks {
            assert!(open.sessions[0].delete(&block.hash).await.unwrap());
        }
        assert_eq!(open.shared.statistics.checkpoints.get(), 0, "the index has their names still");
        start_scrub(&open, 1 << 20);
        let mut positions = BTreeSet::new();
        while open.shared.statistics.scrub_passes.get() == 0 {
            positions.insert(open.shared.statistics.scrub_position.get());
            open.ring.next_turn().await;
        }
        assert!(positions.len() > 4, "seen on its way at {positions:?}");
        assert_eq!(open.shared.statistics.scrubbed_blocks.get(), 0);
    });
}

/// A disk that fails is asked no faster than one that works, and the log has no more lines of it.
#[test]
fn blocks_that_cannot_be_read_count_for_the_rate() {
    let mut world = filled(47, 10);
    boot(&mut world, async |world, open| {
        for block in &world.blocks {
            let found = open.sessions[0].find(&block.hash).await.unwrap().unwrap();
            world.disk.make_unreadable(DATA, found.record().extent().unwrap().offset());
        }
        // One block a second.
        start_scrub(&open, 4096);
        open.ring.sleep(Duration::from_secs(5)).await;
        let statistics = &open.shared.statistics;
        assert_eq!(statistics.scrub_passes.get(), 0, "ten blocks take ten seconds");
        open.ring.sleep(Duration::from_secs(10)).await;
        assert_eq!(statistics.scrub_passes.get(), 1);
        assert_eq!((statistics.scrubbed_blocks.get(), statistics.scrubbed_bytes.get()), (0, 0));
        assert_eq!(statistics.quarantined_extents.get(), 0, "they may be readable tomorrow");
    });
}
