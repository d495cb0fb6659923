//! Bytes that change behind the store's back: in blocks, in the journal, in the index, and files that lose their end.

use super::disk::{Kind, PlannedFault};
use super::steps::{EIO, boot, extent_of, outcome, put_all};
use super::world::{Block, DATA, JOURNAL, Open, World, small_settings};
use crate::StoreError;
use crate::extent::{Extent, MACROBLOCK_BYTES};
use crate::session::Stored;
use crate::settings::{Durability, Settings, VerifyReads};
use std::rc::Rc;
use std::time::Duration;

#[test]
fn a_block_that_changed_on_the_disk_is_named_by_check() {
    let mut world = World::new(6, 12, small_settings(2));
    let (hash, offset) = boot(&mut world, async |world, open| {
        put_all(world, &open).await;
        let victim = &world.blocks[7];
        let extent = open.sessions[0].find(&victim.hash).await.unwrap().unwrap().record().extent().unwrap();
        open.stop().await;
        (victim.hash, extent.offset())
    });
    assert_eq!(world.check().unwrap().fault_count, 0);
    world.disk.corrupt(DATA, offset, 0x40);
    let report = world.check().unwrap();
    assert_eq!(report.fault_count, 1);
    assert!(report.faults[0].contains(&hash.to_string()), "{:?}", report.faults);
}

/// The journal's first live frame is damaged, and later ones prove that it was acknowledged: the store says so and changes nothing.
#[test]
fn a_damaged_journal_opens_read_only_and_says_what_is_lost() {
    let settings = Settings { checkpoint_names: 1000, ..small_settings(2) };
    let mut world = World::new(8, 12, settings);
    boot(&mut world, async |world, open| put_all(world, &open).await);
    // The first frame of the epoch: only the empty store was checkpointed.
    world.disk.corrupt(JOURNAL, world.journal_offset() + 200, 1);
    let report = world.check().unwrap();
    assert!(report.faults.iter().any(|fault| fault.contains("the journal is damaged")), "{:?}", report.faults);
    for _ in 0..2 {
        boot(&mut world, async |world, open| {
            let reason = open.shared.health.read_only().unwrap();
            assert!(reason.contains("the acknowledged changes 1 to 11 are lost"), "{reason}");
            assert!(!open.get(0, &world.blocks[3]).await.unwrap());
            assert!(matches!(open.put(0, &world.blocks[3]).await, Err(StoreError::ReadOnly)));
        });
    }
}

#[test]
fn a_truncated_data_file_opens_read_only_and_says_so() {
    let cases = [(Durability::Sync, true), (Durability::Sync, false), (Durability::Relaxed, false)];
    for (durability, stopped) in cases {
        // Of what is relaxed nothing is known to be durable, but that there was space for it.
        let sync_interval = Duration::from_secs(3600);
        let settings = Settings { durability, sync_interval, checkpoint_names: 1000, ..small_settings(2) };
        let mut world = World::new(9, 40, settings);
        boot(&mut world, async |world, open| {
            put_all(world, &open).await;
            if stopped {
                open.stop().await;
            }
        });
        world.disk.truncate(DATA, MACROBLOCK_BYTES);
        boot(&mut world, async |world, open| {
            let reason = open.shared.health.read_only().unwrap();
            assert!(reason.contains("the data file was truncated to 1 MiB"), "{reason}");
            let mut found = 0;
            for block in &world.blocks {
                found += usize::from(open.get(0, block).await.is_ok_and(|found| found));
            }
            assert!(found > 0 && found < 40, "what lies before the end can be read: {found}");
        });
        assert!(world.check().unwrap().fault_count > 0);
    }
}

/// Frame 1 is lost, frame 2 survives. After a recovery frame 1 is written again, the same in every byte but its epoch: the old
/// frame 2 must not continue it.
#[test]
fn an_old_frame_with_the_same_sequence_number_is_dead() {
    let settings = Settings { durability: Durability::Relaxed, checkpoint_names: 1000, ..small_settings(1) };
    let mut world = World::new(10, 4, settings);
    boot(&mut world, async |world, open| {
        open.put(0, &world.blocks[1]).await.unwrap();
        open.put(0, &world.blocks[2]).await.unwrap();
    });
    world.disk.corrupt(JOURNAL, world.journal_offset() + 200, 1);
    boot(&mut world, async |world, open| {
        assert_eq!(open.shared.health.read_only(), None);
        assert!(!open.get(0, &world.blocks[2]).await.unwrap());
        open.put(0, &world.blocks[1]).await.unwrap();
    });
    boot(&mut world, async |world, open| {
        assert!(open.get(0, &world.blocks[1]).await.unwrap());
        assert!(!open.get(0, &world.blocks[2]).await.unwrap());
    });
}

