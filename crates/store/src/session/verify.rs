//! Reading blocks so that what is handed out is what was stored, and taking those out of service that are not.

use super::{Found, LookUp, Session};
use crate::clock::ReadGuard;
use crate::error::StoreError;
use crate::extent::{Extent, PAGE_BYTES};
use crate::files::{BlockFile, read_fully};
use crate::hash::Hash;
use crate::index::IndexReader;
use crate::messages::{Reply, Request};
use crate::record::Record;
use crate::settings::VerifyReads;
use buddy_ring::Buffer;
use std::io;
use std::ops::Range;

/// Bytes of a page of the file and of memory.
const PAGE: usize = buddy_ring::PAGE_BYTES;

/// So many reads in a row must find the page cache to have what they want until nobody expects any more that it may not.
const MISSES_EXPECTED_FOR: u32 = 64;

/// One read in so many is verified where a sample is.
const SAMPLE: u32 = 64;

/// What a scrub found out about one block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Its bytes hash to its name.
    Sound,
    /// They do not: it was taken out of service.
    Corrupt,
    /// It is not there any more, or cannot be read now.
    Gone,
}

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

    /// Reads a range of a block, which [`Found::must_read`] has named, into the start of `target` where that needs no waiting. False
    /// where it does: see [`Session::read`].
    ///
    /// What the kernel is asked to copy and is not in the page cache it begins to read, into the page cache. So where it may well not be there,
    /// and should not get there, the kernel is asked first; where nearly everything is, nothing comes before the copying.
    pub fn read_cached(&self, found: &Found, range: &Range<u32>, target: &mut [u8]) -> bool {
        let Some(extent) = found.record.extent() else { return true };
        let Some(target) = target.get_mut(..range.len()) else { return false };
        let offset = extent.offset() + u64::from(range.start);
        if self.may_pass_cache && self.misses_expected.get() > 0 && !self.shared.recent_reads.contains(&found.hash) {
            if !self.data.is_cached(offset, range.len() as u64) {
                self.misses_expected.set(MISSES_EXPECTED_FOR);
                return false;
            }
            // Others have read it: the next one need not ask.
            self.note_read(&found.hash);
        }
        let complete = self.data.read_cached(target, offset) == Some(range.len());
        // What does not hash to its name is read once more, from the disk.
        let is_good = complete && (!found.verify || Hash::of(target) == found.hash);
        if is_good {
            self.misses_expected.set(self.misses_expected.get().saturating_sub(1));
        } else {
            self.misses_expected.set(MISSES_EXPECTED_FOR);
            // It is in the page cache, or about to be: it must be read through it.
            self.note_read(&found.hash);
        }
        is_good
    }

    /// Remembers that a block is read. True where it was read lately, too.
    fn note_read(&self, hash: &Hash) -> bool {
        let count = self.reads_noted.get().wrapping_add(1);
        self.reads_noted.set(count);
        self.shared.recent_reads.insert(hash, scattered(count))
    }

    /// Reads a range of a block, which [`Found::must_read`] has named, to `at` of `buffer`, which may be filled up to the end of a page. The
    /// block's extent is held until the buffer is filled, also where the future is dropped.
    ///
    /// The first time for long it is read past the page cache, if `at` and the start of the range are those of pages, and then through
    /// it: see [`crate::recent_reads`].
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`]; [`StoreError::Corrupt`] where the block is verified and is not what was stored: it was taken out of
    /// service.
    pub async fn read(
        &self,
        found: Found,
        range: Range<u32>,
        buffer: Buffer,
        at: usize,
    ) -> (Result<(), StoreError>, Buffer) {
        let Some(extent) = found.record.extent() else { return (Ok(()), buffer) };
        if found.must_read(range.clone()) != range {
            return (Err(StoreError::Internal("a part of a block that is to be verified")), buffer);
        }
        let offset = extent.offset() + u64::from(range.start);
        let range = at..at + range.len();
        let Found { hash, record, guard, verify, seen } = found;
        let (result, mut buffer, mut guard) = match self.pages_to_read_past_cache(&hash, &range, offset, &buffer) {
            Some(pages) => self.read_past_cache(buffer, pages, range.len(), offset, guard).await,
            None => read_fully(&self.data, buffer, range.clone(), offset, guard).await,
        };
        if let Err(source) = result {
            return (Err(self.read_failed(source)), buffer);
        }
        if !verify || hashes_to(&hash, &buffer, range.clone()) {
            return (Ok(()), buffer);
        }
        // The copy in memory may be what is wrong, and may be kept there by others: the disk has the last word.
        self.data.drop_cached(extent.offset(), extent.bytes());
        let result;
        (result, buffer, guard) = match whole_pages(&range, offset, &buffer) {
            Some(pages) => read_fully(&self.uncached, buffer, pages, offset, guard).await,
            None => read_fully(&self.data, buffer, range.clone(), offset, guard).await,
        };
        if let Err(source) = result {
            return (Err(self.read_failed(source)), buffer);
        }
        if hashes_to(&hash, &buffer, range) {
            tracing::warn!(%hash, "a block was wrong in the page cache and right on the disk");
            return (Ok(()), buffer);
        }
        self.take_out_of_service(hash, record, seen, guard).await;
        let error = StoreError::Corrupt(hash);
        self.counted.count_error(&error);
        (Err(error), buffer)
    }

    /// The part of `buffer` that a read past the cache fills to have the bytes of `offset` in `range`; `None` where it is to be read through
    /// the cache.
    fn pages_to_read_past_cache(
        &self,
        hash: &Hash,
        range: &Range<usize>,
        offset: u64,
        buffer: &Buffer,
    ) -> Option<Range<usize>> {
        let pages = whole_pages(range, offset, buffer).filter(|_| self.may_pass_cache)?;
        (!self.note_read(hash)).then_some(pages)
    }

    /// Reads `pages` of a buffer past the cache, of which the first `wanted` bytes are needed.
    async fn read_past_cache(
        &self,
        buffer: Buffer,
        pages: Range<usize>,
        wanted: usize,
        offset: u64,
        guard: ReadGuard,
    ) -> (io::Result<()>, Buffer, ReadGuard) {
        let wanted = pages.start..pages.start + wanted;
        let (result, buffer, guard) = self.uncached.read(buffer, pages, offset, guard).await;
        let done = match result {
            Ok(read) => read.min(wanted.len()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return (Err(error), buffer, guard),
        };
        // What is left of a read that fell short need not begin where a page does.
        read_fully(&self.data, buffer, wanted.start + done..wanted.end, offset + done as u64, guard).await
    }

    fn read_failed(&self, source: io::Error) -> StoreError {
        let error = StoreError::Io { action: "read", source };
        self.counted.count_error(&error);
        error
    }

    /// Removes the name of a damaged block, so that it can be stored again, and sees to it that its extent is not used again.
    /// Its extent is held until then: the same name might have been stored there anew, sound.
    async fn take_out_of_service(&self, hash: Hash, record: Record, seen: u64, guard: ReadGuard) {
        self.shared.statistics.corrupt_reads.add(1);
        // Told to look again, it leaves that to the next read.
        let reply = self.exchange.request(|id| Request::Quarantine { id, hash, record, seen }).await;
        if let Reply::Failed { refusal, .. } = reply {
            tracing::error!(%hash, %refusal, "a block is damaged and cannot be taken out of service now");
        }
        drop(guard);
    }

    /// Reads a block past the cache, as the disk has it, and hashes it.
    pub(super) async fn scrub_block(&self, hash: &Hash, buffer: Buffer) -> (Verdict, Buffer) {
        let Ok(LookUp { found: Some(found), .. }) = self.look_up(hash).await else { return (Verdict::Gone, buffer) };
        let Some(extent) = found.record.extent() else { return (Verdict::Sound, buffer) };
        let Found { record, guard, seen, .. } = found;
        let (mut buffer, mut guard) = (buffer, guard);
        // Twice, before it counts as damaged.
        for _ in 0..2 {
            let read;
            (read, buffer, guard) = self.read_uncached(extent, record, buffer, guard).await;
            if !read {
                return (Verdict::Gone, buffer);
            }
            self.shared.statistics.scrubbed_bytes.add(u64::from(record.length()));
            if hashes_to(hash, &buffer, 0..record.length() as usize) {
                return (Verdict::Sound, buffer);
            }
        }
        self.take_out_of_service(*hash, record, seen, guard).await;
        (Verdict::Corrupt, buffer)
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
}

/// The pages of `buffer` that a read past the cache fills to have the bytes of `offset` in `range`, where there are such.
fn whole_pages(range: &Range<usize>, offset: u64, buffer: &Buffer) -> Option<Range<usize>> {
    // The rest of the last page is the block's own, too, and an extent's pages are all in the file.
    let end = range.end.next_multiple_of(PAGE);
    let is_aligned = range.start.is_multiple_of(PAGE) && offset.is_multiple_of(PAGE_BYTES) && end <= buffer.len();
    is_aligned.then_some(range.start..end)
}

/// Multiples of the golden ratio, 16 bits: all numbers in turn, in an order that has nothing to do with what is counted.
fn scattered(count: u32) -> u32 {
    count.wrapping_mul(0x9E37_79B9) >> 16
}

fn hashes_to(hash: &Hash, buffer: &Buffer, range: Range<usize>) -> bool {
    Hash::of(buffer.get(range).unwrap_or_default()) == *hash
}
