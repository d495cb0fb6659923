//! Disks that fail, fill up, lose their end, or change bytes behind the store's back.

use super::disk::{Cut, Fault, Kind, PlannedFault};
use super::tests::{run, seeds};
use super::workload::{Ended, Workload};
use super::world::{Block, DATA, JOURNAL, Open, World, small_settings};
use crate::StoreError;
use crate::extent::MACROBLOCK_BYTES;
use crate::session::Stored;
use crate::settings::{DataSync, Durability, Settings, VerifyReads};
use std::time::Duration;

const EIO: Fault = Fault::Error(libc::EIO);

/// Opens the store, does `work`, and kills the process, unless `work` has stopped the store.
fn boot<T>(world: &mut World, work: impl AsyncFnOnce(&World, Open) -> T) -> T {
    let runtime = world.runtime();
    let ring = runtime.ring();
    let world_ref = &*world;
    let result = runtime.block_on(async {
        let open = world_ref.open(&ring).await.unwrap();
        work(world_ref, open).await
    });
    drop((runtime, ring));
    world.restore(Cut::Crash);
    result
}

async fn put_all(world: &World, open: &Open) {
    for block in &world.blocks {
        assert!(open.put(0, block).await.is_ok());
    }
}

#[test]
fn an_operation_that_fails_harms_its_own_block_only() {
    for seed in seeds(40) {
        let mut random = fastrand::Rng::with_seed(seed.0);
        let mut run = run(seed.0, 12, small_settings(2));
        assert_eq!(run.boot(Workload::default(), true), Ended::InOrder);
        for _ in 0..8 {
            let (file, kind, fault) = *random
                .choice(&[
                    (DATA, Kind::Write, EIO),
                    (DATA, Kind::Write, Fault::Error(libc::ENOSPC)),
                    (DATA, Kind::Write, Fault::Short),
                    (DATA, Kind::Read, EIO),
                    (DATA, Kind::Read, Fault::Short),
                    (JOURNAL, Kind::Write, Fault::Short),
                ])
                .unwrap();
            run.faults.push(PlannedFault { file, kind, after: random.u64(0..40), fault });
        }
        // Ends with everything in its place: an orderly stop checks that nothing is held.
        assert_eq!(run.boot(Workload::default(), true), Ended::InOrder);
        run.restore(Cut::Crash);
        run.check();
        assert_eq!(run.boot(Workload::default(), true), Ended::InOrder);
        run.check();
    }
}

#[test]
fn an_extent_that_could_not_be_written_is_not_used_again_before_the_next_opening() {
    let mut world = World::new(11, 0, small_settings(1));
    world.blocks = (0..4).map(|number| Block::new(vec![number; 512 << 10])).collect();
    boot(&mut world, async |world, open| {
        open.sessions[0].fill_pools().await;
        // Growth is over.
        open.ring.sleep(Duration::from_secs(1)).await;
        world.disk.plan_faults([PlannedFault { file: DATA, kind: Kind::Write, after: 0, fault: EIO }]);
        assert!(matches!(open.put(0, &world.blocks[0]).await, Err(StoreError::Io { .. })));
        assert_eq!(open.shared.statistics.bytes_suspect.get(), 512 << 10);
        put_all(world, &open).await;
        for block in &world.blocks {
            let extent = open.sessions[0].find(&block.hash).await.unwrap().unwrap().record().extent().unwrap();
            assert_ne!(extent.number(), 0, "the first extent is the one that failed");
        }
        open.stop().await;
    });
    boot(&mut world, async |world, open| {
        open.put(0, &Block::new(vec![9; 400 << 10])).await.unwrap();
        assert_eq!(open.shared.statistics.bytes_suspect.get(), 0);
        put_all(world, &open).await;
    });
}