/// The frame that removes a block is damaged, after its extent became another's: the older record of the name leads to bytes that
/// are not its own, and reading them is refused.
#[test]
fn a_lost_removal_does_not_lead_to_another_blocks_bytes() {
    let settings = Settings { checkpoint_names: 1000, pool_targets: [1; 8], ..small_settings(1) };
    let mut world = World::new(12, 0, settings);
    world.blocks = (0..20).map(|number| Block::new(vec![number; 500_000])).collect();
    let removal_at = boot(&mut world, async |world, open| {
        open.put(0, &world.blocks[0]).await.unwrap();
        let removal_at = open.shared.statistics.journal_bytes_used.get();
        open.sessions[0].delete(&world.blocks[0].hash).await.unwrap();
        open.ring.sleep(Duration::from_millis(50)).await;
        for block in &world.blocks[1..] {
            open.put(0, block).await.unwrap();
        }
        removal_at
    });
    world.disk.corrupt(JOURNAL, world.journal_offset() + removal_at + 100, 1);
    boot(&mut world, async |world, open| {
        assert!(open.shared.health.read_only().is_some());
        assert_eq!(outcome(&open, &world.blocks[0]).await, "refused");
    });
}

/// The journal of a damaged store holds more names than a generation of the present settings: all of them count.
#[test]
fn a_damaged_store_publishes_every_name_of_its_journal() {
    let settings = Settings { checkpoint_names: 1000, ..small_settings(1) };
    let mut world = World::new(13, 0, settings);
    world.blocks = (0..200u8).map(|number| Block::new(vec![number; 4096])).collect();
    boot(&mut world, async |world, open| {
        put_all(world, &open).await;
        open.stop().await;
    });
    let last_but_one = boot(&mut world, async |world, open| {
        for block in &world.blocks {
            open.sessions[0].delete(&block.hash).await.unwrap();
        }
        let used = open.shared.statistics.journal_bytes_used.get();
        open.put(0, &world.blocks[0]).await.unwrap();
        open.put(0, &world.blocks[1]).await.unwrap();
        open.put(0, &world.blocks[2]).await.unwrap();
        used
    });
    // The chain began where the first boot had ended.
    let start = world.journal_offset();
    world.disk.corrupt(JOURNAL, start + last_but_one + 100, 1);
    world.settings.checkpoint_names = 16;
    boot(&mut world, async |world, open| {
        assert!(open.shared.health.read_only().is_some());
        for block in &world.blocks {
            assert_eq!(outcome(&open, block).await, "absent");
        }
    });
}

/// A block that was being written when the process died cannot be read: it costs its name and its place, not the store. Nothing is
/// written over what may be read another day.
#[test]
fn an_unreadable_block_of_the_last_frame_does_not_keep_the_store_closed() {
    let mut world = World::new(14, 3, small_settings(1));
    let unreadable = boot(&mut world, async |world, open| {
        open.put(0, &world.blocks[1]).await.unwrap();
        open.put(0, &world.blocks[2]).await.unwrap();
        extent_of(&open, &world.blocks[2]).await
    });
    // However often it is tried.
    world.disk.plan_faults((0..3).map(|_| PlannedFault { file: DATA, kind: Kind::Read, after: 0, fault: EIO }));
    boot(&mut world, async |world, open| {
        assert_eq!(outcome(&open, &world.blocks[1]).await, "there");
        assert_eq!(outcome(&open, &world.blocks[2]).await, "absent");
        assert_eq!(open.shared.statistics.quarantined_extents.get(), 1);
        open.put(0, &world.blocks[2]).await.unwrap();
        is_never_used_again(&open, unreadable).await;
        open.stop().await;
    });
    let report = world.check().unwrap();
    let quarantined: Vec<_> = report.quarantined.iter().map(|quarantined| quarantined.extent).collect();
    assert_eq!((report.faults, quarantined), (vec![], vec![unreadable]));
}

