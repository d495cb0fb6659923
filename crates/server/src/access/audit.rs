//! A line in the log for each request that is refused: who, what, with which token.
//!
//! Nothing that a client writes is repeated as it is, so no token gets into the log, wherever a client puts it, and no client writes lines
//! of its own.

use super::policy::Refusal;
use crate::log_limit::{Line, LogLimit};
use crate::peer::Peer;
use crate::request::Head;
use crate::target::Target;
use std::time::{Duration, Instant};

/// Each worker writes at most this many lines …
const LINES_MAX: u32 = 100;
/// … in this time. More are counted: who floods a server with requests must not fill its disk.
const WINDOW: Duration = Duration::from_secs(1);

/// One worker's lines about refused requests.
pub(crate) struct AuditLog(LogLimit);

impl Default for AuditLog {
    fn default() -> AuditLog {
        AuditLog(LogLimit::new(LINES_MAX, WINDOW))
    }
}

impl AuditLog {
    /// Notes a request that was refused.
    pub(crate) fn refused(&self, now: Instant, peer: impl FnOnce() -> Peer, head: &Head, refusal: &Refusal) {
        let Line::Written { left_out } = self.0.next_line(now) else { return };
        if left_out > 0 {
            tracing::warn!(requests = left_out, "more requests were refused than there are lines for");
        }
        tracing::warn!(
            peer = %peer(),
            method = head.method.name(),
            path = shown_path(&head.target),
            token = refusal.token.as_deref(),
            reason = refusal.reason.name(),
            "a request was refused"
        );
    }
}

/// The path of a request, as far as it is one that there is.
fn shown_path(target: &Target) -> String {
    let path = match target {
        Target::Block(hash) => return format!("/{hash}"),
        Target::Everything => "*",
        Target::Blocks => "/",
        Target::Missing => "/-/missing",
        Target::List(_) | Target::BadQuery(_) => "/-/blocks",
        Target::Health => "/-/health",
        Target::Ready => "/-/ready",
        Target::Stats => "/-/stats",
        Target::Metrics => "/-/metrics",
        Target::OpenApi => "/-/openapi.yaml",
        Target::BadName(_) | Target::Unknown(_) | Target::Malformed(_) => "(unknown)",
    };
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_client_makes_up_is_shown() {
        for text in
            ["/buddy_secret", "/a/buddy_secret", "buddy_secret", "/-/buddy_secret", "/-/stats?token=buddy_secret"]
        {
            let shown = shown_path(&Target::parse(text));
            assert!(!shown.contains("secret"), "{text}: {shown}");
        }
        let hash = buddy_store::Hash::of(b"x");
        assert_eq!(
            shown_path(&Target::parse(&format!("http://user:buddy_secret@host/{hash}?x=buddy_secret"))),
            format!("/{hash}")
        );
    }
}
