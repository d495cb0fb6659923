//! Serving a block's bytes, or a range of them, in one of two ways.
//!
//! *Memory*: small pieces, and large ones that are not cached: one read (without waiting, where the bytes are cached), then head
//! and bytes in one send, or two; in many while memory is scarce (`get/frugal.rs`). *Page cache*: large pieces whose pages are cached
//! go to the socket without being copied. What is not cached gets there when it is asked for again. Only what is asked for is read,
//! except where a block is verified: that takes all of it.

mod frugal;

use crate::asker::Asker;
use crate::conditions::Verdict;
use crate::connection::{Broken, Connection, GoesOn};
use crate::limits::{COPIED_BYTES_MAX, PIN_AFTER, REPLY_HEAD_BYTES_MAX};
use crate::pace::Pace;
use crate::page_cache::PageCache;
use crate::page_sender::PageSender;
use crate::range::Selected;
use crate::reply::{self, BlockPart, Persistence};
use crate::request::{Head, Method};
use crate::request_error::RequestError;
use crate::routes::{no_block, precondition_failed};
use crate::status::{Problem, Status};
use buddy_ring::{Buffer, PAGE_BYTES};
use buddy_store::extent::Extent;
use buddy_store::{Found, Hash};
use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::pin::{Pin, pin};
use std::time::Instant;

/// Room for a reply's head before bytes that are read to the start of a page, as they must be past the page cache.
const HEAD_ROOM_BYTES: usize = PAGE_BYTES;
const _: () = assert!(REPLY_HEAD_BYTES_MAX <= HEAD_ROOM_BYTES);

/// Answers GET and HEAD of a block.
pub(crate) async fn block(connection: &Connection, head: &Head, hash: &Hash) -> Result<GoesOn, RequestError> {
    let found = find(connection, hash).await?;
    match head.conditions.judge(true, true) {
        Verdict::Holds => {}
        Verdict::NotModified => {
            drop(found);
            return Ok(connection.reply(head, |target, context| reply::not_modified(target, context, hash)).await?);
        }
        Verdict::Failed => return Err(RequestError::after_body(precondition_failed(hash))),
    }
    let block = BlockPart { hash, length: found.record().length(), part: part(head, found.record().length())? };
    let persistence = connection.persistence(head);
    let reply = BlockReply { connection, head, persistence, block };
    match found.record().extent() {
        Some(extent) if head.method == Method::Get => {
            // A small part of a block that is verified takes all of it into memory. What is rare is in a box, so that an idle connection
            // has no room for it.
            if found.must_read(block.range()).len() > COPIED_BYTES_MAX as usize {
                Box::pin(reply.send_large(found, extent)).await?;
            } else if reply.must_be_frugal(&found) {
                Box::pin(reply.send_frugally(found)).await?;
            } else {
                reply.send_small(found).await?;
            }
        }
        _ => {
            drop(found);
            reply.send_head(false).await?;
        }
    }
    Ok(persistence.into())
}

/// The part of a block that is asked for; `None`: all of it. Only GET has parts (RFC 9110 section 14.2).
fn part(head: &Head, length: u32) -> Result<Option<(u32, u32)>, RequestError> {
    let Some(range) = head.conditions.range.filter(|_| head.method == Method::Get) else { return Ok(None) };
    match range.select(length) {
        Selected::Whole => Ok(None),
        Selected::Part(part) => Ok(Some((part.start, part.end))),
        Selected::Nothing => {
            let detail = format!("the range begins behind the end of the block, which has {length} bytes");
            let problem = Problem::new(Status::RANGE_NOT_SATISFIABLE, detail);
            Err(RequestError::after_body(Problem { whole_length: Some(length), ..problem }))
        }
    }
}

async fn find(connection: &Connection, hash: &Hash) -> Result<Found, RequestError> {
    match connection.worker.session.find(hash).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(RequestError::after_body(no_block(hash))),
        Err(error) => Err(connection.failed(error)),
    }
}

/// A block, or a part of it, on its way to a client.
struct BlockReply<'a> {
    connection: &'a Connection,
    head: &'a Head,
    persistence: Persistence,
    block: BlockPart<'a>,
}

