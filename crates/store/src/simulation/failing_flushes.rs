//! Flushes that come late, that fail beside others that succeed, or that the system has not even begun.

use super::disk::{Cut, Fault, Kind, PlannedFault};
use super::steps::{EIO, boot, outcome, put_all};
use super::world::{Block, DATA, JOURNAL, Open, World, small_settings};
use crate::index::{Index, IndexReader};
use crate::settings::{DataSync, Durability, NewSpace, Settings};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// What is answered early is durable when the interval has passed, after each pause anew.
#[test]
fn what_is_answered_early_is_durable_after_the_interval() {
    for count in 1..=4 {
        let interval = Duration::from_secs(1);
        let settings = Settings {
            durability: Durability::Relaxed,
            sync_interval: interval,
            checkpoint_names: 1000,
            ..small_settings(1)
        };
        let mut world = World::new(24, count, settings);
        boot(&mut world, async |world, open| {
            for block in &world.blocks {
                open.put(0, block).await.unwrap();
                open.ring.sleep(2 * interval).await;
            }
        });
        world.restore(Cut::LoseAll);
        boot(&mut world, async |world, open| {
            for block in &world.blocks {
                assert_eq!(outcome(&open, block).await, "there", "of {count}");
            }
        });
    }
}

/// A flush for more space fails while another is under way for a checkpoint: the system reports the loss of data once, so the success of
/// the other says nothing.
#[test]
fn a_flush_that_succeeds_beside_one_that_failed_makes_nothing_durable() {
    let settings = Settings {
        durability: Durability::Relaxed,
        // The only flushes are those of growth, and the one that a sealed generation waits for.
        sync_interval: Duration::from_secs(3600),
        new_space: Some(NewSpace::Unwritten),
        ..small_settings(1)
    };
    let mut world = World::new(23, 0, settings);
    world.blocks = (0..24).map(|number| Block::new(vec![number; 512 << 10])).collect();
    boot(&mut world, async |world, open| {
        open.sessions[0].fill_pools().await;
        open.ring.sleep(Duration::from_secs(1)).await;
        let in_index = || world.index.reader().unwrap().meta().unwrap().unwrap().sequence;
        let before = (open.shared.statistics.checkpoints.get(), in_index());
        let slow = Fault::Slow(Duration::from_secs(1));
        world.disk.plan_faults([slow, EIO].map(|fault| PlannedFault {
            file: DATA,
            kind: Kind::Flush,
            after: 0,
            fault,
        }));
        for number in 0..8u8 {
            open.put(0, &Block::new(vec![number])).await.unwrap();
        }
        assert!(open.shared.statistics.names_sealed.get() > 0);
        for block in &world.blocks {
            if open.put(0, block).await.is_err() {
                break;
            }
        }
        let reason = open.shared.health.read_only().unwrap();
        assert!(reason.contains("a flush failed"), "{reason}");
        open.ring.sleep(Duration::from_secs(5)).await;
        assert_eq!((open.shared.statistics.checkpoints.get(), in_index()), before);
    });
}

/// The same where the failure is heard of after the success of the other, which it has made a lie: a frame's blocks are lost, and their
/// names are durable. Nobody was told that they are stored.
#[test]
fn a_flush_is_not_believed_while_another_may_have_failed() {
    let mut read_only = 0;
    for seed in 0..100 {
        let settings = Settings {
            data_sync: Some(DataSync::PerFrame),
            new_space: Some(NewSpace::Unwritten),
            checkpoint_names: 1000,
            capacity_bytes: Some(4 << 20),
            ..small_settings(2)
        };
        let mut world = World::new(seed, 0, settings);
        world.blocks = (0..150_u32).map(|number| Block::new(number.to_le_bytes().repeat(100))).collect();
        boot(&mut world, async |_, open| {
            for number in 0..6 {
                open.put(0, &Block::new(vec![number; 512 << 10])).await.unwrap();
            }
            open.stop().await;
        });
        // From now on it may grow, and does so at once: little is free.
        world.settings.capacity_bytes = None;
        let fault = Fault::LateError(Duration::from_micros(500 * (1 + seed % 30)), libc::EIO);
        // The first flush is that of the opening.
        world.disk.plan_faults([PlannedFault { file: DATA, kind: Kind::Flush, after: 1, fault }]);
        let stored = boot(&mut world, async |world, open| {
            let stored = store_until_it_fails(world, Rc::new(open)).await;
            read_only += u32::from(stored.len() < world.blocks.len());
            stored
        });
        world.restore(Cut::LoseAll);
        boot(&mut world, async |world, open| {
            for number in stored {
                assert_eq!(outcome(&open, &world.blocks[number]).await, "there", "seed {seed}, block {number}");
            }
        });
    }
    assert!(read_only > 50, "{read_only}");
}

/// Stores blocks, eight at a time; each client gives up when it is refused. Returns the numbers of those that were stored.
async fn store_until_it_fails(world: &World, open: Rc<Open>) -> Vec<usize> {
    let stored = Rc::new(RefCell::new(Vec::new()));
    let client = |client| {
        let (open, stored, blocks) = (Rc::clone(&open), Rc::clone(&stored), world.blocks.clone());
        open.ring.clone().spawn(async move {
            for (number, block) in blocks.iter().enumerate().skip(client).step_by(8) {
                if open.put(1, block).await.is_err() {
                    return;
                }
                stored.borrow_mut().push(number);
            }
        })
    };
    for client in (0..8).map(client).collect::<Vec<_>>() {
        client.await;
    }
    stored.take()
}

/// The kernel carries flushes out on threads that it makes when they are needed.
#[test]
fn a_flush_waits_for_what_the_system_is_short_of() {
    for (durability, data_sync) in [
        (Durability::Sync, DataSync::PerWrite),
        (Durability::Sync, DataSync::PerFrame),
        (Durability::Relaxed, DataSync::PerWrite),
    ] {
        let settings = Settings { durability, data_sync: Some(data_sync), ..small_settings(1) };
        let mut world = World::new(1, 12, settings);
        boot(&mut world, async |world, open| {
            for file in [DATA, JOURNAL] {
                for after in 0..3 {
                    let fault = Fault::Error(libc::ECANCELED);
                    world.disk.plan_faults([PlannedFault { file, kind: Kind::Flush, after, fault }]);
                }
            }
            put_all(world, &open).await;
            open.ring.sleep(Duration::from_secs(10)).await;
            assert_eq!(open.shared.health.read_only(), None, "{durability:?} {data_sync:?}");
            open.stop().await;
        });
        world.restore(Cut::LoseAll);
        boot(&mut world, async |world, open| {
            for block in &world.blocks {
                assert_eq!(outcome(&open, block).await, "there");
            }
        });
    }
}

/// So it does growth: that says nothing of the disk, and nobody is told that there is no space.
#[test]
fn growth_waits_for_what_the_system_is_short_of() {
    // A disk of every third seed cannot set space aside: zeros are written there.
    for (seed, kind) in [(1, Kind::Preallocate), (3, Kind::Write)] {
        for code in [libc::ECANCELED, libc::ENOMEM, libc::EAGAIN] {
            let settings = Settings { new_space: Some(NewSpace::Unwritten), ..small_settings(1) };
            let mut world = World::new(seed, 0, settings);
            boot(&mut world, async |world, open| {
                let fault = Fault::Error(code);
                world.disk.plan_faults(vec![PlannedFault { file: DATA, kind, after: 0, fault }; 3]);
                assert!(open.put(0, &Block::new(vec![1, 2, 3])).await.is_ok(), "{kind:?} {code}");
            });
        }
    }
}
