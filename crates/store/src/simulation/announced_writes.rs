//! Names that go into a frame while their bytes are on their way, and bytes that never arrive.

use super::disk::{Cut, Fault, Kind, PlannedFault};
use super::steps::{EIO, boot, outcome, put_all, put_at_once};
use super::tests::{WAYS_TO_BE_DURABLE, cut_at_every_event, seeds};
use super::workload::Run;
use super::world::{Block, DATA, JOURNAL, Open, World, small_settings, totals_of};
use crate::StoreError;
use crate::extent::PAGE_BYTES;
use crate::session::Stored;
use crate::settings::Settings;
use std::rc::Rc;
use std::time::Duration;

const ENOSPC: Fault = Fault::Error(libc::ENOSPC);
const ENOMEM: Fault = Fault::Error(libc::ENOMEM);

fn settings(seed: u64, workers: usize) -> Settings {
    let (durability, data_sync) = WAYS_TO_BE_DURABLE[seed as usize % WAYS_TO_BE_DURABLE.len()];
    let sync_interval = Duration::from_millis(2);
    Settings { durability, data_sync, sync_interval, ..small_settings(workers) }
}

/// Blocks of up to a few pages: their names go ahead.
fn small_blocks(count: u64) -> Vec<Block> {
    (0..count).map(|number| Block::new(number.to_le_bytes().repeat(1 + 300 * (number as usize % 5)))).collect()
}

fn write_fails(after: u64, fault: Fault) -> PlannedFault {
    PlannedFault { file: DATA, kind: Kind::Write, after, fault }
}

async fn come_up(world: &World, open: &Open) {
    for session in &open.sessions {
        session.fill_pools().await;
    }
    // Growth is over: the next write is a block's.
    open.ring.sleep(Duration::from_secs(1)).await;
    assert!(!world.blocks.is_empty());
}

/// Both store the same block at once; the write of one fails. Where the other has waited for that name, it must not be told that the name
/// leads to a block; where it was the first, there is a block for both.
#[test]
fn who_waits_for_a_block_whose_write_fails_stores_it_itself() {
    for seed in seeds(60) {
        let mut world = World::new(seed.0, 0, settings(seed.0, 2));
        world.blocks = small_blocks(4);
        let fault = if seed.0 % 2 == 0 { EIO } else { ENOSPC };
        boot(&mut world, async |world, open| {
            come_up(world, &open).await;
            world.disk.plan_faults([write_fails(seed.0 / 2 % 2, fault)]);
            let block = &world.blocks[1];
            let open = Rc::new(open);
            let mut results = put_at_once(&open, &[block.clone(), block.clone()]).await.into_iter();
            let (one, other) = (results.next().unwrap(), results.next().unwrap());
            let created = |result: &Result<Stored, StoreError>| matches!(result, Ok(Stored::Created));
            let existed_or_failed = |result: &Result<Stored, StoreError>| match (result, fault) {
                (Ok(Stored::Existed), _) | (Err(StoreError::NoSpace), ENOSPC) => true,
                (Err(StoreError::Io { .. }), fault) => fault != ENOSPC,
                _ => false,
            };
            let is_one_created =
                created(&one) && existed_or_failed(&other) || created(&other) && existed_or_failed(&one);
            assert!(is_one_created, "{one:?}, {other:?}");
            assert_eq!(outcome(&open, block).await, "there");
            put_all(world, &open).await;
            let suspect = if fault == EIO { PAGE_BYTES } else { 0 };
            assert_eq!(open.shared.statistics.bytes_suspect.get(), suspect);
            Rc::into_inner(open).unwrap().stop().await;
        });
        let report = world.check().unwrap();
        assert_eq!((report.faults, report.totals), (vec![], totals_of(&world.blocks)));
    }
}

