//! Single rows of the index that are damaged: what they say is lost, and nothing else.

use super::memory_index::Row;
use super::steps::{boot, outcome, put_all};
use super::world::{Block, World, small_settings};
use crate::check::CheckReport;
use crate::settings::{Settings, VerifyReads};
use std::rc::Rc;
use std::time::Duration;

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
    assert_eq!((report.verified, report.unwritten, report.journal_changes), (119, 0, 20));
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

/// Wherever the row lies, and however the walk is cut: every other block is listed once, and what was passed over is said. The scrub goes on
/// behind it, too.
#[test]
fn a_damaged_row_costs_a_walk_its_block_alone() {
    let mut world = World::new(28, 0, Settings { checkpoint_names: 1000, ..small_settings(1) });
    world.blocks = (0..100u8).map(|number| Block::new(vec![number; 5000])).collect();
    boot(&mut world, async |world, open| {
        put_all(world, &open).await;
        open.stop().await;
    });
    let names = world.index.names();
    let damaged = [0, 1, 41, 99].map(|number| names[number]);
    damaged.iter().for_each(|name| world.index.damage(Row::Block(*name)));
    let whole: Vec<_> = names.into_iter().filter(|name| !damaged.contains(name)).collect();
    boot(&mut world, async |_, open| {
        let session = &open.sessions[0];
        for count in [1, 2, 7, 1000] {
            let (mut listed, mut passed_over, mut after) = (Vec::new(), 0, None);
            loop {
                let listing = session.list(after, count).await.unwrap();
                passed_over += listing.damaged.count;
                let Some(last) = listing.blocks.last() else { break };
                after = Some(last.hash);
                listed.extend(listing.blocks.iter().map(|block| block.hash));
            }
            assert_eq!(listed, whole, "{count} at a time");
            assert!(passed_over >= 4);
        }
        assert!(session.is_stored(&damaged[2]).await.is_err());
        open.ring.spawn(Rc::clone(session).scrub(u64::MAX)).detach();
        open.ring.sleep(Duration::from_secs(5)).await;
        let statistics = &open.shared.statistics;
        assert_eq!((statistics.scrub_passes.get(), statistics.scrubbed_blocks.get()), (1, 96));
    });
}
