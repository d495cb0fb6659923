//! Reading every block and hashing it, in the order of the file. So many at a time, that what has to be kept does not grow with the store:
//! each time the whole index is walked for those that come next.

use super::{CheckProgress, CheckReport, effective_blocks};
use crate::extent::Extent;
use crate::files::{BlockFile, is_shortage};
use crate::hash::{Hash, HashQueue};
use crate::index::IndexReader;
use crate::journal::replay::Replay;
use crate::memory;
use crate::record::Record;
use crate::recovery::{RecoveryError, io_error};
use crate::verify::hash_blocks;
use buddy_ring::{BufferPool, Ring};
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::io;

/// Blocks that are gathered at a time at least …
const WINDOW_BLOCKS_MIN: usize = 1 << 20;
/// … and more where this part of the memory holds them: one in so many.
const MEMORY_SHARE: u64 = 32;

/// Blocks that are gathered at a time.
pub(crate) fn window_blocks() -> usize {
    let bytes = usize::try_from(memory::bytes() / MEMORY_SHARE).unwrap_or(usize::MAX);
    WINDOW_BLOCKS_MIN.max(bytes / size_of::<Candidate>())
}

/// Reads every block, `window_blocks` for each walk over the index, and hashes it.
pub(super) async fn verify_blocks<F: BlockFile, R: IndexReader>(
    ring: &Ring,
    reader: &mut R,
    data: &F,
    replay: &Replay,
    window_blocks: usize,
    report: &mut CheckReport,
    progress: &mut dyn FnMut(CheckProgress),
) -> Result<(), RecoveryError> {
    let (buffers, queue) = (BufferPool::new(super::BUFFER_BYTES_MAX), HashQueue::on(ring));
    let total = report.totals.block_count();
    let mut after = None;
    loop {
        let mut window = Window::behind(after, window_blocks);
        effective_blocks(reader, replay, |hash, record, is_durable| {
            window.offer(Candidate { hash, record, is_durable });
        })?;
        let candidates = window.into_sorted();
        let is_last = candidates.len() < window_blocks;
        after = candidates.last().map(Candidate::place);
        let blocks = candidates.into_iter().map(|block| ((block.hash, block.is_durable), block.record)).collect();
        hash_blocks(ring, data, &buffers, &queue, blocks, |(hash, is_durable), record, found| match found {
            Err(error) if is_shortage(&error) => Err(io_error("reading blocks")(error)),
            found => {
                judge(report, hash, record, is_durable, found);
                progress(CheckProgress::Verified(report.verified, total));
                Ok(())
            }
        })
        .await?;
        if is_last {
            return Ok(());
        }
    }
}

fn judge(report: &mut CheckReport, hash: Hash, record: Record, is_durable: bool, found: io::Result<Hash>) {
    report.verified += 1;
    let place = record.extent().map_or_else(|| "nowhere".to_owned(), |extent| extent.to_string());
    match found {
        Ok(found) if found == hash => {}
        Ok(_) if !is_durable => report.unwritten += 1,
        Ok(found) => report.fault(format!("block {hash} in {place}: its bytes hash to {found}")),
        // Whatever was written of it could be read.
        Err(error) => report.fault(format!("block {hash} in {place}: {error}")),
    }
}

/// Where a block comes in the order of the file. Names that lead to the same place come one behind the other.
type Place = (Option<u64>, Hash);

#[derive(Clone, Debug)]
struct Candidate {
    hash: Hash,
    record: Record,
    is_durable: bool,
}

impl Candidate {
    fn place(&self) -> Place {
        (self.record.extent().map(Extent::offset), self.hash)
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Candidate) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Candidate) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Candidate) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Candidate {}

/// Of all blocks that are offered, those that come first behind a place.
struct Window {
    after: Option<Place>,
    most: usize,
    first: BinaryHeap<Candidate>,
}

impl Window {
    /// The first `most` behind `after`.
    fn behind(after: Option<Place>, most: usize) -> Window {
        Window { after, most, first: BinaryHeap::new() }
    }

    fn offer(&mut self, candidate: Candidate) {
        if self.after.is_some_and(|after| candidate.place() <= after) {
            return;
        }
        if self.first.len() < self.most {
            self.first.push(candidate);
        } else if let Some(mut last) = self.first.peek_mut()
            && candidate < *last
        {
            *last = candidate;
        }
    }

    fn into_sorted(self) -> Vec<Candidate> {
        self.first.into_sorted_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::SizeClass;
    use proptest::prelude::*;

    fn candidate() -> impl Strategy<Value = Candidate> {
        (any::<[u8; 32]>(), proptest::option::of(0..20u64), any::<bool>()).prop_map(|(hash, number, is_durable)| {
            let extent = number.and_then(|number| Extent::new(SizeClass::SMALLEST, number));
            let record = extent.map_or(Record::EMPTY, |extent| Record::new(Some(extent), 100).unwrap());
            Candidate { hash: Hash::from_bytes(hash), record, is_durable }
        })
    }

    proptest! {
        #[test]
        fn windows_hold_every_block_once_in_the_order_of_the_file(
            all in proptest::collection::vec(candidate(), 0..60),
            most in 1..10usize,
        ) {
            let (mut windows, mut after) = (Vec::new(), None);
            loop {
                let mut window = Window::behind(after, most);
                all.iter().for_each(|candidate| window.offer(candidate.clone()));
                let found = window.into_sorted();
                prop_assert!(found.len() <= most);
                let Some(last) = found.last() else { break };
                after = Some(last.place());
                windows.extend(found.iter().map(Candidate::place));
            }
            let mut places: Vec<_> = all.iter().map(Candidate::place).collect();
            places.sort();
            prop_assert_eq!(windows, places);
        }
    }
}
