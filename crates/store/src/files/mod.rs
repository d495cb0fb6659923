//! Files behind a seam: the few things that the store does with its data file and its journal, as futures, so that a simulated
//! disk can stand in their place.

mod directory;
mod directory_error;
mod page_cache;
mod probe;
mod real;
mod set_aside;
mod stamp;
mod warm_up;
mod write_out;

pub(crate) use directory::directory_of;
pub use directory::{Access, DataDirectory};
pub(crate) use directory_error::PUT_BACK;
pub use directory_error::{LockError, OpenDirectoryError};
pub use page_cache::is_cached;
pub use real::{Descriptors, RealFile};
pub use set_aside::{set_aside, unshare};
pub use stamp::Stamp;
pub use warm_up::warm_up;
pub use write_out::write_out;

use buddy_ring::Buffer;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

/// A file of pages. Offsets and lengths are whole pages, except where a method says otherwise.
pub trait BlockFile: Clone + 'static {
    /// Length of the file in bytes.
    ///
    /// # Errors
    ///
    /// The system's.
    fn length(&self) -> io::Result<u64>;

    /// The same file, read past the cache where that can be done.
    fn uncached(&self) -> Self;

    /// Whether each read may choose between this file and [`BlockFile::uncached`]: the latter is read past the cache, in whole pages, and
    /// [`BlockFile::is_cached`] knows when that would be a waste.
    fn may_pass_cache(&self) -> bool;

    /// Whether the cache has all of a range, of any alignment; false where that cannot be told.
    fn is_cached(&self, offset: u64, bytes: u64) -> bool;

    /// Reads into `range` of `buffer` from `offset`, both of any alignment; may read less, and nothing beyond the end. `guard`
    /// lives until the file is done with the buffer, also where the future is dropped.
    fn read<G: 'static>(
        &self,
        buffer: Buffer,
        range: Range<usize>,
        offset: u64,
        guard: G,
    ) -> impl Future<Output = (io::Result<usize>, Buffer, G)>;

    /// Reads into `target` from `offset`, both of any alignment, where that needs no waiting; `None` where it does.
    fn read_cached(&self, target: &mut [u8], offset: u64) -> Option<usize>;

    /// The descriptor whose cached pages may be sent without copying them; `None` where they must be copied.
    fn cached_descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// Writes the first bytes of each buffer, one behind the other, at `offset`, which may lie at the end of the file; may write
    /// less. `durable`: on stable storage when it completes, and nothing else with it.
    fn write(&self, parts: Parts, offset: u64, durable: bool) -> impl Future<Output = (io::Result<usize>, Parts)>;

    /// Sets space aside for `bytes` from `offset` on and extends the file to their end: they read as zeros. The length is durable when a
    /// flush is that began later. Where it fails, the file may be longer by a part of it.
    ///
    /// # Errors
    ///
    /// The system's: [`is_unsupported`] tells where there is no such thing.
    fn preallocate(&self, offset: u64, bytes: u64) -> impl Future<Output = io::Result<()>>;

    /// Brings to stable storage everything whose write completed before the call.
    fn flush(&self) -> impl Future<Output = io::Result<()>>;

    /// Whether the cache has any of a range; true where that cannot be told.
    fn may_have_cached(&self, offset: u64, bytes: u64) -> bool;

    /// Makes the cache forget a range, so that nobody finds the old bytes in it. Takes milliseconds where its pages were read just now:
    /// the kernel asks every processor for those that it has not filed yet.
    fn forget_cached(&self, offset: u64, bytes: u64) -> impl Future<Output = ()>;
}

/// Whether the file system has said that it does not know such an operation.
#[must_use]
pub fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL))
}

/// Whether the disk had no space, or the file may not become larger (`ulimit -f`). A file system that allocates late says so only when it
/// is written.
#[must_use]
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG))
}

/// Whether the system was short of something for a moment, which says nothing about the place.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EAGAIN | libc::EINTR | libc::ECANCELED))
}

/// Whether the operation has not begun: the kernel had no thread to carry it out. Others of [`is_shortage`] may have ended a part of it.
#[must_use]
pub fn was_not_begun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECANCELED)
}

/// Buffers to be written one behind the other, with how many bytes of each.
pub type Parts = Vec<(Buffer, usize)>;

/// How often a write that falls short is repeated before it counts as failed.
const SHORT_WRITES_MAX: usize = 8;

/// Writes all of `parts`: a write that falls short is repeated from its start, which does no harm because the range is the
/// writer's own.
///
/// # Errors
///
/// The system's; `WriteZero` where it keeps falling short.
pub async fn write_fully<F: BlockFile>(file: &F, parts: Parts, offset: u64, durable: bool) -> (io::Result<()>, Parts) {
    let wanted: usize = parts.iter().map(|(_, length)| length).sum();
    let mut parts = parts;
    for _ in 0..SHORT_WRITES_MAX {
        let (result, returned) = file.write(parts, offset, durable).await;
        parts = returned;
        match result {
            Ok(written) if written == wanted => return (Ok(()), parts),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (Err(error), parts),
        }
    }
    (Err(io::ErrorKind::WriteZero.into()), parts)
}

/// Reads all of `range` of `buffer` from `offset`.
///
/// # Errors
///
/// The system's; `UnexpectedEof` where the file ends before.
pub async fn read_fully<F: BlockFile, G: 'static>(
    file: &F,
    buffer: Buffer,
    range: Range<usize>,
    offset: u64,
    guard: G,
) -> (io::Result<()>, Buffer, G) {
    let (mut buffer, mut guard) = (buffer, guard);
    let mut done = 0;
    while done < range.len() {
        let rest = range.start + done..range.end;
        let (result, returned, returned_guard) = file.read(buffer, rest, offset + done as u64, guard).await;
        (buffer, guard) = (returned, returned_guard);
        match result {
            Ok(0) => return (Err(io::ErrorKind::UnexpectedEof.into()), buffer, guard),
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (Err(error), buffer, guard),
        }
    }
    (Ok(()), buffer, guard)
}
