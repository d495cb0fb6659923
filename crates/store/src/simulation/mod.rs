//! The whole store on a simulated disk, on one thread, in virtual time: every run with a seed is the same run.
//!
//! | file | one idea |
//! | --- | --- |
//! | `disk` | a disk with a volatile cache, power cuts and faults |
//! | `memory_index` | an index with libmdbx's commit semantics |
//! | `world` | controller, sessions and checkpointer on one ring |
//! | `oracle` | what must be true of each name |
//! | `workload` | clients, and boots that end in order, by a kill, or by a power cut |
//! | `properties` | random steps against a set of keys |
//! | `tests` | histories of orderly stops, kills and power cuts |
//! | `enumeration` | walks over all names |
//! | `faults` | disks that fail and fill up |
//! | `waiting` | what waits for a checkpoint, and what does not |
//! | `large_writes` | large blocks that are ready at once |
//! | `cold_reads` | blocks that only the disk has and that are asked for together |
//! | `long_frames` | frames of several pages, where the journal ends and begins again |
//! | `announced_writes` | names that go ahead of their bytes |
//! | `checks` | what a check reports, however it goes about it |
//! | `damage` | bytes that change behind the store's back |
//! | `forged_frames` | whole frames that this program would not have written |
//! | `damaged_rows` | single rows of the index that are damaged |
//! | `damaged_totals` | counts in the index that are wrong |
//! | `unreadable` | pages of the journal and blocks that cannot be read |
//! | `scrubbing` | the scrub beside others, and over blocks that are gone or cannot be read |
//! | `failing_index` | an index that cannot be written, for other reasons than space |
//! | `steps` | what tests of those have in common |
#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod announced_writes;
mod checks;
mod cold_reads;
mod damage;
mod damaged_rows;
mod damaged_totals;
mod disk;
mod enumeration;
mod failing_flushes;
mod failing_index;
mod faults;
mod forged_frames;
mod large_writes;
mod long_frames;
mod memory_index;
mod new_space;
mod oracle;
mod properties;
mod scrubbing;
mod steps;
mod tests;
mod unreadable;
mod waiting;
mod workload;
mod world;
