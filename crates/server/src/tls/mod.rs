//! TLS inside a worker: records are made and read in memory by rustls, and travel through the ring like everything else.
//!
//! | file | one idea |
//! | --- | --- |
//! | `settings` | reading certificate and key |
//! | `stream` | one connection |
//!
//! Blocks that are sent through TLS take the memory path.

mod settings;
mod stream;

pub(crate) use settings::load;
pub use settings::{TlsError, TlsFiles};
pub(crate) use stream::TlsStream;

#[cfg(test)]
mod tests;