/// Stores blocks of every size, and none of them there.
async fn is_never_used_again(open: &Open, extent: Extent) {
    for number in 0..40u8 {
        let block = Block::new(vec![number; 4096 << (number % 8)]);
        open.put(0, &block).await.unwrap();
        let other = extent_of(open, &block).await;
        assert!(other.end() <= extent.offset() || extent.end() <= other.offset(), "{other} overlaps {extent}");
    }
}

/// Moves the map of the first macroblock to the next: as many pages are occupied, but not those where the blocks lie.
fn shift_page_maps(world: &World) {
    world.index.change_page_maps(|maps| {
        let first = maps.remove(&0).unwrap();
        assert!(maps.insert(1, first).is_none());
    });
}

/// Page maps that were lost: every block can be read, and nothing is written over one.
#[test]
fn lost_page_maps_open_read_only() {
    let mut world = World::new(17, 8, small_settings(1));
    boot(&mut world, async |world, open| {
        put_all(world, &open).await;
        open.stop().await;
    });
    world.index.change_page_maps(|maps| {
        maps.pop_last().unwrap();
    });
    boot(&mut world, async |world, open| {
        let reason = open.shared.health.read_only().unwrap();
        assert!(reason.contains("are marked occupied"), "{reason}");
        for block in &world.blocks {
            assert_eq!(outcome(&open, block).await, "there");
            assert!(open.put(0, block).await.is_err());
        }
    });
}

/// Rows of the index that contradict each other: a removal is refused, and the store opens again.
#[test]
fn a_damaged_index_costs_the_blocks_it_contradicts() {
    let mut world = World::new(15, 0, small_settings(1));
    world.blocks = (0..8).map(|number| Block::new(vec![number; 100_000])).collect();
    boot(&mut world, async |world, open| {
        put_all(world, &open).await;
        open.stop().await;
    });
    shift_page_maps(&world);
    assert!(world.check().unwrap().fault_count > 0);
    for _ in 0..2 {
        boot(&mut world, async |world, open| {
            let refused = open.sessions[0].delete(&world.blocks[3].hash).await;
            assert!(matches!(refused, Err(StoreError::Index(_))), "{refused:?}");
            assert_eq!(open.shared.health.read_only(), None);
        });
    }
}

/// The same of a block that is damaged itself: what the allocator holds for free is not taken out of service, it would be handed out all
/// the same.
#[test]
fn a_damaged_block_where_none_can_be_is_not_taken_out_of_service() {
    let mut world = World::new(15, 0, Settings { verify_reads: VerifyReads::All, ..small_settings(1) });
    world.blocks = (0..8).map(|number| Block::new(vec![number; 100_000])).collect();
    let offset = boot(&mut world, async |world, open| {
        put_all(world, &open).await;
        let found = open.sessions[0].find(&world.blocks[3].hash).await.unwrap().unwrap();
        let offset = found.record().extent().unwrap().offset();
        drop(found);
        open.stop().await;
        offset
    });
    shift_page_maps(&world);
    world.disk.corrupt(DATA, offset, 0x10);
    for _ in 0..2 {
        boot(&mut world, async |world, open| {
            assert_eq!(outcome(&open, &world.blocks[3]).await, "refused");
            assert_eq!(open.shared.statistics.quarantined_extents.get(), 0);
            assert_eq!(open.shared.health.read_only(), None);
            assert_eq!(outcome(&open, &world.blocks[4]).await, "there");
            open.stop().await;
        });
    }
}

/// A journal that contradicts the index: nothing is changed, everything can be read.
#[test]
fn a_journal_that_the_index_cannot_take_opens_read_only() {
    for full in [true, false] {
        let mut world = World::new(16, 0, Settings { checkpoint_names: 1000, ..small_settings(1) });
        world.blocks = (0..8).map(|number| Block::new(vec![number; 100_000])).collect();
        boot(&mut world, async |world, open| {
            put_all(world, &open).await;
            open.stop().await;
        });
        boot(&mut world, async |world, open| {
            assert!(open.sessions[0].delete(&world.blocks[3].hash).await.unwrap());
        });
        if full {
            world.index.set_full(true);
        } else {
            shift_page_maps(&world);
        }
        boot(&mut world, async |world, open| {
            let reason = open.shared.health.read_only().unwrap();
            assert!(reason.contains("cannot be brought into the index"), "{reason}");
            assert_eq!(outcome(&open, &world.blocks[3]).await, "absent");
            assert_eq!(outcome(&open, &world.blocks[4]).await, "there");
        });
    }
}