/// A frame or a flush that fails ends all writing, and what was acknowledged is there when the store is opened again.
#[test]
fn a_failed_frame_or_flush_turns_the_store_read_only() {
    let cases = [
        (Durability::Sync, JOURNAL, Kind::Write, Cut::LoseAll),
        (Durability::Sync, JOURNAL, Kind::Write, Cut::Random),
        (Durability::Sync, DATA, Kind::Flush, Cut::Random),
        (Durability::Relaxed, JOURNAL, Kind::Write, Cut::Crash),
        (Durability::Relaxed, JOURNAL, Kind::Flush, Cut::Crash),
        (Durability::Relaxed, DATA, Kind::Flush, Cut::Crash),
    ];
    for seed in seeds(10) {
        for (durability, file, kind, cut) in cases {
            let settings = Settings {
                durability,
                data_sync: Some(DataSync::PerFrame),
                sync_interval: Duration::from_millis(2),
                ..small_settings(2)
            };
            let mut run = run(seed.0, 12, settings);
            run.faults.push(PlannedFault { file, kind, after: seed.0 % 5, fault: EIO });
            assert_eq!(run.boot(Workload { operations: 200, ..Workload::default() }, true), Ended::InOrder);
            assert!(run.read_only, "{durability:?}, file {file}, {kind:?}");
            run.restore(cut);
            run.check();
            assert_eq!(run.boot(Workload::default(), true), Ended::InOrder);
            run.check();
        }
    }
}

#[test]
fn a_read_only_store_refuses_changes_and_goes_on_reading() {
    let mut world = World::new(1, 6, small_settings(2));
    boot(&mut world, async |world, open| {
        put_all(world, &open).await;
        let fault = PlannedFault { file: JOURNAL, kind: Kind::Write, after: 0, fault: EIO };
        world.disk.plan_faults([fault]);
        assert!(matches!(open.sessions[0].delete(&world.blocks[1].hash).await, Err(StoreError::ReadOnly)));
        let reason = open.shared.health.read_only().unwrap();
        assert!(reason.contains("the journal could not be written"), "{reason}");
        assert!(matches!(open.sessions[1].delete(&world.blocks[1].hash).await, Err(StoreError::ReadOnly)));
        for block in &world.blocks {
            assert!(open.get(1, block).await.unwrap());
            // A removal that failed may have reached the journal: a name that is there now may be gone after the next opening.
            assert!(matches!(open.put(1, block).await, Err(StoreError::ReadOnly)));
        }
        let unknown = Block::new(vec![1, 2, 3]);
        assert!(!open.get(0, &unknown).await.unwrap());
        assert!(matches!(open.sessions[0].delete(&unknown.hash).await, Err(StoreError::ReadOnly)));
    });
}

