//! Heads of requests. What is accepted is compared with a second reader, as simple as can be, that only reads what was accepted:
//! a head that two programs read differently is how requests are smuggled.

use crate::conditions::Tags;
use crate::digest;
use crate::fields::ContentType;
use crate::limits::{HEADERS_MAX, SHOWN_CHARS};
use crate::range::ByteRange;
use crate::request::{BodyFraming, Head, Method, parse_head};
use crate::status::Problem;
use crate::target::Target;

/// A head of up to this size is cut everywhere, a longer one at as many places.
const CUTS: usize = 512;
/// A refusal says at most this beside what it repeats of the request.
const DETAIL_BYTES_MAX: usize = 200 + 4 * SHOWN_CHARS;

/// The head at the start of any bytes.
pub fn http_head(bytes: &[u8]) {
    let whole = parse_head(bytes);
    cuts_change_nothing(bytes, &whole);
    match whole {
        Ok(Some(head)) => {
            let (own, _) = bytes.split_at(head.bytes);
            agrees_with_a_simple_reader(own, &head);
            survives_being_written(&head);
        }
        Ok(None) => {}
        Err(problem) => {
            assert!((400..=505).contains(&problem.status.code) && problem.ends_connection, "{problem:?}");
            assert!(problem.detail.len() <= DETAIL_BYTES_MAX, "{} bytes of detail", problem.detail.len());
        }
    }
}

/// However much has arrived, the answer is "more", up to some byte, and from there on the same.
fn cuts_change_nothing(bytes: &[u8], whole: &Result<Option<Head>, Problem>) {
    let mut answered = false;
    for cut in (0..bytes.len()).step_by(bytes.len().div_ceil(CUTS).max(1)) {
        let answer = parse_head(&bytes[..cut]);
        if answered || answer != Ok(None) {
            answered = true;
            assert_eq!(&answer, whole, "after {cut} of {} bytes", bytes.len());
        }
    }
    if let Ok(Some(head)) = whole {
        assert_eq!(parse_head(&bytes[..head.bytes - 1]), Ok(None));
        assert_eq!(&parse_head(&bytes[..head.bytes]), whole);
    }
}

/// The lines of an accepted head, without their ends and without empty ones in front.
fn lines(head: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<_> = head
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .skip_while(|line| line.is_empty())
        .collect();
    let ends = head.windows(2).filter(|pair| pair == b"\r\n").count();
    assert_eq!(ends, head.iter().filter(|byte| **byte == b'\n').count(), "a line that does not end in CRLF");
    // The empty line that ends the head, and nothing behind it.
    assert_eq!(lines.pop(), Some(&[][..]));
    assert_eq!(lines.pop(), Some(&[][..]));
    assert!(lines.iter().all(|line| !line.is_empty()), "an empty line within a head");
    lines
}

