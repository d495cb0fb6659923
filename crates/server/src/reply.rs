//! Replies as bytes. Pure.

use crate::status::{Problem, Status};
use buddy_store::Hash;
use std::io::Write;

/// How the connection goes on after a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Persistence {
    /// As HTTP/1.1 does unless told otherwise.
    KeepAlive,
    /// As above, said to a client that speaks HTTP/1.0.
    KeepAliveConfirmed,
    /// This is the last reply.
    Close,
}

/// Writes the head of a reply.
struct HeadWriter<'a> {
    target: &'a mut Vec<u8>,
}

impl<'a> HeadWriter<'a> {
    fn new(target: &'a mut Vec<u8>, status: Status, date: &str, persistence: Persistence) -> HeadWriter<'a> {
        let mut writer = HeadWriter { target };
        writer.write(format_args!("HTTP/1.1 {} {}\r\nDate: {date}\r\n", status.code, status.reason));
        match persistence {
            Persistence::KeepAlive => {}
            Persistence::KeepAliveConfirmed => writer.raw(b"Connection: keep-alive\r\n"),
            Persistence::Close => writer.raw(b"Connection: close\r\n"),
        }
        writer
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.target.extend_from_slice(bytes);
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        // A vector takes whatever is written.
        let _ = self.target.write_fmt(text);
    }

    fn length(&mut self, bytes: usize) {
        self.write(format_args!("Content-Length: {bytes}\r\n"));
    }

    fn end(mut self) {
        self.raw(b"\r\n");
    }
}

/// What all replies of one request have in common.
#[derive(Clone, Copy)]
pub(crate) struct ReplyContext<'a> {
    pub(crate) date: &'a str,
    pub(crate) persistence: Persistence,
    /// The request was HEAD: the reply has a body's head and no body.
    pub(crate) is_head: bool,
}

/// The head of a block's bytes.
pub(crate) fn block_head(target: &mut Vec<u8>, context: ReplyContext<'_>, hash: &Hash, length: u32) {
    let mut head = HeadWriter::new(target, Status::OK, context.date, context.persistence);
    head.raw(b"Content-Type: application/octet-stream\r\nAccept-Ranges: none\r\nCache-Control: public, max-age=31536000, immutable\r\nETag: \"");
    head.raw(&hash.to_hex());
    head.raw(b"\"\r\n");
    head.length(length as usize);
    head.end();
}

/// The reply to a block that is stored: its name. `location`: as REST clients expect it.
pub(crate) fn stored(target: &mut Vec<u8>, context: ReplyContext<'_>, status: Status, hash: &Hash, location: bool) {
    let name = hash.to_hex();
    let mut head = HeadWriter::new(target, status, context.date, context.persistence);
    if location {
        head.raw(b"Location: /");
        head.raw(&name);
        head.raw(b"\r\n");
    }
    head.raw(b"Content-Type: text/plain\r\nETag: \"");
    head.raw(&name);
    head.raw(b"\"\r\n");
    head.length(name.len());
    head.end();
    target.extend_from_slice(&name);
}

/// A reply without a body (RFC 9110 section 15.3.5).
pub(crate) fn no_content(target: &mut Vec<u8>, context: ReplyContext<'_>) {
    HeadWriter::new(target, Status::NO_CONTENT, context.date, context.persistence).end();
}

/// A small reply that is not to be kept by anybody.
pub(crate) fn content(
    target: &mut Vec<u8>,
    context: ReplyContext<'_>,
    status: Status,
    content_type: &str,
    body: &[u8],
) {
    let mut head = HeadWriter::new(target, status, context.date, context.persistence);
    head.write(format_args!("Content-Type: {content_type}\r\nCache-Control: no-store\r\n"));
    head.length(body.len());
    head.end();
    if !context.is_head {
        target.extend_from_slice(body);
    }
}

/// A refusal.
pub(crate) fn problem(target: &mut Vec<u8>, context: ReplyContext<'_>, problem: &Problem) {
    let body = problem.to_json();
    let mut head = HeadWriter::new(target, problem.status, context.date, context.persistence);
    if let Some(allow) = problem.allow {
        head.write(format_args!("Allow: {allow}\r\n"));
    }
    if let Some(seconds) = problem.retry_after_s {
        head.write(format_args!("Retry-After: {seconds}\r\n"));
    }
    head.raw(b"Content-Type: application/problem+json\r\n");
    head.length(body.len());
    head.end();
    if !context.is_head {
        target.extend_from_slice(&body);
    }
}

/// What a client that expects it waits for before it sends a body.
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::REPLY_HEAD_BYTES_MAX;

    const CONTEXT: ReplyContext<'_> = ReplyContext {
        date: "Sun, 06 Nov 1994 08:49:37 GMT",
        persistence: Persistence::KeepAliveConfirmed,
        is_head: false,
    };

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut bytes = Vec::new();
        write(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn replies_read_as_the_contract_says() {
        let hash = Hash::of(b"abc");
        let block = text(|target| block_head(target, CONTEXT, &hash, 524_288));
        assert!(block.starts_with("HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"), "{block}");
        assert!(block.contains(&format!("ETag: \"{hash}\"\r\n")) && block.ends_with("Content-Length: 524288\r\n\r\n"));
        assert!(block.len() <= REPLY_HEAD_BYTES_MAX);
        let created = text(|target| stored(target, CONTEXT, Status::CREATED, &hash, true));
        assert!(created.contains(&format!("Location: /{hash}\r\n")), "{created}");
        assert!(created.ends_with(&format!("Content-Length: 64\r\n\r\n{hash}")), "{created}");
        let mut refusal = Problem::new(Status::METHOD_NOT_ALLOWED, "not \"here\"");
        refusal.allow = Some("PUT, POST");
        refusal.retry_after_s = Some(3);
        let refused = text(|target| problem(target, CONTEXT, &refusal));
        assert!(refused.contains("Allow: PUT, POST\r\nRetry-After: 3\r\nContent-Type: application/problem+json\r\n"));
        assert!(
            refused.ends_with(
                r#"{"type":"about:blank","title":"Method Not Allowed","status":405,"detail":"not \"here\""}"#
            )
        );
        let head = text(|target| problem(target, ReplyContext { is_head: true, ..CONTEXT }, &refusal));
        assert!(refused.starts_with(&head), "the same, without the body");
    }
}
