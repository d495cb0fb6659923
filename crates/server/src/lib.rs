//! HTTP/1.1 for Buddy Blocks: each worker a thread with its own ring, listener and session into the store.
//!
//! | module | one idea |
//! | --- | --- |
//! | [`limits`] | every limit, with its default |
//! | [`request`], [`target`] | the head of a request, judged; pure |
//! | [`chunked`] | the chunked transfer coding; pure |
//! | [`status`], `reply` | what is answered, as bytes; pure |
//! | `input` | received bytes that were not used yet |
//! | `connection` | one connection, from head to reply |
//! | `body` | receiving a block |
//! | `routes`, `get`, `stats` | what each method does with each target |
//! | `transport`, `tls` | what carries a connection |
//! | `hand_over` | passing connections to workers that have fewer |
//! | `page_cache`, `memory` | what only the system can tell or do |
//! | `phase` | starting, serving, draining |
//! | `worker` | one thread |
//! | [`server`] | all of them together |
//! | `fuzzing` | what must hold for any bytes that a client sends |

mod body;
pub mod chunked;
mod connection;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod get;
mod hand_over;
mod input;
pub mod limits;
mod memory;
mod page_cache;
mod phase;
mod reply;
pub mod request;
mod routes;
pub mod server;
mod stats;
pub mod status;
pub mod target;
mod tls;
mod transport;
mod worker;

pub use limits::HttpLimits;
pub use server::{ServeError, Server};
pub use tls::{TlsError, TlsFiles};
