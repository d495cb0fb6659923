//! Blocks that only the disk has and that are asked for together: it has half of them at a time, unless they are few, or take long.

use super::disk::{Fault, Kind, PlannedFault};
use super::steps::{EIO, boot, put_all};
use super::world::{Block, DATA, Open, World, small_settings};
use crate::StoreError;
use crate::settings::Settings;
use buddy_ring::JoinHandle;
use std::rc::Rc;
use std::time::Duration;

/// Longer than anything here lasts.
const SLOW: Fault = Fault::Slow(Duration::from_secs(1));
/// Everything that is to begin at once has begun by then, and what fails has failed.
const A_MOMENT: Duration = Duration::from_millis(2);
/// Nobody waits for others for so long.
const A_WHILE: Duration = Duration::from_millis(6);

/// A store of `blocks` small blocks, whose worker has the disk read this many at least, is opened for `work`.
fn with_blocks(blocks: usize, reads_at_once: Option<usize>, work: impl AsyncFnOnce(&World, &Rc<Open>)) {
    let settings = Settings { reads_at_once, recent_reads: 1 << 16, ..small_settings(1) };
    let mut world = World::new(6, 0, settings);
    world.blocks = (0..blocks).map(|number| Block::new(format!("{number:08}").into_bytes())).collect();
    boot(&mut world, async |world, open| {
        put_all(world, &open).await;
        let open = Rc::new(open);
        work(world, &open).await;
        Rc::into_inner(open).unwrap().stop().await;
    });
}

type Reading = JoinHandle<Result<bool, StoreError>>;

/// Asks for blocks, all at once; the reads of the first meet `faults`, those of the others are slow.
fn ask_for(world: &World, open: &Rc<Open>, blocks: &[Block], faults: &[Fault]) -> Vec<Reading> {
    let slow = (faults.len()..blocks.len()).map(|_| SLOW);
    let faults = faults.iter().copied().chain(slow);
    world.disk.plan_faults(faults.map(|fault| PlannedFault { file: DATA, kind: Kind::Read, after: 0, fault }));
    let ask = |block: &Block| {
        let (open, block) = (Rc::clone(open), block.clone());
        open.ring.clone().spawn(async move { open.get(0, &block).await })
    };
    blocks.iter().map(ask).collect()
}

/// How many the disk reads a moment after `blocks` were asked for, all at once, and a while after. All are read in the end.
async fn reading(world: &World, open: &Rc<Open>, blocks: &[Block]) -> [usize; 2] {
    let reads = ask_for(world, open, blocks, &[]);
    open.ring.sleep(A_MOMENT).await;
    let first = world.disk.reading(DATA);
    open.ring.sleep(A_WHILE - A_MOMENT).await;
    let later = world.disk.reading(DATA);
    for read in reads {
        assert!(read.await.unwrap());
    }
    [first, later]
}

#[test]
fn the_disk_has_half_of_many_and_the_rest_when_it_takes_long() {
    with_blocks(32, Some(4), async |world, open| {
        assert_eq!(reading(world, open, &world.blocks).await, [16, 32]);
    });
}

#[test]
fn few_need_not_wait_and_how_many_are_few_is_a_setting() {
    for (blocks, reads_at_once, expected) in [(4, Some(4), 4), (5, Some(4), 4), (32, Some(24), 24), (32, None, 32)] {
        with_blocks(blocks, reads_at_once, async |world, open| {
            assert_eq!(reading(world, open, &world.blocks).await, [expected, blocks]);
        });
    }
}

/// One fails, another is quick: two more begin.
#[test]
fn the_next_begins_as_one_ends() {
    with_blocks(32, Some(4), async |world, open| {
        let reads = ask_for(world, open, &world.blocks, &[EIO, Fault::Slow(Duration::ZERO)]);
        open.ring.sleep(A_MOMENT).await;
        assert_eq!(world.disk.reading(DATA), 16);
        let mut failed = 0;
        for read in reads {
            match read.await {
                Err(StoreError::Io { action: "read", .. }) => failed += 1,
                result => assert!(result.unwrap()),
            }
        }
        assert_eq!(failed, 1);
    });
}

#[test]
fn a_burst_is_forgotten() {
    with_blocks(64 + 600 + 32, Some(4), async |world, open| {
        let (burst, others) = world.blocks.split_at(64);
        let (alone, again) = others.split_at(600);
        assert_eq!(reading(world, open, burst).await, [32, 64]);
        for block in alone {
            assert!(open.get(0, block).await.unwrap());
        }
        assert_eq!(reading(world, open, again).await, [16, 32]);
    });
}

/// Whose reads the disk has all the same: others wait for them no longer than for anybody, and when they have ended not at all.
#[test]
fn who_gives_up_waiting_takes_up_no_room_for_ever() {
    with_blocks(32 + 1 + 8, Some(4), async |world, open| {
        let (asked_for, others) = world.blocks.split_at(32);
        let (next, later) = others.split_at(1);
        let give_up = |block: &Block| {
            let (open, block) = (Rc::clone(open), block.clone());
            open.ring.clone().spawn(async move { open.ring.timeout(A_MOMENT, open.get(0, &block)).await.is_err() })
        };
        world.disk.plan_faults((0..32).map(|_| PlannedFault { file: DATA, kind: Kind::Read, after: 0, fault: SLOW }));
        let reads: Vec<_> = asked_for.iter().map(give_up).collect();
        for read in reads {
            assert!(read.await, "none was quick");
        }
        open.ring.sleep(A_WHILE).await;
        let began = open.ring.now();
        assert!(open.get(0, &next[0]).await.unwrap());
        assert!(open.ring.now() - began < A_WHILE);
        open.ring.sleep(Duration::from_secs(2)).await;
        assert_eq!(world.disk.reading(DATA), 0);
        assert_eq!(reading(world, open, later).await, [8, 8]);
    });
}
