//! Whether a block that is read is what was stored: when that is looked at, and what becomes of one that is not.

use super::Session;
use crate::clock::ReadGuard;
use crate::files::BlockFile;
use crate::hash::Hash;
use crate::index::IndexReader;
use crate::messages::{Reply, Request};
use crate::record::Record;
use crate::settings::VerifyReads;
use buddy_ring::Buffer;
use std::ops::Range;

/// One read in so many is verified where a sample is.
const SAMPLE: u32 = 64;

impl<F: BlockFile, R: IndexReader> Session<F, R> {
    /// Whether the next block that is found is to be verified when it is read.
    pub(super) fn must_verify(&self) -> bool {
        if self.shared.health.data_is_distrusted() {
            return true;
        }
        match self.settings.verify_reads {
            VerifyReads::Off => false,
            VerifyReads::All => true,
            VerifyReads::Sampled => {
                let left = self.look_ups_until_sample.get();
                self.look_ups_until_sample.set(if left == 0 { self.next_interval() } else { left - 1 });
                left == 0
            }
        }
    }

    /// How many look-ups to pass over: [`SAMPLE`] on average, and each time another number. Not each look-up is followed by a read, and
    /// those that are may come at regular intervals.
    fn next_interval(&self) -> u32 {
        let count = self.samples.get().wrapping_add(1);
        self.samples.set(count);
        scattered(count) % (2 * SAMPLE - 1)
    }

    /// Whether these bytes of a buffer are those that `hash` names.
    pub(super) async fn hashes_to(&self, hash: &Hash, buffer: Buffer, range: Range<usize>) -> (bool, Buffer) {
        let (found, buffer) = self.hash_queue.hash(buffer, range).await;
        (found == *hash, buffer)
    }

    /// Removes the name of a damaged block, so that it can be stored again, and sees to it that its extent is not used again.
    /// Its extent is held until then: the same name might have been stored there anew, sound.
    pub(super) async fn take_out_of_service(&self, hash: Hash, record: Record, seen: u64, guard: ReadGuard) {
        self.shared.statistics.corrupt_reads.add(1);
        // Told to look again, it leaves that to the next read.
        let reply = self.exchange.request(|id| Request::Quarantine { id, hash, record, seen }).await;
        if let Reply::Failed { refusal, .. } = reply {
            tracing::error!(%hash, %refusal, "a block is damaged and cannot be taken out of service now");
        }
        drop(guard);
    }
}

/// Multiples of the golden ratio, 16 bits: all numbers in turn, in an order that has nothing to do with what is counted.
pub(super) fn scattered(count: u32) -> u32 {
    count.wrapping_mul(0x9E37_79B9) >> 16
}
