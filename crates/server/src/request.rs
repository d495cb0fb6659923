//! The head of a request (RFC 9112): parsed by httparse, then judged. Pure.

use crate::access::Credentials;
use crate::conditions::Conditions;
use crate::fields::{ContentType, Fields};
use crate::limits::HEADERS_MAX;
use crate::status::{Problem, Status};
use crate::target::Target;
use buddy_store::{BLOCK_BYTES_MAX, Hash};

/// The method of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// GET
    Get,
    /// HEAD
    Head,
    /// PUT
    Put,
    /// POST
    Post,
    /// DELETE
    Delete,
    /// OPTIONS
    Options,
    /// One that nothing here offers.
    Other,
}

impl Method {
    /// Its name, for logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Put => "PUT",
            Method::Post => "POST",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
            Method::Other => "other",
        }
    }

    fn parse(text: &str) -> Method {
        match text {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "PUT" => Method::Put,
            "POST" => Method::Post,
            "DELETE" => Method::Delete,
            "OPTIONS" => Method::Options,
            _ => Method::Other,
        }
    }
}

/// How the length of a body is told (RFC 9112 section 6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyFraming {
    /// There is none.
    None,
    /// `Content-Length`
    Length(u64),
    /// `Transfer-Encoding: chunked`
    Chunked,
}

/// The head of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// What it is about.
    pub target: Target,
    /// How long the body is.
    pub body: BodyFraming,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The client wants to go on with this connection.
    pub keep_alive: bool,
    /// HTTP/1.0: going on must be confirmed.
    pub is_http_10: bool,
    /// Conditions that it makes, and the range that it asks for.
    pub conditions: Conditions,
    /// What the body says that it is.
    pub content_type: ContentType,
    /// The body is a part of something (`Content-Range`).
    pub is_partial: bool,
    /// The SHA-256 that the body has to have (`Repr-Digest`).
    pub digest: Option<Hash>,
    /// The page in a browser that sends it belongs to this (`Origin`).
    pub origin: Option<Box<[u8]>>,
    /// A browser asks whether it may send another request (`Access-Control-Request-Method`).
    pub asks_before: bool,
    /// Who sends it, as far as it says.
    pub credentials: Credentials,
    /// Length of the head.
    pub bytes: usize,
}

/// Reads a head from the start of `bytes`. `None` where it goes on behind them.
///
/// # Errors
///
/// [`Problem`]: what is wrong with it.
pub fn parse_head(bytes: &[u8]) -> Result<Option<Head>, Problem> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Problem::fatal(
                Status::REQUEST_HEADER_FIELDS_TOO_LARGE,
                format!("more than {HEADERS_MAX} header fields"),
            ));
        }
        Err(httparse::Error::Version) => {
            return Err(Problem::fatal(
                Status::HTTP_VERSION_NOT_SUPPORTED,
                "only HTTP/1.1 and HTTP/1.0 are spoken here",
            ));
        }
        Err(error) => return Err(Problem::fatal(Status::BAD_REQUEST, format!("malformed request: {error}"))),
    };
    if has_bare_line_feed(bytes.get(..length).unwrap_or_default()) {
        return Err(Problem::fatal(Status::BAD_REQUEST, "malformed request: a line feed without a carriage return"));
    }
    let is_http_10 = request.version == Some(0);
    let target = Target::parse(request.path.unwrap_or_default());
    let fields = Fields::read(request.headers, &target)?;
    fields.check_hosts(is_http_10)?;
    Ok(Some(Head {
        method: Method::parse(request.method.unwrap_or_default()),
        body: fields.framing(is_http_10)?,
        expects_continue: fields.expects_continue && !is_http_10,
        keep_alive: if is_http_10 { fields.keep_alive && !fields.close } else { !fields.close },
        is_http_10,
        conditions: fields.conditions(),
        content_type: fields.content_type,
        is_partial: fields.is_partial,
        digest: fields.digest,
        origin: fields.origin,
        asks_before: fields.asks_before,
        credentials: fields.credentials,
        target,
        bytes: length,
    }))
}

/// Lines end in CRLF, nothing else (RFC 9112 section 2.2 lets a server insist): where one program sees the end of a line and
/// another does not, requests are smuggled.
fn has_bare_line_feed(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).any(|at| at == 0 || head.get(at - 1) != Some(&b'\r'))
}

