//! What waits for a checkpoint, and what does not.

use super::memory_index::MemoryIndex;
use super::steps::{boot, put_all, put_at_once};
use super::world::{Block, World, small_settings, totals_of};
use crate::StoreError;
use crate::settings::Settings;
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
