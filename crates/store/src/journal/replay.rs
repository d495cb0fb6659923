//! Reading the journal at opening: following the chain of frames from where the last checkpoint ended, folding their records
//! into final states, and looking behind the end of the chain for proof that it should have been longer.

use super::frame::{FRAME_BYTES_MAX, Frame, FrameError, JournalRecord, UnknownContent, decode_frame};
use crate::files::{BlockFile, read_fully};
use crate::hash::Hash;
use crate::index::Meta;
use crate::names::NameState;
use crate::quarantine::Quarantined;
use buddy_ring::{Buffer, BufferPool};
use std::collections::HashMap;
use std::io;

/// The journal is read in pieces of this size, which hold any frame.
const WINDOW_BYTES: usize = 1 << 20;
const PAGE_BYTES: u64 = 4096;

/// The last state of a name in the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FinalState {
    pub(crate) state: NameState,
    pub(crate) sequence: u64,
}

/// What the journal says.
#[derive(Debug)]
pub(crate) struct Replay {
    /// The last state of every name in the chain.
    pub(crate) names: HashMap<Hash, FinalState>,
    /// Extents that were taken out of service.
    pub(crate) quarantined: Vec<Quarantined>,
    /// Number of frames in the chain.
    pub(crate) frames: u64,
    /// The last sequence number of the chain.
    pub(crate) sequence: u64,
    /// Offset right behind the chain.
    pub(crate) offset: u64,
    /// CRC of the chain's last frame.
    pub(crate) crc: u32,
    /// Records up to this number were durable with their data when some frame of the chain was built.
    pub(crate) durable_up_to: u64,
    /// The last sequence number that a frame behind the end of the chain proves to have been durable: records up to it were
    /// acknowledged and are lost.
    pub(crate) lost_up_to: Option<u64>,
    /// The chain is empty, and the frame that it would continue is not there either: this is not the journal as it was left, and
    /// nothing tells what it held.
    pub(crate) detached: bool,
    /// There are frames of a later epoch than the index knows of: it is an older one, and what it knew since is lost.
    pub(crate) newer: bool,
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
    #[error("the journal is another store's: nothing was changed")]
    Foreign,
    /// The file is not the one that the index knows.
    #[error("the journal has {found} bytes, and {expected} when it was last used: it was truncated or replaced")]
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
    let buffer = Some(buffers.take(WINDOW_BYTES).await?);
    let mut window = Window { file, capacity: meta.journal_bytes, buffer, start: 0, end: 0 };
    let mut replay = Replay {
        names: HashMap::new(),
        quarantined: Vec::new(),
        frames: 0,
        sequence: meta.sequence,
        offset: meta.journal_offset % meta.journal_bytes.max(1),
        crc: meta.journal_crc,
        durable_up_to: meta.sequence,
        lost_up_to: None,
        detached: false,
        newer: false,
    };
    while let Some((offset, frame)) = next_in_chain(&mut window, meta, &replay).await? {
        replay.take(offset, frame, meta.journal_bytes)?;
    }
    replay.newer = is_continued_later(&mut window, meta, &replay).await?;
    replay.detached = replay.frames == 0 && !holds_last_frame(&mut window, meta).await?;
    if !meta.clean || replay.detached {
        replay.lost_up_to = find_lost(&mut window, meta, &replay).await?;
    }
    Ok(replay)
}

/// The frame that chains to the last one: right behind it, or at 0.
async fn next_in_chain<F: BlockFile>(
    window: &mut Window<'_, F>,
    meta: &Meta,
    replay: &Replay,
) -> Result<Option<(u64, Frame)>, ReplayError> {
    let candidates = if replay.offset == 0 { vec![0] } else { vec![replay.offset, 0] };
    for offset in candidates {
        let Some(frame) = window.frame_at(offset).await? else { continue };
        let continues = is_alive(&frame, meta)
            && frame.header.previous_crc == replay.crc
            && frame.header.first_sequence == replay.sequence + 1;
        if continues {
            return Ok(Some((offset, frame)));
        }
    }
    Ok(None)
}

