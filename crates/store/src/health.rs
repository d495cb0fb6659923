//! Whether the store can write. A flush that failed is never retried as if nothing had happened: what it should have made
//! durable may be gone from the cache, so the store stops writing for good and says why.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The store's state, shared by all threads.
#[derive(Default, Debug)]
pub struct Health {
    read_only: OnceLock<String>,
    /// Set while space is so short that pools should keep next to nothing.
    space_is_short: AtomicBool,
    /// Set where names may lead to bytes that are not theirs.
    data_is_distrusted: AtomicBool,
}

impl Health {
    /// Why the store does not write any more; `None` while it does.
    #[must_use]
    pub fn read_only(&self) -> Option<&str> {
        self.read_only.get().map(String::as_str)
    }

    /// Stops writing for good. The first reason stands.
    pub fn turn_read_only(&self, reason: String) {
        if self.read_only.get().is_none() {
            tracing::error!(reason, "the store turns read-only");
        }
        // Another thread's reason may have come first.
        let _ = self.read_only.set(reason);
    }

    /// True where names may lead to bytes that are not theirs, because changes were lost: every block that is read is hashed.
    #[must_use]
    pub fn data_is_distrusted(&self) -> bool {
        self.data_is_distrusted.load(Ordering::Relaxed)
    }

    pub(crate) fn distrust_data(&self) {
        self.data_is_distrusted.store(true, Ordering::Relaxed);
    }

    /// True while pools should keep next to nothing.
    #[must_use]
    pub fn space_is_short(&self) -> bool {
        self.space_is_short.load(Ordering::Relaxed)
    }

    pub(crate) fn set_space_is_short(&self, short: bool) {
        self.space_is_short.store(short, Ordering::Relaxed);
    }
}
