//! What everything that a store writes says of itself: in which format it is, and whose.

/// The version of everything on disk: index tables and journal. See `docs/format.md`.
pub const FORMAT_VERSION: u32 = 1;

/// Identifies a store, so that a journal is never replayed into another store's index.
pub type StoreId = [u8; 16];