/// The extent of a block that was taken out of service is beyond the end of a file that was cut short, and no checkpoint has noted either.
#[test]
fn a_data_file_that_ends_before_what_is_out_of_service_is_damage() {
    let settings = Settings { verify_reads: VerifyReads::All, checkpoint_names: 1000, ..small_settings(1) };
    let mut world = World::new(17, 0, settings);
    world.blocks = (1..40).map(|number| Block::new(vec![number; 512 << 10])).collect();
    boot(&mut world, async |world, open| {
        open.put(0, &world.blocks[0]).await.unwrap();
        let extent = extent_of(&open, &world.blocks[0]).await;
        world.disk.corrupt(DATA, extent.offset(), 1);
        assert!(open.get(0, &world.blocks[0]).await.is_err());
    });
    world.disk.truncate(DATA, 0);
    boot(&mut world, async |_, open| {
        let reason = open.shared.health.read_only().unwrap();
        assert!(reason.contains("truncated"), "{reason}");
    });
}

/// A store with a damaged block, and which one that is.
fn damaged(seed: u64, verify_reads: VerifyReads) -> (World, usize) {
    let mut world = World::new(seed, 12, Settings { verify_reads, ..small_settings(2) });
    let victim = 7;
    let offset = boot(&mut world, async |world, open| {
        put_all(world, &open).await;
        let found = open.sessions[0].find(&world.blocks[victim].hash).await.unwrap().unwrap();
        let offset = found.record().extent().unwrap().offset();
        drop(found);
        open.stop().await;
        offset
    });
    world.disk.corrupt(DATA, offset, 0x10);
    (world, victim)
}

/// The store as it must be after block `victim` was taken out of service.
async fn is_out_of_service(world: &World, open: &Open, victim: usize) {
    for (key, block) in world.blocks.iter().enumerate() {
        assert_eq!(outcome(open, block).await, if key == victim { "absent" } else { "there" });
    }
    assert_eq!(open.shared.statistics.quarantined_extents.get(), 1);
}

/// A damaged block is never handed out where reads are verified. Its name is free to be stored again, its extent is never used
/// again, through crashes and checkpoints.
#[test]
fn a_damaged_block_is_taken_out_of_service_and_can_be_stored_again() {
    for orderly in [true, false] {
        let (mut world, victim) = damaged(18, VerifyReads::All);
        let damaged_extent = boot(&mut world, async |world, open| {
            let found = open.sessions[0].find(&world.blocks[victim].hash).await.unwrap().unwrap();
            let extent = found.record().extent().unwrap();
            drop(found);
            assert_eq!(outcome(&open, &world.blocks[victim]).await, "refused");
            is_out_of_service(world, &open, victim).await;
            if orderly {
                open.stop().await;
            }
            extent
        });
        let report = world.check().unwrap();
        assert_eq!((report.faults, report.quarantined.len()), (vec![], 1));
        assert_eq!(report.quarantined[0].extent, damaged_extent);
        boot(&mut world, async |world, open| {
            is_out_of_service(world, &open, victim).await;
            assert_eq!(open.put(0, &world.blocks[victim]).await.unwrap(), Stored::Created);
            // Everything is removed, and twice as much stored: the extent stays out of use.
            for block in &world.blocks {
                assert_eq!(outcome(&open, block).await, "there");
                open.sessions[1].delete(&block.hash).await.unwrap();
            }
            for _ in 0..2 {
                is_never_used_again(&open, damaged_extent).await;
            }
            open.stop().await;
        });
        assert_eq!(world.check().unwrap().faults, Vec::<String>::new());
    }
}

#[test]
fn the_scrub_finds_a_damaged_block_before_anybody_asks_for_it() {
    let (mut world, victim) = damaged(19, VerifyReads::Off);
    boot(&mut world, async |world, open| {
        assert_eq!(outcome(&open, &world.blocks[victim]).await, "another block's bytes", "nobody looks");
        let scrub = std::rc::Rc::clone(&open.sessions[0]).scrub(100 << 20);
        open.ring.spawn(scrub).detach();
        open.ring.sleep(Duration::from_secs(5)).await;
        is_out_of_service(world, &open, victim).await;
        let statistics = &open.shared.statistics;
        assert_eq!((statistics.corrupt_reads.get(), statistics.scrub_passes.get()), (1, 1));
        open.put(1, &world.blocks[victim]).await.unwrap();
        assert_eq!(outcome(&open, &world.blocks[victim]).await, "there");
        open.stop().await;
    });
    assert_eq!(world.check().unwrap().faults, Vec::<String>::new());
}

