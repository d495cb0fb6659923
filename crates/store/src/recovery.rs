//! Opening a store: whatever the last process left behind becomes a consistent state, before anything is allocated.
//!
//! The order, and why:
//!
//! 1. Follow the journal from where the last checkpoint ended and fold its records into final states.
//! 2. Hash the blocks of surviving names past the last *durable up to*. One that does not match was never acknowledged (or is the
//!    last frame's damage, which nothing can tell from a torn write): its name is *removed*. Never is an earlier record of the name
//!    taken instead: its extent may be another block's by now.
//! 3. Flush the data: what was read may have come from a volatile cache, and after step 4 nobody looks again. Flush the journal: its
//!    last frame shows the next opening that this is still the same journal.
//! 4. One durable checkpoint of the final states, which also raises the epoch: old frames are dead from here on.
//! 5. Only then derive the free extents and let anybody in.
//!
//! Where acknowledged records are provably lost, or the index refers to what the file does not have, nothing is written: the
//! store opens read-only and says what is lost.

use crate::allocator::Allocator;
use crate::checkpoint::{CheckpointJob, checkpoint};
use crate::crash_point::crash_point;
use crate::extent::{MACROBLOCK_BYTES, PAGE_BYTES};
use crate::files::{BlockFile, Stamp, write_fully};
use crate::index::{Index, IndexError, IndexReader, IndexTransaction, Meta, StoreId, Totals};
use crate::journal::replay::{Replay, ReplayError, replay};
use crate::journal::{FrameHeader, encode_frame, frame_bytes};
use crate::names::{Generation, NameState};
use crate::page_map::PageMap;
use crate::quarantine::Quarantined;
use crate::record::Record;
use crate::settings::{GenerationSize, Settings};
use crate::verify::hash_blocks;
use buddy_ring::{BufferPool, Ring};
use std::io;
use std::sync::Arc;

/// Buffers while opening: a window of the journal and a block.
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] ReplayError),
    /// Reading, writing or flushing failed.
    #[error("{action} failed: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The data file says that it belongs to another store.
    #[error(
        "the data file is another store's: nothing was changed (if it belongs to index and journal after all: `setfattr -x \
         user.buddy-blocks data`)"
    )]
    ForeignData,
    /// There are blocks, but nothing that says which.
    #[error("the data file holds {0} bytes, but the index is empty: it was lost or replaced; nothing was changed")]
    IndexLost(u64),
    /// The first start was cut off before it had made the store.
    #[error("there is no store yet: it was not made to the end")]
    NotMade,
}

impl RecoveryError {
    /// True where the system keeps the store from being looked at, and nothing is known of what it holds.
    #[must_use]
    pub fn is_of_the_system(&self) -> bool {
        matches!(
            self,
            RecoveryError::Io { .. }
                | RecoveryError::Journal(ReplayError::Io(_))
                | RecoveryError::Index(IndexError::System { .. } | IndexError::Full(_))
        )
    }
}

/// A store that is ready to be used.
pub(crate) struct Recovered {
    /// As the last checkpoint wrote it.
    pub(crate) meta: Meta,
    pub(crate) allocator: Allocator,
    /// Extents that are out of service.
    pub(crate) quarantined: Vec<Quarantined>,
    /// The generations for which the index has space.
    pub(crate) generation_size: GenerationSize,
    /// Whether the next checkpoints find their space allocated.
    pub(crate) index_has_space: bool,
    /// Why it must not be written, and the names that are not in the index.
    pub(crate) damage: Option<Damage>,
}

/// Damage to acknowledged records, or to what they would have to be added to.
pub(crate) struct Damage {
    pub(crate) reason: String,
    pub(crate) names: Arc<Generation>,
}

