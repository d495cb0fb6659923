//! The program, tested from outside: a real server process and its clients, files, disks and signals.
//!
//! One crate, so that all of it is compiled and linked once. Tests run beside each other in one process: each has its own server,
//! directory, ports that the system chose, mounts and, where it needs one, network, and changes nothing that the process shares, such
//! as its environment, its directory or its limits.
//! `cargo test -p buddy-blocks --test suite hostile::` runs those of a file.
//!
//! | file | one idea |
//! | --- | --- |
//! | `support` | a server process, a plain client, and what several files need |
//! | `contract`, `conformance` | what HTTP clients can count on; sentence by sentence, and attacks on it |
//! | `clients`, `listeners`, `access` | real clients; TCP, Unix sockets and TLS; tokens and rights |
//! | `accepting`, `hostile`, `garbage`, `slow_bodies`, `slow_replies` | clients that are many, rude, wrong or slow, beside others |
//! | `stress` | many clients at once, every byte verified |
//! | `command_line`, `process`, `stopping`, `outlets`, `metrics`, `pressure` | what an operator meets: options, signals, logs, figures |
//! | `bench`, `bench_endings` | the load generator; where something ends |
//! | `durability`, `crash_points` | the process dies, anywhere |
//! | `file_systems`, `write_log_replay` | the power is cut |
//! | `failing_disk`, `slow_disk`, `cold_reads`, `damaged_files`, `damaged_rows` | disks that fail or take their time, the page cache, damage |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod accepting;
mod access;
mod bench;
mod bench_endings;
mod clients;
mod cold_reads;
mod command_line;
mod conformance;
mod contract;
mod crash_points;
mod damaged_files;
mod damaged_rows;
mod durability;
mod failing_disk;
mod file_systems;
mod garbage;
mod hostile;
mod listeners;
mod metrics;
mod outlets;
mod pressure;
mod process;
mod slow_bodies;
mod slow_disk;
mod slow_replies;
mod stopping;
mod stress;
mod support;
mod write_log_replay;
