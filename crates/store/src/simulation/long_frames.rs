//! Frames of several pages. One that does not fit behind the one before it, at the journal's end, lies at 0: the chain goes on there.

use super::memory_index::MemoryIndex;
use super::steps::{boot, outcome, put_at_once, remove_at_once};
use super::tests::{WAYS_TO_BE_DURABLE, cut_at, seeds};
use super::unreadable::is_read_only;
use super::workload::{Run, Workload};
use super::world::{Block, JOURNAL, World, small_settings};
use crate::extent::{PAGE, PAGE_BYTES};
use crate::index::{Index, IndexReader};
use crate::journal::decode_frame;
use crate::settings::Settings;
use std::rc::Rc;
use std::time::Duration;

/// More changes at once than fit into a page of the journal, and the journal is what seals a generation.
fn settings() -> Settings {
    let pool_targets = [128, 1, 1, 1, 1, 1, 1, 1];
    Settings { requests_max: 256, checkpoint_names: 4000, pool_targets, ..small_settings(2) }
}

/// A new store that may store so many blocks.
fn new_store(seed: u64, blocks: u32, settings: Settings) -> World {
    let mut world = World::new(seed, 0, settings);
    world.blocks = (0..blocks).map(|number| Block::new(number.to_le_bytes().to_vec())).collect();
    boot(&mut world, async |_, open| open.stop().await);
    world
}

/// Writes the journal on, a page at a time, until so many are left before its end, and stops the store.
fn write_on(world: &mut World, pages_left: u64) {
    let end = world.journal_bytes - pages_left * PAGE_BYTES;
    let pages = (end - world.journal_offset()) / PAGE_BYTES;
    let passing = Block::new(b"stored and removed".to_vec());
    boot(world, async |_, open| {
        for page in 0..pages {
            if page % 2 == 0 {
                open.put(0, &passing).await.unwrap();
            } else {
                open.sessions[0].delete(&passing.hash).await.unwrap();
            }
        }
        open.stop().await;
    });
    assert_eq!(world.journal_offset(), end % world.journal_bytes);
}

/// Whether the chain goes on at 0 although the frame before ends earlier than the journal.
fn leaves_the_end_unused(world: &World) -> bool {
    let meta = world.index.reader().unwrap().meta().unwrap().unwrap();
    let journal = world.disk.contents(JOURNAL, 0..world.journal_bytes);
    let Ok(first) = decode_frame(&journal) else { return false };
    let is_live = first.header.epoch == meta.epoch && first.header.first_sequence > meta.sequence;
    is_live
        && (0..journal.len()).step_by(PAGE).any(|offset| {
            decode_frame(&journal[offset..])
                .is_ok_and(|frame| frame.crc == first.header.previous_crc && offset + frame.bytes < journal.len())
        })
}

/// A killed store whose last frame removes all blocks, and lies at 0 because it is longer than what was left; and its index from before
/// that run.
fn with_a_frame_at_0(seed: u64) -> (World, MemoryIndex) {
    let mut world = new_store(seed, 200, settings());
    boot(&mut world, async |world, open| {
        let open = Rc::new(open);
        for stored in put_at_once(&open, &world.blocks).await {
            stored.unwrap();
        }
        Rc::into_inner(open).unwrap().stop().await;
    });
    write_on(&mut world, 1);
    let index_before = world.index.copy();
    boot(&mut world, async |world, open| remove_at_once(&Rc::new(open), &world.blocks).await);
    assert!(leaves_the_end_unused(&world), "else nothing is tested");
    (world, index_before)
}

/// The second opening finds an empty chain behind that frame.
#[test]
fn a_frame_that_did_not_fit_at_the_journals_end_is_found_at_0() {
    let (mut world, _) = with_a_frame_at_0(60);
    for _ in 0..2 {
        boot(&mut world, async |world, open| {
            assert_eq!(open.shared.health.read_only(), None);
            for block in &world.blocks {
                assert_eq!(outcome(&open, block).await, "absent");
            }
        });
    }
}

#[test]
fn an_unreadable_frame_at_0_opens_read_only() {
    let (mut world, _) = with_a_frame_at_0(61);
    world.disk.make_unreadable(JOURNAL, 0);
    is_read_only(&mut world, "the journal cannot be read at byte 0");
}

#[test]
fn a_later_epoch_at_0_proves_that_the_index_is_older() {
    let (mut world, index_before) = with_a_frame_at_0(62);
    world.index = index_before;
    is_read_only(&mut world, "the index is older than the journal");
}

/// Behind a frame that ends with the journal the next one lies at 0 as well; here there is none.
#[test]
fn a_chain_that_ends_with_the_journal_is_whole() {
    let mut world = new_store(63, 1, settings());
    write_on(&mut world, 0);
    for _ in 0..2 {
        boot(&mut world, async |_, open| assert_eq!(open.shared.health.read_only(), None));
        assert_eq!(world.journal_offset(), 0, "it has begun anew");
    }
}

/// Hundreds of clients at once while the journal comes to its end and begins again.
#[test]
fn cuts_while_the_journal_begins_again() {
    let (mut cuts, mut with_an_unused_end) = (0, 0);
    for seed in seeds(6) {
        let (durability, data_sync) = WAYS_TO_BE_DURABLE[seed.0 as usize % WAYS_TO_BE_DURABLE.len()];
        let sync_interval = Duration::from_millis(2);
        let near_the_end = || {
            let settings = Settings { durability, data_sync, sync_interval, ..settings() };
            let mut world = new_store(seed.0, 400, settings);
            // An odd number, so that the block that has passed is removed again; frames have two pages, mostly.
            write_on(&mut world, 3);
            Run::new(world, seed.0)
        };
        let workload = Workload { clients: 300, operations: 1500, puts: 60, deletes: 35 };
        for event in (1..).step_by(4) {
            let look = |world: &World| with_an_unused_end += u64::from(leaves_the_end_unused(world));
            if !cut_at(event, near_the_end(), workload, seed.0, look) {
                break;
            }
            cuts += 1;
        }
    }
    println!("{cuts} cuts, {with_an_unused_end} with an unused end");
    assert!(with_an_unused_end > cuts / 8, "{with_an_unused_end} of {cuts}");
}
