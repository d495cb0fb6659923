//! Replies while memory for them is scarce, or pages are: a client that does not take its reply must not keep the memory that others need,
//! nor have pages that left the cache meanwhile read while the worker waits.

use super::BlockReply;
use crate::connection::{Broken, Connection};
use crate::limits::{COPIED_THROUGH_TLS, FRUGAL_BYTES_MAX, PATIENCE_WHILE_SCARCE};
use crate::pace::Pace;
use crate::request_error::RequestError;
use buddy_ring::Buffer;
use buddy_store::Found;
use std::io;
use std::ops::Range;
use std::pin::pin;

/// What is left of a reply.
struct Rest {
    part: Range<u32>,
    /// Its head was sent.
    begun: bool,
    /// The block is to be hashed.
    verify: bool,
}

impl BlockReply<'_> {
    /// Half of the memory for replies is not for clients that may be slow to read them.
    pub(super) fn must_be_frugal(&self, found: &Found) -> bool {
        self.connection.worker.reply_memory_is_scarce(found.must_read(self.block.range()).len())
    }

    /// Only what is ready to be taken has memory: a client that takes nothing for a moment loses its buffer, and gets the rest a little at
    /// a time, each read when it is ready again.
    pub(super) async fn send_frugally(&self, found: Found) -> Result<(), RequestError> {
        let (part, verify) = (self.block.range(), found.is_verified());
        drop(found);
        let (pace, bytes_max) = (Pace::of_reply(&self.connection.worker, part.len()), part.len());
        self.send_rest(Rest { part, begun: false, verify }, bytes_max, &pace).await
    }

    /// Goes on with a reply that was begun otherwise, a little at a time.
    pub(super) async fn go_on_frugally(&self, part: Range<u32>, pace: &Pace) -> Result<(), Broken> {
        let rest = Rest { part, begun: true, verify: false };
        self.send_rest(rest, FRUGAL_BYTES_MAX, pace).await.map_err(|_| Broken)
    }

    /// Reads and sends up to `bytes_max` at first, and then a little at a time.
    async fn send_rest(&self, mut rest: Rest, mut bytes_max: usize, pace: &Pace) -> Result<(), RequestError> {
        while !rest.part.is_empty() {
            let writable = pin!(self.connection.stream.writable());
            self.connection.while_client_takes(pace, writable).await?.map_err(|_| Broken)?;
            let loaded = self.load_first(&rest.part, bytes_max, rest.verify).await;
            // A reply that has begun cannot become a refusal: the client would take it for the block's bytes.
            let (buffer, range) = loaded.map_err(|error| if rest.begun { RequestError::Broken } else { error })?;
            if !rest.begun {
                rest.begun = true;
                self.send_head(true).await?;
            }
            rest.part.start += self.send_while_ready(buffer, range, pace).await?;
            bytes_max = FRUGAL_BYTES_MAX;
        }
        Ok(())
    }

    /// The first bytes of a part of the block, up to so many or all that had to be read with them, and where they lie.
    async fn load_first(
        &self,
        part: &Range<u32>,
        bytes_max: usize,
        verify: bool,
    ) -> Result<(Buffer, Range<usize>), RequestError> {
        let found = self.find_again(verify).await?;
        let first = part.start..part.end.min(part.start.saturating_add(u32::try_from(bytes_max).unwrap_or(u32::MAX)));
        let (found, reading, buffer) = self.take_buffer(found, &first, 0).await?;
        let loaded = (part.start - reading.start) as usize..(part.end.min(reading.end) - reading.start) as usize;
        let buffer = self.read(found, reading, buffer, 0).await?;
        Ok((buffer, loaded))
    }

    /// Sends for as long as the client takes bytes without a break. How many it took.
    async fn send_while_ready(&self, buffer: Buffer, range: Range<usize>, pace: &Pace) -> Result<u32, Broken> {
        let Connection { worker, stream, .. } = self.connection;
        let mut left = range.clone();
        while !left.is_empty() {
            match stream.try_send(buffer.get(left.clone()).unwrap_or_default(), false) {
                Ok(sent) => left.start += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let writable = pin!(stream.writable());
                    if worker.ring.timeout(PATIENCE_WHILE_SCARCE, writable).await.is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    // What TLS has encrypted cannot be taken back: a copy of a little is sent on when the buffer is gone.
                    let first = left.start..left.end.min(left.start + COPIED_THROUGH_TLS);
                    left.start = first.end;
                    let mut copy = worker.scratch.take();
                    copy.extend_from_slice(buffer.get(first).unwrap_or_default());
                    let length = copy.len();
                    let mut sending = pin!(self.connection.send_piece(copy, 0..length, false, pace.clone()));
                    let Ok(sent) = worker.ring.timeout(PATIENCE_WHILE_SCARCE, sending.as_mut()).await else {
                        drop(buffer);
                        worker.scratch.give(sending.await?);
                        break;
                    };
                    worker.scratch.give(sent?);
                }
                Err(_) => return Err(Broken),
            }
        }
        Ok(u32::try_from(left.start - range.start).unwrap_or(0))
    }
}