/// Its own write was not needed: somebody else has stored the same block meanwhile.
#[test]
fn a_put_whose_write_fails_finds_the_block_that_others_stored() {
    for (seed, fault) in seeds(12).zip([EIO, ENOSPC, ENOMEM].into_iter().cycle()) {
        let mut world = World::new(seed.0, 0, settings(seed.0 / 3, 2));
        world.blocks = small_blocks(2);
        boot(&mut world, async |world, open| {
            come_up(world, &open).await;
            let block = &world.blocks[1];
            let open = Rc::new(open);
            world.disk.plan_faults([write_fails(0, Fault::Slow(Duration::from_millis(1))), write_fails(0, fault)]);
            let first = {
                let (open, block) = (Rc::clone(&open), block.clone());
                open.ring.clone().spawn(async move { open.put(0, &block).await })
            };
            // Its write is under way when the other begins.
            open.ring.sleep(Duration::from_nanos(1)).await;
            let second = open.put(1, block).await;
            assert!(matches!(second, Ok(Stored::Existed)), "{second:?}");
            assert!(matches!(first.await, Ok(Stored::Created)));
            assert_eq!(outcome(&open, block).await, "there");
            let suspect = if fault == EIO { PAGE_BYTES } else { 0 };
            assert_eq!(open.shared.statistics.bytes_suspect.get(), suspect);
            Rc::into_inner(open).unwrap().stop().await;
        });
        assert_eq!(world.check().unwrap().totals, totals_of(&world.blocks[1..]));
    }
}

/// Neighbours go out as one write, which fails, and each of them then takes long: the times do not add up, because a frame waits for
/// all of them, and everybody for the frame.
#[test]
fn parts_of_a_write_that_fails_are_tried_side_by_side() {
    const LONG: Duration = Duration::from_secs(1);
    let settings = Settings { requests_max: 64, pool_targets: [64, 1, 1, 1, 1, 1, 1, 1], ..settings(0, 2) };
    let mut world = World::new(21, 0, settings);
    world.blocks = (0..32u64).map(|number| Block::new(number.to_le_bytes().to_vec())).collect();
    boot(&mut world, async |world, open| {
        come_up(world, &open).await;
        // One write of each worker, then all that it was made of.
        let slow = (0..32).map(|_| write_fails(0, Fault::Slow(LONG)));
        world.disk.plan_faults([EIO, EIO].map(|fault| write_fails(0, fault)).into_iter().chain(slow));
        let began = open.ring.now();
        let open = Rc::new(open);
        for result in put_at_once(&open, &world.blocks).await {
            assert!(matches!(result, Ok(Stored::Created)), "{result:?}");
        }
        let took = open.ring.now() - began;
        assert!((LONG..2 * LONG).contains(&took), "{took:?}");
        Rc::into_inner(open).unwrap().stop().await;
    });
    let report = world.check().unwrap();
    assert_eq!((report.faults, report.totals), (vec![], totals_of(&world.blocks)));
}

/// The frame is durable and its bytes are not: the power goes, or the process dies, at every event while a write fails and its
/// name is taken back.
#[test]
fn power_cuts_beside_writes_that_fail() {
    let mut cuts = 0;
    for seed in seeds(20) {
        let failing = || {
            let mut random = fastrand::Rng::with_seed(seed.0);
            let mut world = World::new(seed.0, 0, settings(seed.0, 2));
            world.blocks = small_blocks(12);
            let mut run = Run::new(world, seed.0);
            for _ in 0..6 {
                let fault = *random.choice(&[EIO, EIO, ENOSPC, ENOMEM, Fault::Short]).unwrap();
                run.faults.push(write_fails(random.u64(0..30), fault));
            }
            run
        };
        cuts += cut_at_every_event(failing, 80, seed.0);
    }
    println!("{cuts} cuts");
}

/// An extent that there was no room for, or no memory to write it, is free again once the removal of its name is durable, and not before.
#[test]
fn what_no_room_was_found_for_is_not_lost() {
    for (seed, fault) in seeds(12).zip([ENOSPC, ENOMEM].into_iter().cycle()) {
        let mut world = World::new(seed.0, 0, Settings { capacity_bytes: Some(4 << 20), ..settings(seed.0, 1) });
        world.blocks = small_blocks(3);
        boot(&mut world, async |world, open| {
            come_up(world, &open).await;
            // More often than there are extents.
            for _ in 0..2000 {
                world.disk.plan_faults([write_fails(0, fault)]);
                match (open.put(0, &world.blocks[0]).await, fault) {
                    (Err(StoreError::NoSpace), ENOSPC) | (Err(StoreError::Busy), ENOMEM) => {}
                    (result, _) => panic!("{result:?}"),
                }
                assert_eq!(outcome(&open, &world.blocks[0]).await, "absent");
            }
            put_all(world, &open).await;
            open.stop().await;
        });
        assert_eq!(world.check().unwrap().totals, totals_of(&world.blocks));
    }
}

