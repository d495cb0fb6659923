//! Reading the journal at opening: following the chain of frames from where the last checkpoint ended, folding their records
//! into final states, and looking behind the end of the chain for proof that it should have been longer.

use super::frame::{FRAME_BYTES_MAX, Frame, FrameHeader, JournalRecord, UnknownContent};
use super::window::{WINDOW_BYTES, Window};
use crate::extent::PAGE_BYTES;
use crate::files::{BlockFile, PUT_BACK};
use crate::hash::Hash;
use crate::index::Meta;
use crate::names::{Generation, NameState};
use crate::quarantine::Quarantined;
use buddy_ring::BufferPool;
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// A chain of frames, and where it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    /// Number of frames.
    pub(crate) frames: u64,
    /// The last sequence number.
    pub(crate) sequence: u64,
    /// Offset right behind the last frame.
    pub(crate) offset: u64,
    /// CRC of the last frame.
    pub(crate) crc: u32,
    /// Records up to this number were durable with their data when some frame of the chain was built.
    pub(crate) durable_up_to: u64,
}

/// What the journal says.
pub(crate) struct Replay {
    /// The records of the chain in their order, with room for two more of each that may not be durable.
    pub(crate) names: Arc<Generation>,
    /// Extents that were taken out of service.
    pub(crate) quarantined: Vec<Quarantined>,
    pub(crate) chain: Chain,
    /// The sequence number before that of the first record.
    checkpointed: u64,
    /// The last sequence number that a frame behind the end of the chain proves to have been durable: records up to it were
    /// acknowledged and are lost.
    pub(crate) lost_up_to: Option<u64>,
    /// The chain is empty, and the frame that it would continue is not there either: this is not the journal as it was left, and
    /// nothing tells what it held.
    pub(crate) detached: bool,
    /// There are frames of a later epoch than the index knows of: it is an older one, and what it knew since is lost.
    pub(crate) newer: bool,
    /// Of a journal that is `detached`, and was not left in order: a page that cannot be read where that frame may lie.
    pub(crate) unreadable_start: Option<u64>,
    /// Where the chain ends, a page that cannot be read: whether a frame followed, nothing tells.
    pub(crate) unreadable_end: Option<u64>,
    /// Offsets of all pages that were looked at and cannot be read.
    pub(crate) unreadable: BTreeSet<u64>,
}

/// Why the journal cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The system's.
    #[error("the journal cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A frame of the chain holds something unknown.
    #[error(transparent)]
    Unknown(#[from] UnknownContent),
    /// It holds frames of another store.
    #[error("the journal is another store's: nothing was changed; {PUT_BACK}")]
    Foreign,
    /// The file is not the one that the index knows.
    #[error(
        "the journal has {found} bytes, and {expected} when it was last used: it was truncated or replaced; nothing was changed; {PUT_BACK}"
    )]
    Length {
        /// Bytes of the file.
        found: u64,
        /// Bytes that the index remembers.
        expected: u64,
    },
}

