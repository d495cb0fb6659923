//! What each method does with each target.

use crate::access;
use crate::conditions::Verdict;
use crate::connection::{Connection, GoesOn};
use crate::get;
use crate::list;
use crate::metrics;
use crate::missing;
use crate::put::{self, PutForm};
use crate::reply;
use crate::request::{Head, Method};
use crate::request_error::RequestError;
use crate::stats;
use crate::status::{Problem, Status, shown};
use crate::target::{ListQuery, Target};
use buddy_store::Hash;

/// Answers a request, or says why it is refused.
pub(crate) async fn route(connection: &mut Connection, head: &Head) -> Result<GoesOn, RequestError> {
    access::check(connection, head).map_err(RequestError::before_body)?;
    let action = Action::of(head).map_err(RequestError::before_body)?;
    let wants_body = matches!(action, Action::Store(_) | Action::Missing);
    if !wants_body {
        // RFC 9110 section 9.3.1: a body here means nothing. A small one is passed over.
        connection.discard_body(head).await?;
    }
    match action {
        Action::Store(form) => put::block(connection, head, form).await,
        Action::Read(hash) => get::block(connection, head, &hash).await,
        Action::Delete(hash) => delete(connection, head, &hash).await,
        Action::Missing => missing::answer(connection, head).await,
        Action::List(query) => list::answer(connection, head, query).await,
        Action::Describe(allow) => describe(connection, head, allow).await,
        Action::Health => content(connection, head, "text/plain", b"ok\n").await,
        Action::Ready => ready(connection, head).await,
        Action::OpenApi => content(connection, head, "application/yaml", OPENAPI).await,
        Action::Stats => {
            let json = stats::json(&connection.worker);
            content(connection, head, "application/json", json).await
        }
        Action::Metrics => {
            let text = metrics::text(&connection.worker).map_err(|error| metrics_failed(connection, &error))?;
            content(connection, head, metrics::CONTENT_TYPE, text).await
        }
    }
}

/// What a request asks for, once it is known to be offered. Whoever wants to decide who may do what decides it on this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// Store a block.
    Store(PutForm),
    /// Read a block, or ask whether it is there.
    Read(Hash),
    /// Remove a block.
    Delete(Hash),
    /// Say which of many blocks are not there.
    Missing,
    /// Say which blocks there are.
    List(ListQuery),
    /// Say which methods there are.
    Describe(&'static str),
    Health,
    Ready,
    Stats,
    Metrics,
    OpenApi,
}

/// The description of all this for programs.
const OPENAPI: &[u8] = include_bytes!("../../../docs/openapi.yaml");

impl Action {
    fn of(head: &Head) -> Result<Action, Problem> {
        let target = &head.target;
        refuse_bad_target(head.method, target)?;
        if !target.offers(head.method) {
            return Err(method_not_allowed(head.method, target));
        }
        Ok(match (target, head.method) {
            (_, Method::Options) => Action::Describe(target.allow().unwrap_or_default()),
            (Target::Blocks, Method::Post) => Action::Store(PutForm::Post),
            (Target::Blocks, _) => Action::Store(PutForm::PutAny),
            (Target::Block(hash), Method::Put) => Action::Store(PutForm::PutNamed(*hash)),
            (Target::Block(hash), Method::Delete) => Action::Delete(*hash),
            (Target::Block(hash), _) => Action::Read(*hash),
            (Target::Missing, _) => Action::Missing,
            (Target::List(query), _) => Action::List(*query),
            (Target::Ready, _) => Action::Ready,
            (Target::Stats, _) => Action::Stats,
            (Target::Metrics, _) => Action::Metrics,
            (Target::OpenApi, _) => Action::OpenApi,
            (Target::Health, _) => Action::Health,
            _ => return Err(method_not_allowed(head.method, target)),
        })
    }
}

fn metrics_failed(connection: &Connection, error: &impl std::fmt::Display) -> RequestError {
    let detail = format!("the metrics cannot be written: {error}");
    connection.worker.failures.failed(connection.worker.ring.now(), &detail);
    RequestError::after_body(Problem::new(Status::INTERNAL_SERVER_ERROR, detail))
}

