//! Pages of the journal, and blocks, that cannot be read: nothing is lost but what they held, and nothing is guessed.

use super::disk::{Fault, Kind, PlannedFault};
use super::steps::{EIO, boot, outcome, put_all, put_at_once, remove_at_once};
use super::world::{Block, DATA, JOURNAL, World, small_settings};
use crate::recovery::RecoveryError;
use crate::settings::Settings;
use std::rc::Rc;

/// A store whose changes are all in the journal, unless it was stopped.
fn filled(seed: u64, stopped: bool) -> World {
    let mut world = World::new(seed, 12, Settings { checkpoint_names: 1000, ..small_settings(1) });
    boot(&mut world, async |world, open| {
        put_all(world, &open).await;
        if stopped {
            open.stop().await;
        }
    });
    world
}

fn is_whole(world: &mut World) {
    boot(world, async |world, open| {
        assert_eq!(open.shared.health.read_only(), None);
        for block in &world.blocks {
            assert_eq!(outcome(&open, block).await, "there");
        }
        open.sessions[0].delete(&world.blocks[3].hash).await.unwrap();
        open.put(0, &world.blocks[3]).await.unwrap();
    });
}

pub(super) fn is_read_only(world: &mut World, why: &str) {
    for _ in 0..2 {
        boot(world, async |_, open| {
            let reason = open.shared.health.read_only().unwrap();
            assert!(reason.contains(why), "{reason}");
        });
    }
    let report = world.check().unwrap();
    assert!(report.faults.iter().any(|fault| fault.contains(why)), "{:?}", report.faults);
}

#[test]
fn an_unreadable_page_of_the_journal_far_from_its_chain_costs_nothing() {
    for stopped in [true, false] {
        let mut world = filled(30, stopped);
        let at = world.journal_bytes / 2 + 4096;
        world.disk.make_unreadable(JOURNAL, at);
        let report = world.check().unwrap();
        assert_eq!(report.faults, [format!("the journal cannot be read at byte {at}")]);
        is_whole(&mut world);
    }
}

/// Of frames that went before the one which the chain continues.
#[test]
fn an_unreadable_page_of_a_dead_frame_costs_nothing() {
    let mut world = filled(31, false);
    boot(&mut world, async |_, open| open.stop().await);
    let end = world.journal_offset();
    // The frames of this run lie one behind the other, a page each.
    assert!(end > 4 * 4096, "{end}");
    world.disk.make_unreadable(JOURNAL, end - 3 * 4096);
    is_whole(&mut world);
}

/// Of the frame that the chain continues, where that is empty: only by that frame it is known that nothing has followed. After an orderly
/// stop nothing has.
#[test]
fn an_unreadable_page_before_an_empty_chain_opens_read_only_unless_the_store_was_stopped() {
    for stopped in [true, false] {
        let mut world = filled(39, true);
        boot(&mut world, async |_, open| {
            if stopped {
                open.stop().await;
            }
        });
        let at = world.journal_offset() - 4096;
        world.disk.make_unreadable(JOURNAL, at);
        if stopped {
            is_whole(&mut world);
        } else {
            is_read_only(&mut world, &format!("the journal cannot be read at byte {at}, where the frame may lie"));
        }
    }
}

#[test]
fn an_unreadable_frame_that_others_prove_opens_read_only() {
    let mut world = filled(32, false);
    world.disk.make_unreadable(JOURNAL, world.journal_offset());
    is_read_only(&mut world, "the journal is damaged: the acknowledged changes 1 to 11 are lost");
}

