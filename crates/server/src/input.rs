//! Received bytes that were not used yet. A connection that waits for a request holds no buffer.
//!
//! Bytes arrive in buffers that the kernel picked. A head that is not complete in one is moved to memory of the connection's own,
//! so that a client that sends slowly holds its own few bytes and not a buffer that others need.

use crate::stream::{Received, Stream};
use buddy_ring::ReceiveBuffers;
use std::io;

/// Received bytes, in one of two places.
#[derive(Default)]
pub(crate) struct Input {
    chunk: Option<Received>,
    /// Where the unused bytes of the chunk begin.
    chunk_at: usize,
    /// Bytes moved out of chunks; not empty: the chunk is gone.
    spilled: Vec<u8>,
    spilled_at: usize,
}

impl Input {
    /// What was not used yet.
    pub(crate) fn unused(&self) -> &[u8] {
        if self.spilled.is_empty() {
            self.chunk.as_deref().and_then(|chunk| chunk.get(self.chunk_at..)).unwrap_or_default()
        } else {
            self.spilled.get(self.spilled_at..).unwrap_or_default()
        }
    }

    /// The first `count` unused bytes were used. Memory that holds nothing more is given up.
    pub(crate) fn use_up(&mut self, count: usize) {
        if self.spilled.is_empty() {
            self.chunk_at += count;
            if self.unused().is_empty() {
                self.chunk = None;
                self.chunk_at = 0;
            }
        } else {
            self.spilled_at += count;
            if self.unused().is_empty() {
                self.spilled = Vec::new();
                self.spilled_at = 0;
            }
        }
    }

    /// Moves what is unused to memory of the connection's own, for a wait that may be long.
    pub(crate) fn release_buffer(&mut self) {
        if let Some(chunk) = self.chunk.take() {
            self.spilled = chunk.get(self.chunk_at..).unwrap_or_default().to_vec();
            (self.spilled_at, self.chunk_at) = (0, 0);
        }
    }

    /// Waits for more bytes. False at the end of the stream.
    pub(crate) async fn receive(&mut self, buffers: &ReceiveBuffers, stream: &Stream) -> io::Result<bool> {
        self.release_buffer();
        let chunk = stream.receive_chunk(buffers).await?;
        if chunk.is_empty() {
            return Ok(false);
        }
        if self.unused().is_empty() {
            (self.spilled, self.spilled_at) = (Vec::new(), 0);
            (self.chunk, self.chunk_at) = (Some(chunk), 0);
        } else {
            self.spilled.drain(..std::mem::take(&mut self.spilled_at));
            self.spilled.extend_from_slice(&chunk);
        }
        Ok(true)
    }

    /// Adds bytes that were received elsewhere behind those that are unused.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.release_buffer();
            self.spilled.extend_from_slice(bytes);
        }
    }

    /// Passes over empty lines before a request (RFC 9112 section 2.2).
    pub(crate) fn skip_empty_lines(&mut self) {
        while self.unused().starts_with(b"\r\n") {
            self.use_up(2);
        }
    }
}
