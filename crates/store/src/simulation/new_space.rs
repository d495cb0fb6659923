//! Space that the file system has set aside: large blocks go there as it is, small ones where zeros were written before.

use super::disk::{Fault, Kind, PlannedFault};
use super::steps::{EIO, boot, put_all, put_at_once};
use super::tests::{cut_at_every_event, seeds};
use super::workload::Run;
use super::world::{Block, DATA, World, small_settings, totals_of};
use crate::StoreError;
use crate::extent::SizeClass;
use crate::settings::{DataSync, NewSpace, Settings};
use std::rc::Rc;
use std::time::Duration;

/// The first piece of zeros takes so long that nobody could wait for it.
const ZEROS_PAUSE: Duration = Duration::from_secs(60);
const SLOW_ZEROS: PlannedFault =
    PlannedFault { file: DATA, kind: Kind::Write, after: 0, fault: Fault::Slow(ZEROS_PAUSE) };

/// On the simulated disks of these space can be set aside.
fn preallocating(seed: u64) -> u64 {
    seed * 3 + 1
}

fn large_blocks(count: u8) -> Vec<Block> {
    (0..count).map(|number| Block::new(vec![number + 1; 512 << 10])).collect()
}

/// Each block makes its own bytes durable, and with them the file's length up to there, which may be the middle of a macroblock: what
/// lies behind must have been durable before.
#[test]
fn large_blocks_alone_survive_power_cuts_at_every_event() {
    let mut cuts = 0;
    for seed in seeds(4) {
        let growing = || {
            let settings = Settings { data_sync: Some(DataSync::PerWrite), pool_targets: [1; 8], ..small_settings(1) };
            let mut world = World::new(preallocating(seed.0), 0, settings);
            world.blocks = large_blocks(40);
            Run::new(world, seed.0)
        };
        cuts += cut_at_every_event(growing, 60, seed.0);
    }
    println!("{cuts} cuts");
}

/// Zeros cannot be written, here because of the place, there because the disk has no space for a moment: small blocks find other space,
/// or the same a moment later.
#[test]
fn zeros_that_cannot_be_written_cost_their_own_extent_at_most() {
    for seed in seeds(24) {
        let mut world = World::new(preallocating(seed.0), 0, small_settings(2));
        world.blocks = (0..60_u64).map(|number| Block::new(number.to_le_bytes().repeat(4096))).collect();
        let fault = if seed.0 % 2 == 0 { EIO } else { Fault::Error(libc::ENOSPC) };
        boot(&mut world, async |world, open| {
            // A macroblock, and then the first of its extents, which is tried alone.
            let after = seed.0 / 2 % 3;
            world.disk.plan_faults([0, 1].map(|_| PlannedFault { file: DATA, kind: Kind::Write, after, fault }));
            for session in &open.sessions {
                session.fill_pools().await;
            }
            // What has no space now is tried again.
            open.ring.sleep(Duration::from_secs(2)).await;
            put_all(world, &open).await;
            let suspect = open.shared.statistics.bytes_suspect.get();
            assert_eq!(suspect, if fault == EIO { SizeClass::LARGEST.bytes() } else { 0 });
            open.stop().await;
        });
        let report = world.check().unwrap();
        assert_eq!((report.faults, report.totals), (vec![], totals_of(&world.blocks)));
    }
}

fn small_blocks() -> Vec<Block> {
    (0..200_u64).map(|number| Block::new(number.to_le_bytes().repeat(1 + number as usize % 2000))).collect()
}

#[test]
fn nobody_waits_for_zeros_that_come_slowly() {
    for seed in seeds(6) {
        let mut world = World::new(preallocating(seed.0), 0, small_settings(2));
        world.blocks = small_blocks();
        boot(&mut world, async |world, open| {
            world.disk.plan_faults([SLOW_ZEROS]);
            let began = open.ring.now();
            put_all(world, &open).await;
            assert!(open.ring.now() - began < ZEROS_PAUSE / 10);
            open.ring.sleep(ZEROS_PAUSE).await;
            open.stop().await;
        });
        let report = world.check().unwrap();
        assert_eq!((report.faults, report.totals), (vec![], totals_of(&world.blocks)));
    }
}

