//! The space of a circular file. Pure arithmetic.
//!
//! Positions count bytes since the store was opened and never wrap; the offset in the file is the position modulo the
//! capacity. Invariant: `tail <= head <= tail + capacity`, so what is still needed is never overwritten.

/// Where frames lie and how much room there is for the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circle {
    capacity: u64,
    /// Position behind the last frame.
    head: u64,
    /// Position of the oldest frame that is still needed.
    tail: u64,
}

impl Circle {
    /// An empty circle of `capacity` bytes whose next frame lies at `offset`.
    pub(crate) fn new(capacity: u64, offset: u64) -> Circle {
        let position = offset.checked_rem(capacity).unwrap_or(0);
        Circle { capacity, head: position, tail: position }
    }

    /// Places a frame of `length` bytes right behind the last, or at 0 where it would not fit before the end of the file.
    /// Returns its offset, or `None` where that would overwrite what is still needed.
    pub(crate) fn place(&mut self, length: u64) -> Option<u64> {
        let skipped = self.skipped(length);
        if self.used() + skipped + length > self.capacity {
            return None;
        }
        let start = self.head + skipped;
        self.head = start + length;
        Some(start % self.capacity)
    }

    /// Bytes left unused at the end of the file by a frame of `length` bytes.
    fn skipped(&self, length: u64) -> u64 {
        let offset = self.head_offset();
        if offset + length > self.capacity { self.capacity - offset } else { 0 }
    }

    /// Position behind the last frame, to be passed to [`Circle::release`] later.
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// Offset right behind the last frame, where the next lies if it fits.
    pub(crate) fn head_offset(&self) -> u64 {
        self.head % self.capacity
    }

    /// Everything before `position` is no longer needed.
    pub(crate) fn release(&mut self, position: u64) {
        self.tail = self.tail.max(position.min(self.head));
    }

    /// Bytes that are still needed.
    pub(crate) fn used(&self) -> u64 {
        self.head - self.tail
    }

    /// Bytes of the file.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn a_frame_never_wraps() {
        let mut circle = Circle::new(100, 0);
        assert_eq!(circle.place(40), Some(0));
        assert_eq!(circle.place(40), Some(40));
        assert_eq!(circle.place(40), None, "neither behind nor at 0");
        let second = 40;
        circle.release(second);
        assert_eq!(circle.place(40), Some(0));
        assert_eq!(circle.used(), 100);
        assert_eq!(circle.place(1), None);
    }

    proptest! {
        #[test]
        fn frames_still_needed_are_never_overwritten(
            start in 0..64u64,
            steps in proptest::collection::vec((1..20u64, any::<bool>()), 1..200),
        ) {
            let mut circle = Circle::new(64, start);
            // Offset, length and the position behind each frame that is still needed.
            let mut needed: VecDeque<(u64, u64, u64)> = VecDeque::new();
            for (length, release) in steps {
                if release && let Some((_, _, behind)) = needed.pop_front() {
                    circle.release(behind);
                }
                if let Some(offset) = circle.place(length) {
                    prop_assert!(offset + length <= 64);
                    for (other, other_length, _) in &needed {
                        prop_assert!(offset + length <= *other || other + other_length <= offset);
                    }
                    needed.push_back((offset, length, circle.head()));
                } else {
                    prop_assert!(!needed.is_empty() || length > 64 - circle.head_offset(), "an empty circle has room");
                }
                prop_assert!(circle.used() <= 64);
            }
        }
    }
}
