//! Counts in the index that are wrong: what opening notices, and what only reading every name does.

use super::steps::{boot, outcome, put_all};
use super::world::{Block, World, small_settings, totals_of};
use crate::index::Totals;

type Change = fn(&mut Totals);

/// Counts that cannot be, or are not as many as there are names: every block can be read, and nothing is written.
#[test]
fn totals_that_are_wrong_open_read_only() {
    let cases: [(Change, &str); 4] = [
        (
            |totals| totals.bytes_stored[4] += 1 << 20,
            "it counts 3 blocks of 1228576 bytes in extents of 64k, which cannot be",
        ),
        (|totals| totals.blocks = [u64::MAX; 9], "it counts 18446744073709551615 blocks of 0 bytes in extents of 4k"),
        (|totals| totals.blocks[8] = 2, "it counts 2 blocks of no bytes, which cannot be"),
        // So many blocks can have so many bytes, in as many pages.
        (
            |totals| {
                (totals.blocks[4], totals.blocks[5]) = (1, 1);
                (totals.bytes_stored[4], totals.bytes_stored[5]) = (60_000, 120_000);
            },
            "it counts 2 blocks and has 3",
        ),
    ];
    for (change, why) in cases {
        let mut world = World::new(23, 0, small_settings(1));
        world.blocks = (0..3).map(|number| Block::new(vec![number; 60_000])).collect();
        boot(&mut world, async |world, open| {
            put_all(world, &open).await;
            open.stop().await;
        });
        world.index.change_totals(change);
        boot(&mut world, async |world, open| {
            let reason = open.shared.health.read_only().unwrap();
            assert!(reason.contains(why), "{reason}");
            for block in &world.blocks {
                assert_eq!(outcome(&open, block).await, "there");
                assert!(open.put(0, block).await.is_err());
            }
        });
        assert!(world.check().unwrap().fault_count > 0);
    }
}

/// As many blocks, bytes and pages, but not in the same classes: who reads every name finds it.
#[test]
fn totals_of_other_classes_are_named_by_check() {
    let mut world = World::new(24, 0, small_settings(1));
    world.blocks = (0..3).map(|number| Block::new(vec![number; 5000])).collect();
    boot(&mut world, async |world, open| {
        put_all(world, &open).await;
        open.stop().await;
    });
    assert_eq!(world.check().unwrap().faults, Vec::<String>::new());
    let change = |totals: &mut Totals| {
        assert_eq!(*totals, totals_of(&world.blocks));
        totals.blocks = [2, 0, 1, 0, 0, 0, 0, 0, 0];
        totals.bytes_stored = [5000, 0, 10_000, 0, 0, 0, 0, 0];
    };
    world.index.change_totals(change);
    let named = |expected: &str, found: &str| format!("the index counts {expected}, but it holds {found}");
    assert_eq!(
        world.check().unwrap().faults,
        [
            named("2 blocks of 5000 bytes in extents of 4k", "0 blocks of 0 bytes in extents of 4k"),
            named("0 blocks of 0 bytes in extents of 8k", "3 blocks of 15000 bytes in extents of 8k"),
            named("1 blocks of 10000 bytes in extents of 16k", "0 blocks of 0 bytes in extents of 16k"),
        ]
    );
    boot(&mut world, async |_, open| assert_eq!(open.shared.health.read_only(), None));
}
