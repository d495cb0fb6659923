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
use std::time::{Duration, Instant};

/// Pipes of a worker.
const PIPES_MAX: usize = 64;
/// After the system has refused one, it is not asked again for so long.
const REFUSAL_BELIEVED_FOR: Duration = Duration::from_secs(1);
/// Descriptors of its pipes.
pub const PIPE_DESCRIPTORS_MAX: u64 = 2 * PIPES_MAX as u64;

/// The pipes of a worker.
#[derive(Default)]
pub(crate) struct Pipes {
    empty: RefCell<Vec<Pipe>>,
    /// Pipes that there are.
    count: Cell<usize>,
    /// The fewest that were empty since the last [`Pipes::trim`]: so many were not needed.
    unneeded: Cell<usize>,
    /// When the system last refused one: whoever is not root may have only so many pages in pipes.
    refused: Cell<Option<Instant>>,
}

impl Pipes {
    /// An empty pipe, if one is to be had.
    fn take(&self) -> Option<Pipe> {
        let kept = self.empty.borrow_mut().pop();
        self.unneeded.set(self.unneeded.get().min(self.empty.borrow().len()));
        kept.or_else(|| self.make(|| Pipe::new(BLOCK_BYTES_MAX as usize)))
    }

    fn make(&self, make: impl FnOnce() -> io::Result<Pipe>) -> Option<Pipe> {
        let is_refused = self.refused.get().is_some_and(|refused| refused.elapsed() < REFUSAL_BELIEVED_FOR);
        if is_refused || self.count.get() >= PIPES_MAX {
            return None;
        }
        let made = make();
        match &made {
            Ok(_) => self.count.set(self.count.get() + 1),
            Err(_) => self.refused.set(Some(Instant::now())),
        }
        made.ok()
    }

    /// Closes those that were not needed since the last call: others may need them. True where some are kept.
    pub(crate) fn trim(&self) -> bool {
        let mut empty = self.empty.borrow_mut();
        let kept = empty.len().saturating_sub(self.unneeded.get());
        self.count.set(self.count.get() - (empty.len() - kept));
        empty.truncate(kept);
        self.unneeded.set(kept);
        self.count.get() > 0
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_that_nobody_needs_are_closed() {
        let pipes = Pipes::default();
        let taken: Vec<Pipe> = (0..3).filter_map(|_| pipes.take()).collect();
        assert_eq!(taken.len(), 3);
        taken.into_iter().for_each(|pipe| pipes.give_back(pipe));
        assert!(pipes.trim() && pipes.count.get() == 3, "all were needed since the last time");
        let one = pipes.take().unwrap();
        pipes.give_back(one);
        assert!(pipes.trim() && pipes.count.get() == 1);
        assert!(!pipes.trim() && pipes.count.get() == 0);
        assert!(pipes.take().is_some());
    }

    #[test]
    fn a_pipe_that_was_refused_is_not_asked_for_again_at_once() {
        let pipes = Pipes::default();
        assert!(pipes.make(|| Err(io::ErrorKind::PermissionDenied.into())).is_none());
        assert!(pipes.make(|| unreachable!("it was refused just now")).is_none());
        pipes.refused.set(pipes.refused.get().and_then(|at| at.checked_sub(REFUSAL_BELIEVED_FOR)));
        assert!(pipes.make(|| Pipe::new(BLOCK_BYTES_MAX as usize)).is_some());
    }
}
