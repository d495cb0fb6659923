//! A pipe that carries pages of a file to a socket without copying them: it takes many at once, and the socket takes them from it in
//! fewer and larger pieces than `sendfile` would give it.

use crate::socket::Socket;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A pipe. The pages in it stay as they are, whatever becomes of the file's cache.
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    /// Bytes in it.
    held: usize,
}

impl Pipe {
    /// A pipe that holds as many pages as `bytes` take.
    ///
    /// # Errors
    ///
    /// The system's: no descriptors are left, or this user may have no more pages in pipes (`/proc/sys/fs/pipe-*`).
    pub fn new(bytes: usize) -> io::Result<Pipe> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        fcntl_setpipe_size(&writer, bytes)?;
        Ok(Pipe { reader, writer, held: 0 })
    }

    /// Bytes in it.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes up to `length` bytes of `file` from `offset` on, which it moves; returns how many, 0 at the end of the file.
    ///
    /// The caller sees to it that their pages are cached: others are read from the disk while this thread waits.
    ///
    /// # Errors
    ///
    /// The system's; `WouldBlock` where the pipe is full.
    pub fn fill(&mut self, file: BorrowedFd<'_>, offset: &mut u64, length: usize) -> io::Result<usize> {
        let taken = splice(file, Some(offset), &self.writer, None, length, SpliceFlags::NONBLOCK)?;
        self.held += taken;
        Ok(taken)
    }
}

impl Socket {
    /// Sends what is in `pipe`, as much as the socket takes at once; returns how much. `more`: other bytes follow at once.
    ///
    /// # Errors
    ///
    /// `WouldBlock` where it takes nothing now, see [`Socket::writable`]; otherwise the system's.
    pub fn send_pipe(&self, pipe: &mut Pipe, more: bool) -> io::Result<usize> {
        let flags = if more { SpliceFlags::NONBLOCK | SpliceFlags::MORE } else { SpliceFlags::NONBLOCK };
        let sent = splice(&pipe.reader, None, self.as_fd(), None, pipe.held, flags).map_err(io::Error::from);
        self.ring().traffic().count_sent(&sent);
        pipe.held -= *sent.as_ref().unwrap_or(&0);
        sent
    }
}
