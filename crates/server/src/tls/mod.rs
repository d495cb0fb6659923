//! TLS inside a worker: records are made and read in memory by rustls, and travel through the ring like everything else.
//!
//! | file | one idea |
//! | --- | --- |
//! | `settings` | reading certificate and key |
//! | `stream` | one connection |
//! | `record_border` | whether bytes from the wire end inside a record |
//!
//! Blocks that are sent through TLS take the memory path.

mod record_border;
mod settings;
mod stream;

pub use settings::{TlsError, TlsFiles};
pub(crate) use settings::{TlsSettings, load};
pub(crate) use stream::TlsStream;

#[cfg(test)]
mod tests;
