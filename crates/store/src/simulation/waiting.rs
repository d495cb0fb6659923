//! What waits for a checkpoint, and what does not.

use super::memory_index::MemoryIndex;
use super::steps::{boot, outcome, put_all, put_at_once};
use super::world::{Block, Open, World, small_settings, totals_of};
use crate::StoreError;
use crate::session::Stored;
use crate::settings::{LookupPath, Settings};
use buddy_ring::JoinHandle;
use std::rc::Rc;
use std::time::Duration;

fn world(seed: u64, settings: Settings, checkpoint_pause: Duration) -> World {
    let mut world = World::new(seed, 0, Settings { checkpoint_names: 16, ..settings });
    world.blocks = (0..400u64).map(|number| Block::new(number.to_le_bytes().to_vec())).collect();
    world.checkpoint_pause = checkpoint_pause;
    world
}

/// The checkpoint that they wait for finds that the index has no space: they are refused for that and at once, as those that come later
/// are.
#[test]
fn names_that_wait_are_refused_where_the_index_has_no_space() {
    let ways: [fn(&MemoryIndex, bool); 2] = [MemoryIndex::set_full, MemoryIndex::exhaust];
    for set_full in ways {
        let settings = Settings { requests_max: 256, ..small_settings(2) };
        let mut world = world(48, settings, Duration::from_secs(5));
        boot(&mut world, async |world, open| {
            set_full(&world.index, true);
            let open = Rc::new(open);
            let mut stored = 0;
            for result in put_at_once(&open, &world.blocks).await {
                match result {
                    Ok(_) => stored += 1,
                    Err(StoreError::NoSpace) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            // Two generations, of at most four times the target each, and no third.
            assert!((16..=2 * 64).contains(&stored), "{stored}");
            set_full(&world.index, false);
            open.ring.sleep(Duration::from_secs(30)).await;
            Rc::into_inner(open).unwrap().stop().await;
        });
        world.checkpoint_pause = Duration::ZERO;
        boot(&mut world, async |world, open| {
            put_all(world, &open).await;
            open.stop().await;
        });
        let report = world.check().unwrap();
        assert_eq!((report.faults, report.totals), (vec![], totals_of(&world.blocks)));
    }
}

fn start_put(open: &Rc<Open>, block: &Block) -> JoinHandle<Result<Stored, StoreError>> {
    let (putting, block) = (Rc::clone(open), block.clone());
    open.ring.spawn(async move { putting.put(0, &block).await })
}

/// Names wait for a checkpoint, more of them than a worker may have outstanding: what else it asks for goes on, and removals have a part
/// of the journal of their own.
#[test]
fn removals_and_look_ups_do_not_stand_in_line_behind_names() {
    for lookup in [LookupPath::Worker, LookupPath::Controller] {
        let settings = Settings { lookup, requests_max: 16, ..small_settings(1) };
        let mut world = world(49, settings, Duration::from_secs(600));
        boot(&mut world, async |world, open| {
            let open = Rc::new(open);
            let put_at = open.ring.now();
            let puts: Vec<_> = world.blocks.iter().map(|block| start_put(&open, block)).collect();
            open.ring.sleep(Duration::from_secs(1)).await;
            let began = open.ring.now();
            let mut removed = 0;
            for block in &world.blocks {
                if removed < 20 && outcome(&open, block).await == "there" {
                    assert!(open.sessions[0].delete(&block.hash).await.unwrap());
                    removed += 1;
                }
            }
            assert_eq!(removed, 20);
            let took = open.ring.now() - began;
            assert!(took < world.settings.busy_timeout, "they have waited for {took:?}");
            let mut busy = 0;
            for put in puts {
                busy += usize::from(matches!(put.await, Err(StoreError::Busy)));
            }
            assert!(busy > 10 * 16, "many times more have waited for the checkpoint than may be outstanding: {busy}");
            // Once for a place, once for the checkpoint; not in turns.
            let took = open.ring.now() - put_at;
            assert!(took < 2 * world.settings.busy_timeout + Duration::from_secs(1), "they have waited for {took:?}");
        });
    }
}
