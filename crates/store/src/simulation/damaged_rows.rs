//! Single rows of the index that are damaged: what they say is lost, and nothing else.

use super::memory_index::Row;
use super::steps::{boot, outcome, put_all};
use super::world::{Block, World, small_settings};
use crate::check::CheckReport;
use crate::settings::{Settings, VerifyReads};

/// A store with blocks in its index, and some more in its journal.
fn killed(seed: u64) -> World {
    let mut world = World::new(seed, 0, Settings { checkpoint_names: 1000, ..small_settings(1) });
    world.blocks = (0..100u8).map(|number| Block::new(vec![number; 5000])).collect();
    boot(&mut world, async |world, open| {
        put_all(world, &open).await;
        open.stop().await;
    });
    let more: Vec<_> = (100..120u8).map(|number| Block::new(vec![number; 5000])).collect();
    boot(&mut world, async |_, open| {
        for block in &more {
            open.put(0, block).await.unwrap();
        }
    });
    world.blocks.extend(more);
    world
}

fn names(report: &CheckReport, what: &str) -> bool {
    report.faults.iter().any(|fault| fault.contains(what))
}

/// The row lies right behind the place of a name that only the journal has.
#[test]
fn a_damaged_row_beside_a_name_of_the_journal_costs_check_its_block_alone() {
    let mut world = killed(24);
    let in_index = world.index.names();
    let beside = in_index.iter().find(|name| {
        world.blocks[100..].iter().any(|block| {
            let behind = in_index.partition_point(|other| *other < block.hash);
            in_index.get(behind) == Some(name)
        })
    });
    let beside = *beside.unwrap();
    world.index.damage(Row::Block(beside));
    let report = world.check().unwrap();
    assert!(names(&report, &beside.to_string()), "{:?}", report.faults);
    assert_eq!((report.verified, report.unwritten, report.journal_names), (119, 0, 20));
    boot(&mut world, async |world, open| {
        assert_eq!(open.shared.health.read_only(), None);
        assert_eq!(outcome(&open, &world.blocks[110]).await, "there");
    });
}

#[test]
fn a_damaged_page_map_costs_check_nothing_else() {
    let mut world = killed(25);
    world.index.damage(Row::Pages(0));
    let report = world.check().unwrap();
    assert!(names(&report, "Pages(0)"), "{:?}", report.faults);
    assert_eq!(report.verified, 120);
    boot(&mut world, async |world, open| {
        let reason = open.shared.health.read_only().unwrap();
        assert!(reason.contains("the index is damaged"), "{reason}");
        assert_eq!(outcome(&open, &world.blocks[110]).await, "there");
    });
}

/// A store with a block out of service, whose row of table `quarantine` is damaged.
fn with_damaged_quarantine(seed: u64) -> World {
    let mut world = World::new(seed, 12, Settings { verify_reads: VerifyReads::All, ..small_settings(1) });
    let extent = boot(&mut world, async |world, open| {
        put_all(world, &open).await;
        let found = open.sessions[0].find(&world.blocks[7].hash).await.unwrap().unwrap();
        let extent = found.record().extent().unwrap();
        drop(found);
        open.stop().await;
        extent
    });
    world.disk.corrupt(super::world::DATA, extent.offset(), 0x10);
    boot(&mut world, async |world, open| {
        assert_eq!(outcome(&open, &world.blocks[7]).await, "refused");
        open.stop().await;
    });
    world.index.damage(Row::Quarantine(extent));
    world
}

#[test]
fn a_damaged_row_of_the_quarantine_costs_check_nothing_else() {
    let mut world = with_damaged_quarantine(26);
    let report = world.check().unwrap();
    assert!(names(&report, "Quarantine"), "{:?}", report.faults);
    assert_eq!(report.verified, 11);
}

/// Nobody knows which extent it was: nothing may be allocated, everything can be read.
#[test]
fn a_damaged_row_of_the_quarantine_opens_read_only() {
    let mut world = with_damaged_quarantine(27);
    for _ in 0..2 {
        boot(&mut world, async |world, open| {
            let reason = open.shared.health.read_only().unwrap();
            assert!(reason.contains("the index is damaged") && reason.contains("Quarantine"), "{reason}");
            assert_eq!(outcome(&open, &world.blocks[6]).await, "there");
            assert!(open.put(0, &world.blocks[7]).await.is_err());
        });
    }
}
