//! What must hold for any configuration. It panics where it does not; `fuzz/` runs it on bytes that libFuzzer invents, the test
//! here on those that are kept in `fuzz/corpus`.
// A panic is how it reports.
#![allow(clippy::expect_used)]

use crate::config::{ServeConfig, parse_file};
use crate::options::{PoolTargets, ServeOptions, parse_pool_targets};
use crate::values::{Bytes, Span};
use buddy_store::settings::JOURNAL_BYTES_MIN;
use std::path::Path;
use std::time::Duration;

/// Any text as a file, and as each kind of value.
pub fn configuration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    file(&text);
    size(&text);
    time(&text);
    pool_targets(&text);
}

/// A file is a configuration within its limits, or an error in one line.
fn file(text: &str) {
    let config = parse_file(text, Path::new("file")).and_then(|options| {
        // What no command line sets is the file's.
        ServeOptions::default().or(options).into_config()
    });
    match config {
        Ok(config) => within_limits(&config),
        Err(failure) => assert!(!failure.to_string().contains('\n'), "{failure}"),
    }
}

fn within_limits(config: &ServeConfig) {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let (settings, limits) = (&config.settings, &config.limits);
    assert!((1..=1024).contains(&settings.workers));
    assert!((64..=16 << 20).contains(&settings.checkpoint_names));
    assert!(settings.capacity_bytes.is_none_or(|capacity| capacity >= 1 << 20));
    assert!(settings.journal_bytes.is_none_or(|bytes| (JOURNAL_BYTES_MIN..=1 << 40).contains(&bytes)));
    assert!((1..=1 << 20).contains(&limits.connections_max));
    assert!((2 << 20..=1 << 40).contains(&limits.buffer_bytes_max));
    assert!((1..=32_768).contains(&limits.receive_buffers));
    let times = [
        settings.sync_interval,
        limits.head_timeout,
        limits.body_timeout,
        limits.send_timeout,
        limits.idle_timeout,
        limits.drain_timeout,
    ];
    assert!(times.iter().all(|time| (Duration::from_millis(1)..=DAY).contains(time)), "{times:?}");
}

/// A size in digits is exactly that, and none is cut down to what fits.
fn size(text: &str) {
    let size = text.parse::<Bytes>();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number = text.parse().ok().filter(|number| *number < u64::MAX);
        assert_eq!(size.as_ref().ok(), number.map(Bytes).as_ref(), "{text}");
    }
    if let Ok(Bytes(bytes)) = size {
        assert!(bytes < u64::MAX, "{text}");
        assert_eq!(bytes.to_string().parse(), Ok(Bytes(bytes)));
    }
}

/// A time is written as it is read.
fn time(text: &str) {
    if let Ok(Span(span)) = text.parse() {
        let written = humantime::format_duration(span).to_string();
        assert_eq!(written.parse(), Ok(Span(span)), "{text:?}, written as {written:?}");
    }
}

fn pool_targets(text: &str) {
    if let Ok(targets) = parse_pool_targets(text) {
        let written = targets.map(|target| target.to_string()).join(",");
        assert_eq!(parse_pool_targets(&written), Ok::<PoolTargets, String>(targets));
    }
}

#[cfg(test)]
#[path = "../../../fuzz/corpus.rs"]
mod corpus;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_configurations_hold() {
        corpus::replay("configuration", configuration);
    }
}
