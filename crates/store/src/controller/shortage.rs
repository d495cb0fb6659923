//! Waiting for what the system is short of: what could not be done for want of it is done again a little later.

use super::Controller;
use crate::files::BlockFile;
use std::io;
use std::time::Duration;

/// How long after something was wanted in vain it is asked for again.
const RETRY: Duration = Duration::from_millis(100);

impl<F: BlockFile> Controller<F> {
    /// Does `attempt` until it succeeds, or fails with an error that `may_pass` does not know to be over in a moment. `what` waits meanwhile,
    /// as the log says once.
    pub(super) async fn patiently<T>(
        &self,
        what: &str,
        may_pass: impl Fn(&io::Error) -> bool,
        mut attempt: impl AsyncFnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut waits = false;
        loop {
            match attempt().await {
                Err(error) if may_pass(&error) => {
                    if !std::mem::replace(&mut waits, true) {
                        tracing::warn!(%error, "the system is short of something: {what} waits for it");
                    }
                    self.ring.sleep(RETRY).await;
                }
                outcome => return outcome,
            }
        }
    }
}
