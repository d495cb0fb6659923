//! Receiving the body of a block: straight into the buffer that is written, hashed as it arrives.
//!
//! A buffer is taken only when bytes have arrived, a client that is too slow on the whole is given up, and while others wait for
//! memory a body that does not move keeps room for what has arrived of it: whoever holds a buffer is using it.

use crate::chunked::ChunkedDecoder;
use crate::connection::Connection;
use crate::holders::Room;
use crate::limits::CHUNKED_BYTES_FIRST;
use crate::pace::Pace;
use crate::reply::CONTINUE;
use crate::request::{BodyFraming, Head, too_large};
use crate::request_error::RequestError;
use crate::status::{Problem, Status};
use crate::upload_memory::{Claim, take_buffer};
use buddy_ring::{Buffer, Elapsed, is_interruption};
use buddy_store::{BLOCK_BYTES_MAX, Hash, Hasher};

/// A chunked body arrives through a buffer of this size.
const CHUNKED_RECEIVE_BYTES: usize = 16 * 1024;

/// A block as it was received.
pub(crate) struct Body {
    /// Its bytes, from the start of a buffer that has room for whole pages.
    pub(crate) buffer: Buffer,
    pub(crate) length: u32,
    pub(crate) hash: Hash,
}

/// The length of a body that is to be a block, where its head says it.
pub(crate) fn length(head: &Head) -> Result<Option<u32>, RequestError> {
    match head.body {
        BodyFraming::None => Err(RequestError::before_body(Problem::fatal(
            Status::LENGTH_REQUIRED,
            "a block needs Content-Length or Transfer-Encoding: chunked",
        ))),
        BodyFraming::Length(length) => match u32::try_from(length) {
            Ok(length) if length <= BLOCK_BYTES_MAX => Ok(Some(length)),
            _ => Err(RequestError::before_body(too_large(&format!("{length} bytes")))),
        },
        BodyFraming::Chunked => Ok(None),
    }
}

/// Receives the body of a request that stores a block, of the length that [`length`] has found.
pub(crate) async fn receive(
    connection: &mut Connection,
    head: &Head,
    length: Option<u32>,
) -> Result<Body, RequestError> {
    let body = match length {
        Some(length) => receive_sized(connection, head, length).await,
        None => receive_chunked(connection, head).await,
    };
    // What follows is the next request's: it must not hold a buffer that others need while this one is stored.
    connection.input.release_buffer();
    body
}

/// Waits for the first byte of a body, after telling a client that waits for it to go on.
pub(crate) async fn begin(connection: &mut Connection, head: &Head) -> Result<(), RequestError> {
    if !connection.input.unused().is_empty() {
        return Ok(());
    }
    if head.expects_continue {
        connection.send(CONTINUE.to_vec(), 0..CONTINUE.len(), false).await?;
    }
    connection.deadline.set(connection.worker.limits.body_timeout);
    match connection.deadline.limit(connection.stream.readable()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(RequestError::Broken),
        Err(Elapsed) => Err(too_slow(connection, 0)),
    }
}

async fn receive_sized(connection: &mut Connection, head: &Head, length: u32) -> Result<Body, RequestError> {
    let bytes = length as usize;
    if length > 0 {
        begin(connection, head).await?;
    }
    let mut buffer = take_buffer(connection, bytes).await?;
    let mut pace = Pace::of_body(&connection.worker, length as usize);
    let mut hasher = Hasher::new();
    // What arrived with the head is copied; the rest is received in place.
    let unused = connection.input.unused();
    let mut filled = unused.len().min(bytes);
    if let (Some(target), Some(source)) = (buffer.get_mut(..filled), unused.get(..filled)) {
        target.copy_from_slice(source);
    }
    connection.input.use_up(filled);
    // Of a large body that is little: it is hashed with what comes next, and the receive waits for nothing.
    let mut hashed = 0;
    let claim = Claim::new(connection, Room::Elastic, &buffer);
    claim.moved(filled);
    while filled < bytes {
        claim.give_way(&mut buffer, filled)?;
        if filled == buffer.len() {
            claim.grow(connection, &mut pace, &mut buffer, filled + 1, bytes).await?;
        }
        let room = bytes.min(buffer.len());
        let receiving = connection.stream.receive(buffer, filled..room);
        let Ok((received, returned)) = pace.limit(&connection.deadline, receiving).await else {
            return Err(too_slow(connection, filled));
        };
        buffer = returned;
        match received {
            Ok(received) if received > 0 => {
                filled += received;
                // Before it waits for its hash, which is not the client's doing.
                claim.moved(filled);
                let hashing = connection.worker.session.hash_queue().update(hasher, buffer, hashed..filled);
                (hasher, buffer) = hashing.await;
                hashed = filled;
            }
            Err(error) if is_interruption(&error) => {}
            // The client is gone in the middle of its block.
            _ => return Err(RequestError::Broken),
        }
    }
    // All of it came with the head.
    if hashed < filled {
        (hasher, buffer) = connection.worker.session.hash_queue().update(hasher, buffer, hashed..filled).await;
    }
    Ok(Body { buffer, length, hash: hasher.finish() })
}