/// Fills the store until it refuses; returns how many blocks are in it.
async fn fill(world: &World, open: &Open) -> usize {
    for (count, block) in world.blocks.iter().enumerate() {
        match open.put(count % 2, block).await {
            Ok(_) => {}
            Err(StoreError::NoSpace) => return count,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it never filled up");
}

/// However it comes to be full: PUTs are refused, reads and deletes work, also through checkpoints, and space that comes back is
/// used without a restart.
#[test]
fn a_full_store_reads_and_deletes_and_recovers() {
    for (capacity, by_disk) in [(6, false), (6, true)] {
        let capacity_bytes = capacity * MACROBLOCK_BYTES;
        let settings = Settings { capacity_bytes: (!by_disk).then_some(capacity_bytes), ..small_settings(2) };
        let mut world = World::new(3, 400, settings);
        if by_disk {
            world.disk.set_capacity(capacity_bytes + world.journal_bytes);
        }
        let stored = boot(&mut world, async |world, open| {
            let stored = fill(world, &open).await;
            assert!(stored > 8);
            for round in 0..4 {
                for block in &world.blocks[..stored] {
                    assert!(open.sessions[round % 2].delete(&block.hash).await.unwrap());
                }
                for block in &world.blocks[..stored] {
                    assert_eq!(open.put(round % 2, block).await.unwrap(), Stored::Created, "the space is there again");
                }
            }
            assert!(open.shared.statistics.checkpoints.get() > 3);
            if by_disk {
                world.disk.set_capacity(u64::MAX);
                open.ring.sleep(Duration::from_secs(2)).await;
                assert_eq!(open.put(0, &world.blocks[stored]).await.unwrap(), Stored::Created);
                open.sessions[0].delete(&world.blocks[stored].hash).await.unwrap();
            }
            open.stop().await;
            stored
        });
        let report = world.check().unwrap();
        assert_eq!((report.faults, report.totals.blocks), (vec![], stored as u64));
    }
}

/// One worker's pools hold the last extents: another that needs them gets them.
#[test]
fn a_worker_that_hoards_gives_back() {
    let settings = Settings { pool_targets: [4; 8], capacity_bytes: Some(8 << 20), ..small_settings(2) };
    let mut world = World::new(5, 0, settings);
    world.blocks = (0..20).map(|number| Block::new(vec![number; 512 << 10])).collect();
    boot(&mut world, async |world, open| {
        open.sessions[0].fill_pools().await;
        open.sessions[1].fill_pools().await;
        // 8 MiB hold 16 of them, if nobody keeps any.
        assert_eq!(fill(world, &open).await, 16);
        open.stop().await;
    });
}

/// While the index has no space, names stay in the journal: new ones are refused, removals go on.
#[test]
fn a_full_index_refuses_names_and_takes_removals() {
    let mut world = World::new(4, 30, small_settings(2));
    boot(&mut world, async |world, open| {
        put_all(world, &open).await;
        world.index.set_full(true);
        // The checkpoint that finds out.
        for block in &world.blocks[..10] {
            assert!(open.sessions[0].delete(&block.hash).await.unwrap());
        }
        open.ring.sleep(Duration::from_millis(100)).await;
        assert!(matches!(open.put(0, &world.blocks[1]).await, Err(StoreError::NoSpace)));
        for block in &world.blocks[10..] {
            assert!(open.sessions[1].delete(&block.hash).await.unwrap());
        }
        assert!(!open.get(0, &world.blocks[20]).await.unwrap());
        world.index.set_full(false);
        open.ring.sleep(Duration::from_secs(5)).await;
        put_all(world, &open).await;
        open.stop().await;
    });
    let report = world.check().unwrap();
    assert_eq!((report.faults, report.totals.blocks), (vec![], 30));
}

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
    // The first frame of the epoch lies at 0: nothing was checkpointed but the empty store.
    world.disk.corrupt(JOURNAL, 200, 1);
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
    for stopped in [true, false] {
        let mut world = World::new(9, 40, Settings { checkpoint_names: 1000, ..small_settings(2) });
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
    world.disk.corrupt(JOURNAL, 200, 1);
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

/// What a look-up and a read of a block come to.
async fn outcome(open: &Open, block: &Block) -> &'static str {
    let Some(found) = open.sessions[0].find(&block.hash).await.unwrap() else { return "absent" };
    let buffer = open.buffers.take(block.bytes.len()).await.unwrap();
    match open.sessions[0].read(found, buffer, 0).await {
        (Err(StoreError::Corrupt(hash)), _) if hash == block.hash => "refused",
        (Err(error), _) => panic!("{error}"),
        (Ok(()), buffer) if buffer[..block.bytes.len()] == block.bytes => "there",
        (Ok(()), _) => "another block's bytes",
    }
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
    world.disk.corrupt(JOURNAL, removal_at + 100, 1);
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

/// A block that was being written when the process died cannot be read: it costs its name, not the store.
#[test]
fn an_unreadable_block_of_the_last_frame_does_not_keep_the_store_closed() {
    let mut world = World::new(14, 3, small_settings(1));
    boot(&mut world, async |world, open| {
        open.put(0, &world.blocks[1]).await.unwrap();
        open.put(0, &world.blocks[2]).await.unwrap();
    });
    world.disk.plan_faults([PlannedFault { file: DATA, kind: Kind::Read, after: 0, fault: EIO }]);
    boot(&mut world, async |world, open| {
        assert_eq!(outcome(&open, &world.blocks[1]).await, "there");
        assert_eq!(outcome(&open, &world.blocks[2]).await, "absent");
        open.put(0, &world.blocks[2]).await.unwrap();
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
    world.index.clear_page_maps();
    assert!(world.check().unwrap().fault_count > 0);
    for _ in 0..2 {
        boot(&mut world, async |world, open| {
            let refused = open.sessions[0].delete(&world.blocks[3].hash).await;
            assert!(matches!(refused, Err(StoreError::Index(_))), "{refused:?}");
            assert_eq!(open.shared.health.read_only(), None);
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
            world.index.clear_page_maps();
        }
        boot(&mut world, async |world, open| {
            let reason = open.shared.health.read_only().unwrap();
            assert!(reason.contains("cannot be brought into the index"), "{reason}");
            assert_eq!(outcome(&open, &world.blocks[3]).await, "absent");
            assert_eq!(outcome(&open, &world.blocks[4]).await, "there");
        });
    }
}

/// Under load there is always something gathered for the next frame: a generation is sealed at its target all the same.
#[test]
fn generations_are_sealed_at_their_target_under_load() {
    let settings = Settings { requests_max: 256, checkpoint_names: 256, pool_targets: [64; 8], ..small_settings(2) };
    let mut world = World::new(17, 0, settings);
    world.journal_bytes = 16 << 20;
    boot(&mut world, async |_, open| {
        let open = std::rc::Rc::new(open);
        let clients: Vec<_> = (0..200u32)
            .map(|client| {
                let open = std::rc::Rc::clone(&open);
                open.ring.clone().spawn(async move {
                    let mut most = 0;
                    for number in 0..50u32 {
                        let block = Block::new([client.to_le_bytes(), number.to_le_bytes()].concat());
                        open.put(client as usize % 2, &block).await.unwrap();
                        most = most.max(open.shared.statistics.names_active.get());
                    }
                    most
                })
            })
            .collect();
        let mut most = 0;
        for client in clients {
            most = most.max(client.await);
        }
        // A frame holds up to 200 changes here; one may be in flight when the target is reached.
        assert!(most < 256 + 2 * 200, "{most} names in a generation with a target of 256");
        assert!(open.shared.statistics.checkpoints.get() >= 15);
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
            for round in 0..2u8 {
                for number in 0..40u8 {
                    let block = Block::new(vec![number; 4096 << (number % 8)]);
                    open.put(0, &block).await.unwrap();
                    let found = open.sessions[0].find(&block.hash).await.unwrap().unwrap();
                    let extent = found.record().extent().unwrap();
                    drop(found);
                    assert!(
                        extent.end() <= damaged_extent.offset() || damaged_extent.end() <= extent.offset(),
                        "{round}"
                    );
                }
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

/// A checkpoint that does not end: writes are refused after a while instead of waiting for ever, reads and some removals go on, and
/// everything works again when it has ended.
#[test]
fn a_stuck_checkpoint_makes_writes_busy_and_nothing_else() {
    let mut world = World::new(20, 0, Settings { checkpoint_names: 16, ..small_settings(1) });
    world.blocks = (0..120u8).map(|number| Block::new(vec![number; 500])).collect();
    world.checkpoint_pause = Duration::from_secs(60);
    boot(&mut world, async |world, open| {
        let mut stored = 0;
        loop {
            match open.put(0, &world.blocks[stored]).await {
                Ok(_) => stored += 1,
                Err(StoreError::Busy) => break,
                Err(error) => panic!("{error}"),
            }
        }
        // A generation that is being checkpointed, and one that is full.
        assert!((16 * 5..16 * 6).contains(&stored), "{stored}");
        for block in &world.blocks[..stored] {
            assert_eq!(outcome(&open, block).await, "there");
        }
        for block in &world.blocks[..40] {
            assert!(open.sessions[0].delete(&block.hash).await.unwrap());
        }
        open.ring.sleep(Duration::from_secs(120)).await;
        put_all(world, &open).await;
        open.stop().await;
    });
    let report = world.check().unwrap();
    assert_eq!((report.faults, report.totals.blocks), (vec![], 120));
}