/// Every write takes long, so steps of zeros are cut short again and again: that is no want of space.
#[test]
fn nobody_is_refused_because_zeros_come_slowly() {
    let slow = PlannedFault { fault: Fault::Slow(Duration::from_millis(20)), ..SLOW_ZEROS };
    for seed in seeds(6) {
        let mut world = World::new(preallocating(seed.0), 0, small_settings(2));
        world.blocks = (0..400_u64).map(|number| Block::new(number.to_le_bytes().repeat(7000))).collect();
        boot(&mut world, async |world, open| {
            world.disk.plan_faults(std::iter::repeat_n(slow.clone(), 2000));
            let open = Rc::new(open);
            for result in put_at_once(&open, &world.blocks).await {
                assert!(result.is_ok(), "{result:?}");
            }
            Rc::into_inner(open).unwrap().stop().await;
        });
        let report = world.check().unwrap();
        assert_eq!((report.faults, report.totals), (vec![], totals_of(&world.blocks)));
    }
}

/// Small blocks are the first to write to their space, one beside the other, while zeros are still being written next to them, or where
/// there are none.
#[test]
fn small_blocks_in_unwritten_space_survive_power_cuts_at_every_event() {
    let mut cuts = 0;
    for seed in seeds(6) {
        let (new_space, faults) = match seed.0 % 2 {
            0 => (NewSpace::Zeros, vec![SLOW_ZEROS]),
            _ => (NewSpace::Unwritten, vec![]),
        };
        let unwritten = || {
            let settings = Settings { new_space: Some(new_space), ..small_settings(2) };
            let mut world = World::new(preallocating(seed.0), 0, settings);
            world.blocks = small_blocks();
            let mut run = Run::new(world, seed.0);
            run.faults = faults.clone();
            run
        };
        cuts += cut_at_every_event(unwritten, 60, seed.0);
    }
    println!("{cuts} cuts");
}

/// A place that cannot be written is found by zeros where there are any, else by the block that gets there first.
#[test]
fn zeros_are_written_where_they_are_wanted_only() {
    for new_space in [NewSpace::Zeros, NewSpace::Unwritten] {
        let settings = Settings { new_space: Some(new_space), ..small_settings(1) };
        let mut world = World::new(preallocating(0), 0, settings);
        world.blocks = small_blocks();
        boot(&mut world, async |world, open| {
            world.disk.plan_faults([PlannedFault { file: DATA, kind: Kind::Write, after: 0, fault: EIO }]);
            open.sessions[0].fill_pools().await;
            open.ring.sleep(Duration::from_secs(2)).await;
            let first = open.put(0, &world.blocks[0]).await;
            match new_space {
                NewSpace::Zeros => assert!(first.is_ok(), "{first:?}"),
                NewSpace::Unwritten => assert!(matches!(first, Err(StoreError::Io { .. })), "{first:?}"),
            }
            put_all(world, &open).await;
            open.stop().await;
        });
        let report = world.check().unwrap();
        assert_eq!((report.faults, report.totals), (vec![], totals_of(&world.blocks)));
    }
}

/// The file system does not say for a minute whether there is space, or says that it cannot set any aside.
#[test]
fn growth_that_hangs_or_fails_costs_those_who_wait_for_it_only() {
    let hangs = (Fault::Slow(ZEROS_PAUSE), ZEROS_PAUSE);
    let fails = (EIO, Duration::from_secs(2));
    for (number, (fault, over_after)) in [hangs, fails].into_iter().enumerate() {
        let mut world = World::new(preallocating(number as u64), 0, small_settings(2));
        world.blocks = small_blocks();
        boot(&mut world, async |world, open| {
            world.disk.plan_faults([PlannedFault { file: DATA, kind: Kind::Preallocate, after: 0, fault }]);
            let refused = open.put(0, &world.blocks[0]).await;
            match fault {
                Fault::Slow(_) => assert!(matches!(refused, Err(StoreError::Busy)), "{refused:?}"),
                _ => assert!(matches!(refused, Err(StoreError::NoSpace)), "{refused:?}"),
            }
            assert!(!open.get(0, &world.blocks[0]).await.unwrap());
            open.ring.sleep(over_after).await;
            put_all(world, &open).await;
            open.stop().await;
        });
        let report = world.check().unwrap();
        assert_eq!((report.faults, report.totals), (vec![], totals_of(&world.blocks)));
    }
}
