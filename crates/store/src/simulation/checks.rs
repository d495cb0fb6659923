//! What a check reports, however it goes about it.

use super::steps::{boot, put_all};
use super::world::{DATA, World, small_settings};
use crate::settings::Settings;

/// Blocks of the index and of the journal, some of them damaged, one of these in the last frame: the same report, however few blocks are
/// gathered at a time.
#[test]
fn a_report_does_not_depend_on_how_many_blocks_are_gathered_at_a_time() {
    for seed in 50..60 {
        let mut world = World::new(seed, 30, Settings { checkpoint_names: 1000, ..small_settings(1) });
        boot(&mut world, async |world, open| {
            put_all(world, &open).await;
            open.stop().await;
        });
        let offsets = boot(&mut world, async |world, open| {
            for block in &world.blocks[..20] {
                open.sessions[0].delete(&block.hash).await.unwrap();
            }
            let mut offsets = Vec::new();
            for block in world.blocks[20..].iter().chain(&world.blocks[1..10]) {
                open.put(0, block).await.unwrap();
                let found = open.sessions[0].find(&block.hash).await.unwrap().unwrap();
                offsets.extend(found.record().extent().map(|extent| extent.offset()));
            }
            offsets
        });
        offsets.iter().rev().step_by(3).for_each(|offset| world.disk.corrupt(DATA, *offset, 0x40));
        let whole = world.check().unwrap();
        assert!(whole.fault_count > 2 && whole.unwritten == 1 && whole.verified == 19, "{whole:?}");
        assert_eq!(whole.journal_changes, 20 + 9, "removals count, and so does a name that was stored again");
        for blocks in [1, 2, 7, 19, 20] {
            let report = world.check_in_windows(blocks).unwrap();
            assert_eq!(format!("{report:?}"), format!("{whole:?}"), "{blocks} at a time");
        }
    }
}
