//! What commands say: on standard output, and on standard error. Either may be closed or full, which must not end the process.

use crate::Failure;
use std::io::Write;

/// Prints `text` on standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .map_err(|error| Failure::new(format!("standard output cannot be written: {error}")))
}

/// Prints `value` as JSON on standard output.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    print(&(serde_json::to_string_pretty(value).map_err(Failure::from_display)? + "\n"))
}

/// Says `text`, in one line, on standard error. Where that cannot be there is nobody to tell.
pub(crate) fn complain(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "buddy-blocks: {text}");
}