/// What the disk has is right, and the page cache keeps something else: nothing is taken out of service.
#[test]
fn a_block_that_is_wrong_in_the_page_cache_alone_is_read_from_the_disk() {
    let mut world = World::new(20, 12, Settings { verify_reads: VerifyReads::All, ..small_settings(2) });
    boot(&mut world, async |world, open| {
        put_all(world, &open).await;
        world.disk.spoil_cache();
        // The second time each is read through the cache.
        for block in world.blocks.iter().chain(&world.blocks) {
            assert_eq!(outcome(&open, block).await, "there");
        }
        assert_eq!(open.shared.statistics.corrupt_reads.get(), 0);
    });
}

/// Samples find a damaged block, whatever the client does between its reads.
#[test]
fn samples_are_not_in_step_with_clients() {
    for look_ups in 0..4 {
        let (mut world, victim) = damaged(21, VerifyReads::Sampled);
        boot(&mut world, async |world, open| {
            let block = &world.blocks[victim];
            let mut reads = 0;
            loop {
                for _ in 0..look_ups {
                    drop(open.sessions[0].find(&block.hash).await.unwrap());
                }
                let read = outcome(&open, block).await;
                if read == "refused" {
                    break;
                }
                assert_eq!(read, "another block's bytes");
                reads += 1;
                assert!(reads < 10_000, "never verified, with {look_ups} look-ups between");
            }
            is_out_of_service(world, &open, victim).await;
        });
    }
}

/// A damaged block is removed and stored anew, in the same place, while the worker that found the damage waits to say so.
#[test]
fn a_damaged_block_that_is_stored_anew_meanwhile_stays() {
    let settings = Settings {
        verify_reads: VerifyReads::All,
        requests_max: 1,
        capacity_bytes: Some(2 * MACROBLOCK_BYTES),
        pool_targets: [1; 8],
        ..small_settings(2)
    };
    let mut world = World::new(22, 0, settings);
    let small = (0..30u8).map(|number| Block::new(vec![number; 100]));
    world.blocks = (0..3u8).map(|number| Block::new(vec![number; 500_000])).chain(small).collect();
    let offset = boot(&mut world, async |world, open| {
        for block in &world.blocks {
            open.put(0, block).await.unwrap();
        }
        let found = open.sessions[0].find(&world.blocks[0].hash).await.unwrap().unwrap();
        let offset = found.record().extent().unwrap().offset();
        drop(found);
        open.stop().await;
        offset
    });
    world.disk.corrupt(DATA, offset, 0x10);
    let blocks = Rc::new(std::mem::take(&mut world.blocks));
    boot(&mut world, async |_, open| {
        let open = Rc::new(open);
        // Each takes a frame, and all of them stand in the line of the first worker.
        let removals: Vec<_> = (3..33)
            .map(|number| {
                let (open, blocks) = (Rc::clone(&open), Rc::clone(&blocks));
                let hash = blocks[number].hash;
                open.ring.clone().spawn(async move { open.sessions[0].delete(&hash).await.unwrap() })
            })
            .collect();
        let reading = {
            let (open, blocks) = (Rc::clone(&open), Rc::clone(&blocks));
            open.ring.clone().spawn(async move { outcome(&open, &blocks[0]).await })
        };
        open.ring.sleep(Duration::from_millis(1)).await;
        assert!(open.sessions[1].delete(&blocks[0].hash).await.unwrap());
        assert_eq!(open.put(1, &blocks[0]).await.unwrap(), Stored::Created);
        let found = open.sessions[1].find(&blocks[0].hash).await.unwrap().unwrap();
        assert_eq!(found.record().extent().unwrap().offset(), offset, "else nothing is tested");
        drop(found);
        assert_eq!(reading.await, "refused");
        for removal in removals {
            assert!(removal.await);
        }
        assert_eq!(outcome(&open, &blocks[0]).await, "there");
    });
}
