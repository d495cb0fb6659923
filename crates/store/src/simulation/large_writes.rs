//! Large blocks that are ready at once: the disk gets so many of them at a time, and small ones do not wait for them.

use super::disk::{Fault, Kind, PlannedFault};
use super::steps::boot;
use super::world::{Block, DATA, World, small_settings, totals_of};
use crate::extent::SizeClass;
use crate::session::Stored;
use crate::settings::Settings;
use std::rc::Rc;
use std::time::Duration;

const EACH_WRITE: Duration = Duration::from_secs(1);
/// As many of the largest as one worker has written at a time.
const AT_A_TIME: usize = 8;

fn large_block(number: usize) -> Block {
    let mut bytes = vec![1; SizeClass::LARGEST.bytes() as usize];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Block::new(bytes)
}

/// In a time that is simulated: how long each block took, of `large` large ones that are stored at once, and a small one a moment later.
fn times_of(large: usize, fault_of_first: Option<i32>) -> (Vec<Duration>, Duration) {
    let settings = Settings { requests_max: 64, pool_targets: [2, 1, 1, 1, 1, 1, 1, 40], ..small_settings(1) };
    let mut world = World::new(5, 0, settings);
    world.blocks = (0..large).map(large_block).chain([Block::new(vec![7; 100])]).collect();
    let times = boot(&mut world, async |world, open| {
        open.sessions[0].fill_pools().await;
        // Growth is over: the next writes are those of blocks.
        open.ring.sleep(EACH_WRITE).await;
        let first = fault_of_first.map(Fault::Error);
        let faults = first.into_iter().chain((0..=large + 1).map(|_| Fault::Slow(EACH_WRITE)));
        let planned = faults.map(|fault| PlannedFault { file: DATA, kind: Kind::Write, after: 0, fault });
        world.disk.plan_faults(planned);
        let open = Rc::new(open);
        let put = |block: &Block| {
            let (open, block) = (Rc::clone(&open), block.clone());
            open.ring.clone().spawn(async move {
                let began = open.ring.now();
                let result = open.put(0, &block).await;
                assert!(fault_of_first.is_some() || matches!(result, Ok(Stored::Created)), "{result:?}");
                open.ring.now() - began
            })
        };
        let (small, large) = world.blocks.split_last().unwrap();
        let large: Vec<_> = large.iter().map(put).collect();
        open.ring.sleep(Duration::from_millis(1)).await;
        let small = put(small).await;
        let mut times = Vec::new();
        for put in large {
            times.push(put.await);
        }
        Rc::into_inner(open).unwrap().stop().await;
        (times, small)
    });
    let report = world.check().unwrap();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    assert!(fault_of_first.is_some() || report.totals == totals_of(&world.blocks));
    times
}

#[test]
fn large_blocks_are_written_in_turns() {
    let (times, _) = times_of(3 * AT_A_TIME, None);
    let mut rounds: Vec<u64> = times.iter().map(Duration::as_secs).collect();
    rounds.sort_unstable();
    let expected: Vec<u64> = (1..=3).flat_map(|round| [round; AT_A_TIME]).collect();
    assert_eq!(rounds, expected);
}

#[test]
fn a_small_block_does_not_wait_for_large_ones_that_wait() {
    let (_, small) = times_of(3 * AT_A_TIME, None);
    assert_eq!(small.as_secs(), 1, "{small:?}");
}

/// Their room is given back: others are written in their place.
#[test]
fn large_blocks_whose_write_fails_make_room() {
    let (times, _) = times_of(3 * AT_A_TIME, Some(libc::ENOSPC));
    assert_eq!(times.len(), 3 * AT_A_TIME);
    assert!(times.iter().all(|time| time.as_secs() <= 4), "{times:?}");
}
