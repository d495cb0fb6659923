//! Frames with a right CRC that this program would not have written.

use super::steps::{boot, outcome, put_all};
use super::world::{JOURNAL, World, small_settings};
use crate::extent::PAGE;
use crate::index::{Index, IndexError, IndexReader, Meta};
use crate::journal::{FrameHeader, encode_frame};
use crate::recovery::RecoveryError;
use crate::settings::Settings;

/// Where a frame has its version, and its CRC.
const VERSION_AT: usize = 8;
const CRC_AT: usize = 68;

/// A store with blocks in its index, and where it goes on.
fn stopped(seed: u64) -> (World, Meta) {
    let mut world = World::new(seed, 4, Settings { checkpoint_names: 1000, ..small_settings(1) });
    boot(&mut world, async |world, open| {
        put_all(world, &open).await;
        open.stop().await;
    });
    let meta = world.index.reader().unwrap().meta().unwrap().unwrap();
    (world, meta)
}

/// A frame without records that continues `meta`.
fn empty_frame(meta: &Meta) -> Vec<u8> {
    let header = FrameHeader {
        store_id: meta.store_id,
        epoch: meta.epoch,
        first_sequence: meta.sequence + 1,
        durable_up_to: meta.sequence,
        previous_crc: meta.journal_crc,
    };
    let mut frame = vec![0; PAGE];
    encode_frame(&header, &[], &mut frame);
    frame
}

/// The CRC of a frame that ends with `word`.
fn crc_with(frame: &[u8], word: u32) -> u32 {
    let mut frame = frame.to_vec();
    frame[CRC_AT..CRC_AT + 4].fill(0);
    let end = frame.len() - 4;
    frame[end..].copy_from_slice(&word.to_le_bytes());
    crc32c::crc32c(&frame)
}

/// Gives a frame this CRC, by its last four bytes. Each of their bits changes always the same bits of the CRC.
fn forge_crc(frame: &mut [u8], crc: u32) {
    let plain = crc_with(frame, 0);
    let mut changes: Vec<_> = (0..32).map(|bit| (crc_with(frame, 1 << bit) ^ plain, 1 << bit)).collect();
    let (mut missing, mut word) = (plain ^ crc, 0);
    for bit in 0..32 {
        let is_set = |value: u32| value >> bit & 1 == 1;
        let at = changes.iter().position(|(change, _)| is_set(*change)).unwrap();
        let (change, by) = changes.swap_remove(at);
        for (other, other_by) in changes.iter_mut().filter(|(other, _)| is_set(*other)) {
            (*other, *other_by) = (*other ^ change, *other_by ^ by);
        }
        if is_set(missing) {
            (missing, word) = (missing ^ change, word ^ by);
        }
    }
    assert_eq!((missing, crc_with(frame, word)), (0, crc));
    let end = frame.len() - 4;
    frame[end..].copy_from_slice(&word.to_le_bytes());
    frame[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
}

fn write(world: &World, offset: u64, bytes: &[u8]) {
    let before = world.disk.contents(JOURNAL, offset..offset + bytes.len() as u64);
    for (at, (before, after)) in (offset..).zip(before.into_iter().zip(bytes)) {
        world.disk.corrupt(JOURNAL, at, before ^ after);
    }
}

/// A frame that continues itself, at 0, where each frame of a chain may be followed by the next: the chain comes to an end.
#[test]
fn a_frame_without_records_continues_nothing() {
    let (mut world, meta) = stopped(70);
    let mut frame = empty_frame(&meta);
    forge_crc(&mut frame, meta.journal_crc);
    write(&world, 0, &frame);
    assert_eq!(world.check().unwrap().fault_count, 0);
    boot(&mut world, async |world, open| {
        assert_eq!(open.shared.health.read_only(), None);
        for block in &world.blocks {
            assert_eq!(outcome(&open, block).await, "there");
        }
    });
}

/// That is no damage: nothing is known of what it holds.
#[test]
fn what_another_version_has_written_is_neither_opened_nor_judged() {
    let (mut world, meta) = stopped(71);
    let mut frame = empty_frame(&meta);
    frame[VERSION_AT] = 2;
    let crc = crc_with(&frame, 0);
    frame[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    write(&world, meta.journal_offset, &frame);
    let is_unknown = |error: RecoveryError| {
        assert!(error.is_inconclusive() && error.to_string().contains("format version 2"), "{error}");
    };
    is_unknown(world.try_open().unwrap());
    is_unknown(world.try_check(10).unwrap_err());
    is_unknown(IndexError::Version { found: 2 }.into());
}
