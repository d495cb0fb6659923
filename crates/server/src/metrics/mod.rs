//! `/-/metrics`: what the server and its store do, in the text format of Prometheus.
//!
//! Each worker counts for itself, in memory of its own, with plain loads and stores: counting takes no lock, no allocation and no
//! locked instruction. Only who asks adds the numbers of all workers up.
//!
//! | file | one idea |
//! | --- | --- |
//! | `counters` | what one worker counts |
//! | `families` | a few ways to write a family of series |
//! | `server_families`, `store_families` | which there are, with names and explanations |

mod counters;
mod families;
mod server_families;
mod store_families;

pub(crate) use counters::{RequestKind, WorkerMetrics};

use crate::worker::Worker;
use families::Families;

/// The type of the reply.
pub(crate) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The body of the reply.
///
/// # Errors
///
/// The library's, where a family is not fit to be written.
pub(crate) fn text(worker: &Worker) -> Result<String, prometheus::Error> {
    let mut families = Families::default();
    server_families::add(&mut families, worker);
    store_families::add(&mut families, worker.session.shared(), worker.session.settings());
    families.text()
}
