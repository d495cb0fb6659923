//! Who may do what: rights, the tokens that carry them, and the one place where they are checked.
//!
//! Invariants: a request is checked before any of its body is read and before anything is looked up for it; a token is never kept, only
//! its SHA-256, and nothing of a request gets into the log that could be one.
//!
//! | file | one idea |
//! | --- | --- |
//! | `rights` | rights, and which one a request needs |
//! | `token` | tokens, as they are kept and as requests bring them |
//! | `known_tokens` | finding the token that a request brings |
//! | `policy` | the decision |
//! | `audit` | a line in the log for each request that is refused |

mod audit;
mod known_tokens;
mod policy;
mod rights;
mod token;

pub(crate) use audit::AuditLog;
pub use policy::{Policy, Refusal, RefusalReason};
pub use rights::{Need, Right, Rights, RightsError};
pub use token::{Credentials, Token, TokenDigest, TokenError, new_token};

use crate::connection::Connection;
use crate::request::Head;
use crate::status::Problem;
use arc_swap::ArcSwap;

/// The policy that is in force: read by all workers without a lock, replaced as a whole.
pub struct Access {
    policy: ArcSwap<Policy>,
}

impl Access {
    /// Begins with a policy.
    #[must_use]
    pub fn new(policy: Policy) -> Access {
        Access { policy: ArcSwap::from_pointee(policy) }
    }

    /// Puts another policy in its place, for every request whose head is judged from now on.
    pub fn replace(&self, policy: Policy) {
        self.policy.store(std::sync::Arc::new(policy));
    }

    /// Whether blocks are for those only who bring a token.
    pub(crate) fn keeps_blocks_private(&self) -> bool {
        self.policy.load().keeps_blocks_private()
    }

    fn check(&self, head: &Head) -> Result<(), Refusal> {
        self.policy.load().check(&head.credentials, Need::of(head.method, &head.target))
    }
}

/// Checks whether a request may be answered. This is the one place where that is done.
///
/// # Errors
///
/// [`Problem`]: it may not.
pub(crate) fn check(connection: &Connection, head: &Head) -> Result<(), Problem> {
    let worker = &connection.worker;
    worker.state.access().check(head).map_err(|refusal| {
        worker.metrics.count_refusal(refusal.reason);
        worker.audit.refused(worker.ring.now(), || connection.stream.peer(), head, &refusal);
        refusal.into()
    })
}
