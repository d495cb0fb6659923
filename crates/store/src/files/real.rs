//! Files on a real disk, through the ring of one thread.

use super::page_cache::{cached_pages, is_cached};
use super::{BlockFile, Parts};
use buddy_ring::{Buffer, File, Guarded, Ring};
use rustix::io::ReadWriteFlags;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// The descriptors of one file, to be used through any ring: see [`Descriptors::on`].
#[derive(Clone)]
pub struct Descriptors {
    /// Written through, with O_DIRECT where the file system has it. Holds the lock.
    pub(super) direct: Arc<OwnedFd>,
    /// Read through, with the page cache; `None`: reads go through `direct` too.
    pub(super) cached: Option<Arc<OwnedFd>>,
    /// Whether cached pages may be sent without copying them.
    pub(super) send_cached: bool,
    /// Whether reads may choose to go through `direct`, and know when.
    pub(super) pass_cache: bool,
}

impl Descriptors {
    /// The file, used through `ring`.
    #[must_use]
    pub fn on(&self, ring: &Ring) -> RealFile {
        let direct = File::new(ring, Arc::clone(&self.direct));
        let cached = self.cached.as_ref().map(|cached| File::new(ring, Arc::clone(cached)));
        RealFile { direct, cached, send_cached: self.send_cached, pass_cache: self.pass_cache }
    }

    /// The same file, read past the cache: for reading much of it once.
    #[must_use]
    pub fn uncached(&self) -> Descriptors {
        Descriptors { direct: Arc::clone(&self.direct), cached: None, send_cached: false, pass_cache: false }
    }

    /// True where cached pages may be sent without copying them.
    #[must_use]
    pub fn sends_cached(&self) -> bool {
        self.send_cached
    }
}

/// A file on a real disk.
#[derive(Clone)]
pub struct RealFile {
    direct: File,
    cached: Option<File>,
    send_cached: bool,
    pass_cache: bool,
}

impl BlockFile for RealFile {
    fn length(&self) -> io::Result<u64> {
        let status = rustix::fs::fstat(&self.direct)?;
        Ok(u64::try_from(status.st_size).unwrap_or(0))
    }

    fn uncached(&self) -> RealFile {
        RealFile { direct: self.direct.clone(), cached: None, send_cached: false, pass_cache: false }
    }

    fn may_pass_cache(&self) -> bool {
        self.pass_cache
    }

    fn is_cached(&self, offset: u64, bytes: u64) -> bool {
        self.cached.as_ref().is_some_and(|cached| is_cached(cached.as_fd(), offset, bytes).unwrap_or(false))
    }

    async fn read<G: 'static>(
        &self,
        buffer: Buffer,
        range: Range<usize>,
        offset: u64,
        guard: G,
    ) -> (io::Result<usize>, Buffer, G) {
        let file = self.cached.as_ref().unwrap_or(&self.direct);
        let (result, Guarded { buffer, guard }) = file.read_at(Guarded { buffer, guard }, range, offset).await;
        (result, buffer, guard)
    }

    fn read_cached(&self, target: &mut [u8], offset: u64) -> Option<usize> {
        let file = self.cached.as_ref()?;
        rustix::io::preadv2(file, &mut [IoSliceMut::new(target)], offset, ReadWriteFlags::NOWAIT).ok()
    }

    fn cached_descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.cached.as_ref().filter(|_| self.send_cached).map(AsFd::as_fd)
    }

    async fn write(&self, mut parts: Parts, offset: u64, durable: bool) -> (io::Result<usize>, Parts) {
        if parts.len() == 1
            && let Some((buffer, length)) = parts.pop()
        {
            let (result, buffer) = self.direct.write_at(buffer, 0..length, offset, durable).await;
            parts.push((buffer, length));
            return (result, parts);
        }
        self.direct.write_vectored_at(parts, offset, durable).await
    }

    async fn preallocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.direct.preallocate(offset, bytes).await
    }

    async fn flush(&self) -> io::Result<()> {
        self.direct.flush().await
    }

    fn may_have_cached(&self, offset: u64, bytes: u64) -> bool {
        self.cached.as_ref().is_some_and(|cached| cached_pages(cached.as_fd(), offset, bytes) != Some(0))
    }

    async fn forget_cached(&self, offset: u64, bytes: u64) {
        if let Some(cached) = &self.cached {
            // Advice: where it is not followed, a direct write still replaces what is cached.
            let _ = cached.forget_cached(offset, bytes).await;
        }
    }
}
