//! A piece of the journal in memory, and the frames in it. A page that cannot be read holds no frame: most of the journal is over and
//! done with, and what would have been there shows where the chain of frames ends.

use super::frame::{FRAME_BYTES_MAX, Frame, FrameError, FrameHeader, decode_frame, peek_header};
use super::replay::ReplayError;
use crate::extent::{PAGE, PAGE_BYTES};
use crate::files::{BlockFile, read_fully};
use buddy_ring::Buffer;
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;

/// The journal is read in pieces of this size, which hold any frame.
pub(super) const WINDOW_BYTES: usize = 1 << 20;
/// More pages than this are no bad spot of a disk, but a disk that is bad.
const UNREADABLE_PAGES_MAX: usize = 256;

/// A piece of the journal in memory.
pub(super) struct Window<'a, F> {
    file: &'a F,
    capacity: u64,
    /// None only while it is being read into.
    buffer: Option<Buffer>,
    start: u64,
    end: u64,
    /// Offsets of pages that cannot be read. Each is tried once by itself: on a bad spot a disk takes its time.
    unreadable: BTreeSet<u64>,
}

impl<'a, F: BlockFile> Window<'a, F> {
    /// Of a journal of `capacity` bytes, in a buffer of [`WINDOW_BYTES`].
    pub(super) fn new(file: &'a F, capacity: u64, buffer: Buffer) -> Window<'a, F> {
        Window { file, capacity, buffer: Some(buffer), start: 0, end: 0, unreadable: BTreeSet::new() }
    }

    /// The frame at `offset`, if there is a whole one.
    pub(super) async fn frame_at(&mut self, offset: u64) -> Result<Option<Frame>, ReplayError> {
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

    /// The first page that cannot be read of what may be a frame at `offset` with a header for which `fits` holds.
    pub(super) async fn unreadable_frame_at(
        &mut self,
        offset: u64,
        fits: impl FnOnce(&FrameHeader) -> bool,
    ) -> Result<Option<u64>, ReplayError> {
        if self.frame_at(offset).await?.is_some() {
            return Ok(None);
        }
        let bytes = match peek_header(self.bytes_from(offset)) {
            _ if self.unreadable.contains(&offset) => PAGE_BYTES,
            Some((header, bytes)) if fits(&header) => bytes as u64,
            _ => 0,
        };
        Ok(self.unreadable.range(offset..offset + bytes).next().copied())
    }

    /// Offsets of pages that could not be read so far.
    pub(super) fn unreadable(self) -> BTreeSet<u64> {
        self.unreadable
    }

    async fn load(&mut self, offset: u64) -> Result<(), ReplayError> {
        let end = self.capacity.min(offset + WINDOW_BYTES as u64);
        (self.start, self.end) = (offset, end.max(offset));
        if self.unreadable.range(offset..self.end).next().is_none() {
            match self.read(offset..self.end).await {
                Err(error) if is_of_the_medium(&error) => {}
                outcome => return Ok(outcome?),
            }
        }
        for page in (offset..self.end).step_by(PAGE) {
            self.load_page(page).await?;
        }
        Ok(())
    }

    async fn load_page(&mut self, offset: u64) -> Result<(), ReplayError> {
        let range = offset..self.end.min(offset + PAGE_BYTES);
        if !self.unreadable.contains(&offset) {
            match self.read(range.clone()).await {
                Err(error) if is_of_the_medium(&error) && self.unreadable.len() < UNREADABLE_PAGES_MAX => {
                    tracing::warn!(offset, %error, "a page of the journal cannot be read: no frame is looked for there");
                    self.unreadable.insert(offset);
                }
                outcome => return Ok(outcome?),
            }
        }
        let range = self.within(&range);
        if let Some(page) = self.buffer.as_mut().and_then(|buffer| buffer.get_mut(range)) {
            page.fill(0);
        }
        Ok(())
    }

    /// Reads a range of the journal to its place in the window.
    async fn read(&mut self, range: Range<u64>) -> io::Result<()> {
        let Some(buffer) = self.buffer.take() else { return Err(io::Error::other("the window is being read")) };
        let (result, buffer, ()) = read_fully(self.file, buffer, self.within(&range), range.start, ()).await;
        self.buffer = Some(buffer);
        result
    }

    /// Where a range of the journal lies in the window.
    fn within(&self, range: &Range<u64>) -> Range<usize> {
        let at = |offset: u64| usize::try_from(offset.saturating_sub(self.start)).unwrap_or(0);
        at(range.start)..at(range.end)
    }

    fn bytes_from(&self, offset: u64) -> &[u8] {
        let range = self.within(&(offset..self.end));
        self.buffer.as_ref().and_then(|buffer| buffer.get(range)).unwrap_or_default()
    }
}

/// True for what is said of a place that cannot be read: input/output error, and with it medium, target and protection errors.
fn is_of_the_medium(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::ENODATA | libc::EREMOTEIO | libc::EILSEQ))
}

const _: () = assert!(FRAME_BYTES_MAX <= WINDOW_BYTES, "a window holds any frame");
