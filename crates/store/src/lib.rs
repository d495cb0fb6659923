//! The Buddy Blocks engine: content-addressed blocks in one data file, usable without any network.
//!
//! Blocks of up to 512 KiB lie in extents of one data file, placed by a buddy allocator; their names, the SHA-256 of
//! their bytes, lie in libmdbx; a journal makes names durable in batches. [`Store::open`] opens it all and gives each worker
//! thread an [`Attachment`], from which it starts its [`Session`].
//!
//! | module | one idea |
//! | --- | --- |
//! | [`extent`], [`allocator`], [`page_map`] | where bytes live: size classes, buddies, free space; pure |
//! | [`hash`], [`record`] | what a block is called, where it lies |
//! | [`journal`] | frames: a batch made durable with one write |
//! | [`index`] | names and occupied pages, as of the last checkpoint |
//! | [`names`] | names newer than the index, looked up without a lock |
//! | [`clock`] | when an extent may be used again |
//! | [`checkpoint`] | from names to the index |
//! | [`messages`] | what workers and controller say to each other |
//! | [`controller`] | one thread that owns names and space |
//! | [`session`] | a worker's way in: find, read, put, delete |
//! | [`recovery`] | opening whatever the last process left behind |
//! | [`check`] | does everything that is written down agree? |
//! | [`recent_reads`] | which blocks are worth a place in the page cache |
//! | `verify` | reading blocks and hashing them |
//! | [`statistics`], [`worker_statistics`], [`histogram`] | what is counted, and how |
//! | [`quarantine`] | extents taken out of service |
//! | [`files`] | the seam to the disk |
//! | [`memory`] | how much memory this process may use |
//! | [`format`](crate::format) | the version of what is on disk, and whose it is |
//! | `sync` | what threads share, from the standard library or from loom |
//! | `wiring` | controller and sessions, and the queues between them |
//! | `threads` | where controller, checkpointer and locator run |
//! | [`store`] | all of it together, on a real disk |

pub mod allocator;
pub mod check;
pub mod checkpoint;
pub mod clock;
pub mod controller;
mod crash_point;
pub mod error;
pub mod extent;
pub mod files;
pub mod format;
mod free_set;
pub mod hash;
pub mod health;
pub mod histogram;
pub mod index;
pub mod journal;
#[cfg(all(test, loom))]
mod loom_models;
pub mod memory;
pub mod messages;
pub mod names;
pub mod page_map;
pub mod quarantine;
pub mod recent_reads;
pub mod record;
pub mod recovery;
pub mod session;
pub mod settings;
pub mod shared;
#[cfg(test)]
mod simulation;
pub mod statistics;
pub mod store;
mod sync;
mod threads;
mod verify;
mod wiring;
pub mod worker_statistics;

#[cfg(test)]
#[path = "../../../fuzz/corpus.rs"]
mod fuzz_corpus;

pub use error::StoreError;
pub use extent::BLOCK_BYTES_MAX;
pub use hash::{Hash, HashQueue, Hasher};
pub use session::{DamagedRows, Found, Listed, Listing, Session, Stored};
pub use settings::Settings;
pub use store::{Attachment, OpenError, RealSession, Store, check_store};
