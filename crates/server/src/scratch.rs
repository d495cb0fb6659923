//! Vectors for small replies, kept for the next.

use std::cell::RefCell;

/// Vectors that are kept.
const KEPT_MAX: usize = 64;
/// Larger ones are not.
const BYTES_MAX: usize = 8 * 1024;

/// Empty vectors of one worker.
#[derive(Default)]
pub(crate) struct Scratch(RefCell<Vec<Vec<u8>>>);

impl Scratch {
    /// An empty vector.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes a vector back.
    pub(crate) fn give(&self, mut scratch: Vec<u8>) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT_MAX && scratch.capacity() <= BYTES_MAX {
            scratch.clear();
            kept.push(scratch);
        }
    }
}
