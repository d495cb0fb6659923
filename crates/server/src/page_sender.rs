//! Sending pages of the page cache without copying them: through a pipe, which takes all of a block at once and gives it to the socket in
//! large pieces, or, where no pipe is to be had, with `sendfile`, which takes 64 KiB at a time.
//!
//! A pipe that a slow client has not emptied is its own until it has: so there are only so many, and `sendfile` for the rest.

use crate::stream::Stream;
use buddy_ring::Pipe;
use buddy_store::BLOCK_BYTES_MAX;
use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

/// Pipes of a worker.
const PIPES_MAX: usize = 64;
/// Descriptors of its pipes.
pub const PIPE_DESCRIPTORS_MAX: u64 = 2 * PIPES_MAX as u64;

/// The pipes of a worker.
#[derive(Default)]
pub(crate) struct Pipes {
    empty: RefCell<Vec<Pipe>>,
    /// Pipes that there are.
    count: Cell<usize>,
}

impl Pipes {
    /// An empty pipe, if one is to be had.
    fn take(&self) -> Option<Pipe> {
        let kept = self.empty.borrow_mut().pop();
        kept.or_else(|| {
            let count = self.count.get();
            let made = (count < PIPES_MAX).then(|| Pipe::new(BLOCK_BYTES_MAX as usize))?.ok()?;
            self.count.set(count + 1);
            Some(made)
        })
    }

    /// A pipe is not needed any more. What is left in one belongs to a reply that has ended early: it goes with it.
    fn give_back(&self, pipe: Pipe) {
        if pipe.held() == 0 {
            self.empty.borrow_mut().push(pipe);
        } else {
            self.count.set(self.count.get() - 1);
        }
    }
}

/// A part of a file that is on its way to a client.
pub(crate) struct PageSender<'a> {
    pipes: &'a Pipes,
    pipe: Option<Pipe>,
    file: BorrowedFd<'a>,
    /// What neither the pipe nor the socket has.
    left: Range<u64>,
}

impl<'a> PageSender<'a> {
    /// Sends `range` of `file`, whose pages are cached.
    pub(crate) fn new(pipes: &'a Pipes, file: BorrowedFd<'a>, range: Range<u64>) -> PageSender<'a> {
        PageSender { pipes, pipe: pipes.take(), file, left: range }
    }

    /// True when the socket has everything.
    pub(crate) fn is_done(&self) -> bool {
        self.left.is_empty() && self.pipe.as_ref().is_none_or(|pipe| pipe.held() == 0)
    }

    /// What is read from the file as it is sent, because there is no pipe to hold it: where its pages have left the cache, that waits for
    /// the disk.
    pub(crate) fn unheld(&self) -> Option<Range<u64>> {
        self.pipe.is_none().then(|| self.left.clone())
    }

    /// Sends as much as `stream` takes at once; returns how much, 0 where the file ends early.
    ///
    /// # Errors
    ///
    /// `WouldBlock` where it takes nothing: see [`Stream::writable`]; otherwise the system's.
    pub(crate) fn send(&mut self, stream: &Stream) -> io::Result<usize> {
        let left = usize::try_from(self.left.end - self.left.start).unwrap_or(usize::MAX);
        let Some(pipe) = &mut self.pipe else { return stream.send_file(self.file, &mut self.left.start, left) };
        if pipe.held() == 0 && pipe.fill(self.file, &mut self.left.start, left)? == 0 {
            return Ok(0);
        }
        stream.send_pipe(pipe, !self.left.is_empty())
    }
}

impl Drop for PageSender<'_> {
    fn drop(&mut self) {
        if let Some(pipe) = self.pipe.take() {
            self.pipes.give_back(pipe);
        }
    }
}
