//! Models of what threads share: loom tries every order of what the threads do, and every value that each load may return.
//!
//! | file | one idea |
//! | --- | --- |
//! | `clock` | no extent is reused while it is read |
//! | `generation` | readers beside the writer see whole states, and none that is older than what they saw |
//! | `names` | a name that moves from stage to stage is found in one of them |
//! | `verdicts` | what a worker saw counts for the controller only while nothing moved |
//! | `whole` | look-up, clock and reuse together |
//!
//! Real are the clock, the generations, the stages and the look-up through them, and what the controller makes of a request
//! (`PendingNames`). Modelled are the order in which the controller calls them (`Controller::publish`, `Controller::seal`), the
//! index (committed states and snapshots of them), the bytes of an extent, and the queues. Not modelled are `arc_swap`'s own
//! inside and the memory that it frees: see [`crate::sync`] for what takes its place.

mod clock;
mod generation;
mod index;
mod names;
mod verdicts;
mod whole;

use crate::extent::{Extent, SizeClass};
use crate::hash::Hash;
use crate::names::NameState;
use crate::record::Record;
use loom::cell::UnsafeCell;

/// Tries every order with at most so many preemptions, unless `LOOM_MAX_PREEMPTIONS` says otherwise.
const PREEMPTIONS_MAX: usize = 3;

fn model(run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS_MAX);
    builder.check(run);
}

fn name(number: u8) -> Hash {
    Hash::from_bytes([number; Hash::BYTES])
}

fn extent(number: u64) -> Extent {
    Extent::new(SizeClass::SMALLEST, number).unwrap()
}

/// The length tells the number too, so that a state made of two shows.
fn record(number: u64) -> Record {
    Record::new(Some(extent(number)), u32::try_from(number).unwrap()).unwrap()
}

fn occupied(number: u64) -> NameState {
    NameState::Occupied(record(number))
}

/// What lies in an extent. Loom reports a write that some read does not come wholly before, or after.
struct Bytes(UnsafeCell<u64>);

impl Bytes {
    fn new(content: u64) -> Bytes {
        Bytes(UnsafeCell::new(content))
    }

    fn read(&self) -> u64 {
        // SAFETY: loom checks that nobody writes.
        self.0.with(|bytes| unsafe { *bytes })
    }

    fn write(&self, content: u64) {
        // SAFETY: loom checks that nobody else reads or writes.
        self.0.with_mut(|bytes| unsafe { *bytes = content });
    }
}
