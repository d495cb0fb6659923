//! Storing a block.
//!
//! An extent belongs to the operation that uses it, never to a connection: once a block is complete, storing it runs to its end,
//! whoever still waits for it. The extent is the write's until that completes, then the request's
//! until `Occupied` or `Failed` arrives; only then may it go back to a pool. Where the name goes ahead of the bytes and the write
//! fails, the extent is the controller's: a frame may name it.

use super::write_queue::{Name, Written};
use super::{LookUp, Session};
use crate::crash_point::crash_point;
use crate::error::StoreError;
use crate::extent::{Extent, PAGE_BYTES, SizeClass};
use crate::files::{BlockFile, is_no_space, is_shortage};
use crate::hash::Hash;
use crate::index::IndexReader;
use crate::messages::{Refusal, Reply, Request, WriteFailure};
use crate::record::Record;
use buddy_ring::Buffer;
use std::cell::Cell;
use std::future::Future;
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
        let look_up = self.look_up(&hash).await;
        self.refuse_if_read_only()?;
        let look_up = look_up?;
        if look_up.found.is_some() {
            return Ok(Stored::Existed);
        }
        if self.closed.get() {
            // Nobody would wait for it, nor see to its extent.
            return Err(StoreError::Busy);
        }
        self.ring.uncancelled(Rc::clone(self).store(hash, buffer, length, look_up.seen)).await
    }

    async fn store(self: Rc<Self>, hash: Hash, buffer: Buffer, length: u32, seen: u64) -> Result<Stored, StoreError> {
        let _storing = Storing::begin(&self.storing);
        let Some(class) = SizeClass::for_length(length) else {
            return self.bind(Name { hash, record: Record::EMPTY, seen }, None).await;
        };
        let whole = class == SizeClass::LARGEST && u64::from(length).next_multiple_of(PAGE_BYTES) == class.bytes();
        let extent = self.pools.take(class, whole).await?;
        let Some(record) = Record::new(Some(extent), length) else {
            return Err(StoreError::Internal("a block that no extent holds"));
        };
        let name = Name { hash, record, seen };
        let Written { result, announced } = self.write(name, extent, buffer).await;
        crash_point("block-written");
        let failure = result.as_ref().err().map(failure_of);
        let reply = match announced {
            Some(announced) => Some(self.exchange.report(announced, failure).await),
            None => None,
        };
        match result {
            Ok(()) => {
                let bound = self.bind(name, reply).await;
                self.dispose(extent, &bound);
                bound
            }
            Err(source) => self.write_failed(extent, source, reply).await,
        }
    }

    /// Gives a written extent back where no name leads to it.
    fn dispose(&self, extent: Extent, bound: &Result<Stored, StoreError>) {
        match bound {
            Ok(Stored::Created) => {}
            // A frame that may have reached the disk names this extent: it stays out of use until the store is opened again.
            Err(StoreError::ReadOnly | StoreError::Internal(_)) => {}
            Ok(Stored::Existed) | Err(_) => self.pools.put(extent),
        }
    }

    /// Writes a block to a blank extent.
    fn write(&self, name: Name, extent: Extent, mut buffer: Buffer) -> impl Future<Output = Written> {
        let (record, length) = (name.record, name.record.length());
        let bytes = usize::try_from(record.written_bytes()).unwrap_or(usize::MAX);
        // What the buffer held before is nobody's business, on disk either.
        if let Some(padding) = buffer.get_mut(length as usize..bytes) {
            padding.fill(0);
        }
        self.writes.write(name, extent.offset(), buffer, bytes)
    }

    /// Sees to an extent that could not be written, unless `reply`, to the name that went ahead of it, says that the controller does.
    async fn write_failed(
        &self,
        extent: Extent,
        source: io::Error,
        reply: Option<Reply>,
    ) -> Result<Stored, StoreError> {
        let failure = failure_of(&source);
        match reply {
            Some(Reply::Taken { .. }) => {}
            Some(Reply::Failed { refusal: Refusal::ReadOnly, .. }) => return Err(StoreError::ReadOnly),
            _ if failure != WriteFailure::Suspect => self.pools.put(extent),
            _ => drop(self.exchange.request(|id| Request::Suspect { id, extent }).await),
        }
        // The write was not needed: somebody else has stored the block meanwhile, and that was published before this was answered.
        if matches!(reply, Some(Reply::Occupied { created: false, .. })) {
            return Ok(Stored::Existed);
        }
        Err(match failure {
            WriteFailure::NoSpace => StoreError::NoSpace,
            WriteFailure::Shortage => StoreError::Busy,
            WriteFailure::Suspect => StoreError::Io { action: "written", source },
        })
    }

    async fn occupy(&self, Name { hash, record, seen }: Name) -> Result<Reply, StoreError> {
        self.exchange.occupy(|id| Request::Occupy { id, hash, record, seen, write: None }).await
    }

    /// Binds a name to a block that is written; `reply`: to the request that went ahead of it, if one did.
    async fn bind(&self, mut name: Name, mut reply: Option<Reply>) -> Result<Stored, StoreError> {
        loop {
            let reply = match reply.take() {
                Some(reply) => reply,
                None => self.occupy(name).await?,
            };
            match reply {
                Reply::Occupied { created: true, .. } => return Ok(Stored::Created),
                Reply::Occupied { created: false, .. } => return Ok(Stored::Existed),
                Reply::Retry { .. } => {
                    // In a box, because it is rare, and every block that is stored would keep room for it.
                    let LookUp { found, seen } = Box::pin(self.look_up(&name.hash)).await?;
                    if found.is_some() {
                        return Ok(Stored::Existed);
                    }
                    name.seen = seen;
                }
                Reply::Failed { refusal: Refusal::ReadOnly, .. } => return Err(StoreError::ReadOnly),
                Reply::Failed { refusal, .. } => return Err(refusal.into()),
                _ => return Err(StoreError::Internal("an unexpected reply to Occupy")),
            }
        }
    }
}

/// Counts a block among those that are being stored.
struct Storing<'a>(&'a Cell<usize>);

impl Storing<'_> {
    fn begin(storing: &Cell<usize>) -> Storing<'_> {
        storing.set(storing.get() + 1);
        Storing(storing)
    }
}

impl Drop for Storing<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What a failed write says about its place.
fn failure_of(error: &io::Error) -> WriteFailure {
    match error {
        error if is_no_space(error) => WriteFailure::NoSpace,
        error if is_shortage(error) => WriteFailure::Shortage,
        _ => WriteFailure::Suspect,
    }
}
