//! The head of a request (RFC 9112): parsed by httparse, then judged. Pure.

use crate::limits::HEADERS_MAX;
use crate::status::{Problem, Status, shown};
use crate::target::Target;
use buddy_store::BLOCK_BYTES_MAX;

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
    /// One that nothing here offers.
    Other,
}

impl Method {
    fn parse(text: &str) -> Method {
        match text {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "PUT" => Method::Put,
            "POST" => Method::Post,
            "DELETE" => Method::Delete,
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
    let is_http_10 = request.version == Some(0);
    let fields = Fields::read(request.headers)?;
    if fields.hosts != 1 && !(is_http_10 && fields.hosts == 0) {
        // RFC 9112 section 3.2
        return Err(Problem::fatal(Status::BAD_REQUEST, format!("{} Host header fields instead of one", fields.hosts)));
    }
    let method = Method::parse(request.method.unwrap_or_default());
    Ok(Some(Head {
        method,
        target: Target::parse(request.path.unwrap_or_default()),
        body: fields.framing(is_http_10)?,
        expects_continue: fields.expects_continue && !is_http_10,
        keep_alive: if is_http_10 { fields.keep_alive && !fields.close } else { !fields.close },
        is_http_10,
        bytes: length,
    }))
}

/// What the header fields say that matters here.
#[derive(Default)]
struct Fields {
    hosts: usize,
    content_length: Option<u64>,
    chunked: bool,
    expects_continue: bool,
    keep_alive: bool,
    close: bool,
}

impl Fields {
    fn read(headers: &[httparse::Header<'_>]) -> Result<Fields, Problem> {
        let mut fields = Fields::default();
        for header in headers {
            let name = header.name;
            if name.eq_ignore_ascii_case("content-length") {
                fields.content_length(header.value)?;
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                fields.transfer_encoding(header.value)?;
            } else if name.eq_ignore_ascii_case("connection") {
                fields.connection(header.value);
            } else if name.eq_ignore_ascii_case("expect") {
                fields.expect(header.value)?;
            } else if name.eq_ignore_ascii_case("host") {
                fields.hosts += 1;
            }
        }
        Ok(fields)
    }

    /// RFC 9112 section 6.3: digits only, and given once.
    fn content_length(&mut self, value: &[u8]) -> Result<(), Problem> {
        let text = String::from_utf8_lossy(value);
        if self.content_length.is_some() {
            return Err(Problem::fatal(Status::BAD_REQUEST, "Content-Length is given twice"));
        }
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        match text.parse() {
            Ok(length) if digits => self.content_length = Some(length),
            // More digits than any length has.
            _ if digits => return Err(too_large(&format!("{} bytes", shown(&text)))),
            _ => {
                return Err(Problem::fatal(
                    Status::BAD_REQUEST,
                    format!("Content-Length \"{}\" is not a number", shown(&text)),
                ));
            }
        }
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Problem> {
        if self.chunked || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return Err(Problem::fatal(
                Status::NOT_IMPLEMENTED,
                format!(
                    "Transfer-Encoding \"{}\" is not supported, only \"chunked\"",
                    shown(&String::from_utf8_lossy(value))
                ),
            ));
        }
        self.chunked = true;
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) {
        for option in value.split(|byte| *byte == b',') {
            let option = option.trim_ascii();
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn expect(&mut self, value: &[u8]) -> Result<(), Problem> {
        if value.trim_ascii().eq_ignore_ascii_case(b"100-continue") {
            self.expects_continue = true;
            return Ok(());
        }
        Err(Problem::fatal(
            Status::EXPECTATION_FAILED,
            format!("Expect \"{}\" cannot be met, only \"100-continue\"", shown(&String::from_utf8_lossy(value))),
        ))
    }

    /// RFC 9112 section 6.1: both lengths at once are how requests are smuggled.
    fn framing(&self, is_http_10: bool) -> Result<BodyFraming, Problem> {
        match (self.chunked, self.content_length) {
            (true, Some(_)) => {
                Err(Problem::fatal(Status::BAD_REQUEST, "Content-Length and Transfer-Encoding in one request"))
            }
            (true, None) if is_http_10 => Err(Problem::fatal(Status::BAD_REQUEST, "Transfer-Encoding in HTTP/1.0")),
            (true, None) => Ok(BodyFraming::Chunked),
            (false, Some(length)) => Ok(BodyFraming::Length(length)),
            (false, None) => Ok(BodyFraming::None),
        }
    }
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
        assert_eq!(with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 501);
        assert_eq!(with("Expect: tea"), 417);
        assert_eq!(with("Host: b"), 400);
        assert_eq!(with("Bad Name: b"), 400);
        assert_eq!(with(" folded: b"), 400);
        assert_eq!(with("A: b\r\n".repeat(70).trim_end()), 431);
        assert_eq!(parse("GET / HTTP/1.1\r\n\r\n"), Err(400), "no Host");
        assert_eq!(parse("GET / HTTP/2.0\r\n\r\n"), Err(505));
        assert_eq!(parse("PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(400));
        assert_eq!(parse("\0\0\0\0"), Err(400));
    }

    #[test]
    fn a_refusal_repeats_only_so_much_of_the_request() {
        let long = "x".repeat(10_000);
        for field in ["Content-Length", "Transfer-Encoding", "Expect"] {
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
