//! An index that cannot be written, for other reasons than space: that ends all writing, and is not tried again.

use super::memory_index::Commits;
use super::steps::{boot, outcome, put_all, put_at_once};
use super::world::{World, small_settings};
use crate::StoreError;
use crate::settings::Settings;
use std::rc::Rc;
use std::time::Duration;

/// Stores half of the blocks, lets the index fail, stores the others through a checkpoint: the store is read-only then, and stays so
/// when the index works again. What was acknowledged is there, now and after the next opening.
fn ends_all_writing(fail: impl Fn(&World), mend: impl Fn(&World), why: &str) {
    for seed in 40..44 {
        let mut world = World::new(seed, 40, small_settings(2));
        let acknowledged = boot(&mut world, async |world, open| {
            for block in &world.blocks[..20] {
                open.put(0, block).await.unwrap();
            }
            fail(world);
            let mut acknowledged = 20;
            for block in &world.blocks[20..] {
                match open.put(1, block).await {
                    Ok(_) => acknowledged += 1,
                    Err(error) => assert!(matches!(error, StoreError::ReadOnly | StoreError::NoSpace), "{error}"),
                }
            }
            open.ring.sleep(Duration::from_secs(1)).await;
            mend(world);
            let checkpoints = open.shared.statistics.checkpoints.get();
            open.ring.sleep(Duration::from_secs(10)).await;
            let reason = open.shared.health.read_only().unwrap();
            assert!(reason.contains(why), "{reason}");
            assert_eq!(open.shared.statistics.checkpoints.get(), checkpoints, "it is tried again");
            for block in &world.blocks[..acknowledged] {
                assert_eq!(outcome(&open, block).await, "there");
            }
            open.stop().await;
            acknowledged
        });
        boot(&mut world, async |world, open| {
            assert_eq!(open.shared.health.read_only(), None);
            for block in &world.blocks[..acknowledged] {
                assert_eq!(outcome(&open, block).await, "there");
            }
            put_all(world, &open).await;
            open.stop().await;
        });
        assert_eq!(world.check().unwrap().faults, Vec::<String>::new());
    }
}

/// Space is set aside behind each checkpoint: it is the system that fails, and what failed may have been a flush.
#[test]
fn space_for_the_index_that_cannot_be_reserved_ends_all_writing() {
    ends_all_writing(
        |world| world.index.set_reserving_fails(true),
        |world| world.index.set_reserving_fails(false),
        "the index cannot be extended",
    );
}

/// What contradicts the index does so however much space there is.
#[test]
fn a_contradiction_on_a_full_disk_ends_all_writing() {
    ends_all_writing(
        |world| {
            world.index.set_commits(Commits::Contradict);
            world.index.exhaust(true);
        },
        |world| {
            world.index.set_commits(Commits::Happen);
            world.index.exhaust(false);
        },
        "the index is damaged",
    );
}

/// Nobody knows that the index has it all: the names stay where they are found, and the next opening finds them in the index.
#[test]
fn a_change_of_the_index_that_happens_and_fails_loses_nothing() {
    ends_all_writing(
        |world| world.index.set_commits(Commits::HappenAndFail),
        |world| world.index.set_commits(Commits::Happen),
        "a checkpoint failed",
    );
}

/// Memory is asked for again, and who waits for a checkpoint waits for it.
#[test]
fn a_checkpoint_waits_for_memory() {
    let mut world = World::new(44, 40, Settings { checkpoint_names: 4, ..small_settings(2) });
    boot(&mut world, async |world, open| {
        let open = Rc::new(open);
        world.index.set_commits(Commits::LackMemory);
        let puts = open.ring.spawn({
            let (open, blocks) = (Rc::clone(&open), world.blocks.clone());
            async move { put_at_once(&open, &blocks).await }
        });
        open.ring.sleep(Duration::from_secs(5)).await;
        assert!(open.shared.statistics.names_sealed.get() > 0 && open.shared.statistics.requests_deferred.get() > 0);
        world.index.set_commits(Commits::Happen);
        assert!(puts.await.iter().all(Result::is_ok));
        assert_eq!(open.shared.health.read_only(), None);
    });
}

/// The same while a store is opened: it stays closed, and opens when the index works again.
#[test]
fn opening_through_a_change_of_the_index_that_happens_and_fails() {
    let mut world = World::new(45, 12, small_settings(2));
    boot(&mut world, async |world, open| put_all(world, &open).await);
    let fail: [fn(&World, bool); 3] = [
        |world, fails| world.index.set_commits(if fails { Commits::LackMemory } else { Commits::Happen }),
        |world, fails| world.index.set_commits(if fails { Commits::HappenAndFail } else { Commits::Happen }),
        |world, fails| world.index.set_reserving_fails(fails),
    ];
    for fail in fail {
        fail(&world, true);
        for _ in 0..2 {
            let runtime = world.runtime();
            let ring = runtime.ring();
            assert!(runtime.block_on(world.open(&ring)).is_err());
        }
        fail(&world, false);
        boot(&mut world, async |world, open| {
            for block in &world.blocks {
                assert_eq!(outcome(&open, block).await, "there");
            }
        });
    }
}
