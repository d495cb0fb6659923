//! Making space: the file grows, and zeros are written where blocks will lie that do not fill the largest extents.
//!
//! The order within growth: the file system sets space aside at the end of the file, the file is flushed, and only then is the space
//! handed out. So the file's length is durable before anything refers to it.
//!
//! The first write to such space has the file system note that it is written now. For a block that fills an extent of the largest class
//! that costs much less than writing everything twice. For others it may cost more, as was [measured](NewSpace) when the store was opened,
//! and would leave space behind that is written in part, where a later write makes all others wait. Then zeros are written for them, ahead
//! of need, and their first write is an overwrite; but nobody waits for them on a disk that is slow to write them. Where the file system
//! cannot set space aside, growth itself writes zeros.

use super::{Controller, State};
use crate::crash_point::crash_point;
use crate::extent::{Extent, MACROBLOCK_BYTES};
use crate::files::{BlockFile, Parts, is_no_space, is_shortage, is_unsupported, write_fully};
use crate::settings::NewSpace;
use std::io;
use std::rc::Rc;
use std::time::Instant;

/// Zeros are written in pieces of up to this size: one macroblock.
#[allow(clippy::cast_possible_truncation)]
const ZEROS_BYTES: usize = MACROBLOCK_BYTES as usize;
/// … and of this size while nobody waits for them: the writes of blocks, which wait at the disk behind a piece, then wait less.
const ZEROS_BYTES_UNHURRIED: usize = 256 * 1024;

/// By how much the file has grown.
struct Growth {
    macroblocks: u64,
    /// They are full of zeros, or need none.
    counts_as_written: bool,
    /// What has ended it early.
    error: Option<io::Error>,
}

/// What became of extents to which zeros were to be written.
#[derive(Default)]
struct Zeroing {
    written: Vec<Extent>,
    /// The disk had no space for them, or somebody waits for space.
    unwritten: Vec<Extent>,
    /// Something is wrong with the place.
    suspect: Vec<Extent>,
}

impl<F: BlockFile> Controller<F> {
    pub(super) fn begin_growth(self: &Rc<Self>, state: &mut State, macroblocks: u64) {
        state.space.growth_begins(self.ring.now());
        let start = state.space.allocator().file_bytes();
        let controller = Rc::clone(self);
        self.ring
            .spawn(async move {
                let growth = controller.extend(start, macroblocks).await;
                crash_point("growth-written");
                // Nothing of it is handed out before the flush.
                let flushed = growth.macroblocks == 0 || controller.flush_data().await;
                crash_point("growth-flushed");
                controller.space_is_made(flushed, |state, now| {
                    if let Some(error) = &growth.error
                        && !state.space.growth_was_refused()
                    {
                        let file_bytes = start + growth.macroblocks * MACROBLOCK_BYTES;
                        tracing::warn!(%error, file_bytes, "the data file cannot grow");
                    }
                    state.space.grown(growth.macroblocks, growth.counts_as_written, growth.error.is_some(), now);
                });
            })
            .detach();
    }

    /// Extends the file by up to `macroblocks`: by as many as the disk has space for.
    async fn extend(&self, start: u64, macroblocks: u64) -> Growth {
        let (mut wanted, mut refusal) = (macroblocks, None);
        let counts_as_written = self.settings.new_space == Some(NewSpace::Unwritten);
        loop {
            // A shortage says nothing of the disk.
            let preallocate = async || self.data.preallocate(start, wanted * MACROBLOCK_BYTES).await;
            match self.patiently("growth", is_shortage, preallocate).await {
                Ok(()) => return Growth { macroblocks: wanted, counts_as_written, error: refusal },
                Err(error) if is_unsupported(&error) => return self.extend_with_zeros(start, macroblocks).await,
                Err(error) if wanted > 1 && is_no_space(&error) => (wanted, refusal) = (wanted / 2, Some(error)),
                Err(error) => return Growth { macroblocks: 0, counts_as_written, error: Some(error) },
            }
        }
    }

