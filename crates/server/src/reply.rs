//! Replies as bytes. Pure.
//!
//! Nothing of a request gets into the head of a reply but the name of a block, which is 64 hex digits.

use crate::digest;
use crate::status::{Problem, Status};
use buddy_store::Hash;
use std::cell::Cell;
use std::ops::Range;

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
    fn new(target: &'a mut Vec<u8>, status: Status, context: ReplyContext<'_>) -> HeadWriter<'a> {
        if let Some(replied) = context.replied {
            replied.set(status.code);
        }
        let mut writer = HeadWriter { target };
        writer.raw(status.line);
        writer.field("", context.date);
        match context.persistence {
            Persistence::KeepAlive => {}
            Persistence::KeepAliveConfirmed => writer.raw("Connection: keep-alive\r\n"),
            Persistence::Close => writer.raw("Connection: close\r\n"),
        }
        writer.raw(context.cors);
        writer
    }

    fn raw(&mut self, text: impl AsRef<[u8]>) {
        self.target.extend_from_slice(text.as_ref());
    }

    /// A line: `name`, with its colon and space, and `value`.
    fn field(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.raw(name);
        self.raw(value);
        self.raw("\r\n");
    }

    fn number(&mut self, number: impl itoa::Integer) {
        self.raw(itoa::Buffer::new().format(number));
    }

    fn length(&mut self, bytes: usize) {
        self.raw("Content-Length: ");
        self.number(bytes);
        self.raw("\r\n");
    }

    fn tag(&mut self, hash: &Hash) {
        self.raw("ETag: \"");
        self.raw(hash.to_hex());
        self.raw("\"\r\n");
    }

    fn end(mut self) {
        self.raw("\r\n");
    }
}

/// What all replies of one request have in common.
#[derive(Clone, Copy)]
pub(crate) struct ReplyContext<'a> {
    pub(crate) date: &'a str,
    pub(crate) persistence: Persistence,
    /// The request was HEAD: the reply has a body's head and no body.
    pub(crate) is_head: bool,
    /// What is said about origins, as lines.
    pub(crate) cors: &'a str,
    /// Blocks are for those only who bring a token, so caches that others share must not keep them (RFC 9111 section 3.5).
    pub(crate) is_private: bool,
    /// Where the status is noted.
    pub(crate) replied: Option<&'a Cell<u16>>,
}

/// What is true of a block's bytes for ever, for whoever keeps them.
const IMMUTABLE: &str = ", max-age=31536000, immutable\r\n";

fn immutable(head: &mut HeadWriter<'_>, context: ReplyContext<'_>) {
    head.raw(if context.is_private { "Cache-Control: private" } else { "Cache-Control: public" });
    head.raw(IMMUTABLE);
}

/// A block, or a part of it, as the head of a reply has it.
#[derive(Clone, Copy)]
pub(crate) struct BlockPart<'a> {
    pub(crate) hash: &'a Hash,
    /// Bytes of the block.
    pub(crate) length: u32,
    /// The bytes that the reply has; `None`: all of them.
    pub(crate) part: Option<(u32, u32)>,
}

impl BlockPart<'_> {
    /// The bytes that the reply has.
    pub(crate) fn range(&self) -> Range<u32> {
        self.part.map_or(0..self.length, |(start, end)| start..end)
    }
}

/// The head of a block's bytes, or of a part of them.
pub(crate) fn block_head(target: &mut Vec<u8>, context: ReplyContext<'_>, block: BlockPart<'_>) {
    let status = if block.part.is_some() { Status::PARTIAL_CONTENT } else { Status::OK };
    let mut head = HeadWriter::new(target, status, context);
    head.raw("Content-Type: application/octet-stream\r\nAccept-Ranges: bytes\r\n");
    immutable(&mut head, context);
    head.tag(block.hash);
    // Of the whole block, also where this is a part of it (RFC 9530 section 3).
    head.raw("Repr-Digest: sha-256=:");
    head.raw(digest::encode(block.hash));
    head.raw(":\r\n");
    let range = block.range();
    if block.part.is_some() {
        head.raw("Content-Range: bytes ");
        head.number(range.start);
        head.raw("-");
        head.number(range.end.saturating_sub(1));
        head.raw("/");
        head.number(block.length);
        head.raw("\r\n");
    }
    head.length(range.len());
    head.end();
}

/// The reply to a client that has the block already (RFC 9110 section 15.4.5).
pub(crate) fn not_modified(target: &mut Vec<u8>, context: ReplyContext<'_>, hash: &Hash) {
    let mut head = HeadWriter::new(target, Status::NOT_MODIFIED, context);
    immutable(&mut head, context);
    head.tag(hash);
    head.end();
}

/// The reply to a block that is stored: its name. `location`: as REST clients expect it.
pub(crate) fn stored(target: &mut Vec<u8>, context: ReplyContext<'_>, status: Status, hash: &Hash, location: bool) {
    let name = hash.to_hex();
    let mut head = HeadWriter::new(target, status, context);
    if location {
        head.raw("Location: /");
        head.field("", name);
    }
    head.raw("Content-Type: text/plain\r\n");
    head.tag(hash);
    head.length(name.len());
    head.end();
    target.extend_from_slice(&name);
}

/// A reply without a body (RFC 9110 section 15.3.5).
pub(crate) fn no_content(target: &mut Vec<u8>, context: ReplyContext<'_>) {
    HeadWriter::new(target, Status::NO_CONTENT, context).end();
}

