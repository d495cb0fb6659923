//! Reading, writing and flushing files through the ring.

use crate::operation::{IoBuffer, Operation, Payload, transfer};
use crate::runtime::Ring;
use io_uring::{opcode, types};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// An open file, used through the ring of this thread.
#[derive(Clone)]
pub struct File {
    ring: Ring,
    descriptor: Arc<OwnedFd>,
}

/// Buffers that lie one behind the other in the file, and the list of them that the kernel reads.
struct Vectored<B> {
    buffers: Vec<(B, usize)>,
    _list: Vec<libc::iovec>,
    _descriptor: Arc<OwnedFd>,
}

impl<B: 'static> Payload for Vectored<B> {}

/// A buffer that keeps `guard` alive until the kernel is done with it, also where the future is dropped.
pub struct Guarded<B, G> {
    /// What is read or written.
    pub buffer: B,
    /// What must outlive the operation.
    pub guard: G,
}

// SAFETY: the wrapped buffer keeps the promise, and moving the wrapper moves it as a value.
unsafe impl<B: IoBuffer, G: 'static> IoBuffer for Guarded<B, G> {
    fn stable_pointer(&mut self) -> *mut u8 {
        self.buffer.stable_pointer()
    }

    fn capacity(&self) -> usize {
        self.buffer.capacity()
    }
}

/// Address and length of `range` in `buffer`; the range must lie inside.
pub(crate) fn part<B: IoBuffer>(buffer: &mut B, range: &Range<usize>) -> io::Result<(*mut u8, u32)> {
    let length = range.end.checked_sub(range.start).and_then(|length| u32::try_from(length).ok());
    match length {
        // `wrapping_add` stays inside the buffer's bytes: the range was checked against them.
        Some(length) if range.end <= buffer.capacity() => {
            Ok((buffer.stable_pointer().wrapping_add(range.start), length))
        }
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("range {range:?} of a buffer of {} bytes", buffer.capacity()),
        )),
    }
}

impl File {
    /// Uses `descriptor` through `ring`.
    #[must_use]
    pub fn new(ring: &Ring, descriptor: Arc<OwnedFd>) -> File {
        File { ring: ring.clone(), descriptor }
    }

    /// Reads into `range` of `buffer` from `offset` of the file; may read less.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn read_at<B: IoBuffer>(
        &self,
        mut buffer: B,
        range: Range<usize>,
        offset: u64,
    ) -> (io::Result<usize>, B) {
        let (pointer, length) = match part(&mut buffer, &range) {
            Ok(part) => part,
            Err(error) => return (Err(error), buffer),
        };
        let entry = opcode::Read::new(types::Fd(self.descriptor.as_raw_fd()), pointer, length).offset(offset).build();
        // SAFETY: the entry names a part of the buffer and this descriptor.
        unsafe { transfer(&self.ring, &self.descriptor, entry, buffer) }.await
    }

    /// Writes `range` of `buffer` at `offset` of the file; may write less. `durable`: on stable storage at completion.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn write_at<B: IoBuffer>(
        &self,
        mut buffer: B,
        range: Range<usize>,
        offset: u64,
        durable: bool,
    ) -> (io::Result<usize>, B) {
        let (pointer, length) = match part(&mut buffer, &range) {
            Ok(part) => part,
            Err(error) => return (Err(error), buffer),
        };
        let entry = opcode::Write::new(types::Fd(self.descriptor.as_raw_fd()), pointer, length)
            .offset(offset)
            .rw_flags(write_flags(durable))
            .build();
        // SAFETY: the entry names a part of the buffer and this descriptor.
        unsafe { transfer(&self.ring, &self.descriptor, entry, buffer) }.await
    }

    /// Writes the first bytes of several buffers, one behind the other, at `offset` in one operation; may write less.
    /// Each element is a buffer and how many of its bytes to write.
    ///
    /// # Errors
    ///
    /// The system's; `InvalidInput` where a length is larger than its buffer or there are too many.
    pub async fn write_vectored_at<B: IoBuffer>(
        &self,
        mut buffers: Vec<(B, usize)>,
        offset: u64,
        durable: bool,
    ) -> (io::Result<usize>, Vec<(B, usize)>) {
        let list: io::Result<Vec<libc::iovec>> = buffers
            .iter_mut()
            .map(|(buffer, length)| {
                let (pointer, _) = part(buffer, &(0..*length))?;
                Ok(libc::iovec { iov_base: pointer.cast(), iov_len: *length })
            })
            .collect();
        let list = match list {
            Ok(list) => list,
            Err(error) => return (Err(error), buffers),
        };
        let Ok(count) = u32::try_from(list.len()) else {
            return (Err(io::ErrorKind::InvalidInput.into()), buffers);
        };
        let entry = opcode::Writev::new(types::Fd(self.descriptor.as_raw_fd()), list.as_ptr(), count)
            .offset(offset)
            .rw_flags(write_flags(durable))
            .build();
        let payload = Vectored { buffers, _list: list, _descriptor: Arc::clone(&self.descriptor) };
        // SAFETY: the entry names the payload's list, on the heap, which names parts of the payload's buffers, whose
        // addresses are stable, and the payload's descriptor.
        let operation = unsafe { Operation::submit(&self.ring, entry, payload) };
        let (completion, payload) = operation.await;
        (completion.into_result(), payload.buffers)
    }

    /// Sets space aside for `bytes` from `offset` on and extends the file to their end, where it is shorter (`fallocate`). What was
    /// never written there reads as zeros.
    ///
    /// # Errors
    ///
    /// The system's: `EOPNOTSUPP` where the file system cannot do this. The file may have been extended by a part of it.
    pub async fn preallocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let entry = opcode::Fallocate::new(types::Fd(self.descriptor.as_raw_fd()), bytes).offset(offset).build();
        // SAFETY: the entry names this descriptor and no memory.
        unsafe { transfer(&self.ring, &self.descriptor, entry, Vec::new()) }.await.0.map(drop)
    }

    /// Makes the page cache forget `bytes` from `offset` on, as far as it can (`posix_fadvise`, `POSIX_FADV_DONTNEED`): pages that are
    /// being sent, or are not written yet, may stay. Of more than 4 GiB it forgets the first.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn forget_cached(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let descriptor = types::Fd(self.descriptor.as_raw_fd());
        let entry = opcode::Fadvise::new(descriptor, bytes.into(), libc::POSIX_FADV_DONTNEED).offset(offset).build();
        // SAFETY: the entry names this descriptor and no memory.
        unsafe { transfer(&self.ring, &self.descriptor, entry, Vec::new()) }.await.0.map(drop)
    }

    /// Brings everything that was written before the call to stable storage (`fdatasync`).
    ///
    /// # Errors
    ///
    /// The system's. After an error nothing is known of what was written before: it must not be tried again as if.
    pub async fn flush(&self) -> io::Result<()> {
        let entry =
            opcode::Fsync::new(types::Fd(self.descriptor.as_raw_fd())).flags(types::FsyncFlags::DATASYNC).build();
        // SAFETY: the entry names this descriptor and no memory.
        unsafe { transfer(&self.ring, &self.descriptor, entry, Vec::new()) }.await.0.map(drop)
    }
}

/// `RWF_DSYNC`: the write is on stable storage when it completes.
fn write_flags(durable: bool) -> i32 {
    if durable { libc::RWF_DSYNC } else { 0 }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