async fn receive_chunked(connection: &mut Connection, head: &Head) -> Result<Body, RequestError> {
    begin(connection, head).await?;
    let buffer = take_buffer(connection, CHUNKED_BYTES_FIRST).await?;
    let mut block = ChunkedBlock {
        claim: Claim::new(connection, Room::Elastic, &buffer),
        buffer,
        decoder: ChunkedDecoder::default(),
        hasher: Hasher::new(),
        filled: 0,
        pace: Pace::of_body(&connection.worker, BLOCK_BYTES_MAX as usize),
    };
    let arrived = connection.input.unused().to_vec();
    connection.input.use_up(arrived.len());
    let used = block.take(connection, &arrived).await?;
    connection.input.append(arrived.get(used..).unwrap_or_default());
    let mut received = Vec::new();
    while !block.decoder.is_done() {
        block.claim.moved(block.filled);
        block.claim.give_way(&mut block.buffer, block.filled)?;
        received.resize(CHUNKED_RECEIVE_BYTES, 0);
        let receiving = connection.stream.receive(received, 0..CHUNKED_RECEIVE_BYTES);
        let Ok((result, returned)) = block.pace.limit(&connection.deadline, receiving).await else {
            return Err(too_slow(connection, block.filled));
        };
        received = returned;
        let count = match result {
            Ok(count) if count > 0 => count,
            Err(error) if is_interruption(&error) => continue,
            _ => return Err(RequestError::Broken),
        };
        let arrived = received.get(..count).unwrap_or_default();
        let used = block.take(connection, arrived).await?;
        // What follows the body is the next request's.
        connection.input.append(arrived.get(used..).unwrap_or_default());
    }
    let length = u32::try_from(block.filled).unwrap_or(u32::MAX);
    Ok(Body { buffer: block.buffer, length, hash: block.hasher.finish() })
}

/// A block that arrives in chunks.
struct ChunkedBlock {
    claim: Claim,
    buffer: Buffer,
    decoder: ChunkedDecoder,
    hasher: Hasher,
    filled: usize,
    pace: Pace,
}

impl ChunkedBlock {
    /// Takes in received bytes up to the end of the body; returns how many.
    async fn take(&mut self, connection: &mut Connection, bytes: &[u8]) -> Result<usize, RequestError> {
        let mut used = 0;
        while used < bytes.len() && !self.decoder.is_done() {
            let rest = bytes.get(used..).unwrap_or_default();
            let (taken, data) = self
                .decoder
                .decode(rest)
                .map_err(|error| RequestError::before_body(Problem::fatal(Status::BAD_REQUEST, error.to_string())))?;
            let data = rest.get(data).unwrap_or_default();
            let end = self.filled + data.len();
            if end > BLOCK_BYTES_MAX as usize {
                return Err(RequestError::before_body(too_large("more bytes, in chunks,")));
            }
            if end > self.buffer.len() {
                let (pace, buffer) = (&mut self.pace, &mut self.buffer);
                self.claim.grow(connection, pace, buffer, end, BLOCK_BYTES_MAX as usize).await?;
            }
            if let Some(target) = self.buffer.get_mut(self.filled..end) {
                target.copy_from_slice(data);
            }
            self.hasher.update(data);
            self.filled = end;
            used += taken;
        }
        Ok(used)
    }
}

pub(crate) fn too_slow(connection: &Connection, received: usize) -> RequestError {
    let limits = &connection.worker.limits;
    let (seconds, rate) = (limits.body_timeout.as_secs_f32(), limits.bytes_per_second_min);
    RequestError::before_body(Problem::fatal(
        Status::REQUEST_TIMEOUT,
        format!(
            "the body was given up after {received} bytes: nothing more arrived for {seconds} s, or on the whole less than \
             {rate} bytes a second"
        ),
    ))
}
