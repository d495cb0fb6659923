//! Reading blocks: from the page cache without waiting, past it, or through it, and once more where the bytes are not those that
//! were stored.

use super::verify::scattered;
use super::{Found, Session};
use crate::clock::ReadGuard;
use crate::error::StoreError;
use crate::extent::PAGE_BYTES;
use crate::files::{BlockFile, read_fully};
use crate::hash::Hash;
use crate::index::IndexReader;
use buddy_ring::Buffer;
use std::io;
use std::ops::Range;

/// Bytes of a page of the file and of memory.
const PAGE: usize = buddy_ring::PAGE_BYTES;

/// So many reads in a row must find the page cache to have what they want until nobody expects any more that it may not.
const MISSES_EXPECTED_FOR: u32 = 64;

impl<F: BlockFile, R: IndexReader> Session<F, R> {
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
        if !verify {
            return (Ok(()), buffer);
        }
        let is_good;
        (is_good, buffer) = self.hashes_to(&hash, buffer, range.clone()).await;
        if is_good {
            return (Ok(()), buffer);
        }
        // The copy in memory may be what is wrong, and may be kept there by others: the disk has the last word.
        self.data.forget_cached(extent.offset(), extent.bytes()).await;
        let result;
        (result, buffer, guard) = match whole_pages(&range, offset, &buffer) {
            Some(pages) => read_fully(&self.uncached, buffer, pages, offset, guard).await,
            None => read_fully(&self.data, buffer, range.clone(), offset, guard).await,
        };
        if let Err(source) = result {
            return (Err(self.read_failed(source)), buffer);
        }
        let is_good;
        (is_good, buffer) = self.hashes_to(&hash, buffer, range).await;
        if is_good {
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
        let (result, buffer, guard) = self.uncached_reads.read(buffer, pages, offset, guard).await;
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
}

/// The pages of `buffer` that a read past the cache fills to have the bytes of `offset` in `range`, where there are such.
fn whole_pages(range: &Range<usize>, offset: u64, buffer: &Buffer) -> Option<Range<usize>> {
    // The rest of the last page is the block's own, too, and an extent's pages are all in the file.
    let end = range.end.next_multiple_of(PAGE);
    let is_aligned = range.start.is_multiple_of(PAGE) && offset.is_multiple_of(PAGE_BYTES) && end <= buffer.len();
    is_aligned.then_some(range.start..end)
}
