//! The index: names to places, and which pages are occupied, as of the last checkpoint.
//!
//! This is a seam, as narrow as it can be: libmdbx stands behind it ([`MdbxIndex`]), and a model with the same commit semantics in
//! simulations. What crosses it is typed and validated here, since libmdbx stores whatever bytes it is given.
//!
//! | file | one idea |
//! | --- | --- |
//! | `mdbx_index` | the index in a file of libmdbx: changes to it, and space ahead of them |
//! | `mdbx_reader` | looking names up in it, on one thread |
//! | `codec` | rows, byte by byte |
//! | `checksum` | each row has one of its own |
//! | `totals` | how much is stored |
//! | `creation` | the file comes into being as a whole or not at all |
//! | `locks` | the file beside it in which libmdbx keeps its locks |
//! | `meta_pages` | what the file says of itself before libmdbx opens it |
//! | `environment` | libmdbx behind safe types: the file |
//! | `transaction` | libmdbx behind safe types: reading and changing |
//! | `damaged_pages` | tests: what damage of the open file costs |
//! | `kept_snapshot` | the index as it was before a change that cannot be written |

mod checksum;
mod codec;
mod creation;
#[cfg(test)]
mod damaged_pages;
mod environment;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod kept_snapshot;
mod locks;
mod mdbx_index;
mod mdbx_reader;
mod meta_pages;
mod totals;
mod transaction;

pub use mdbx_index::MdbxIndex;
pub use mdbx_reader::MdbxReader;
pub(crate) use meta_pages::is_too_short;
pub use totals::{ClassTotals, Totals};

use crate::format::{FORMAT_VERSION, StoreId};
use crate::hash::Hash;
use crate::page_map::PageMap;
use crate::quarantine::Quarantined;
use crate::record::Record;

/// A name and where it leads, or what is wrong with the row that says so.
pub type BlockRow = Result<(Hash, Record), IndexError>;

/// Damaged rows that are passed over at a time: several leaves full of them.
pub const DAMAGED_ROWS_MAX: usize = 1000;

/// Why the index could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IndexError {
    /// It was written by another version of this program.
    #[error("the store has format version {found}; this program reads and writes version {FORMAT_VERSION} only")]
    Version {
        /// The version that was found.
        found: u64,
    },
    /// It holds something that this program never writes.
    #[error("the index is damaged: {0}")]
    Damaged(String),
    /// It has reached its largest size, or the disk is full: a change may succeed later, and nothing of it has happened.
    #[error("the index has no space: {0}")]
    Full(String),
    /// The system was short of memory, or of something else that it may have a moment later: as [`IndexError::Full`].
    #[error("the index could not be changed for now: {0}")]
    Shortage(String),
    /// The files could not be opened, read or written.
    #[error("the index cannot be {action}: {reason}")]
    System {
        /// What was attempted, as a participle.
        action: &'static str,
        /// What libmdbx said.
        reason: String,
    },
}

impl IndexError {
    /// True where nothing of the change has happened, and it may succeed later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, IndexError::Full(_) | IndexError::Shortage(_))
    }
}

/// What a checkpoint remembers beside names and pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meta {
    /// Which store this is.
    pub store_id: StoreId,
    /// Raised at every opening; frames of other epochs are not alive.
    pub epoch: u64,
    /// The last sequence number of the journal that the index contains.
    pub sequence: u64,
    /// Bytes of the journal.
    pub journal_bytes: u64,
    /// Where in the journal the next frame lies (or at 0).
    pub journal_offset: u64,
    /// CRC of the frame before it, to which the next must chain.
    pub journal_crc: u32,
    /// Set by an orderly stop: no frame follows.
    pub clean: bool,
    /// What is stored.
    pub totals: Totals,
}

/// How large an index is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IndexSizes {
    /// Bytes of its file, allocated ahead of need.
    pub file_bytes: u64,
    /// Bytes of it that were ever used.
    pub used_bytes: u64,
}

/// The index of one store. Handles are cheap to clone; one thread at a time writes.
pub trait Index: Clone + Send + 'static {
    /// Looks names up on one thread.
    type Reader: IndexReader;
    /// A change that becomes visible and durable as a whole, or not at all.
    type Transaction<'a>: IndexTransaction;

    /// A reader for one thread.
    ///
    /// # Errors
    ///
    /// [`IndexError`]
    fn reader(&self) -> Result<Self::Reader, IndexError>;

    /// Begins a change. Waits for the one that is under way, if any.
    ///
    /// # Errors
    ///
    /// [`IndexError`]
    fn begin(&self) -> Result<Self::Transaction<'_>, IndexError>;

    /// Makes sure that two changes of up to `names` names each, and then any number that only remove names, find their space
    /// allocated on the disk.
    ///
    /// # Errors
    ///
    /// [`IndexError::Full`] where the disk, or the largest size that the index may have, does not have it.
    fn reserve(&self, names: u64) -> Result<(), IndexError>;

    /// Has what a change of `names` names touches read from the disk at once, where that takes less time than one page after the other.
    fn warm_up(&self, names: u64);

    /// How large it is.
    fn sizes(&self) -> IndexSizes;
}

