//! Large blocks that are ready at once: the disk gets so many of them at a time, small ones do not wait for them, and what is received
//! meanwhile takes its time.

use super::disk::{Fault, Kind, PlannedFault};
use super::steps::boot;
use super::world::{Block, DATA, World, small_settings, totals_of};
use crate::extent::SizeClass;
use crate::hash::Hasher;
use crate::settings::Settings;
use std::rc::Rc;
use std::time::Duration;

const EACH_WRITE: Duration = Duration::from_secs(1);
/// As many of the largest as one worker has written at a time.
const AT_A_TIME: usize = 8;

const LARGEST: u64 = SizeClass::LARGEST.bytes();

fn large_block(number: usize, bytes: u64) -> Block {
    let mut bytes = vec![1; bytes as usize];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Block::new(bytes)
}

/// Blocks that are stored at once while each write takes a second, and others a moment later.
struct Stored {
    /// How long each took, in whole seconds of simulated time; `None`: it failed.
    large: Vec<Option<u64>>,
    small: Option<u64>,
    /// A millisecond after they began: blocks being written whose names follow …
    unnamed: u64,
    /// … and how long two large pieces take to be hashed that are received then.
    hashed: [Duration; 2],
}

/// Stores `large` blocks of this many bytes, of which the first writes meet `faults`.
fn store(large: usize, bytes: u64, faults: &[Fault]) -> Stored {
    let settings = Settings { requests_max: 64, pool_targets: [2, 1, 1, 1, 1, 1, 1, 40], ..small_settings(1) };
    let mut world = World::new(5, 0, settings);
    world.blocks = (0..large).map(|number| large_block(number, bytes)).chain([Block::new(vec![7; 100])]).collect();
    let stored = boot(&mut world, async |world, open| {
        open.sessions[0].fill_pools().await;
        // Growth is over: the next writes are those of blocks.
        open.ring.sleep(EACH_WRITE).await;
        let slow = (0..2 * large).map(|_| Fault::Slow(EACH_WRITE));
        let faults = faults.iter().copied().chain(slow);
        world.disk.plan_faults(faults.map(|fault| PlannedFault { file: DATA, kind: Kind::Write, after: 0, fault }));
        let open = Rc::new(open);
        let put = |block: &Block| {
            let (open, block) = (Rc::clone(&open), block.clone());
            open.ring.clone().spawn(async move {
                let began = open.ring.now();
                open.put(0, &block).await.is_ok().then(|| (open.ring.now() - began).as_secs())
            })
        };
        let (small, large) = world.blocks.split_last().unwrap();
        let large: Vec<_> = large.iter().map(put).collect();
        open.ring.sleep(Duration::from_millis(1)).await;
        let unnamed = open.shared.workers[0].writing.get();
        let hashing = [0, 1].map(|_| {
            let open = Rc::clone(&open);
            open.ring.clone().spawn(async move {
                let (began, bytes) = (open.ring.now(), 100 << 10);
                let buffer = open.buffers.take(bytes).await.unwrap();
                open.sessions[0].hash_queue().update(Hasher::new(), buffer, 0..bytes).await;
                open.ring.now() - began
            })
        });
        let small = put(small).await;
        let [one, other] = hashing;
        let hashed = [one.await, other.await];
        let mut times = Vec::new();
        for put in large {
            times.push(put.await);
        }
        Rc::into_inner(open).unwrap().stop().await;
        Stored { large: times, small, unnamed, hashed }
    });
    let report = world.check().unwrap();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    let all_stored = stored.large.iter().all(Option::is_some);
    assert_eq!(all_stored, report.totals == totals_of(&world.blocks));
    stored
}

#[test]
fn large_blocks_are_written_in_turns() {
    let mut stored = store(3 * AT_A_TIME, LARGEST, &[]);
    stored.large.sort_unstable();
    let expected: Vec<_> = (1..=3).flat_map(|round| [Some(round); AT_A_TIME]).collect();
    assert_eq!(stored.large, expected);
    assert_eq!(stored.unnamed, AT_A_TIME as u64, "what waits need not be waited for");
}

#[test]
fn a_small_block_does_not_wait_for_large_ones_that_wait() {
    assert_eq!(store(3 * AT_A_TIME, LARGEST, &[]).small, Some(1));
}

#[test]
fn what_is_received_takes_its_time_only_while_blocks_wait_for_the_disk() {
    let plenty = store(3 * AT_A_TIME, LARGEST, &[]).hashed;
    assert!(plenty.iter().all(|time| *time >= Duration::from_millis(10)), "{plenty:?}");
    assert!(plenty.iter().all(|time| *time < EACH_WRITE / 2), "no write has ended by then: {plenty:?}");
    let few = store(AT_A_TIME, LARGEST, &[]).hashed;
    assert!(few.iter().all(|time| *time < Duration::from_millis(1)), "{few:?}");
}

/// Both blocks of the write that fails are tried alone, and others have its room meanwhile.
#[test]
fn large_blocks_whose_write_fails_make_room() {
    let mut stored = store(3 * AT_A_TIME, LARGEST, &[Fault::Error(libc::ENOSPC)]);
    stored.large.sort_unstable();
    assert!(stored.large.iter().all(|time| time.is_some_and(|time| time <= 3)), "{:?}", stored.large);
}

/// Blocks that do not fill their extents are written each by itself.
#[test]
fn a_large_block_that_cannot_be_written_makes_room() {
    let stored = store(32, LARGEST / 2 + 1, &[Fault::Error(libc::ENOSPC); 8]).large;
    let failed = stored.iter().filter(|time| time.is_none()).count();
    // One or the other may meet a write of zeros.
    assert!((4..=8).contains(&failed), "{stored:?}");
    // Sixteen at a time.
    assert!(stored.iter().flatten().all(|time| *time <= 2), "{stored:?}");
}
