//! Why a request does not go on, and whether anything of it is left to be read then.

use crate::connection::Broken;
use crate::status::Problem;

/// Why a request does not go on.
pub(crate) enum RequestError {
    /// Its connection is of no more use.
    Broken,
    /// It is refused.
    Refused {
        problem: Problem,
        /// Nothing of it is left to be read.
        body_read: bool,
    },
}

impl From<Broken> for RequestError {
    fn from(_: Broken) -> RequestError {
        RequestError::Broken
    }
}

impl RequestError {
    /// Refuses a request whose body, if it has one, was not read, or not to its end.
    pub(crate) fn before_body(problem: Problem) -> RequestError {
        RequestError::Refused { problem, body_read: false }
    }

    /// Refuses a request that was read to its end, as one without a body is.
    pub(crate) fn after_body(problem: Problem) -> RequestError {
        RequestError::Refused { problem, body_read: true }
    }
}