/// The name waits for a checkpoint, and its write fails meanwhile: it is refused at once, for its own reason.
#[test]
fn a_write_that_fails_while_its_name_waits_is_refused_for_that() {
    for fault in [EIO, ENOSPC] {
        let settings = Settings { checkpoint_names: 16, ..settings(0, 1) };
        let mut world = World::new(20, 0, settings);
        world.blocks = small_blocks(100);
        world.checkpoint_pause = Duration::from_secs(60);
        boot(&mut world, async |world, open| {
            let mut stored = 0;
            while open.put(0, &world.blocks[stored]).await.is_ok() {
                stored += 1;
            }
            let began = open.ring.now();
            world.disk.plan_faults([write_fails(0, fault)]);
            let result = open.put(0, &world.blocks[stored]).await;
            match fault {
                ENOSPC => assert!(matches!(result, Err(StoreError::NoSpace)), "{result:?}"),
                _ => assert!(matches!(result, Err(StoreError::Io { .. })), "{result:?}"),
            }
            assert!(open.ring.now() - began < world.settings.busy_timeout, "it has not waited");
            open.ring.sleep(Duration::from_secs(120)).await;
            put_all(world, &open).await;
            open.stop().await;
        });
        assert_eq!(world.check().unwrap().totals, totals_of(&world.blocks));
    }
}

/// A journal that fails while blocks are being written: nobody is told that they are stored.
#[test]
fn a_frame_that_fails_beside_its_blocks_fails_them_all() {
    for seed in seeds(20) {
        let mut world = World::new(seed.0, 0, settings(seed.0, 2));
        world.blocks = small_blocks(8);
        boot(&mut world, async |world, open| {
            come_up(world, &open).await;
            world.disk.plan_faults([PlannedFault { file: JOURNAL, kind: Kind::Write, after: 0, fault: EIO }]);
            let open = Rc::new(open);
            for result in put_at_once(&open, &world.blocks).await {
                assert!(matches!(result, Err(StoreError::ReadOnly)), "{result:?}");
            }
            for block in &world.blocks {
                assert_eq!(outcome(&open, block).await, "absent");
            }
        });
        world.restore(Cut::LoseAll);
        assert_eq!(world.check().unwrap().faults, Vec::<String>::new());
    }
}

/// More is gathered than fits into one frame when a write fails: a frame that does not hold the removal yet becomes durable before
/// it. Until the removal is, nothing from the failed change on counts as durable, or an opening would believe in bytes that are not there.
#[test]
fn a_removal_that_waits_for_a_later_frame() {
    // Beyond what one frame holds.
    const OTHERS: u64 = 8000;
    let settings = Settings {
        requests_max: 10_000,
        checkpoint_names: 20_000,
        pool_targets: [6000, 1, 1, 1, 1, 1, 1, 1],
        ..settings(0, 2)
    };
    let others: Vec<_> = (0..OTHERS).map(|number| Block::new(number.to_le_bytes().to_vec())).collect();
    let victim = Block::new(vec![1; 4000]);
    for event in (1..80).step_by(2) {
        let mut world = World::new(event, 0, settings.clone());
        world.journal_bytes = 16 << 20;
        world.blocks = vec![victim.clone()];
        let runtime = world.runtime();
        let ring = runtime.ring();
        runtime.run(ring.timeout(Duration::from_secs(5), async {
            let open = Rc::new(world.open(&ring).await.unwrap());
            come_up(&world, &open).await;
            world.disk.plan_faults([write_fails(0, EIO)]);
            world.disk.cut_power_at(world.disk.events() + event);
            // Its write is under way, alone, before the others come.
            let (putting, block) = (Rc::clone(&open), victim.clone());
            ring.spawn(async move { putting.put(0, &block).await }).detach();
            ring.sleep(Duration::from_nanos(1)).await;
            put_at_once(&open, &others).await;
        }));
        drop((runtime, ring));
        assert!(world.disk.is_cut());
        world.restore(Cut::LoseAll);
        let found = boot(&mut world, async |_, open| outcome(&open, &victim).await);
        assert_ne!(found, "another block's bytes", "cut at event {event}");
    }
}
