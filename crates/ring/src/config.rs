//! What a ring may be told when it is set up.

use std::time::Duration;

/// Longer than a message between threads takes, and about as long as the fastest disks. `docs/performance.md` has what it brings: on two
/// cores durable PUTs of 4 KiB are a fifth faster. Twice or four times as long brings no more.
pub const BUSY_POLL_DEFAULT: Duration = Duration::from_micros(50);

/// Settings of a ring.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Entries of the submission queue, rounded up to a power of two.
    pub submission_entries: u32,
    /// How long a ring with nothing to do looks again and again before it sleeps, where its waits have been short lately and nobody
    /// else needs the processor; zero: it sleeps at once.
    pub busy_poll: Duration,
}

impl Default for RingConfig {
    fn default() -> RingConfig {
        RingConfig { submission_entries: 256, busy_poll: BUSY_POLL_DEFAULT }
    }
}