/// Makes the files of a new store, if there is none yet, and says whether there was none: the journal is zeroed, begun and flushed before the index is born.
pub(crate) async fn create_if_new<F: BlockFile, I: Index>(
    index: &I,
    data: &F,
    journal: &F,
    journal_bytes: u64,
    store_id: StoreId,
) -> Result<bool, RecoveryError> {
    if index.reader()?.meta()?.is_some() {
        return Ok(false);
    }
    refuse_lost_index(data)?;
    let mut meta = Meta {
        store_id,
        epoch: 0,
        sequence: 0,
        journal_bytes,
        journal_offset: 0,
        journal_crc: 0,
        clean: true,
        totals: Totals::default(),
    };
    let making = async {
        zero(journal, journal_bytes).await?;
        begin_journal(journal, &mut meta).await?;
        journal.flush().await
    };
    making.await.map_err(io_error("writing the journal"))?;
    crash_point("journal-made");
    let mut transaction = index.begin()?;
    transaction.set_meta(&meta)?;
    transaction.commit()?;
    Ok(true)
}

/// Where the index says nothing there may be no blocks.
pub(crate) fn refuse_lost_index<F: BlockFile>(data: &F) -> Result<(), RecoveryError> {
    match data.length().map_err(io_error("reading the data file"))? {
        0 => Ok(()),
        bytes => Err(RecoveryError::IndexLost(bytes)),
    }
}

async fn zero<F: BlockFile>(journal: &F, bytes: u64) -> io::Result<()> {
    #[allow(clippy::cast_possible_truncation)]
    const PIECE: usize = MACROBLOCK_BYTES as usize;
    let mut zeros = BufferPool::new(PIECE).take(PIECE).await?;
    zeros.fill(0);
    let mut parts = vec![(zeros, PIECE)];
    for offset in (0..bytes).step_by(PIECE) {
        let (result, returned) = write_fully(journal, parts, offset, false).await;
        result?;
        parts = returned;
    }
    Ok(())
}

/// Writes a frame without records at 0, which `meta` continues from then on: by it the next opening can tell that the journal is this
/// one, even if nothing else was written.
async fn begin_journal<F: BlockFile>(journal: &F, meta: &mut Meta) -> io::Result<()> {
    let header = FrameHeader {
        store_id: meta.store_id,
        epoch: meta.epoch,
        first_sequence: meta.sequence + 1,
        durable_up_to: meta.sequence,
        previous_crc: 0,
    };
    let bytes = frame_bytes(&[]);
    let mut frame = BufferPool::new(bytes).take(bytes).await?;
    meta.journal_crc = encode_frame(&header, &[], &mut frame);
    meta.journal_offset = bytes as u64;
    write_fully(journal, vec![(frame, bytes)], 0, false).await.0
}

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