fn agrees_with_a_simple_reader(own: &[u8], head: &Head) {
    let lines = lines(own);
    let (request_line, fields) = lines.split_first().expect("a request line");
    agrees_on_the_request_line(request_line, head);
    assert!(fields.len() <= HEADERS_MAX);
    let fields: Vec<_> = fields.iter().map(|line| field(line)).collect();
    let values = |name: &str| -> Vec<&[u8]> {
        fields.iter().filter(|field| field.0.eq_ignore_ascii_case(name.as_bytes())).map(|field| field.1).collect()
    };
    let hosts = values("Host").len();
    assert!(hosts == 1 || (hosts == 0 && head.is_http_10), "{hosts} hosts");
    let framing = match (&*values("Content-Length"), &*values("Transfer-Encoding")) {
        ([], []) => BodyFraming::None,
        ([length], []) => {
            assert!(length.iter().all(u8::is_ascii_digit));
            BodyFraming::Length(str::from_utf8(length).expect("digits").parse().expect("a number"))
        }
        ([], [coding]) => {
            assert!(coding.eq_ignore_ascii_case(b"chunked") && !head.is_http_10);
            BodyFraming::Chunked
        }
        (lengths, codings) => panic!("accepted with lengths {lengths:?} and codings {codings:?}"),
    };
    assert_eq!(head.body, framing);
    let expectations = values("Expect");
    assert!(expectations.iter().all(|expectation| expectation.eq_ignore_ascii_case(b"100-continue")));
    assert_eq!(head.expects_continue, !expectations.is_empty() && !head.is_http_10);
    for field in ["If-Match", "If-None-Match"] {
        let tags = if field == "If-Match" { head.conditions.if_match } else { head.conditions.if_none_match };
        assert_eq!(tags == Tags::Absent, values(field).is_empty());
        assert_eq!(tags == Tags::Any, values(field).contains(&&b"*"[..]));
        // A tag that is told to be the target's own is there, letter by letter.
        if matches!(tags, Tags::Weak | Tags::Own) {
            let own = format!("\"{}\"", head.target.block().expect("only blocks have tags"));
            assert!(values(field).iter().any(|value| value.windows(own.len()).any(|part| part == own.as_bytes())));
        }
    }
    if head.conditions.range.is_some() {
        assert!(values("Range").len() == 1 && values("If-Range").len() <= 1);
    }
    assert_eq!(head.origin.as_deref(), values("Origin").last().copied());
    assert_eq!(head.is_partial, !values("Content-Range").is_empty());
    let option = |name: &str| {
        let connection = values("Connection").join(&b","[..]).to_ascii_lowercase();
        connection.split(|byte| *byte == b',').any(|option| option.trim_ascii() == name.as_bytes())
    };
    assert_eq!(head.keep_alive, !option("close") && (!head.is_http_10 || option("keep-alive")));
}

fn agrees_on_the_request_line(line: &[u8], head: &Head) {
    let words: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let &[method, target, version] = &words[..] else { panic!("a request line of {} words", words.len()) };
    assert_eq!(method, name(head.method).unwrap_or(method));
    assert!(is_token(method) && !target.is_empty());
    assert_eq!(version, if head.is_http_10 { b"HTTP/1.0" } else { b"HTTP/1.1" });
}

/// Name and value of a field. Neither has what another reader could take for an end of either.
fn field(line: &[u8]) -> (&[u8], &[u8]) {
    let colon = line.iter().position(|byte| *byte == b':').expect("a colon");
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    assert!(is_token(name), "a field called {:?}", name.escape_ascii().to_string());
    assert!(!value.iter().any(|byte| matches!(byte, b'\0' | b'\r')), "{:?}", value.escape_ascii().to_string());
    (name, value)
}

/// RFC 9110 section 5.6.2
fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// What was understood, written as a request, is understood as the same.
fn survives_being_written(head: &Head) {
    // Why a query was refused does not say what it was.
    let Some(target) = target(&head.target) else { return };
    let method = name(head.method).unwrap_or(b"PATCH");
    let version = if head.is_http_10 { "HTTP/1.0" } else { "HTTP/1.1\r\nHost: a" };
    let origin = head.origin.as_ref().map(|origin| [b"Origin: ", &origin[..], b"\r\n"].concat()).unwrap_or_default();
    let fields = [framing(head), conditions(head), content(head)].concat();
    let end = if head.keep_alive { "Connection: keep-alive\r\n\r\n" } else { "Connection: close\r\n\r\n" };
    let line = [method, b" ", &target, b" ", version.as_bytes(), b"\r\n"].concat();
    let text = [&line[..], fields.as_bytes(), &origin, end.as_bytes()].concat();
    let again = Head { bytes: text.len(), ..head.clone() };
    assert_eq!(parse_head(&text), Ok(Some(again)), "{:?}", text.escape_ascii().to_string());
}

