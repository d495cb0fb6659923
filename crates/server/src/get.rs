//! Serving a block's bytes, in one of two ways.
//!
//! *Memory*: small blocks, and large ones that are not cached: one read (without waiting, where the bytes are cached), then head
//! and block in one send, or two. *Page cache*: large blocks whose pages are cached go to the socket without being copied. A large
//! block that is not cached is read through the cache first, which warms it for the next.

use crate::body::BodyError;
use crate::connection::{Broken, Connection, GoesOn};
use crate::limits::{COPIED_BYTES_MAX, PIN_AFTER, REPLY_HEAD_BYTES_MAX};
use crate::page_cache::is_cached;
use crate::reply::{self, Persistence, ReplyContext};
use crate::request::{Head, Method};
use crate::routes::no_block;
use crate::status::{Problem, Status};
use buddy_ring::{Buffer, Socket};
use buddy_store::extent::Extent;
use buddy_store::{Found, Hash};
use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::pin;
use std::time::Instant;

/// Answers GET and HEAD of a block.
pub(crate) async fn block(connection: &Connection, head: &Head, hash: &Hash) -> Result<GoesOn, BodyError> {
    let found = find(connection, hash).await?;
    let persistence = connection.persistence(head);
    let reply = BlockReply { connection, hash, persistence, length: found.record().length() };
    match found.record().extent() {
        Some(extent) if head.method == Method::Get => {
            if reply.length <= COPIED_BYTES_MAX {
                reply.send_small(found).await?;
            } else {
                reply.send_large(found, extent).await?;
            }
        }
        _ => {
            drop(found);
            reply.send_head(false).await?;
        }
    }
    Ok(persistence.into())
}

async fn find(connection: &Connection, hash: &Hash) -> Result<Found, BodyError> {
    match connection.worker.session.find(hash).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(BodyError::read(no_block(hash))),
        Err(error) => Err(BodyError::read(error.into())),
    }
}

/// A block on its way to a client.
struct BlockReply<'a> {
    connection: &'a Connection,
    hash: &'a Hash,
    persistence: Persistence,
    length: u32,
}

impl BlockReply<'_> {
    fn write_head(&self, target: &mut Vec<u8>) {
        self.connection.worker.with_date(|date| {
            let context = ReplyContext { date, persistence: self.persistence, is_head: false };
            reply::block_head(target, context, self.hash, self.length);
        });
    }

    /// `more`: the block follows at once.
    async fn send_head(&self, more: bool) -> Result<(), Broken> {
        let mut scratch = self.connection.worker.take_scratch();
        self.write_head(&mut scratch);
        let length = scratch.len();
        let scratch = self.connection.send(scratch, 0..length, more).await?;
        self.connection.worker.give_scratch(scratch);
        Ok(())
    }

    /// A buffer of `bytes`. Where there is none now, the block is let go before the wait, and found again after it: what waits
    /// must not hold up the reuse of extents.
    async fn take_buffer(&self, found: Found, bytes: usize) -> Result<(Found, Buffer), BodyError> {
        let worker = &self.connection.worker;
        worker.trim_later();
        match worker.reply_buffers.try_take(bytes) {
            Ok(Some(buffer)) => return Ok((found, buffer)),
            Ok(None) => drop(found),
            Err(error) => return Err(no_memory(&error)),
        }
        self.connection.deadline.set(worker.limits.send_timeout);
        match self.connection.deadline.limit(worker.reply_buffers.take(bytes)).await {
            Ok(Ok(buffer)) => Ok((find(self.connection, self.hash).await?, buffer)),
            Ok(Err(error)) => Err(no_memory(&error)),
            Err(_) => Err(no_memory(&"other replies take all of it")),
        }
    }

    /// Head and block in one buffer and one send. The block is let go as soon as its bytes are in memory.
    async fn send_small(&self, found: Found) -> Result<(), BodyError> {
        let session = &self.connection.worker.session;
        let bytes = REPLY_HEAD_BYTES_MAX + self.length as usize;
        let (found, mut buffer) = self.take_buffer(found, bytes).await?;
        let mut scratch = self.connection.worker.take_scratch();
        self.write_head(&mut scratch);
        let (head, end) = (scratch.len(), scratch.len() + self.length as usize);
        if let Some(target) = buffer.get_mut(..head) {
            target.copy_from_slice(&scratch);
        }
        self.connection.worker.give_scratch(scratch);
        let target = buffer.get_mut(head..).unwrap_or_default();
        if session.read_cached(&found, target) {
            drop(found);
        } else {
            buffer = self.read(found, buffer, head).await?;
        }
        self.connection.send(buffer, 0..end, false).await?;
        Ok(())
    }

    async fn read(&self, found: Found, buffer: Buffer, at: usize) -> Result<Buffer, BodyError> {
        let (result, buffer) = self.connection.worker.session.read(found, buffer, at).await;
        result.map_err(|error| BodyError::read(error.into()))?;
        Ok(buffer)
    }

    async fn send_large(&self, found: Found, extent: Extent) -> Result<(), BodyError> {
        let session = &self.connection.worker.session;
        if let Some(socket) = self.connection.transport.plain_socket()
            && let Some(file) = session.cached_descriptor(&found)
            && is_cached(file, extent.offset(), u64::from(self.length))
        {
            return Ok(self.send_pages(found, extent, file, socket).await?);
        }
        let (found, buffer) = self.take_buffer(found, self.length as usize).await?;
        let buffer = self.read(found, buffer, 0).await?;
        self.send_head(true).await?;
        self.connection.send(buffer, 0..self.length as usize, false).await?;
        Ok(())
    }

    /// Sends pages of the page cache. The read is over when the last byte is in the socket; one that lasts holds only its own
    /// extent.
    async fn send_pages(
        &self,
        mut found: Found,
        extent: Extent,
        file: BorrowedFd<'_>,
        socket: &Socket,
    ) -> Result<(), Broken> {
        let worker = &self.connection.worker;
        let began = worker.ring.now();
        self.pinning(began, &mut found, self.send_head(true)).await?;
        let mut offset = extent.offset();
        let end = offset + u64::from(self.length);
        while offset < end {
            let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
            match socket.send_file(file, &mut offset, left) {
                Ok(0) => return Err(Broken),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let writable = self.connection.while_client_takes(socket.writable());
                    self.pinning(began, &mut found, writable).await?.map_err(|_| Broken)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Broken),
            }
        }
        Ok(())
    }

    /// Runs an operation of a read that began at `began`; when the read has lasted too long it is pinned.
    async fn pinning<F: Future>(&self, began: Instant, found: &mut Found, operation: F) -> F::Output {
        let ring = &self.connection.worker.ring;
        let mut operation = pin!(operation);
        let left = (began + PIN_AFTER).saturating_duration_since(ring.now());
        if let Ok(output) = ring.timeout(left, operation.as_mut()).await {
            return output;
        }
        found.pin();
        operation.await
    }
}

fn no_memory(reason: &impl std::fmt::Display) -> BodyError {
    tracing::warn!(%reason, "there is no memory for a reply");
    let mut problem = Problem::new(Status::SERVICE_UNAVAILABLE, "there is no memory for the reply");
    problem.retry_after_s = Some(1);
    BodyError::read(problem)
}
