//! What must hold for any bytes that a client sends. Each function panics where it does not; `fuzz/` runs them on bytes that
//! libFuzzer invents, the tests here on those that are kept in `fuzz/corpus`.
//!
//! | file | one idea |
//! | --- | --- |
//! | `http_head` | heads of requests |
//! | `http_chunks` | chunked bodies |
// A panic is how they report.
#![allow(clippy::panic, clippy::expect_used, clippy::indexing_slicing)]

mod http_chunks;
mod http_head;

pub use http_chunks::http_chunks;
pub use http_head::http_head;

#[cfg(test)]
#[path = "../../../../fuzz/corpus.rs"]
mod corpus;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_heads_hold() {
        corpus::replay("http_head", http_head);
    }

    #[test]
    fn kept_chunks_hold() {
        corpus::replay("http_chunks", http_chunks);
    }
}
