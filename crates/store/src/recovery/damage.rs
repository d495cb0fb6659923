//! What proves that acknowledged changes are lost, or refer to what is not there. Nothing is changed then.

use super::{RecoveryError, load_quarantine};
use crate::extent::{MACROBLOCK_BYTES, PAGE_BYTES};
use crate::files::Stamp;
use crate::index::{IndexError, IndexReader, Meta};
use crate::journal::replay::Replay;

/// What the stamp of the data file proves: the index is older than what was last written there.
///
/// # Errors
///
/// [`RecoveryError::ForeignData`]
pub(crate) fn is_older_than_data(meta: &Meta, stamp: Option<Stamp>, data_bytes: u64) -> Result<bool, RecoveryError> {
    match stamp {
        // What was emptied says nothing of anybody's blocks.
        Some(stamp) if data_bytes > 0 && stamp.store_id != meta.store_id => Err(RecoveryError::ForeignData),
        Some(stamp) => Ok(data_bytes > 0 && stamp.epoch > meta.epoch),
        None => Ok(false),
    }
}

/// Said where [`is_older_than_data`].
pub(crate) const OLDER_THAN_DATA: &str = "index and journal are older than the data file: blocks stored since are lost, and names may \
     lead to places that were used again, so every block is hashed before it is served (if all three files are of one copy after all: \
     `setfattr -x user.buddy-blocks data`)";

/// What of the journal proves that acknowledged changes are lost, the surest first.
pub(crate) fn lost_with_journal(meta: &Meta, replay: &Replay) -> impl Iterator<Item = String> {
    let lost = replay.lost_up_to.map(|last| {
        let first = replay.chain.sequence + 1;
        format!("the journal is damaged: the acknowledged changes {first} to {last} are lost")
    });
    let newer =
        replay.newer.then(|| "the index is older than the journal: changes acknowledged since are lost".to_owned());
    let detached = (replay.detached && !meta.clean).then(|| {
        let what = match replay.unreadable_start {
            Some(at) => {
                format!("the journal cannot be read at byte {at}, where the frame may lie that the next one follows")
            }
            None => "the journal is damaged or was replaced".to_owned(),
        };
        format!("{what}: what was acknowledged since the last checkpoint may be lost")
    });
    let unreadable = replay.unreadable_end.map(|at| {
        format!("the journal cannot be read at byte {at}, where its last frame may lie: what was acknowledged last may be lost")
    });
    [lost, newer, detached, unreadable].into_iter().flatten()
}

/// What proves that acknowledged records are lost or refer to what is not there.
pub(super) fn find_damage<R: IndexReader>(
    reader: &mut R,
    meta: &Meta,
    replay: &Replay,
    macroblocks: u64,
) -> Result<Option<String>, RecoveryError> {
    if let Some(lost) = lost_with_journal(meta, replay).next() {
        return Ok(Some(format!("{lost}; the blocks stored before can be read")));
    }
    // Durable or not: growth is, before anything of it is handed out.
    let stored = replay.latest().filter_map(|(hash, state, _)| Some((hash, state.record()?.extent()?)));
    let quarantined = replay.quarantined.iter().map(|quarantined| (quarantined.hash, quarantined.extent));
    let end = macroblocks * MACROBLOCK_BYTES;
    if let Some((hash, _)) = stored.chain(quarantined).find(|(_, extent)| extent.end() > end) {
        return Ok(Some(format!("the data file was truncated to {macroblocks} MiB: block {hash} lies beyond its end")));
    }
    if let Some(reason) = find_damaged_totals(reader, meta)? {
        return Ok(Some(reason));
    }
    find_damaged_pages(reader, meta, macroblocks)
}

/// Where the index cannot be trusted nothing may be allocated, but every block can still be read.
fn damaged_index(what: impl std::fmt::Display) -> String {
    format!("the index is damaged: {what}; blocks can be read, and nothing is written")
}

/// What is wrong with the totals, as far as can be told without reading every name, which is for `check`.
fn find_damaged_totals<R: IndexReader>(reader: &mut R, meta: &Meta) -> Result<Option<String>, RecoveryError> {
    if let Some(impossible) = meta.totals.impossible() {
        return Ok(Some(damaged_index(format!("it counts {impossible}, which cannot be"))));
    }
    let (counted, names) = (meta.totals.block_count(), reader.block_count()?);
    reader.rest();
    Ok((counted != names).then(|| damaged_index(format!("it counts {counted} blocks and has {names}"))))
}

/// What is wrong with the page maps.
fn find_damaged_pages<R: IndexReader>(
    reader: &mut R,
    meta: &Meta,
    macroblocks: u64,
) -> Result<Option<String>, RecoveryError> {
    let (mut occupied_bytes, mut beyond, mut damaged) = (0, None, Ok(()));
    let read = reader.page_maps(&mut |row| match row {
        Ok((macroblock, map)) => {
            occupied_bytes += u64::from(map.occupied_pages()) * PAGE_BYTES;
            if macroblock >= macroblocks {
                beyond = beyond.or(Some(macroblock));
            }
        }
        Err(error) => damaged = Err(error),
    });
    match read.and(damaged) {
        Err(IndexError::Damaged(what)) => return Ok(Some(damaged_index(what))),
        read => read?,
    }
    if let Some(macroblock) = beyond {
        return Ok(Some(format!(
            "the data file was truncated to {macroblocks} MiB: blocks in MiB {macroblock} and beyond are lost"
        )));
    }
    let (quarantined, damaged) = load_quarantine(reader)?;
    if let Some(what) = damaged {
        return Ok(Some(damaged_index(what)));
    }
    let quarantined_bytes: u64 = quarantined.iter().map(|quarantined| quarantined.extent.bytes()).sum();
    let named_bytes = meta.totals.bytes_allocated().wrapping_add(quarantined_bytes);
    Ok((occupied_bytes != named_bytes)
        .then(|| damaged_index(format!("{occupied_bytes} bytes are marked occupied, and blocks take {named_bytes}"))))
}