impl BlockReply<'_> {
    fn write_head(&self, target: &mut Vec<u8>) {
        self.connection.with_context(self.persistence, Asker::of(self.head), |context| {
            reply::block_head(target, context, self.block);
        });
    }

    /// `more`: the bytes follow at once.
    async fn send_head(&self, more: bool) -> Result<(), Broken> {
        let mut scratch = self.connection.worker.scratch.take();
        self.write_head(&mut scratch);
        let length = scratch.len();
        let scratch = self.connection.send(scratch, 0..length, more).await?;
        self.connection.worker.scratch.give(scratch);
        Ok(())
    }

    /// A buffer for the bytes that must be read for those of `part`, behind `room` more. Where there is none now, the block is let go
    /// before the wait, and found again after it: what waits must not hold up the reuse of extents.
    async fn take_buffer(
        &self,
        mut found: Found,
        part: &Range<u32>,
        room: usize,
    ) -> Result<(Found, Range<u32>, Buffer), RequestError> {
        let worker = &self.connection.worker;
        worker.trim_later();
        loop {
            let (reading, verify) = (found.must_read(part.clone()), found.is_verified());
            let bytes = room + reading.len();
            match worker.reply_buffers.try_take(bytes) {
                Ok(Some(buffer)) => return Ok((found, reading, buffer)),
                Ok(None) => drop(found),
                Err(error) => return Err(no_memory(self.connection, &error)),
            }
            let buffer = reply_buffer(self.connection, bytes).await?;
            found = self.find_again(verify).await?;
            // Found anew it may have to be verified, and all of it read.
            let reading = found.must_read(part.clone());
            if room + reading.len() <= buffer.len() {
                return Ok((found, reading, buffer));
            }
        }
    }

    /// Finds the block that was let go. What was to be verified still is: it was a sample, and the next ones are others.
    async fn find_again(&self, verify: bool) -> Result<Found, RequestError> {
        let mut found = find(self.connection, self.block.hash).await?;
        if verify {
            found.verify();
        }
        Ok(found)
    }

    /// Head and bytes in one buffer and one send.
    async fn send_small(&self, found: Found) -> Result<(), RequestError> {
        let mut head = self.connection.worker.scratch.take();
        self.write_head(&mut head);
        let (buffer, reply) = self.load_small(found, &head).await?;
        self.connection.worker.scratch.give(head);
        self.connection.send(buffer, reply, false).await?;
        Ok(())
    }

    /// The bytes with `head` before them, and where both lie. The block is let go as soon as its bytes are in memory.
    async fn load_small(&self, found: Found, head: &[u8]) -> Result<(Buffer, Range<usize>), RequestError> {
        let (found, reading, mut buffer) = self.take_buffer(found, &self.block.range(), HEAD_ROOM_BYTES).await?;
        let target = buffer.get_mut(HEAD_ROOM_BYTES..).unwrap_or_default();
        if self.connection.worker.session.read_cached(&found, &reading, target) {
            drop(found);
        } else {
            // In a box, so that connections that never wait for the disk have no room for it.
            buffer = Box::pin(self.read(found, reading.clone(), buffer, HEAD_ROOM_BYTES)).await?;
        }
        let part = self.block.range();
        let start = HEAD_ROOM_BYTES + (part.start - reading.start) as usize;
        // What lies before the bytes that are sent is not needed any more.
        let head_start = start.saturating_sub(head.len());
        if let Some(target) = buffer.get_mut(head_start..start) {
            target.copy_from_slice(head);
        }
        Ok((buffer, head_start..start + part.len()))
    }

    async fn read(&self, found: Found, range: Range<u32>, buffer: Buffer, at: usize) -> Result<Buffer, RequestError> {
        let (result, buffer) = self.connection.worker.session.read(found, range, buffer, at).await;
        result.map_err(|error| self.connection.failed(error))?;
        Ok(buffer)
    }

    async fn send_large(&self, found: Found, extent: Extent) -> Result<(), RequestError> {
        let part = self.block.range();
        let offset = extent.offset() + u64::from(part.start);
        if self.connection.stream.sends_files()
            && let Some(file) = self.connection.worker.session.cached_descriptor(&found)
            && self.holds_pages(file, offset..offset + part.len() as u64)
        {
            return Ok(self.send_pages(found, offset, file).await?);
        }
        if self.must_be_frugal(&found) {
            return self.send_frugally(found).await;
        }
        let (found, reading, buffer) = self.take_buffer(found, &part, 0).await?;
        let start = (part.start - reading.start) as usize;
        let buffer = self.read(found, reading, buffer, 0).await?;
        self.send_head(true).await?;
        self.connection.send(buffer, start..start + part.len(), false).await?;
        Ok(())
    }

    fn holds_pages(&self, file: BorrowedFd<'_>, range: Range<u64>) -> bool {
        let worker = &self.connection.worker;
        worker.page_cache.holds(file, self.block.hash, range, worker.ring.now())
    }

    /// Sends pages of the page cache. The read is over when the last byte is in the socket; one that lasts holds only its own
    /// extent.
    async fn send_pages(&self, mut found: Found, offset: u64, file: BorrowedFd<'_>) -> Result<(), Broken> {
        let worker = &self.connection.worker;
        let began = worker.ring.now();
        let stream = &self.connection.stream;
        let mut head = worker.scratch.take();
        self.write_head(&mut head);
        // Most often the socket takes all of the reply at once: head and pages in one go.
        let sent = stream.try_send(&head, true).unwrap_or(0);
        if sent < head.len() {
            let left = sent..head.len();
            head = self.pinning(began, &mut found, pin!(self.connection.send(head, left, true))).await?;
        }
        worker.scratch.give(head);
        let pace = Pace::of_reply(worker, self.block.range().len());
        let range = offset..offset + self.block.range().len() as u64;
        worker.trim_later();
        let mut pages = PageSender::new(&worker.pipes, file, range);
        let mut found_cached = began;
        while !pages.is_done() {
            match pages.send(stream) {
                Ok(0) => return Err(Broken),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let writable = pin!(stream.writable());
                    let writable = pin!(self.connection.while_client_takes(&pace, writable));
                    self.pinning(began, &mut found, writable).await?.map_err(|_| Broken)?;
                    if let Some(left) = pages.unheld()
                        && PageCache::is_outdated(found_cached, worker.ring.now())
                    {
                        if !self.holds_pages(file, left.clone()) {
                            drop((found, pages));
                            let part = self.last_bytes(left.end - left.start);
                            return Box::pin(self.go_on_frugally(part, &pace)).await;
                        }
                        found_cached = worker.ring.now();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Broken),
            }
        }
        Ok(())
    }

    /// The last `bytes` of what is asked for.
    fn last_bytes(&self, bytes: u64) -> Range<u32> {
        let part = self.block.range();
        part.end - u32::try_from(bytes).unwrap_or(0)..part.end
    }

    /// Runs an operation of a read that began at `began`; when the read has lasted too long it is pinned.
    async fn pinning<F: Future>(&self, began: Instant, found: &mut Found, mut operation: Pin<&mut F>) -> F::Output {
        let ring = &self.connection.worker.ring;
        let left = (began + PIN_AFTER).saturating_duration_since(ring.now());
        if let Ok(output) = ring.timeout(left, operation.as_mut()).await {
            return output;
        }
        found.pin();
        operation.await
    }
}

/// A buffer for a reply. Waits for those that other replies have.
async fn reply_buffer(connection: &Connection, bytes: usize) -> Result<Buffer, RequestError> {
    connection.deadline.set(connection.worker.limits.send_timeout);
    match connection.deadline.limit(connection.worker.reply_buffers.take(bytes)).await {
        Ok(taken) => taken.map_err(|error| no_memory(connection, &error)),
        Err(_) => Err(no_memory(connection, &"other replies take all of it")),
    }
}

fn no_memory(connection: &Connection, reason: &impl std::fmt::Display) -> RequestError {
    connection.worker.failures.no_memory(connection.worker.ring.now(), "a reply", reason);
    let mut problem = Problem::new(Status::SERVICE_UNAVAILABLE, "there is no memory for the reply");
    problem.retry_after_s = Some(1);
    RequestError::after_body(problem)
}