/// Follows the chain of frames that continues `meta`.
pub(crate) async fn replay<F: BlockFile>(file: &F, meta: &Meta, buffers: &BufferPool) -> Result<Replay, ReplayError> {
    let found = file.length()?;
    if found < meta.journal_bytes {
        return Err(ReplayError::Length { found, expected: meta.journal_bytes });
    }
    let mut window = Window::new(file, meta.journal_bytes, buffers.take(WINDOW_BYTES).await?);
    // Twice, because nobody knows the first time for how many records there must be room.
    let chain = follow(&mut window, meta, |_| true).await?;
    let undecided = chain.sequence.saturating_sub(chain.durable_up_to);
    let records = usize::try_from(chain.sequence - meta.sequence + 2 * undecided).unwrap_or(usize::MAX);
    let (names, mut quarantined) = (Arc::new(Generation::new(records)), Vec::new());
    let chain = follow(&mut window, meta, |record| {
        let (hash, state) = match record {
            JournalRecord::Occupied { hash, record } => (hash, NameState::Occupied(record)),
            JournalRecord::Removed { hash, .. } => (hash, NameState::Removed),
            JournalRecord::Quarantined { hash, extent } => {
                quarantined.push(Quarantined::now(extent, hash));
                (hash, NameState::Removed)
            }
        };
        names.insert(&hash, state)
    })
    .await?;
    let detached = chain.frames == 0 && !holds_last_frame(&mut window, meta).await?;
    let proofs = if !meta.clean || detached {
        search(&mut window, meta, &chain).await?
    } else {
        Proofs { lost_up_to: None, newer: is_continued_later(&mut window, meta, &chain).await? }
    };
    let Proofs { lost_up_to, newer } = proofs;
    let unreadable_end = if meta.clean { None } else { unreadable_end(&mut window, meta, &chain).await? };
    let (checkpointed, unreadable) = (meta.sequence, window.unreadable());
    let is_of_last_frame = |at: &&u64| last_frame_lies_in(meta).contains(*at);
    let unreadable_start = unreadable.iter().rfind(is_of_last_frame).copied().filter(|_| detached && !meta.clean);
    Ok(Replay {
        names,
        quarantined,
        chain,
        checkpointed,
        lost_up_to,
        detached,
        newer,
        unreadable_start,
        unreadable_end,
        unreadable,
    })
}

/// Follows the chain to its end. `take` is passed its records in their order, and says whether it could take them.
async fn follow<F: BlockFile>(
    window: &mut Window<'_, F>,
    meta: &Meta,
    mut take: impl FnMut(JournalRecord) -> bool,
) -> Result<Chain, ReplayError> {
    let mut chain = Chain {
        frames: 0,
        sequence: meta.sequence,
        offset: meta.journal_offset % meta.journal_bytes.max(1),
        crc: meta.journal_crc,
        durable_up_to: meta.sequence,
    };
    while let Some((offset, frame)) = next_in_chain(window, meta, &chain).await? {
        for record in frame.records? {
            chain.sequence += 1;
            if !take(record) {
                return Err(no_room());
            }
        }
        chain.frames += 1;
        chain.crc = frame.crc;
        chain.offset = (offset + frame.bytes as u64) % meta.journal_bytes;
        chain.durable_up_to = chain.durable_up_to.max(frame.header.durable_up_to);
    }
    Ok(chain)
}

/// The frame that chains to the last one: right behind it, or at 0.
async fn next_in_chain<F: BlockFile>(
    window: &mut Window<'_, F>,
    meta: &Meta,
    chain: &Chain,
) -> Result<Option<(u64, Frame)>, ReplayError> {
    let candidates = if chain.offset == 0 { vec![0] } else { vec![chain.offset, 0] };
    for offset in candidates {
        let Some(frame) = window.frame_at(offset).await? else { continue };
        // Each frame moves the chain on by its records: only so it ends, whatever the file holds. None is written without any, but the
        // first of a journal.
        let is_empty = frame.records.as_ref().is_ok_and(Vec::is_empty);
        if !is_empty && continues(&frame.header, meta, chain) {
            return Ok(Some((offset, frame)));
        }
    }
    Ok(None)
}

fn continues(header: &FrameHeader, meta: &Meta, chain: &Chain) -> bool {
    is_alive(header, meta) && header.previous_crc == chain.crc && header.first_sequence == chain.sequence + 1
}

/// The page that cannot be read where the next frame of the chain would lie: right behind the last, or at 0 where one may not have
/// fitted there.
async fn unreadable_end<F: BlockFile>(
    window: &mut Window<'_, F>,
    meta: &Meta,
    chain: &Chain,
) -> Result<Option<u64>, ReplayError> {
    let may_lie_at_0 = chain.offset + FRAME_BYTES_MAX as u64 > meta.journal_bytes;
    for offset in [Some(chain.offset), may_lie_at_0.then_some(0)].into_iter().flatten() {
        let unreadable = window.unreadable_frame_at(offset, |header| continues(header, meta, chain)).await?;
        if unreadable.is_some() {
            return Ok(unreadable);
        }
    }
    Ok(None)
}

