//! Messages for the operator, on standard error. A thread of its own writes them: whoever has something to say never waits for a pipe
//! that nobody reads.

use crate::Failure;
use crate::options::LogFormat;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Messages that wait to be written; where there are more, the newest are lost.
const WAITING_MAX: usize = 512;

const FINISH_MAX: Duration = Duration::from_secs(1);

/// The writing thread, once there is one.
static WRITER: Mutex<Option<WorkerGuard>> = Mutex::new(None);

/// Has what waits written before the process ends, as far as that takes no longer than [`FINISH_MAX`].
pub(crate) fn finish() {
    let Some(writer) = WRITER.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    let (finished, is_finished) = mpsc::channel();
    // Where nobody reads, letting go of it may take for ever: it has something to say of that, on standard output.
    let letting_go = std::thread::Builder::new().name("log-end".to_owned()).spawn(move || {
        drop(writer);
        let _ = finished.send(());
    });
    if letting_go.is_ok() {
        let _ = is_finished.recv_timeout(FINISH_MAX);
    }
}

/// Begins to log messages of `level` and above.
pub(crate) fn start(level: &str, format: LogFormat) -> Result<(), Failure> {
    let level: tracing::Level = level
        .parse()
        .map_err(|_| Failure::new(format!("log-level is \"{level}\": it must be error, warn, info, debug or trace")))?;
    let filter = EnvFilter::default().add_directive(level.into());
    let writer = NonBlockingBuilder::default().buffered_lines_limit(WAITING_MAX).thread_name("log");
    let (writer, guard) = writer.finish(std::io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_target(false)
        // It would be said on the very stream that cannot be written, and end the process.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    *WRITER.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard);
    started.map_err(Failure::from_display)
}
