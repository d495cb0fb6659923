//! Opening a store: whatever the last process left behind becomes a consistent state, before anything is allocated.
//!
//! The order, and why:
//!
//! 1. Follow the journal from where the last checkpoint ended and fold its records into final states.
//! 2. Hash the blocks of surviving names past the last *durable up to*. One that does not match was never acknowledged (or was damaged
//!    since, which nothing can tell from a torn write): its name is *removed*. So is that of one that cannot be read, and its extent is
//!    taken out of service. Never is an earlier record of the name taken instead: its extent may be another block's by now.
//! 3. Flush the data: what was read may have come from a volatile cache, and after step 4 nobody looks again. Flush the journal: its
//!    last frame shows the next opening that this is still the same journal.
//! 4. One durable checkpoint of the final states, which also raises the epoch: old frames are dead from here on.
//! 5. Only then derive the free extents and let anybody in.
//!
//! Where acknowledged records are provably lost, or the index refers to what the file does not have, nothing is written: the
//! store opens read-only and says what is lost.
//!
//! | file | one idea |
//! | --- | --- |
//! | `creation` | the files of a new store |
//! | `damage` | what proves that acknowledged changes are lost |
//! | `unwritten` | names whose bytes are not there |

mod creation;
mod damage;
mod unwritten;

pub(crate) use creation::{create_if_new, refuse_lost_index};
pub(crate) use damage::{OLDER_THAN_DATA, is_older_than_data, lost_with_journal};

use crate::allocator::Allocator;
use crate::checkpoint::{CheckpointJob, checkpoint};
use crate::crash_point::crash_point;
use crate::extent::macroblocks_in;
use crate::files::{BlockFile, PUT_BACK, Stamp};
use crate::index::{Index, IndexError, IndexReader, Meta};
use crate::journal::replay::{Replay, ReplayError, replay};
use crate::names::Generation;
use crate::quarantine::Quarantined;
use crate::settings::{GenerationSize, Settings};
use buddy_ring::{BufferPool, Ring};
use creation::begin_journal;
use damage::find_damage;
use std::io;
use std::sync::Arc;
use unwritten::drop_unwritten;

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
    /// The disk has no space for the journal of a new store.
    #[error(
        "there is no space for a journal of {bytes} bytes, {free_bytes} are free: make space, or choose a smaller journal ({source})"
    )]
    NoJournalSpace {
        /// How long the journal would be.
        bytes: u64,
        /// What is free.
        free_bytes: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The data file says that it belongs to another store.
    #[error(
        "the data file is another store's: nothing was changed; {PUT_BACK} (if it belongs to index and journal after all: \
         `setfattr -x user.buddy-blocks data`)"
    )]
    ForeignData,
    /// There are blocks, but nothing that says which.
    #[error(
        "the data file holds {0} bytes, but the index is empty: it was lost or replaced; nothing was changed; {PUT_BACK}"
    )]
    IndexLost(u64),
    /// The first start was cut off before it had made the store.
    #[error("there is no store yet: it was not made to the end")]
    NotMade,
}