/// True where the frame that `meta` continues still ends where the next one would begin. It is overwritten only after the journal has
/// gone round, and then the chain is not empty. A new journal begins with a frame without records, so there always is one.
async fn holds_last_frame<F: BlockFile>(window: &mut Window<'_, F>, meta: &Meta) -> Result<bool, ReplayError> {
    let Range { start, end } = last_frame_lies_in(meta);
    let mut offset = start;
    while offset < end {
        if let Some(frame) = window.frame_at(offset).await?
            && frame.crc == meta.journal_crc
            && offset + frame.bytes as u64 == end
        {
            return Ok(true);
        }
        offset += PAGE_BYTES;
    }
    Ok(false)
}

/// Where the frame that `meta` continues ends, and begins somewhere.
fn last_frame_lies_in(meta: &Meta) -> Range<u64> {
    // A frame that fills the journal to its end leaves the next one at 0.
    let end = if meta.journal_offset == 0 { meta.journal_bytes } else { meta.journal_offset };
    end.saturating_sub(FRAME_BYTES_MAX as u64)..end
}

/// True where a later epoch has gone on behind the end of the chain: an opening raises the epoch in the index before it writes a frame.
async fn is_continued_later<F: BlockFile>(
    window: &mut Window<'_, F>,
    meta: &Meta,
    chain: &Chain,
) -> Result<bool, ReplayError> {
    for offset in [chain.offset, 0] {
        if let Some(Frame { header, .. }) = window.frame_at(offset).await?
            && header.store_id == meta.store_id
            && header.epoch > meta.epoch
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_alive(header: &FrameHeader, meta: &Meta) -> bool {
    header.store_id == meta.store_id && header.epoch == meta.epoch
}

fn no_room() -> ReplayError {
    io::Error::other("it holds more than a moment before").into()
}

impl Replay {
    /// Has the last word on a name that may not be durable; twice at most for each.
    pub(crate) fn settle(&self, hash: &Hash, state: NameState) -> Result<(), ReplayError> {
        if self.names.insert(hash, state) { Ok(()) } else { Err(no_room()) }
    }

    /// Every name once, with its last state and whether that is known to be durable, data and all.
    pub(crate) fn latest(&self) -> impl Iterator<Item = (Hash, NameState, bool)> {
        let durable = self.chain.durable_up_to.saturating_sub(self.checkpointed);
        self.names.latest().map(move |(number, hash, state)| (hash, state, u64::from(number) < durable))
    }
}

/// What frames outside the chain prove.
struct Proofs {
    lost_up_to: Option<u64>,
    newer: bool,
}

/// Looks at every page for a frame of this epoch that was built when records missing from the chain were known to be durable, and for
/// one of a later epoch. A journal begins as zeros, so a frame of another store has come with the file of another store.
async fn search<F: BlockFile>(window: &mut Window<'_, F>, meta: &Meta, chain: &Chain) -> Result<Proofs, ReplayError> {
    let mut proofs = Proofs { lost_up_to: None, newer: false };
    let mut offset = 0;
    while offset < meta.journal_bytes {
        match window.frame_at(offset).await? {
            Some(frame) => {
                if frame.header.store_id != meta.store_id {
                    return Err(ReplayError::Foreign);
                }
                if is_alive(&frame.header, meta) && frame.header.durable_up_to > chain.sequence {
                    proofs.lost_up_to = proofs.lost_up_to.max(Some(frame.header.durable_up_to));
                }
                proofs.newer |= frame.header.epoch > meta.epoch;
                offset += frame.bytes as u64;
            }
            None => offset += PAGE_BYTES,
        }
    }
    Ok(proofs)
}