/// The refusal of a block that is larger than any. The body is not read, so the connection ends.
#[must_use]
pub fn too_large(size: &str) -> Problem {
    Problem::fatal(
        Status::CONTENT_TOO_LARGE,
        format!("a body of {size} is larger than the largest block of {BLOCK_BYTES_MAX} bytes"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::Tags;
    use crate::range::ByteRange;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Option<Head>, u16> {
        parse_head(text.as_bytes()).map_err(|problem| problem.status.code)
    }

    fn head(text: &str) -> Head {
        parse(text).unwrap().unwrap()
    }

    #[test]
    fn heads_are_read() {
        let head = head("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nExpect: 100-Continue\r\n\r\nbody");
        assert_eq!((head.method, head.body, head.bytes), (Method::Put, BodyFraming::Length(12), 69));
        assert!(head.expects_continue && head.keep_alive && !head.is_http_10);
        assert_eq!(parse("GET / HTTP/1.1\r\nHost: a\r\n"), Ok(None));
        assert_eq!(parse(""), Ok(None));
    }

    #[test]
    fn connections_go_on_as_the_version_says() {
        let keep_alive = |text: &str| head(text).keep_alive;
        assert!(keep_alive("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(!keep_alive("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n"));
        assert!(!keep_alive("GET / HTTP/1.0\r\n\r\n"));
        assert!(keep_alive("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    }

    #[test]
    fn bad_heads_are_refused() {
        let with = |fields: &str| parse(&format!("PUT / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n")).unwrap_err();
        assert_eq!(with("Content-Length: 1\r\nContent-Length: 1"), 400);
        assert_eq!(with("Content-Length: 1\r\nTransfer-Encoding: chunked"), 400);
        assert_eq!(with("Content-Length: +1"), 400);
        assert_eq!(with("Content-Length: 1, 1"), 400);
        assert_eq!(with("Content-Length:"), 400);
        assert_eq!(with("Content-Length: 99999999999999999999999"), 413);
        assert_eq!(with("Transfer-Encoding: gzip, chunked"), 501);
        assert_eq!(with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 400);
        assert_eq!(with("Expect: tea"), 417);
        assert_eq!(with("Host: b"), 400);
        assert_eq!(with("Bad Name: b"), 400);
        assert_eq!(with("A : b"), 400);
        assert_eq!(with("A: b\nC: d"), 400);
        assert_eq!(with("A: b\rC: d"), 400);
        assert_eq!(with("A: b\0"), 400);
        assert_eq!(with("Repr-Digest: sha-256=:AAAA:"), 400);
        assert_eq!(with("Repr-Digest: nonsense nonsense"), 400);
        assert_eq!(with(" folded: b"), 400);
        assert_eq!(with("A: b\r\n".repeat(70).trim_end()), 431);
        assert_eq!(parse("GET / HTTP/1.1\r\n\r\n"), Err(400), "no Host");
        assert_eq!(parse("GET / HTTP/2.0\r\n\r\n"), Err(505));
        assert_eq!(parse("PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(400));
        assert_eq!(parse("\0\0\0\0"), Err(400));
        assert_eq!(parse("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), Err(400));
        assert_eq!(parse("GET / HTTP/1.1\r\nHost: a\r\n\n"), Err(400));
        for host in ["a b", "a/b", "a@b", "a\tb", "a\u{e9}"] {
            assert_eq!(parse(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), Err(400), "{host}");
        }
        assert!(parse("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n").is_ok());
        assert!(parse("GET / HTTP/1.1\r\nHost:\r\n\r\n").is_ok());
    }

    #[test]
    fn conditions_and_ranges_are_read() {
        let own = Hash::of(b"x");
        let with = |fields: &str| head(&format!("GET /{own} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n")).conditions;
        let range = Some(ByteRange::Between(1, 2));
        assert_eq!(with("A: b"), Conditions::default());
        assert_eq!(with("Range: bytes=1-2").range, range);
        assert_eq!(with("Range: bytes=1-2\r\nRange: bytes=1-2").range, None);
        assert_eq!(with(&format!("Range: bytes=1-2\r\nIf-Range: \"{own}\"")).range, range);
        for stale in ["\"x\"", &format!("W/\"{own}\""), "Sun, 06 Nov 1994 08:49:37 GMT", "*"] {
            assert_eq!(with(&format!("If-Range: {stale}\r\nRange: bytes=1-2")).range, None, "{stale}");
        }
        assert_eq!(with("If-Match: *").if_match, Tags::Any);
        assert_eq!(with(&format!("If-None-Match: \"a\"\r\nIf-None-Match: W/\"{own}\"")).if_none_match, Tags::Weak);
    }

    #[test]
    fn what_a_body_is_and_who_sends_it_is_read() {
        let with = |fields: &str| head(&format!("PUT / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"));
        assert_eq!(with("Content-Type: TEXT/plain; charset=utf-8").content_type, ContentType::Text);
        assert_eq!(with("Content-Type: application/octet-stream").content_type, ContentType::Binary);
        assert_eq!(with("Content-Type: text/plain\r\nContent-Type: text/plain").content_type, ContentType::Other);
        assert_eq!(with("A: b").content_type, ContentType::Absent);
        assert!(with("Content-Range: bytes 0-1/2").is_partial);
        assert_eq!(with("Repr-Digest: md5=:AAAA:").digest, None);
        let digest = "Repr-Digest: sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
        assert!(with(&format!("{digest}\r\n{digest}\r\nRepr-Digest: md5=:AAAA:")).digest.is_some());
        let asked = with("Origin: https://a\r\nAccess-Control-Request-Method: PUT");
        assert_eq!((asked.origin.as_deref(), asked.asks_before), (Some(&b"https://a"[..]), true));
    }

    #[test]
    fn a_refusal_repeats_only_so_much_of_the_request() {
        let long = "x=".repeat(5_000);
        for field in ["Content-Length", "Transfer-Encoding", "Expect", "Repr-Digest"] {
            let text = format!("PUT / HTTP/1.1\r\nHost: a\r\n{field}: {long}\r\n\r\n");
            let detail = parse_head(text.as_bytes()).unwrap_err().detail;
            assert!(detail.len() < 2 * crate::limits::SHOWN_CHARS, "{field}: {} bytes", detail.len());
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse_head(&bytes);
        }

        #[test]
        fn a_head_cut_short_is_waited_for(cut in 0usize..60) {
            let text = "PUT / HTTP/1.1\r\nHost: example\r\nContent-Length: 4096\r\n\r\n";
            prop_assert_eq!(parse(&text[..cut.min(text.len() - 1)]), Ok(None));
        }
    }
}
