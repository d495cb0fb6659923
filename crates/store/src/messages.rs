//! What workers and controller say to each other, over two bounded queues a worker.
//!
//! Every request is answered by exactly one reply with its number; `Written` and `Detach` are no requests but notices. A worker has
//! at most as many requests outstanding as its reply queue has room for, beside one slot a size class for `Recall`, so a reply
//! always fits, a request always fits, and the two queues cannot wait for each other.

use crate::extent::{Extent, ExtentRun, SIZE_CLASSES, SizeClass};
use crate::hash::Hash;
use crate::record::Record;

/// Number of a request, unique among those that its worker has outstanding.
pub type RequestId = u32;

/// Number of a write that was announced, unique for its worker.
pub type WriteNumber = u64;

/// From a worker to the controller.
#[derive(Debug)]
pub enum Request {
    /// Blank extents for the worker's pool.
    Allocate {
        /// To be repeated in the reply.
        id: RequestId,
        /// Their size class.
        class: SizeClass,
        /// How many are wanted; fewer may be given.
        count: u32,
        /// They are of the largest class, for blocks that fill them: these may be the first to write there.
        whole: bool,
    },
    /// The bytes are written, or being written: bind the name to them.
    Occupy {
        /// To be repeated in the reply.
        id: RequestId,
        /// The name.
        hash: Hash,
        /// Where the bytes are.
        record: Record,
        /// [`crate::names::Stages::dropped`] of the view in which the worker found the name absent.
        seen: u64,
        /// Set while the bytes are on their way: the number with which `Written` will report them.
        write: Option<WriteNumber>,
    },
    /// What became of the write of an `Occupy` that came ahead of its bytes.
    Written {
        /// The number that was announced.
        write: WriteNumber,
        /// Why the bytes are not there, if so.
        failure: Option<WriteFailure>,
    },
    /// Remove the name; its extent is free once nobody can read it.
    Release {
        /// To be repeated in the reply.
        id: RequestId,
        /// The name.
        hash: Hash,
        /// Where the worker found the block.
        record: Record,
        /// [`crate::names::Stages::dropped`] of the view in which the worker found it.
        seen: u64,
    },
    /// Look a name up for a worker that does not look itself. The worker has published its clock before.
    Locate {
        /// To be repeated in the reply.
        id: RequestId,
        /// The name.
        hash: Hash,
    },
    /// Blank extents that the worker does not need.
    Return {
        /// To be repeated in the reply.
        id: RequestId,
        /// The extents.
        runs: Vec<ExtentRun>,
        /// Set where this answers a `Recall`.
        recalled: bool,
    },
    /// An extent whose write failed: it is kept out of use until the store is opened again.
    Suspect {
        /// To be repeated in the reply.
        id: RequestId,
        /// The extent.
        extent: Extent,
    },
    /// The bytes of a block are not its own any more: its name is removed, its extent taken out of service.
    Quarantine {
        /// To be repeated in the reply.
        id: RequestId,
        /// The name.
        hash: Hash,
        /// Where the damaged bytes are.
        record: Record,
        /// [`crate::names::Stages::dropped`] of the view in which the worker found it.
        seen: u64,
    },
    /// The worker has returned everything and sends nothing more.
    Detach,
}

/// From the controller to a worker.
#[derive(Debug)]
pub enum Reply {
    /// To `Allocate`: at least one extent.
    Allocated {
        /// The request's number.
        id: RequestId,
        /// The extents, now the worker's.
        runs: Vec<ExtentRun>,
    },
    /// To `Occupy`: the name leads to these bytes, durably as configured.
    Occupied {
        /// The request's number.
        id: RequestId,
        /// False where the name existed: the worker keeps its extent.
        created: bool,
    },
    /// To `Release`: the name leads nowhere, durably as configured.
    Released {
        /// The request's number.
        id: RequestId,
        /// False where it led nowhere before.
        existed: bool,
    },
    /// To `Locate`.
    Located {
        /// The request's number.
        id: RequestId,
        /// Where the block lies, if there is one.
        record: Option<Record>,
        /// [`crate::names::Stages::dropped`] of the view that says so.
        seen: u64,
    },
    /// To `Return`, `Suspect` and `Quarantine`; to an `Occupy` whose write failed: the controller sees to the extent.
    Taken {
        /// The request's number.
        id: RequestId,
    },
    /// To `Occupy` and `Release`: what the worker saw is out of date, look again.
    Retry {
        /// The request's number.
        id: RequestId,
    },
    /// To any request: it was not carried out. The others of its batch are not harmed.
    Failed {
        /// The request's number.
        id: RequestId,
        /// Why.
        refusal: Refusal,
    },
    /// Not a reply: space is short, return every blank extent of this class (with `Return`, even if there is none).
    Recall {
        /// The class.
        class: SizeClass,
    },
}

impl Reply {
    /// The number of the request that this answers; `None` for `Recall`.
    #[must_use]
    pub fn id(&self) -> Option<RequestId> {
        match self {
            Reply::Allocated { id, .. }
            | Reply::Occupied { id, .. }
            | Reply::Released { id, .. }
            | Reply::Located { id, .. }
            | Reply::Taken { id }
            | Reply::Retry { id }
            | Reply::Failed { id, .. } => Some(*id),
            Reply::Recall { .. } => None,
        }
    }
}

/// What is to become of an extent whose write failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteFailure {
    /// There was no room for the bytes: nothing is wrong with the place.
    NoSpace,
    /// The system was short of something for a moment: nothing is wrong with the place.
    Shortage,
    /// The place may be bad: it is kept out of use until the store is opened again.
    Suspect,
}

/// Why a request was not carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no space: the capacity is reached or the disk is full.
    #[error("there is no space left")]
    NoSpace,
    /// A checkpoint is stuck and the journal is full.
    #[error("the store is busy: it waits for a checkpoint")]
    Busy,
    /// The store does not write any more.
    #[error("the store is read-only")]
    ReadOnly,
    /// The index could not be read.
    #[error("the index could not be read")]
    Index,
    /// What the index says of the name is damaged.
    #[error("the index is damaged")]
    DamagedIndex,
}

/// Requests that answer a recall need no slot of the worker's limit: they have their own.
pub(crate) const RECALL_SLOTS: usize = SIZE_CLASSES;

/// Room in the queue of requests of a worker that may have `requests_max` outstanding: for each of them, the `Written` of the
/// request that had its number before, which the controller may have answered without it, itself and its own `Written`; one more for
/// `Detach`.
pub(crate) fn request_queue_length(requests_max: usize) -> usize {
    3 * requests_max + RECALL_SLOTS + 1
}

/// Room in the queue of replies: those, and the recalls. A worker answers recalls before the places of the replies that it has taken are free
/// again: the replies to these answers may find those of the recalls before there still.
pub(crate) fn reply_queue_length(requests_max: usize) -> usize {
    requests_max + RECALL_SLOTS + RECALL_SLOTS + RECALL_SLOTS
}
