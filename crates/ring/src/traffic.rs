//! How many bytes went through a ring's sockets, as their operations ended.

use std::cell::Cell;
use std::io;

/// Bytes received and sent through sockets of one ring. Those of operations that nobody waited for any more are missing.
#[derive(Default, Debug)]
pub(crate) struct Traffic {
    received: Cell<u64>,
    sent: Cell<u64>,
}

impl Traffic {
    /// Bytes received.
    pub(crate) fn received(&self) -> u64 {
        self.received.get()
    }

    /// Bytes sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Counts what a receive came to.
    pub(crate) fn count_received(&self, result: &io::Result<usize>) {
        if let Ok(bytes) = result {
            self.received.set(self.received.get().wrapping_add(*bytes as u64));
        }
    }

    /// Counts what a send came to.
    pub(crate) fn count_sent(&self, result: &io::Result<usize>) {
        if let Ok(bytes) = result {
            self.sent.set(self.sent.get().wrapping_add(*bytes as u64));
        }
    }
}
