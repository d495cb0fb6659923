//! HTTP/1.1 for Buddy Blocks: each worker a thread with its own ring, listener and session into the store.
//!
//! | module | one idea |
//! | --- | --- |
//! | [`limits`] | what clients are limited to, with its default |
//! | [`request`], `fields`, [`target`] | the head of a request, judged; pure |
//! | `asker` | to whom a reply goes; pure |
//! | [`conditions`], [`range`], `digest` | what a head asks for beside; pure |
//! | [`cors`] | which pages in browsers may use the server; pure |
//! | [`chunked`] | the chunked transfer coding; pure |
//! | [`status`], `reply` | what is answered, as bytes; pure |
//! | `stream`, `tls` | the bytes of a connection, to and fro |
//! | `input` | received bytes that were not used yet |
//! | `connection` | one connection, from head to reply |
//! | `next_head`, `sending` | its next head, and its replies on their way |
//! | `body`, `pieces` | receiving a block, and any other body |
//! | `upload_memory`, `holders` | memory for bodies, and who gives way to whom |
//! | `name_reader` | names in a body; pure |
//! | [`access`] | who may do what |
//! | `routes` | what each method does with each target |
//! | `request_error` | why a request does not go on |
//! | `get`, `put`, `missing`, `list`, `stats` | doing it |
//! | `lines` | long replies, a piece at a time |
//! | `pace` | how long a body or a reply may take |
//! | `peer` | who is at the other end, for logs |
//! | `peers` | how many connections each peer has |
//! | `metrics` | what is counted, and told to who watches |
//! | `accepting` | which connections are let in |
//! | `admission`, `hand_over` | passing connections to workers that have fewer |
//! | `page_cache`, `memory` | what only the system can tell or do |
//! | `page_sender` | sending pages of the page cache |
//! | `log_limit`, `failure_log` | how much of what happens often is logged; which requests failed |
//! | `phase` | starting, serving, draining |
//! | `server_state` | what all workers share |
//! | `worker` | one thread |
//! | `connections` | which connections it has, and how they end |
//! | `date`, `scratch` | what its small replies are made of |
//! | [`server`] | all of them together |
//! | `fuzzing` | what must hold for any bytes that a client sends |

mod accepting;
pub mod access;
mod admission;
mod asker;
mod body;
pub mod chunked;
pub mod conditions;
mod connection;
mod connections;
pub mod cors;
mod date;
mod digest;
mod failure_log;
pub mod fields;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod get;
mod hand_over;
mod holders;
mod input;
pub mod limits;
mod lines;
mod list;
mod log_limit;
mod memory;
mod metrics;
mod missing;
mod name_reader;
mod next_head;
mod pace;
mod page_cache;
mod page_sender;
mod peer;
mod peers;
mod phase;
mod pieces;
mod put;
pub mod range;
mod reply;
pub mod request;
mod request_error;
mod routes;
mod scratch;
mod sending;
pub mod server;
mod server_state;
mod stats;
pub mod status;
mod stream;
pub mod target;
mod tls;
mod upload_memory;
mod worker;

pub use limits::HttpLimits;
pub use page_sender::PIPE_DESCRIPTORS_MAX;
pub use server::{Listeners, Reload, ServeError, Server};
pub use tls::{TlsError, TlsFiles};