/// The reply to OPTIONS. `preflight`: what else a browser is told that asks before it sends something, as lines.
pub(crate) fn options(target: &mut Vec<u8>, context: ReplyContext<'_>, methods: &str, preflight: &str) {
    let mut head = HeadWriter::new(target, Status::NO_CONTENT, context);
    head.field("Allow: ", methods);
    head.raw(preflight);
    head.end();
}

/// The head of a reply that is not to be kept by anybody.
pub(crate) fn content_head(target: &mut Vec<u8>, context: ReplyContext<'_>, content_type: &str, bytes: usize) {
    let mut head = HeadWriter::new(target, Status::OK, context);
    head.field("Content-Type: ", content_type);
    head.raw("Cache-Control: no-store\r\n");
    head.length(bytes);
    head.end();
}

/// A small reply that is not to be kept by anybody.
pub(crate) fn content(target: &mut Vec<u8>, context: ReplyContext<'_>, content_type: &str, body: &[u8]) {
    content_head(target, context, content_type, body.len());
    if !context.is_head {
        target.extend_from_slice(body);
    }
}

/// A refusal.
pub(crate) fn problem(target: &mut Vec<u8>, context: ReplyContext<'_>, problem: &Problem) {
    let body = problem.to_json();
    let mut head = HeadWriter::new(target, problem.status, context);
    if let Some(allow) = problem.allow {
        head.field("Allow: ", allow);
    }
    if let Some(challenge) = problem.challenge {
        head.field("WWW-Authenticate: ", challenge);
    }
    if let Some(seconds) = problem.retry_after_s {
        head.raw("Retry-After: ");
        head.number(seconds);
        head.raw("\r\n");
    }
    if let Some(length) = problem.whole_length {
        head.raw("Content-Range: bytes */");
        head.number(length);
        head.raw("\r\n");
    }
    // A cache may keep some refusals unless it is told not to; what is not there now may be stored later.
    head.raw("Content-Type: application/problem+json\r\nCache-Control: no-store\r\n");
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
    use crate::cors::{Cors, ORIGIN_BYTES_MAX};
    use crate::limits::REPLY_HEAD_BYTES_MAX;

    const CONTEXT: ReplyContext<'_> = ReplyContext {
        date: "Sun, 06 Nov 1994 08:49:37 GMT",
        persistence: Persistence::KeepAliveConfirmed,
        is_head: false,
        cors: "",
        is_private: false,
        replied: None,
    };

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut bytes = Vec::new();
        write(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn blocks_and_parts_of_them_read_as_the_contract_says() {
        let hash = Hash::of(b"abc");
        let block = BlockPart { hash: &hash, length: 524_288, part: None };
        let whole = text(|target| block_head(target, CONTEXT, block));
        assert!(whole.starts_with("HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"), "{whole}");
        assert!(whole.contains(&format!("ETag: \"{hash}\"\r\n")) && whole.ends_with("Content-Length: 524288\r\n\r\n"));
        assert!(
            whole.contains("\r\nRepr-Digest: sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:\r\n"),
            "{whole}"
        );
        let origin = format!("https://{}", "a".repeat(ORIGIN_BYTES_MAX - 8));
        let cors = Cors::new([&*origin]).unwrap();
        let context = ReplyContext { cors: cors.fields(Some(origin.as_bytes())), ..CONTEXT };
        let part = text(|target| block_head(target, context, BlockPart { part: Some((524_286, 524_288)), ..block }));
        assert!(part.starts_with("HTTP/1.1 206 Partial Content\r\n"), "{part}");
        assert!(part.ends_with("Content-Range: bytes 524286-524287/524288\r\nContent-Length: 2\r\n\r\n"), "{part}");
        assert!(part.contains(&origin) && part.len() <= REPLY_HEAD_BYTES_MAX, "{}", part.len());
        let had = text(|target| not_modified(target, CONTEXT, &hash));
        assert!(had.starts_with("HTTP/1.1 304 Not Modified\r\n") && !had.contains("Content-Length"), "{had}");
    }

    #[test]
    fn other_replies_read_as_the_contract_says() {
        let hash = Hash::of(b"abc");
        let created = text(|target| stored(target, CONTEXT, Status::CREATED, &hash, true));
        assert!(created.contains(&format!("Location: /{hash}\r\n")), "{created}");
        assert!(created.ends_with(&format!("Content-Length: 64\r\n\r\n{hash}")), "{created}");
        let offered = text(|target| options(target, CONTEXT, "PUT, OPTIONS", "A: b\r\n"));
        assert!(offered.ends_with("Connection: keep-alive\r\nAllow: PUT, OPTIONS\r\nA: b\r\n\r\n"), "{offered}");
        let mut refusal = Problem::new(Status::METHOD_NOT_ALLOWED, "not \"here\"");
        (refusal.allow, refusal.retry_after_s, refusal.whole_length) = (Some("PUT, POST"), Some(3), Some(7));
        let refused = text(|target| problem(target, CONTEXT, &refusal));
        let fields = "Allow: PUT, POST\r\nRetry-After: 3\r\nContent-Range: bytes */7\r\nContent-Type: application/problem+json\r\n";
        assert!(refused.contains(fields), "{refused}");
        assert!(
            refused.ends_with(
                r#"{"type":"about:blank","title":"Method Not Allowed","status":405,"detail":"not \"here\""}"#
            )
        );
        let head = text(|target| problem(target, ReplyContext { is_head: true, ..CONTEXT }, &refusal));
        assert!(refused.starts_with(&head), "the same, without the body");
    }
}
