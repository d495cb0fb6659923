//! Extents taken out of service, because what was read from them was not what was written, or nothing could be read when the store was
//! opened. They are never used again.

use crate::extent::Extent;
use crate::hash::Hash;
use std::time::SystemTime;

/// An extent whose bytes do not hash to the name that led to them, or could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quarantined {
    /// The extent.
    pub extent: Extent,
    /// The name that led to it.
    pub hash: Hash,
    /// When that was found, in seconds since 1970.
    pub since_s: u64,
}

impl Quarantined {
    /// Found now.
    pub(crate) fn now(extent: Extent, hash: Hash) -> Quarantined {
        let since_s = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_secs());
        Quarantined { extent, hash, since_s }
    }
}