/// Brings a store into a state in which it can be used. `stamp`: that of the data file.
pub(crate) async fn recover<F: BlockFile, I: Index>(
    ring: &Ring,
    index: &I,
    data: &F,
    journal: &F,
    stamp: Option<Stamp>,
    settings: &Settings,
) -> Result<Recovered, RecoveryError> {
    let buffers = BufferPool::new(BUFFER_BYTES_MAX);
    let mut reader = index.reader()?;
    let mut meta = reader.meta()?.ok_or(IndexError::Damaged("table meta is empty".to_owned()))?;
    let data_bytes = data.length().map_err(io_error("reading the data file"))?;
    let macroblocks = data_bytes / MACROBLOCK_BYTES;
    let older_than_data = is_older_than_data(&meta, stamp, data_bytes)?;
    let mut replay = replay(journal, &meta, &buffers).await?;
    if !meta.clean {
        tracing::info!(
            frames = replay.chain.frames,
            changes = replay.names.len(),
            "the store was not stopped in order: its journal was replayed"
        );
    }
    let damage = if older_than_data {
        Some(OLDER_THAN_DATA.to_owned())
    } else {
        find_damage(&mut reader, &meta, &replay, macroblocks)?
    };
    let reason = match damage {
        Some(reason) => reason,
        None => {
            if replay.detached {
                tracing::warn!("the journal is not as it was left; nothing was in it: it begins anew");
                begin_journal(journal, &mut meta).await.map_err(io_error("writing the journal"))?;
                (replay.chain.offset, replay.chain.crc) = (meta.journal_offset, meta.journal_crc);
            }
            crash_point("journal-replayed");
            drop_unwritten(ring, data, &replay, macroblocks, &buffers).await?;
            data.flush().await.map_err(io_error("flushing the data file"))?;
            journal.flush().await.map_err(io_error("flushing the journal"))?;
            crash_point("recovery-flushed");
            match commit(index, meta, &replay, settings) {
                Ok(Committed { meta, generation_size, index_has_space }) => {
                    let allocator = load_allocator(&mut reader, macroblocks)?;
                    let quarantined = load_quarantine(&mut reader)?;
                    crash_point("recovery-committed");
                    return Ok(Recovered {
                        meta,
                        allocator,
                        quarantined,
                        generation_size,
                        index_has_space,
                        damage: None,
                    });
                }
                Err(error @ (IndexError::Full(_) | IndexError::Damaged(_))) => {
                    format!("what the journal holds cannot be brought into the index: {error}")
                }
                Err(error) => return Err(error.into()),
            }
        }
    };
    Ok(Recovered {
        meta,
        // Nothing is allocated any more: where the maps cannot be read, nothing counts as free.
        allocator: load_allocator(&mut reader, macroblocks)
            .unwrap_or_else(|_| Allocator::from_page_maps(0, Vec::new())),
        quarantined: load_quarantine(&mut reader)?,
        generation_size: settings.generation_size(meta.totals.block_count()),
        index_has_space: true,
        damage: Some(Damage { reason, names: replay.names }),
    })
}

