//! Storing a block that a client sends, in one of three ways.

use crate::body;
use crate::conditions::Verdict;
use crate::connection::{Connection, GoesOn};
use crate::digest;
use crate::reply;
use crate::request::Head;
use crate::request_error::RequestError;
use crate::routes::precondition_failed;
use crate::status::{Problem, Status};
use buddy_store::{Hash, Stored};

/// The ways to store a block, which differ in what they check and answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PutForm {
    /// `PUT /`
    PutAny,
    /// `POST /`
    Post,
    /// `PUT /{hash}`
    PutNamed(Hash),
}

/// Receives a block and stores it.
pub(crate) async fn block(connection: &mut Connection, head: &Head, form: PutForm) -> Result<GoesOn, RequestError> {
    if head.is_partial {
        let detail = "Content-Range: a block is stored as a whole or not at all";
        return Err(RequestError::before_body(Problem::new(Status::BAD_REQUEST, detail)));
    }
    // What is refused without its conditions is refused with them (RFC 9110 section 13.2.1).
    let length = body::length(head)?;
    if !head.conditions.are_empty() {
        refuse_unless_conditions_hold(connection, head, form).await?;
    }
    let body = body::receive(connection, head, length).await?;
    let hash = body.hash;
    refuse_unexpected(&hash, head, form)?;
    let stored = connection.worker.session.put(hash, body.buffer, body.length).await;
    let stored = stored.map_err(|error| connection.failed(error))?;
    // Somebody else may have stored it while its bytes arrived: of several that ask for it not to be there one succeeds.
    if let PutForm::PutNamed(_) = form
        && stored == Stored::Existed
        && head.conditions.judge(true, false) != Verdict::Holds
    {
        return Err(RequestError::after_body(precondition_failed(&hash)));
    }
    let status = match (form, stored) {
        (PutForm::Post | PutForm::PutNamed(_), Stored::Created) => Status::CREATED,
        _ => Status::OK,
    };
    let location = form == PutForm::Post;
    Ok(connection.reply(head, |target, context| reply::stored(target, context, status, &hash, location)).await?)
}

/// Looks at the conditions before the body is received. At `/` there is never anything that they could match.
async fn refuse_unless_conditions_hold(
    connection: &Connection,
    head: &Head,
    form: PutForm,
) -> Result<(), RequestError> {
    let exists = match form {
        PutForm::PutNamed(hash) => connection
            .worker
            .session
            .find(&hash)
            .await
            .map_err(|error| RequestError::before_body(connection.problem_of(error)))?
            .is_some(),
        PutForm::PutAny | PutForm::Post => false,
    };
    if head.conditions.judge(exists, false) == Verdict::Holds {
        return Ok(());
    }
    Err(RequestError::before_body(match form {
        PutForm::PutNamed(hash) => precondition_failed(&hash),
        PutForm::PutAny | PutForm::Post => {
            Problem::new(Status::PRECONDITION_FAILED, "If-Match: nothing is stored at /")
        }
    }))
}

/// The body must be what the client says that it is.
fn refuse_unexpected(hash: &Hash, head: &Head, form: PutForm) -> Result<(), RequestError> {
    let refused = |detail| Err(RequestError::after_body(Problem::new(Status::UNPROCESSABLE_CONTENT, detail)));
    if let PutForm::PutNamed(expected) = form
        && expected != *hash
    {
        return refused(format!("the body hashes to {hash}, not to {expected}: nothing was stored"));
    }
    match head.digest {
        Some(digest) if digest != *hash => {
            let own = digest::encode(hash);
            let own = String::from_utf8_lossy(&own);
            refused(format!("the body's digest is sha-256=:{own}:, not what Repr-Digest says: nothing was stored"))
        }
        _ => Ok(()),
    }
}
