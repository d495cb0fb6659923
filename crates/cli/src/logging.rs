//! Messages for the operator, on standard error.

use crate::Failure;
use crate::options::LogFormat;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Begins to log messages of `level` and above.
pub(crate) fn start(level: &str, format: LogFormat) -> Result<(), Failure> {
    let level: tracing::Level = level
        .parse()
        .map_err(|_| Failure(format!("log-level is \"{level}\": it must be error, warn, info, debug or trace")))?;
    let filter = EnvFilter::default().add_directive(level.into());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        // It would be said on the very stream that cannot be written, and end the process.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(Failure::from_display)
}
