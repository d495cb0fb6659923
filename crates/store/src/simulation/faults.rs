//! Disks that fail and fill up, and what else can keep a store from writing.

use super::disk::{Cut, Fault, Kind, PlannedFault};
use super::steps::{EIO, boot, outcome, put_all, put_at_once, remove_at_once};
use super::tests::{run, seeds};
use super::workload::{Ended, Workload};
use super::world::{Block, DATA, JOURNAL, Open, World, small_settings, totals_of};
use crate::StoreError;
use crate::extent::MACROBLOCK_BYTES;
use crate::session::Stored;
use crate::settings::{DataSync, Durability, Settings};
use std::rc::Rc;
use std::time::Duration;

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
        (Durability::Sync, JOURNAL, Kind::Write, Cut::Crash),
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

/// The system is short of memory, of threads, or of space, while a frame is written: that says nothing about the disk, and ends nothing.
#[test]
fn a_frame_waits_for_what_the_system_is_short_of() {
    for seed in seeds(10) {
        for durability in [Durability::Sync, Durability::Relaxed] {
            let mut run = run(seed.0, 12, Settings { durability, ..small_settings(2) });
            for code in [libc::ENOMEM, libc::EAGAIN, libc::ECANCELED, libc::ENOSPC] {
                let after = seed.0 % 5;
                run.faults.push(PlannedFault { file: JOURNAL, kind: Kind::Write, after, fault: Fault::Error(code) });
            }
            assert_eq!(run.boot(Workload { operations: 200, ..Workload::default() }, true), Ended::InOrder);
            assert!(!run.read_only, "{durability:?}");
            run.restore(Cut::Crash);
            run.check();
        }
    }
}

