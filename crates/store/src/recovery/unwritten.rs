//! Names past the last *durable up to* whose bytes are not there: they were never acknowledged.

use super::{RecoveryError, io_error};
use crate::files::{BlockFile, is_shortage};
use crate::hash::HashQueue;
use crate::journal::replay::Replay;
use crate::names::NameState;
use crate::quarantine::Quarantined;
use crate::verify::hash_blocks;
use buddy_ring::{BufferPool, Ring};

/// A block that cannot be read is read again: its name is given up here for good, and a disk may do better a moment later.
const READS_MAX: usize = 3;

/// Turns names whose bytes are not there into removed ones, unless they are known to have been durable. Returns the extents that cannot
/// be read: what was stored there is not overwritten.
pub(super) async fn drop_unwritten<F: BlockFile>(
    ring: &Ring,
    data: &F,
    replay: &Replay,
    buffers: &BufferPool,
) -> Result<Vec<Quarantined>, RecoveryError> {
    let undecided = replay.latest().filter_map(|(hash, state, is_durable)| match state {
        NameState::Occupied(record) if !is_durable => Some((hash, record)),
        _ => None,
    });
    let mut undecided: Vec<_> = undecided.collect();
    // Absent, until they have proved to be whole.
    undecided.iter().try_for_each(|(hash, _)| replay.settle(hash, NameState::Removed))?;
    let (mut unreadable, queue) = (Vec::new(), HashQueue::on(ring));
    for reads_left in (0..READS_MAX).rev() {
        let mut unread = Vec::new();
        hash_blocks(ring, data, buffers, &queue, undecided, |hash, record, found| -> Result<(), RecoveryError> {
            match found {
                Ok(found) if found == hash => replay.settle(&hash, NameState::Occupied(record))?,
                Ok(_) => {
                    tracing::warn!(%hash, "a block was not completely written when the store stopped: its name is removed");
                }
                Err(_) if reads_left > 0 => unread.push((hash, record)),
                Err(error) if is_shortage(&error) => return Err(io_error("reading blocks")(error)),
                Err(error) => {
                    tracing::error!(
                        %hash, extent = ?record.extent(), %error,
                        "a block that was being written cannot be read: its name is removed, its extent taken out of service"
                    );
                    unreadable.extend(record.extent().map(|extent| Quarantined::now(extent, hash)));
                }
            }
            Ok(())
        })
        .await?;
        undecided = unread;
    }
    Ok(unreadable)
}