/// Refuses targets at which nothing is, whatever the method, or nothing but for OPTIONS.
fn refuse_bad_target(method: Method, target: &Target) -> Result<(), Problem> {
    match target {
        // RFC 9112 section 3.2.4
        Target::Everything if method != Method::Options => {
            Err(Problem::new(Status::BAD_REQUEST, "\"*\" is a request target for OPTIONS alone"))
        }
        Target::BadName(name) => Err(Problem::new(
            Status::BAD_REQUEST,
            format!(
                "\"{}\" ({} characters) is not the name of a block: that is 64 hex digits",
                shown(name),
                name.chars().count()
            ),
        )),
        Target::Malformed(text) => {
            Err(Problem::new(Status::BAD_REQUEST, format!("\"{}\" is not a request target", shown(text))))
        }
        Target::BadQuery(reason) => Err(Problem::new(Status::BAD_REQUEST, reason.clone())),
        Target::Unknown(path) => {
            Err(Problem::new(Status::NOT_FOUND, format!("there is nothing at \"{}\"", shown(path))))
        }
        _ => Ok(()),
    }
}

fn method_not_allowed(method: Method, target: &Target) -> Problem {
    let allow = target.allow();
    let method = if method == Method::Other { "this method" } else { method.name() };
    let detail = format!("{method} is not offered here, only {}", allow.unwrap_or("none"));
    Problem { allow, ..Problem::new(Status::METHOD_NOT_ALLOWED, detail) }
}

/// Sends a small reply. What it is made from is gone before it is sent: a client that does not read must not hold both.
async fn content(
    connection: &Connection,
    head: &Head,
    content_type: &str,
    body: impl AsRef<[u8]>,
) -> Result<GoesOn, RequestError> {
    let write = move |target: &mut Vec<u8>, context: reply::ReplyContext<'_>| {
        reply::content(target, context, content_type, body.as_ref());
    };
    Ok(connection.reply(head, write).await?)
}

/// OPTIONS, and what browsers ask before they send what a page wants.
async fn describe(connection: &Connection, head: &Head, allow: &str) -> Result<GoesOn, RequestError> {
    let preflight = if head.asks_before {
        connection.worker.limits.cors.preflight_fields(head.origin.as_deref(), allow)
    } else {
        String::new()
    };
    let methods = format!("{allow}, OPTIONS");
    Ok(connection.reply(head, |target, context| reply::options(target, context, &methods, &preflight)).await?)
}

async fn delete(connection: &Connection, head: &Head, hash: &Hash) -> Result<GoesOn, RequestError> {
    let session = &connection.worker.session;
    if !head.conditions.are_empty() {
        let found = session.find(hash).await.map_err(|error| connection.failed(error))?;
        // Where it is not there the conditions do not matter: 404 (RFC 9110 section 13.2.1).
        if found.is_some() && head.conditions.judge(true, false) != Verdict::Holds {
            return Err(RequestError::after_body(precondition_failed(hash)));
        }
    }
    let existed = session.delete(hash).await.map_err(|error| connection.failed(error))?;
    if !existed {
        return Err(RequestError::after_body(no_block(hash)));
    }
    Ok(connection.reply(head, reply::no_content).await?)
}

/// The refusal of a name that leads nowhere.
pub(crate) fn no_block(hash: &Hash) -> Problem {
    Problem::new(Status::NOT_FOUND, format!("there is no block {hash}"))
}

/// The refusal of a request whose conditions are not met.
pub(crate) fn precondition_failed(hash: &Hash) -> Problem {
    Problem::new(Status::PRECONDITION_FAILED, format!("If-Match or If-None-Match does not hold for block {hash}"))
}

async fn ready(connection: &Connection, head: &Head) -> Result<GoesOn, RequestError> {
    let worker = &connection.worker;
    let reason = match worker.session.shared().health.read_only() {
        Some(reason) => Some(format!("the store is read-only: {reason}")),
        None if worker.phase.is_draining() => Some("the server is stopping".to_owned()),
        None => None,
    };
    match reason {
        None => content(connection, head, "text/plain", b"ready\n").await,
        Some(reason) => {
            let mut problem = Problem::new(Status::SERVICE_UNAVAILABLE, reason);
            problem.retry_after_s = Some(60);
            Err(RequestError::after_body(problem))
        }
    }
}