    async fn extend_with_zeros(&self, start: u64, macroblocks: u64) -> Growth {
        let mut offset = start;
        let end = start + macroblocks * MACROBLOCK_BYTES;
        let fill = async || {
            let mut zeros = self.zeros().await?;
            self.fill(&mut offset, end, &mut zeros).await
        };
        let error = self.patiently("growth", is_shortage, fill).await.err();
        Growth { macroblocks: (offset - start) / MACROBLOCK_BYTES, counts_as_written: true, error }
    }

    pub(super) fn begin_zeroing(self: &Rc<Self>, state: &mut State, extents: u32) {
        let extents = state.space.zeroing_begins(extents, self.ring.now());
        let controller = Rc::clone(self);
        self.ring
            .spawn(async move {
                let zeroing = controller.write_zeros(extents).await;
                crash_point("zeros-written");
                let flushed = zeroing.written.is_empty() || controller.flush_data().await;
                crash_point("zeros-flushed");
                controller.space_is_made(flushed, |state, now| {
                    for extent in &zeroing.suspect {
                        controller.suspect(*extent);
                    }
                    state.space.zeroed(&zeroing.written, &zeroing.unwritten, now);
                });
            })
            .detach();
    }

    async fn write_zeros(&self, extents: Vec<Extent>) -> Zeroing {
        let mut done = Zeroing::default();
        let Ok(mut zeros) = self.zeros().await else { return Zeroing { unwritten: extents, ..done } };
        for neighbours in extents.chunk_by(|one, next| one.macroblock() == next.macroblock()) {
            if self.state.borrow().space.wants_back_what_is_not_zeroed() {
                done.unwritten.extend(neighbours);
                continue;
            }
            if self.write_zeros_to(neighbours, &mut zeros).await.is_ok() {
                done.written.extend(neighbours);
                continue;
            }
            // One bad place must not fail its neighbour: each is tried alone.
            for extent in neighbours {
                match self.write_zeros_to(&[*extent], &mut zeros).await {
                    Ok(()) => done.written.push(*extent),
                    Err(error) if is_no_space(&error) || is_shortage(&error) => done.unwritten.push(*extent),
                    Err(_) => done.suspect.push(*extent),
                }
            }
        }
        done
    }

    /// Writes zeros to extents of one macroblock that lie side by side.
    async fn write_zeros_to(&self, neighbours: &[Extent], zeros: &mut Parts) -> io::Result<()> {
        let mut offset = neighbours.first().map_or(0, |first| first.offset());
        let end = neighbours.last().map_or(offset, |last| last.end());
        self.fill(&mut offset, end, zeros).await
    }

    /// Writes zeros from `offset`, which it moves, to `end`.
    async fn fill(&self, offset: &mut u64, end: u64, zeros: &mut Parts) -> io::Result<()> {
        while *offset < end {
            let hurried = !self.state.borrow().space.starved.is_empty();
            let piece_bytes = if hurried { ZEROS_BYTES } else { ZEROS_BYTES_UNHURRIED };
            let bytes = usize::try_from(end - *offset).unwrap_or(piece_bytes).min(piece_bytes);
            for (_, length) in &mut *zeros {
                *length = bytes;
            }
            let (result, returned) = write_fully(&self.data, std::mem::take(zeros), *offset, false).await;
            *zeros = returned;
            result?;
            *offset += bytes as u64;
        }
        Ok(())
    }

    /// A piece of zeros, to be written.
    async fn zeros(&self) -> io::Result<Parts> {
        let mut buffer = self.buffers.take(ZEROS_BYTES).await?;
        buffer.fill(0);
        Ok(vec![(buffer, ZEROS_BYTES)])
    }

    /// Lets `take` have what was made, if it could be flushed.
    fn space_is_made(self: &Rc<Self>, flushed: bool, take: impl FnOnce(&mut State, Instant)) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if flushed {
            take(state, self.ring.now());
        }
        self.settle(state);
    }
}
