//! Storing a block.
//!
//! An extent belongs to the operation that uses it, never to a connection: once a block is complete, storing it is a task of
//! its own that runs to its end, whoever still waits for it. The extent is the write's until that completes, then the request's
//! until `Occupied` or `Failed` arrives; only then may it go back to a pool.

use super::{LookUp, Session};
use crate::crash_point::crash_point;
use crate::error::StoreError;
use crate::extent::Extent;
use crate::files::BlockFile;
use crate::hash::Hash;
use crate::index::IndexReader;
use crate::messages::{Refusal, Reply, Request};
use crate::record::Record;
use buddy_ring::Buffer;
use std::io;
use std::rc::Rc;

/// What became of a block that was to be stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stored {
    /// It is new.
    Created,
    /// It was there.
    Existed,
}

impl<F: BlockFile, R: IndexReader> Session<F, R> {
    /// Stores the first `length` bytes of `buffer`, whose hash is `hash`. `buffer` has room for whole pages. Once begun it is
    /// carried out even where the future is dropped.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the name was not bound by this call.
    pub async fn put(self: &Rc<Self>, hash: Hash, buffer: Buffer, length: u32) -> Result<Stored, StoreError> {
        let result = self.put_uncounted(hash, buffer, length).await;
        self.counted.count_stored(length, &result);
        result
    }

    async fn put_uncounted(self: &Rc<Self>, hash: Hash, buffer: Buffer, length: u32) -> Result<Stored, StoreError> {
        let look_up = self.look_up(&hash).await?;
        self.refuse_if_read_only()?;
        if look_up.found.is_some() {
            return Ok(Stored::Existed);
        }
        let seen = look_up.seen;
        let session = Rc::clone(self);
        self.storing.set(self.storing.get() + 1);
        self.ring
            .spawn(async move {
                let result = session.store(hash, buffer, length, seen).await;
                session.storing.set(session.storing.get() - 1);
                result
            })
            .await
    }

    async fn store(self: &Rc<Self>, hash: Hash, buffer: Buffer, length: u32, seen: u64) -> Result<Stored, StoreError> {
        let record = self.write(buffer, length).await?;
        crash_point("block-written");
        let bound = self.bind(hash, record, seen).await;
        if let Some(extent) = record.extent() {
            match &bound {
                Ok(Stored::Created) => {}
                Ok(Stored::Existed) => self.pools.put(extent),
                // A frame that may have reached the disk names this extent: it stays out of use until the store is opened again.
                Err(StoreError::ReadOnly | StoreError::Internal(_)) => {}
                Err(_) => self.pools.put(extent),
            }
        }
        bound
    }

    /// Writes a block to a blank extent.
    async fn write(self: &Rc<Self>, mut buffer: Buffer, length: u32) -> Result<Record, StoreError> {
        let Some(class) = crate::extent::SizeClass::for_length(length) else { return Ok(Record::EMPTY) };
        let extent = self.pools.take(class).await?;
        let Some(record) = Record::new(Some(extent), length) else {
            return Err(StoreError::Internal("a block that no extent holds"));
        };
        let bytes = usize::try_from(record.written_bytes()).unwrap_or(usize::MAX);
        // What the buffer held before is nobody's business, on disk either.
        if let Some(padding) = buffer.get_mut(length as usize..bytes) {
            padding.fill(0);
        }
        self.writing.set(self.writing.get() + 1);
        let (result, _buffer) = self.writes.write(extent, buffer, bytes).await;
        self.writing.set(self.writing.get() - 1);
        match result {
            Ok(()) => Ok(record),
            Err(source) => Err(self.write_failed(extent, source).await),
        }
    }

    async fn write_failed(&self, extent: Extent, source: io::Error) -> StoreError {
        if matches!(source.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) {
            // Nothing is wrong with the place: a file system that allocates late had no room.
            self.pools.put(extent);
            return StoreError::NoSpace;
        }
        self.exchange.request(|id| Request::Suspect { id, extent }).await;
        StoreError::Io { action: "written", source }
    }

    /// Binds a name to a block that is written.
    async fn bind(&self, hash: Hash, record: Record, seen: u64) -> Result<Stored, StoreError> {
        let mut seen = seen;
        loop {
            match self.exchange.request(|id| Request::Occupy { id, hash, record, seen }).await {
                Reply::Occupied { created: true, .. } => return Ok(Stored::Created),
                Reply::Occupied { created: false, .. } => return Ok(Stored::Existed),
                Reply::Retry { .. } => {
                    let LookUp { found, seen: seen_now } = self.look_up(&hash).await?;
                    if found.is_some() {
                        return Ok(Stored::Existed);
                    }
                    seen = seen_now;
                }
                Reply::Failed { refusal: Refusal::ReadOnly, .. } => return Err(StoreError::ReadOnly),
                Reply::Failed { refusal, .. } => return Err(refusal.into()),
                _ => return Err(StoreError::Internal("an unexpected reply to Occupy")),
            }
        }
    }
}
