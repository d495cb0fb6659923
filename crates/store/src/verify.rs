//! Reading blocks and hashing them, in the order of the file, several side by side: for opening and checking a store.

use crate::extent::Extent;
use crate::files::{BlockFile, read_fully};
use crate::hash::{Hash, HashQueue};
use crate::record::Record;
use buddy_ring::{BufferPool, JoinHandle, Ring};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

/// Blocks that are read or hashed side by side, where there are buffers for so many.
const CONCURRENCY: usize = 32;

/// The hash of what lies where a record says.
async fn hash_of<F: BlockFile>(data: F, record: Record, buffers: BufferPool, queue: Rc<HashQueue>) -> io::Result<Hash> {
    let Some(extent) = record.extent() else { return Ok(Hash::of(&[])) };
    let pages = usize::try_from(record.written_bytes()).unwrap_or(0);
    let buffer = buffers.take(pages).await?;
    let (result, buffer, ()) = read_fully(&data, buffer, 0..pages, extent.offset(), ()).await;
    result?;
    Ok(queue.hash(buffer, 0..record.length() as usize).await.0)
}

/// Calls `judge` with each of `blocks` and the hash of its bytes, or why they cannot be read. Ends where that fails.
pub(crate) async fn hash_blocks<F: BlockFile, T, E>(
    ring: &Ring,
    data: &F,
    buffers: &BufferPool,
    queue: &Rc<HashQueue>,
    mut blocks: Vec<(T, Record)>,
    mut judge: impl FnMut(T, Record, io::Result<Hash>) -> Result<(), E>,
) -> Result<(), E> {
    blocks.sort_unstable_by_key(|(_, record)| record.extent().map(Extent::offset));
    let mut running: VecDeque<(T, Record, JoinHandle<io::Result<Hash>>)> = VecDeque::new();
    for (block, record) in blocks {
        if running.len() >= CONCURRENCY
            && let Some((block, record, reading)) = running.pop_front()
        {
            judge(block, record, reading.await)?;
        }
        running.push_back((
            block,
            record,
            ring.spawn(hash_of(data.clone(), record, buffers.clone(), Rc::clone(queue))),
        ));
    }
    for (block, record, reading) in running {
        judge(block, record, reading.await)?;
    }
    Ok(())
}