fn framing(head: &Head) -> String {
    let expect = if head.expects_continue { "Expect: 100-continue\r\n" } else { "" };
    match head.body {
        BodyFraming::None => expect.to_owned(),
        BodyFraming::Length(length) => format!("Content-Length: {length}\r\n{expect}"),
        BodyFraming::Chunked => format!("Transfer-Encoding: chunked\r\n{expect}"),
    }
}

fn content(head: &Head) -> String {
    let mut lines = String::new();
    if let Some(digest) = &head.digest {
        lines.push_str(&format!("Repr-Digest: sha-256=:{}:\r\n", String::from_utf8_lossy(&digest::encode(digest))));
    }
    lines.push_str(match head.content_type {
        ContentType::Absent => "",
        ContentType::Text => "Content-Type: text/plain\r\n",
        ContentType::Binary => "Content-Type: application/octet-stream\r\n",
        ContentType::Other => "Content-Type: a/b\r\n",
    });
    if head.is_partial {
        lines.push_str("Content-Range: bytes 0-1/2\r\n");
    }
    if head.asks_before {
        lines.push_str("Access-Control-Request-Method: PUT\r\n");
    }
    lines
}

fn conditions(head: &Head) -> String {
    let own = head.target.block().map(ToString::to_string).unwrap_or_default();
    let mut lines = String::new();
    for (field, tags) in [("If-Match", head.conditions.if_match), ("If-None-Match", head.conditions.if_none_match)] {
        let value = match tags {
            Tags::Absent => continue,
            Tags::Other => "\"other\"".to_owned(),
            Tags::Weak => format!("W/\"{own}\""),
            Tags::Own => format!("\"{own}\""),
            Tags::Any => "*".to_owned(),
        };
        lines.push_str(&format!("{field}: {value}\r\n"));
    }
    match head.conditions.range {
        None => {}
        Some(ByteRange::From(first)) => lines.push_str(&format!("Range: bytes={first}-\r\n")),
        Some(ByteRange::Between(first, last)) => lines.push_str(&format!("Range: bytes={first}-{last}\r\n")),
        Some(ByteRange::Last(count)) => lines.push_str(&format!("Range: bytes=-{count}\r\n")),
    }
    lines
}

fn name(method: Method) -> Option<&'static [u8]> {
    Some(match method {
        Method::Get => b"GET",
        Method::Head => b"HEAD",
        Method::Put => b"PUT",
        Method::Post => b"POST",
        Method::Delete => b"DELETE",
        Method::Options => b"OPTIONS",
        Method::Other => return None,
    })
}

fn target(target: &Target) -> Option<Vec<u8>> {
    Some(match target {
        Target::Everything => b"*".to_vec(),
        Target::Blocks => b"/".to_vec(),
        Target::Block(hash) => [b"/", &hash.to_hex()[..]].concat(),
        Target::BadName(name) => [b"/", &encode(name, "")[..]].concat(),
        Target::Health => b"/-/health".to_vec(),
        Target::Ready => b"/-/ready".to_vec(),
        Target::Stats => b"/-/stats".to_vec(),
        Target::Metrics => b"/-/metrics".to_vec(),
        Target::OpenApi => b"/-/openapi.yaml".to_vec(),
        Target::Missing => b"/-/missing".to_vec(),
        Target::List(list) => {
            let after = list.after.map(|after| after.to_string()).unwrap_or_default();
            format!("/-/blocks?after={after}&limit={}", list.limit).into_bytes()
        }
        Target::BadQuery(_) => return None,
        Target::Unknown(path) => encode(path, "/"),
        Target::Malformed(text) => text.clone().into_bytes(),
    })
}

/// Percent-encodes all but `kept`.
fn encode(text: &str, kept: &str) -> Vec<u8> {
    let encode = |byte| if kept.as_bytes().contains(&byte) { vec![byte] } else { format!("%{byte:02x}").into_bytes() };
    text.bytes().flat_map(encode).collect()
}
