//! The files of a new store: the journal is zeroed, begun and flushed before the index is born. Where the index says nothing, there is no
//! store yet.

use super::{RecoveryError, io_error};
use crate::crash_point::crash_point;
use crate::extent::MACROBLOCK_BYTES;
use crate::files::{BlockFile, write_fully};
use crate::format::StoreId;
use crate::index::{Index, IndexReader, IndexTransaction, Meta, Totals};
use crate::journal::{FrameHeader, encode_frame, frame_bytes};
use buddy_ring::BufferPool;
use std::io;

/// Makes the files of a new store, if there is none yet, and says whether there was none. `empty_journal` leaves nothing in it and has the
/// disk keep space for all of it.
pub(crate) async fn create_if_new<F: BlockFile, I: Index>(
    index: &I,
    data: &F,
    journal: &F,
    journal_bytes: u64,
    store_id: StoreId,
    empty_journal: impl FnOnce() -> Result<(), RecoveryError>,
) -> Result<bool, RecoveryError> {
    if index.reader()?.meta()?.is_some() {
        return Ok(false);
    }
    refuse_lost_index(data)?;
    empty_journal()?;
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
pub(super) async fn begin_journal<F: BlockFile>(journal: &F, meta: &mut Meta) -> io::Result<()> {
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