/// A view of the index that looks names up. It holds a snapshot only between the first look-up and [`IndexReader::rest`].
pub trait IndexReader: Send + 'static {
    /// The record of a name, in a snapshot at least as new as the call in which `generation` was first passed: look-ups with
    /// the same number may share a snapshot, another number takes a new one.
    ///
    /// # Errors
    ///
    /// [`IndexError`]
    fn block(&mut self, hash: &Hash, generation: u64) -> Result<Option<Record>, IndexError>;

    /// Gives the snapshot up. A snapshot that is kept makes the file grow.
    fn rest(&mut self);

    /// What the last checkpoint remembered; `None` in an index that was never written.
    ///
    /// # Errors
    ///
    /// [`IndexError`]
    fn meta(&mut self) -> Result<Option<Meta>, IndexError>;

    /// How many names there are.
    ///
    /// # Errors
    ///
    /// [`IndexError`]
    fn block_count(&mut self) -> Result<u64, IndexError>;

    /// Calls `each` with every macroblock that has occupied pages, in ascending order, and its map, or what is wrong with the row.
    ///
    /// # Errors
    ///
    /// [`IndexError`]
    fn page_maps(&mut self, each: &mut dyn FnMut(Result<(u64, PageMap), IndexError>)) -> Result<(), IndexError>;

    /// Calls `each` with every extent that was taken out of service, or what is wrong with the row.
    ///
    /// # Errors
    ///
    /// [`IndexError`]
    fn quarantined(&mut self, each: &mut dyn FnMut(Result<Quarantined, IndexError>)) -> Result<(), IndexError>;

    /// The next rows in ascending order, behind `after` if there is one, up to the `count`th whole one: fewer are the last. Damaged ones come
    /// where they lie; what their names say may be wrong, too, so the next call goes on behind a whole one. In a snapshot as
    /// [`IndexReader::block`] has it.
    ///
    /// # Errors
    ///
    /// [`IndexError`]; also where more than [`DAMAGED_ROWS_MAX`] damaged rows come without an end.
    fn blocks_after(
        &mut self,
        after: Option<&Hash>,
        count: usize,
        generation: u64,
    ) -> Result<Vec<BlockRow>, IndexError>;

    /// Calls `each` with every name, in ascending order, and its record, or what is wrong with the row. Ends when `each` says false.
    ///
    /// # Errors
    ///
    /// [`IndexError`]
    fn blocks(&mut self, each: &mut dyn FnMut(BlockRow) -> bool) -> Result<(), IndexError>;
}

/// A change to the index under way; given up when dropped.
pub trait IndexTransaction {
    /// The record of a name.
    ///
    /// # Errors
    ///
    /// [`IndexError`]
    fn block(&self, hash: &Hash) -> Result<Option<Record>, IndexError>;

    /// Binds a name to a place, or unbinds it.
    ///
    /// # Errors
    ///
    /// [`IndexError`]
    fn set_block(&mut self, hash: &Hash, record: Option<Record>) -> Result<(), IndexError>;

    /// The pages of a macroblock that are occupied.
    ///
    /// # Errors
    ///
    /// [`IndexError`]
    fn page_map(&self, macroblock: u64) -> Result<PageMap, IndexError>;

    /// Sets the pages of a macroblock that are occupied.
    ///
    /// # Errors
    ///
    /// [`IndexError`]
    fn set_page_map(&mut self, macroblock: u64, map: PageMap) -> Result<(), IndexError>;

    /// Remembers an extent that was taken out of service.
    ///
    /// # Errors
    ///
    /// [`IndexError`]
    fn set_quarantined(&mut self, quarantined: &Quarantined) -> Result<(), IndexError>;

    /// What the last checkpoint remembered; `None` in an index that was never written.
    ///
    /// # Errors
    ///
    /// [`IndexError`]
    fn meta(&self) -> Result<Option<Meta>, IndexError>;

    /// Replaces what is remembered.
    ///
    /// # Errors
    ///
    /// [`IndexError`]
    fn set_meta(&mut self, meta: &Meta) -> Result<(), IndexError>;

    /// Makes the change visible and durable.
    ///
    /// # Errors
    ///
    /// [`IndexError`]: nothing of it has happened.
    fn commit(self) -> Result<(), IndexError>;
}