impl RecoveryError {
    /// True where the store cannot be looked at, be it for the system or because another version of this program has written it: nothing is
    /// known of what it holds.
    #[must_use]
    pub fn is_inconclusive(&self) -> bool {
        matches!(
            self,
            RecoveryError::Io { .. }
                | RecoveryError::Journal(ReplayError::Io(_) | ReplayError::Unknown(_))
                | RecoveryError::Index(
                    IndexError::System { .. }
                        | IndexError::Full(_)
                        | IndexError::Shortage(_)
                        | IndexError::Version { .. }
                )
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
    let macroblocks = macroblocks_in(data_bytes);
    let older_than_data = is_older_than_data(&meta, stamp, data_bytes)?;
    let mut replay = replay(journal, &meta, &buffers).await?;
    if !meta.clean {
        let (frames, changes) = (replay.chain.frames, replay.names.len());
        tracing::info!(frames, changes, "the store was not stopped in order: its journal was replayed");
    }
    let damage = match older_than_data {
        true => Some(OLDER_THAN_DATA.to_owned()),
        false => find_damage(&mut reader, &meta, &replay, macroblocks)?,
    };
    if let Some(reason) = damage {
        return open_damaged(&mut reader, meta, replay, macroblocks, settings, reason);
    }
    if replay.detached {
        tracing::warn!("the journal is not as it was left; nothing was in it: it begins anew");
        begin_journal(journal, &mut meta).await.map_err(io_error("writing the journal"))?;
        (replay.chain.offset, replay.chain.crc) = (meta.journal_offset, meta.journal_crc);
    }
    crash_point("journal-replayed");
    let unreadable = drop_unwritten(ring, data, &replay, &buffers).await?;
    replay.quarantined.extend(unreadable);
    data.flush().await.map_err(io_error("flushing the data file"))?;
    journal.flush().await.map_err(io_error("flushing the journal"))?;
    crash_point("recovery-flushed");
    match commit(index, meta, &replay, settings) {
        Ok(Committed { meta, generation_size, index_has_space }) => {
            let allocator = load_allocator(&mut reader, macroblocks)?;
            let (quarantined, _) = load_quarantine(&mut reader)?;
            crash_point("recovery-committed");
            Ok(Recovered { meta, allocator, quarantined, generation_size, index_has_space, damage: None })
        }
        Err(error @ (IndexError::Full(_) | IndexError::Damaged(_))) => {
            let reason = format!("what the journal holds cannot be brought into the index: {error}");
            open_damaged(&mut reader, meta, replay, macroblocks, settings, reason)
        }
        Err(error) => Err(error.into()),
    }
}

/// A store that must not be written: blocks are found by the index as it is and by what the journal holds.
fn open_damaged<R: IndexReader>(
    reader: &mut R,
    meta: Meta,
    replay: Replay,
    macroblocks: u64,
    settings: &Settings,
    reason: String,
) -> Result<Recovered, RecoveryError> {
    Ok(Recovered {
        meta,
        // Nothing is allocated any more: where the maps cannot be read, nothing counts as free.
        allocator: load_allocator(reader, macroblocks).unwrap_or_default(),
        quarantined: load_quarantine(reader)?.0,
        generation_size: settings.generation_size(meta.totals.block_count()),
        index_has_space: true,
        damage: Some(Damage { reason, names: replay.names }),
    })
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
    let index_has_space = match done.space_ahead {
        Ok(()) => true,
        Err(error) if error.may_pass() => {
            tracing::warn!(%error, "the index cannot be sure of its space: new blocks are refused until it can");
            false
        }
        // What failed may have been a flush.
        Err(error) => return Err(error),
    };
    Ok(Committed { meta: Meta { totals: done.totals, ..meta }, generation_size, index_has_space })
}

/// The whole rows of the quarantine, and what is wrong with others.
fn load_quarantine<R: IndexReader>(reader: &mut R) -> Result<(Vec<Quarantined>, Option<String>), RecoveryError> {
    let (mut whole, mut damaged) = (Vec::new(), None);
    let read = reader.quarantined(&mut |row| match row {
        Ok(quarantined) => whole.push(quarantined),
        Err(error) => damaged = Some(error),
    });
    reader.rest();
    match read.err().or(damaged) {
        None => Ok((whole, None)),
        Some(IndexError::Damaged(what)) => Ok((whole, Some(what))),
        Some(error) => Err(error.into()),
    }
}

/// What the page maps leave free. Those of macroblocks beyond the file are passed over: they are damage, which others report.
fn load_allocator<R: IndexReader>(reader: &mut R, macroblocks: u64) -> Result<Allocator, RecoveryError> {
    let (mut allocator, mut damaged) = (Allocator::new(), Ok(()));
    reader.page_maps(&mut |row| match row {
        Ok((macroblock, occupied)) if macroblock < macroblocks => allocator.grow_occupied(macroblock, occupied),
        Ok(_) => {}
        Err(error) => damaged = Err(error),
    })?;
    reader.rest();
    damaged?;
    allocator.grow(macroblocks - allocator.macroblocks());
    Ok(allocator)
}

/// An error of the system, with what was attempted.
pub(crate) fn io_error(action: &'static str) -> impl Fn(io::Error) -> RecoveryError {
    move |source| RecoveryError::Io { action, source }
}
