//! Names past the last *durable up to* whose bytes are not there: they were never acknowledged.

use super::damage::lies_within;
use super::{RecoveryError, io_error};
use crate::files::BlockFile;
use crate::journal::replay::Replay;
use crate::names::NameState;
use crate::verify::hash_blocks;
use buddy_ring::{BufferPool, Ring};
use std::io;

/// A block that cannot be read is read again: what is given up here is gone, and a disk may do better a moment later.
const READS_MAX: usize = 3;

/// Turns names whose bytes are not there into removed ones, unless they are known to have been durable.
pub(super) async fn drop_unwritten<F: BlockFile>(
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
    for reads_left in (0..READS_MAX).rev() {
        let mut unread = Vec::new();
        hash_blocks(ring, data, buffers, undecided, |hash, record, found| match found {
            Ok(found) if found == hash => {
                if let Err(error) = replay.settle(&hash, NameState::Occupied(record)) {
                    failed = Some(error.into());
                }
            }
            Ok(_) => {
                tracing::warn!(%hash, "a block was not completely written when the store stopped: its name is removed");
            }
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                failed = Some(io_error("reading blocks")(error));
            }
            Err(_) if reads_left > 0 => unread.push((hash, record)),
            Err(error) => {
                tracing::error!(%hash, %error, "a block that was being written cannot be read: its name is removed");
            }
        })
        .await;
        undecided = unread;
    }
    failed.map_or(Ok(()), Err)
}