/// True where the frame that `meta` continues still ends where the next one would begin. It is overwritten only after the journal has
/// gone round, and then the chain is not empty. A new journal begins with a frame without records, so there always is one.
async fn holds_last_frame<F: BlockFile>(window: &mut Window<'_, F>, meta: &Meta) -> Result<bool, ReplayError> {
    // A frame that fills the journal to its end leaves the next one at 0.
    let end = if meta.journal_offset == 0 { meta.journal_bytes } else { meta.journal_offset };
    let mut offset = end.saturating_sub(FRAME_BYTES_MAX as u64);
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

/// True where a later epoch has gone on behind the end of the chain: an opening raises the epoch in the index before it writes a frame.
async fn is_continued_later<F: BlockFile>(
    window: &mut Window<'_, F>,
    meta: &Meta,
    replay: &Replay,
) -> Result<bool, ReplayError> {
    for offset in [replay.offset, 0] {
        if let Some(Frame { header, .. }) = window.frame_at(offset).await?
            && header.store_id == meta.store_id
            && header.epoch > meta.epoch
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_alive(frame: &Frame, meta: &Meta) -> bool {
    frame.header.store_id == meta.store_id && frame.header.epoch == meta.epoch
}

impl Replay {
    fn take(&mut self, offset: u64, frame: Frame, capacity: u64) -> Result<(), ReplayError> {
        for record in frame.records? {
            self.sequence += 1;
            let (hash, state) = match record {
                JournalRecord::Occupied { hash, record } => (hash, NameState::Occupied(record)),
                JournalRecord::Removed { hash, .. } => (hash, NameState::Removed),
                JournalRecord::Quarantined { hash, extent } => {
                    self.quarantined.push(Quarantined::now(extent, hash));
                    (hash, NameState::Removed)
                }
            };
            // The last state of a name is the one that counts.
            self.names.insert(hash, FinalState { state, sequence: self.sequence });
        }
        self.frames += 1;
        self.crc = frame.crc;
        self.offset = (offset + frame.bytes as u64) % capacity;
        self.durable_up_to = self.durable_up_to.max(frame.header.durable_up_to);
        Ok(())
    }
}

/// Looks at every page for a frame of this epoch that was built when records missing from the chain were known to be durable. A
/// journal begins as zeros, so a frame of another store has come with the file of another store.
async fn find_lost<F: BlockFile>(
    window: &mut Window<'_, F>,
    meta: &Meta,
    replay: &Replay,
) -> Result<Option<u64>, ReplayError> {
    let mut lost_up_to = None;
    let mut offset = 0;
    while offset < meta.journal_bytes {
        match window.frame_at(offset).await? {
            Some(frame) => {
                if frame.header.store_id != meta.store_id {
                    return Err(ReplayError::Foreign);
                }
                if is_alive(&frame, meta) && frame.header.durable_up_to > replay.sequence {
                    lost_up_to = lost_up_to.max(Some(frame.header.durable_up_to));
                }
                offset += frame.bytes as u64;
            }
            None => offset += PAGE_BYTES,
        }
    }
    Ok(lost_up_to)
}

/// A piece of the journal in memory.
struct Window<'a, F> {
    file: &'a F,
    capacity: u64,
    /// None only while it is being read into.
    buffer: Option<Buffer>,
    start: u64,
    end: u64,
}

impl<F: BlockFile> Window<'_, F> {
    /// The frame at `offset`, if there is a whole one.
    async fn frame_at(&mut self, offset: u64) -> Result<Option<Frame>, ReplayError> {
        // First in what is there, then in a window that begins at the frame and holds any.
        for fresh in [false, true] {
            let covers = self.start <= offset && offset + PAGE_BYTES <= self.end;
            if fresh || !covers {
                self.load(offset).await?;
            }
            match decode_frame(self.bytes_from(offset)) {
                Ok(frame) => return Ok(Some(frame)),
                Err(FrameError::NoFrame) => return Ok(None),
                Err(FrameError::Longer(_)) => {}
            }
        }
        Ok(None)
    }

    async fn load(&mut self, offset: u64) -> Result<(), ReplayError> {
        let length = (self.capacity.saturating_sub(offset)).min(WINDOW_BYTES as u64);
        let Some(buffer) = self.buffer.take() else { return Err(io::Error::other("the window is being read").into()) };
        let range = 0..usize::try_from(length).unwrap_or(0);
        let (result, buffer, ()) = read_fully(self.file, buffer, range, offset, ()).await;
        self.buffer = Some(buffer);
        (self.start, self.end) = (offset, offset + length);
        Ok(result?)
    }

    fn bytes_from(&self, offset: u64) -> &[u8] {
        let (Ok(from), Ok(to)) = (usize::try_from(offset - self.start), usize::try_from(self.end - self.start)) else {
            return &[];
        };
        self.buffer.as_ref().and_then(|buffer| buffer.get(from..to)).unwrap_or_default()
    }
}

const _: () = assert!(FRAME_BYTES_MAX <= WINDOW_BYTES, "a window holds any frame");