/// Whoever waits for it is told in the end.
#[test]
fn a_frame_does_not_wait_for_space_for_ever() {
    let mut world = World::new(1, 6, small_settings(2));
    boot(&mut world, async |world, open| {
        put_all(world, &open).await;
        let fault = PlannedFault { file: JOURNAL, kind: Kind::Write, after: 0, fault: Fault::Error(libc::ENOSPC) };
        world.disk.plan_faults(vec![fault; 1000]);
        let began = open.ring.now();
        assert!(matches!(open.sessions[0].delete(&world.blocks[1].hash).await, Err(StoreError::ReadOnly)));
        let waited = open.ring.now() - began;
        assert!((25..40).contains(&waited.as_secs()), "{waited:?}");
        let reason = open.shared.health.read_only().unwrap();
        assert!(reason.contains("the journal could not be written") && reason.contains("space"), "{reason}");
        for block in &world.blocks {
            assert!(open.get(1, block).await.unwrap());
        }
        open.stop().await;
    });
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
    // Of these seeds the blocks fit in again in whatever order space comes back. On the disks of the last two space can be set aside.
    for (seed, by_disk) in [3, 5, 13].into_iter().flat_map(|seed| [(seed, false), (seed, true)]) {
        let capacity_bytes = 6 * MACROBLOCK_BYTES;
        let settings = Settings { capacity_bytes: (!by_disk).then_some(capacity_bytes), ..small_settings(2) };
        let mut world = World::new(seed, 400, settings);
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
        assert_eq!((report.faults, report.totals), (vec![], totals_of(&world.blocks[..stored])));
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

/// Little was freed on a full store, and every worker wants some of it: nobody's pool takes more than its share, so nobody is refused
/// what there is space for.
#[test]
fn what_is_freed_on_a_full_store_is_shared() {
    let settings = Settings { capacity_bytes: Some(8 << 20), ..small_settings(2) };
    let mut world = World::new(18, 0, settings);
    // A page, and every eighth of them 64 KiB; numbers in the bytes make names differ.
    let block = |number: u64| Block::new(number.to_le_bytes().repeat(if number % 8 == 7 { 8192 } else { 2 }));
    world.blocks = (0..4000).map(block).collect();
    boot(&mut world, async |world, open| {
        let open = Rc::new(open);
        let mut batches = world.blocks.chunks(64);
        // Many at a time let the pools grow.
        while refused_at_once(&open, batches.next().unwrap()).await == 0 {}
        for freed in world.blocks.chunks(48).take(8) {
            for block in freed {
                assert!(open.sessions[0].delete(&block.hash).await.unwrap());
            }
            assert_eq!(refused_at_once(&open, freed).await, 0, "there is space for all");
        }
        Rc::into_inner(open).unwrap().stop().await;
    });
}

/// Stores blocks, all at once; returns how many found no space.
async fn refused_at_once(open: &Rc<Open>, blocks: &[Block]) -> usize {
    let refused = |result: Result<Stored, StoreError>| match result {
        Ok(_) => false,
        Err(StoreError::NoSpace) => true,
        Err(error) => panic!("{error}"),
    };
    put_at_once(open, blocks).await.into_iter().map(refused).filter(|refused| *refused).count()
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
    assert_eq!((report.faults, report.totals), (vec![], totals_of(&world.blocks)));
}

/// Whatever was removed meanwhile: the disk is asked for space once a second, not more often.
#[test]
fn a_full_index_is_asked_for_space_once_a_second() {
    let mut world = World::new(4, 60, Settings { checkpoint_names: 4, ..small_settings(2) });
    boot(&mut world, async |world, open| {
        put_all(world, &open).await;
        world.index.exhaust(true);
        for block in &world.blocks[..50] {
            assert!(open.sessions[0].delete(&block.hash).await.unwrap());
            open.ring.sleep(Duration::from_millis(50)).await;
        }
        let before = open.shared.statistics.checkpoints.get();
        open.ring.sleep(Duration::from_secs(20)).await;
        let tried = open.shared.statistics.checkpoints.get() - before;
        assert!((18..=21).contains(&tried), "{tried} checkpoints in 20 s");
    });
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

/// Most blocks are removed while a checkpoint is under way, after which generations will be smaller: until then they may still become as
/// large as before.
#[test]
fn a_generation_holds_what_it_may_while_the_store_shrinks() {
    let settings =
        Settings { requests_max: 1024, checkpoint_names: 1 << 16, pool_targets: [64; 8], ..small_settings(2) };
    let mut world = World::new(19, 0, settings);
    world.journal_bytes = 64 << 20;
    world.blocks = (0..27_000_u32).map(|number| Block::new(number.to_le_bytes().to_vec())).collect();
    let stored = 21_000;
    boot(&mut world, async |world, open| {
        let open = Rc::new(open);
        assert!(put_at_once(&open, &world.blocks[..stored]).await.iter().all(Result::is_ok));
        Rc::into_inner(open).unwrap().stop().await;
    });
    world.checkpoint_pause = Duration::from_secs(60);
    boot(&mut world, async |world, open| {
        let open = Rc::new(open);
        remove_at_once(&open, &world.blocks[..stored]).await;
        assert!(open.shared.statistics.names_sealed.get() > 0);
        let results = put_at_once(&open, &world.blocks[stored..]).await;
        // More than a generation of a small store can hold, and as many as are admitted.
        assert!(open.shared.statistics.names_active.get() > 20_000, "{}", open.shared.statistics.names_active.get());
        for (result, block) in results.iter().zip(&world.blocks[stored..]) {
            assert_eq!(outcome(&open, block).await, if result.is_ok() { "there" } else { "absent" });
        }
    });
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
    assert_eq!((report.faults, report.totals), (vec![], totals_of(&world.blocks)));
}

/// Nobody would see to what it needs, and the controller would wait for its bytes for ever.
#[test]
fn a_put_that_comes_when_its_session_has_closed_is_refused() {
    let mut world = World::new(1, 8, small_settings(2));
    boot(&mut world, async |world, open| {
        open.sessions[0].close().await;
        assert!(matches!(open.put(0, &world.blocks[0]).await, Err(StoreError::Busy)));
        assert!(open.put(1, &world.blocks[0]).await.is_ok());
    });
}
