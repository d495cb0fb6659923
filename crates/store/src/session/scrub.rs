//! The scrub: reads every block in turn, at a bounded rate, and takes damaged ones out of service before anybody asks for them.
//!
//! It follows the names of the index in their order, so it sees every block that is there throughout a pass; names that are newer than
//! the index wait for the next. It gives way to requests, but not for ever.

use super::{DamagedRows, Found, LookUp, Session};
use crate::extent::{BLOCK_BYTES_MAX, Extent, PAGE_BYTES};
use crate::files::{BlockFile, read_fully};
use crate::hash::Hash;
use crate::index::IndexReader;
use crate::record::Record;
use buddy_ring::{Buffer, BufferPool};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Names taken from the index at a time.
const NAMES_AT_ONCE: usize = 64;
/// While requests are under way it waits this long …
const GIVE_WAY: Duration = Duration::from_millis(5);
/// … but not more often than this for one block.
const GIVE_WAY_TIMES_MAX: u32 = 20;
/// Pause before the next pass, and before another attempt where there is nothing to do.
const PASS_PAUSE: Duration = Duration::from_secs(10);

/// What a scrub found out about one block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// Its bytes hash to its name.
    Sound,
    /// They do not: it was taken out of service.
    Corrupt,
    /// It is not there any more, or cannot be read now.
    Gone,
}

/// What a scrub did about one block.
struct Scrubbed {
    verdict: Verdict,
    /// Bytes that it has read, or tried to.
    bytes: u64,
}

impl<F: BlockFile, R: IndexReader> Session<F, R> {
    /// Scrubs for ever, at most `bytes_per_second`. To be run as a task of one session; ends when the session is closed.
    pub async fn scrub(self: Rc<Self>, bytes_per_second: u64) {
        let buffers = BufferPool::new(BLOCK_BYTES_MAX as usize);
        while !self.closed.get() {
            if let Err(reason) = self.scrub_pass(&buffers, bytes_per_second).await {
                tracing::error!(reason, "the scrub could not go on; it begins anew later");
            }
            self.ring.sleep(PASS_PAUSE).await;
        }
    }

    async fn scrub_pass(&self, buffers: &BufferPool, bytes_per_second: u64) -> Result<(), String> {
        let mut after: Option<Hash> = None;
        let mut blocks = 0_u64;
        loop {
            let mut damaged = DamagedRows::default();
            let rows =
                self.rows_after(after.as_ref(), NAMES_AT_ONCE, &mut damaged).map_err(|error| error.to_string())?;
            if let DamagedRows { count, first: Some(error) } = damaged {
                tracing::error!(%error, count, "the scrub passes over damaged rows of the index");
            }
            let Some((last, _)) = rows.whole.last() else { break };
            after = Some(*last);
            for (hash, _) in rows.whole {
                if self.closed.get() || self.shared.health.data_is_distrusted() {
                    return Ok(());
                }
                self.scrub_one(&hash, buffers, bytes_per_second).await?;
                self.shared.statistics.scrub_position.set(hash.leading_bits());
                blocks += 1;
            }
            // Of names that are gone nothing is read, and nothing is waited for.
            self.ring.next_turn().await;
        }
        // The next begins at the first name.
        self.shared.statistics.scrub_position.set(0);
        if blocks > 0 {
            self.shared.statistics.scrub_passes.add(1);
        }
        Ok(())
    }

    async fn scrub_one(&self, hash: &Hash, buffers: &BufferPool, bytes_per_second: u64) -> Result<(), String> {
        self.give_way().await;
        let began = self.ring.now();
        let buffer = buffers.take(BLOCK_BYTES_MAX as usize).await.map_err(|error| error.to_string())?;
        let Scrubbed { verdict, bytes } = self.scrub_block(hash, buffer).await;
        if verdict != Verdict::Gone {
            self.shared.statistics.scrubbed_blocks.add(1);
        }
        self.keep_to_rate(began, bytes, bytes_per_second).await;
        Ok(())
    }

    /// Reads a block past the cache, as the disk has it, and hashes it.
    async fn scrub_block(&self, hash: &Hash, buffer: Buffer) -> Scrubbed {
        let mut bytes = 0;
        let Ok(LookUp { found: Some(found), .. }) = self.look_up(hash).await else {
            return Scrubbed { verdict: Verdict::Gone, bytes };
        };
        let Some(extent) = found.record.extent() else { return Scrubbed { verdict: Verdict::Sound, bytes } };
        let Found { record, guard, seen, .. } = found;
        let (mut buffer, mut guard) = (buffer, guard);
        // Twice, before it counts as damaged.
        for _ in 0..2 {
            let read;
            (read, buffer, guard) = self.read_uncached(extent, record, buffer, guard).await;
            // A disk that fails is not to be asked faster than one that works.
            bytes += u64::from(record.length());
            if !read {
                return Scrubbed { verdict: Verdict::Gone, bytes };
            }
            self.shared.statistics.scrubbed_bytes.add(u64::from(record.length()));
            let is_good;
            (is_good, buffer) = self.hashes_to(hash, buffer, 0..record.length() as usize).await;
            if is_good {
                return Scrubbed { verdict: Verdict::Sound, bytes };
            }
        }
        self.take_out_of_service(*hash, record, seen, guard).await;
        Scrubbed { verdict: Verdict::Corrupt, bytes }
    }

    async fn read_uncached<G: 'static>(
        &self,
        extent: Extent,
        record: Record,
        buffer: Buffer,
        guard: G,
    ) -> (bool, Buffer, G) {
        let pages = u64::from(record.length()).next_multiple_of(PAGE_BYTES);
        let range = 0..usize::try_from(pages).unwrap_or(0);
        let (result, buffer, guard) = read_fully(&self.uncached, buffer, range, extent.offset(), guard).await;
        if let Err(error) = &result {
            tracing::error!(%extent, %error, "a block cannot be read");
        }
        (result.is_ok(), buffer, guard)
    }

    /// Waits while others are being served.
    async fn give_way(&self) {
        for _ in 0..GIVE_WAY_TIMES_MAX {
            if self.storing.get() == 0 && !self.reads.any_under_way() {
                return;
            }
            self.ring.sleep(GIVE_WAY).await;
        }
    }

    /// Lets as much time pass as `bytes` take at the rate.
    async fn keep_to_rate(&self, began: Instant, bytes: u64, bytes_per_second: u64) {
        let micros = bytes.saturating_mul(1_000_000) / bytes_per_second.max(1);
        let until = began + Duration::from_micros(micros);
        let left = until.saturating_duration_since(self.ring.now());
        if !left.is_zero() {
            self.ring.sleep(left).await;
        }
    }
}