/// What proves that acknowledged records are lost or refer to what is not there.
fn find_damage<R: IndexReader>(
    reader: &mut R,
    meta: &Meta,
    replay: &Replay,
    macroblocks: u64,
) -> Result<Option<String>, RecoveryError> {
    if let Some(lost_up_to) = replay.lost_up_to {
        return Ok(Some(format!(
            "the journal is damaged: the acknowledged changes {} to {lost_up_to} are lost; the blocks stored before can be read",
            replay.chain.sequence + 1
        )));
    }
    if replay.newer {
        return Ok(Some(
            "the index is older than the journal: changes acknowledged since are lost; the blocks stored before can be read"
                .to_owned(),
        ));
    }
    if replay.detached && !meta.clean {
        return Ok(Some(
            "the journal is damaged or was replaced: acknowledged changes since the last checkpoint are lost; the blocks stored \
             before can be read"
                .to_owned(),
        ));
    }
    for (hash, state, is_durable) in replay.latest() {
        if is_durable
            && let NameState::Occupied(record) = state
            && !lies_within(record, macroblocks)
        {
            return Ok(Some(format!(
                "the data file was truncated to {macroblocks} MiB: block {hash} lies beyond its end"
            )));
        }
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
    let (mut occupied_bytes, mut beyond) = (0, None);
    let read = reader.page_maps(&mut |macroblock, map| {
        occupied_bytes += u64::from(map.occupied_pages()) * PAGE_BYTES;
        if macroblock >= macroblocks {
            beyond = beyond.or(Some(macroblock));
        }
    });
    match read {
        Err(IndexError::Damaged(what)) => return Ok(Some(damaged_index(what))),
        read => read?,
    }
    if let Some(macroblock) = beyond {
        return Ok(Some(format!(
            "the data file was truncated to {macroblocks} MiB: blocks in MiB {macroblock} and beyond are lost"
        )));
    }
    let quarantined_bytes: u64 = load_quarantine(reader)?.iter().map(|quarantined| quarantined.extent.bytes()).sum();
    let named_bytes = meta.totals.bytes_allocated().wrapping_add(quarantined_bytes);
    Ok((occupied_bytes != named_bytes)
        .then(|| damaged_index(format!("{occupied_bytes} bytes are marked occupied, and blocks take {named_bytes}"))))
}

fn lies_within(record: Record, macroblocks: u64) -> bool {
    record.extent().is_none_or(|extent| extent.end() <= macroblocks * MACROBLOCK_BYTES)
}

/// Turns names whose bytes are not there into removed ones, unless they are known to have been durable.
async fn drop_unwritten<F: BlockFile>(
    ring: &Ring,
    data: &F,
    replay: &Replay,
    macroblocks: u64,
    buffers: &BufferPool,
) -> Result<(), RecoveryError> {
    let undecided = replay.latest().filter_map(|(hash, state, is_durable)| match state {
        NameState::Occupied(record) if !is_durable => Some((hash, record)),
        _ => None,
    });
    let mut undecided: Vec<_> = undecided.collect();
    // Absent, until they have proved to be whole.
    undecided.iter().try_for_each(|(hash, _)| replay.settle(hash, NameState::Removed))?;
    undecided.retain(|(hash, record)| {
        let lies_within = lies_within(*record, macroblocks);
        if !lies_within {
            tracing::warn!(%hash, "a block lies beyond the end of the data file: its name is removed");
        }
        lies_within
    });
    let mut failed = None;
    hash_blocks(ring, data, buffers, undecided, |hash, record, found| match found {
        Ok(found) if found == hash => {
            if let Err(error) = replay.settle(&hash, NameState::Occupied(record)) {
                failed = Some(error.into());
            }
        }
        Ok(_) => {
            tracing::warn!(%hash, "a block was not completely written when the store stopped: its name is removed");
        }
        Err(error) if error.kind() == io::ErrorKind::OutOfMemory => failed = Some(io_error("reading blocks")(error)),
        Err(error) => {
            tracing::error!(%hash, %error, "a block that was being written cannot be read: its name is removed");
        }
    })
    .await;
    failed.map_or(Ok(()), Err)
}

/// What the index holds after the checkpoint of an opening.
struct Committed {
    meta: Meta,
    generation_size: GenerationSize,
    index_has_space: bool,
}

/// Writes the final states and a new epoch into the index.
fn commit<I: Index>(index: &I, meta: Meta, replay: &Replay, settings: &Settings) -> Result<Committed, IndexError> {
    let meta = Meta {
        epoch: meta.epoch + 1,
        sequence: replay.chain.sequence,
        journal_offset: replay.chain.offset,
        journal_crc: replay.chain.crc,
        clean: false,
        ..meta
    };
    let generation_size = settings.generation_size(meta.totals.block_count());
    let names_max = generation_size.checkpoint_names_max(meta.journal_bytes);
    let done = checkpoint(
        index,
        &CheckpointJob {
            generation: Arc::clone(&replay.names),
            quarantined: replay.quarantined.clone(),
            meta,
            names_max,
        },
    )?;
    if let Err(error) = &done.space_ahead {
        tracing::warn!(%error, "the index cannot be sure of its space: new blocks are refused until it can");
    }
    let index_has_space = done.space_ahead.is_ok();
    Ok(Committed { meta: Meta { totals: done.totals, ..meta }, generation_size, index_has_space })
}

fn load_quarantine<R: IndexReader>(reader: &mut R) -> Result<Vec<Quarantined>, RecoveryError> {
    let mut all = Vec::new();
    reader.quarantined(&mut |quarantined| all.push(quarantined))?;
    reader.rest();
    Ok(all)
}

fn load_allocator<R: IndexReader>(reader: &mut R, macroblocks: u64) -> Result<Allocator, RecoveryError> {
    let mut maps: Vec<(u64, PageMap)> = Vec::new();
    reader.page_maps(&mut |macroblock, map| maps.push((macroblock, map)))?;
    reader.rest();
    Ok(Allocator::from_page_maps(macroblocks, maps))
}

fn io_error(action: &'static str) -> impl Fn(io::Error) -> RecoveryError {
    move |source| RecoveryError::Io { action, source }
}