/// The last frame, or the place of the next one: nothing tells.
#[test]
fn an_unreadable_page_where_the_chain_ends_opens_read_only() {
    for frames_before in [0, 2] {
        let mut world = World::new(33, 4, small_settings(1));
        let end = boot(&mut world, async |world, open| {
            for block in &world.blocks[..frames_before] {
                open.put(0, block).await.unwrap();
            }
            let end = open.shared.statistics.journal_bytes_used.get();
            open.put(0, &world.blocks[3]).await.unwrap();
            end
        });
        let at = world.journal_offset() + end;
        world.disk.make_unreadable(JOURNAL, at);
        is_read_only(&mut world, &format!("the journal cannot be read at byte {at}"));
    }
}

/// A frame of several pages, of which the first can be read.
#[test]
fn an_unreadable_page_inside_the_last_frame_opens_read_only() {
    let settings = Settings { requests_max: 256, checkpoint_names: 4000, pool_targets: [64; 8], ..small_settings(2) };
    let mut world = World::new(34, 0, settings);
    world.blocks = (0..200u32).map(|number| Block::new(number.to_le_bytes().to_vec())).collect();
    let used = boot(&mut world, async |world, open| {
        let open = Rc::new(open);
        put_at_once(&open, &world.blocks).await;
        remove_at_once(&open, &world.blocks).await;
        open.shared.statistics.journal_bytes_used.get()
    });
    let last_page = world.journal_offset() + used - 4096;
    assert_ne!(world.disk.contents(JOURNAL, last_page..last_page + 7), b"BBFRAME", "it begins before");
    world.disk.make_unreadable(JOURNAL, last_page);
    is_read_only(&mut world, "the journal cannot be read at byte");
}

/// Blocks 1 and 2, the latter in the last frame.
fn with_a_last_frame(seed: u64) -> World {
    let mut world = World::new(seed, 3, small_settings(1));
    boot(&mut world, async |world, open| {
        open.put(0, &world.blocks[1]).await.unwrap();
        open.put(0, &world.blocks[2]).await.unwrap();
    });
    world
}

fn fail_reads(world: &World, count: usize, fault: Fault) {
    world.disk.plan_faults((0..count).map(|_| PlannedFault { file: DATA, kind: Kind::Read, after: 0, fault }));
}

/// A torn write can be read: what cannot be read is damage, also in the last frame.
#[test]
fn an_unreadable_block_of_the_last_frame_is_a_fault() {
    let mut world = with_a_last_frame(35);
    fail_reads(&world, 2, EIO);
    let report = world.check().unwrap();
    assert_eq!((report.fault_count, report.unwritten), (2, 0), "{:?}", report.faults);
}

#[test]
fn a_block_that_cannot_be_read_at_first_is_read_again() {
    let mut world = with_a_last_frame(36);
    fail_reads(&world, 2, EIO);
    both_are_there(&mut world);
}

fn both_are_there(world: &mut World) {
    boot(world, async |world, open| {
        assert_eq!(open.shared.health.read_only(), None);
        assert_eq!(outcome(&open, &world.blocks[1]).await, "there");
        assert_eq!(outcome(&open, &world.blocks[2]).await, "there");
    });
}

const SHORTAGES: [i32; 3] = [libc::EAGAIN, libc::ENOMEM, libc::ECANCELED];

/// What the system is short of says nothing about the disk: the store is not opened, and nothing is decided.
#[test]
fn a_shortage_while_opening_costs_no_block() {
    for code in SHORTAGES {
        let mut world = with_a_last_frame(37);
        fail_reads(&world, 3, Fault::Error(code));
        let error = world.try_open();
        assert!(matches!(error, Some(RecoveryError::Io { .. })), "{error:?}");
        both_are_there(&mut world);
    }
}

#[test]
fn a_shortage_ends_a_check_and_is_no_fault() {
    for code in SHORTAGES {
        let mut world = with_a_last_frame(38);
        fail_reads(&world, 1, Fault::Error(code));
        let error = world.try_check(10).unwrap_err();
        assert!(matches!(error, RecoveryError::Io { .. }) && error.is_inconclusive(), "{error:?}");
        assert_eq!(world.check().unwrap().fault_count, 0);
    }
}
