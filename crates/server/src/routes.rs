//! What each method does with each target.

use crate::body::{self, BodyError};
use crate::connection::{Connection, GoesOn};
use crate::get;
use crate::reply;
use crate::request::{Head, Method};
use crate::stats;
use crate::status::{Problem, Status, shown};
use crate::target::Target;
use buddy_store::{Hash, Stored};

/// Answers a request, or says why it is refused.
pub(crate) async fn route(connection: &mut Connection, head: &Head) -> Result<GoesOn, BodyError> {
    match &head.target {
        Target::BadName(name) => {
            return Err(BodyError::unread(Problem::new(
                Status::BAD_REQUEST,
                format!(
                    "\"{}\" ({} characters) is not the name of a block: that is 64 hex digits",
                    shown(name),
                    name.chars().count()
                ),
            )));
        }
        Target::Unknown(path) => {
            return Err(BodyError::unread(Problem::new(
                Status::NOT_FOUND,
                format!("there is nothing at \"{}\"", shown(path)),
            )));
        }
        target if !target.offers(head.method) => return Err(BodyError::unread(method_not_allowed(target))),
        _ => {}
    }
    if !matches!(head.method, Method::Put | Method::Post) && !connection.discard_body(head).await? {
        // RFC 9110 section 9.3.1: a body here means nothing. A small one is passed over.
        let detail = "a body means nothing here, and this one is too large to be passed over";
        return Err(BodyError::unread(Problem::fatal(Status::BAD_REQUEST, detail)));
    }
    match (&head.target, head.method) {
        (Target::Blocks, Method::Post) => store(connection, head, None, Form::Post).await,
        (Target::Blocks, _) => store(connection, head, None, Form::PutAny).await,
        (Target::Block(hash), Method::Put) => store(connection, head, Some(*hash), Form::PutNamed).await,
        (Target::Block(hash), Method::Delete) => delete(connection, head, hash).await,
        (Target::Block(hash), _) => get::block(connection, head, hash).await,
        (Target::Ready, _) => ready(connection, head).await,
        (Target::Stats, _) => {
            let json = stats::json(&connection.worker);
            content(connection, head, Status::OK, "application/json", &json).await
        }
        _ => content(connection, head, Status::OK, "text/plain", b"ok\n").await,
    }
}

fn method_not_allowed(target: &Target) -> Problem {
    let allow = target.allow();
    let detail = format!("this method is not offered here, only {}", allow.unwrap_or("none"));
    Problem { allow, ..Problem::new(Status::METHOD_NOT_ALLOWED, detail) }
}

async fn content(
    connection: &Connection,
    head: &Head,
    status: Status,
    content_type: &str,
    body: &[u8],
) -> Result<GoesOn, BodyError> {
    let replied =
        connection.reply(head, |target, context| reply::content(target, context, status, content_type, body)).await?;
    Ok(replied)
}

/// The ways to store a block, which differ in what they answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `PUT /`
    PutAny,
    /// `POST /`
    Post,
    /// `PUT /{hash}`
    PutNamed,
}

async fn store(
    connection: &mut Connection,
    head: &Head,
    expected: Option<Hash>,
    form: Form,
) -> Result<GoesOn, BodyError> {
    let body = body::receive(connection, head).await?;
    if let Some(expected) = expected.filter(|expected| *expected != body.hash) {
        return Err(BodyError::read(Problem::new(
            Status::UNPROCESSABLE_CONTENT,
            format!("the body hashes to {}, not to {expected}: nothing was stored", body.hash),
        )));
    }
    let hash = body.hash;
    let stored = connection.worker.session.put(hash, body.buffer, body.length).await;
    let stored = stored.map_err(|error| BodyError::read(error.into()))?;
    let status = match (form, stored) {
        (Form::Post | Form::PutNamed, Stored::Created) => Status::CREATED,
        _ => Status::OK,
    };
    let replied = connection
        .reply(head, |target, context| reply::stored(target, context, status, &hash, form == Form::Post))
        .await?;
    Ok(replied)
}

async fn delete(connection: &Connection, head: &Head, hash: &Hash) -> Result<GoesOn, BodyError> {
    let existed = connection.worker.session.delete(hash).await.map_err(|error| BodyError::read(error.into()))?;
    if !existed {
        return Err(BodyError::read(no_block(hash)));
    }
    Ok(connection.reply(head, reply::no_content).await?)
}

/// The refusal of a name that leads nowhere.
pub(crate) fn no_block(hash: &Hash) -> Problem {
    Problem::new(Status::NOT_FOUND, format!("there is no block {hash}"))
}

async fn ready(connection: &Connection, head: &Head) -> Result<GoesOn, BodyError> {
    let worker = &connection.worker;
    let reason = match worker.session.shared().health.read_only() {
        Some(reason) => Some(format!("the store is read-only: {reason}")),
        None if worker.phase.is_draining() => Some("the server is stopping".to_owned()),
        None => None,
    };
    match reason {
        None => content(connection, head, Status::OK, "text/plain", b"ready\n").await,
        Some(reason) => {
            let mut problem = Problem::new(Status::SERVICE_UNAVAILABLE, reason);
            problem.retry_after_s = Some(60);
            Err(BodyError::read(problem))
        }
    }
}
