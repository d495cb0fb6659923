//! The header fields of a request that matter here, each read once (RFC 9110, RFC 9112). Pure.

use crate::access::Credentials;
use crate::conditions::{Conditions, Tags};
use crate::digest;
use crate::range::ByteRange;
use crate::request::{BodyFraming, too_large};
use crate::status::{Problem, Status, shown};
use crate::target::Target;
use buddy_store::Hash;

/// What a body says that it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ContentType {
    /// Nothing.
    #[default]
    Absent,
    /// `text/plain`
    Text,
    /// `application/octet-stream`
    Binary,
    /// Anything else.
    Other,
}

/// What the fields say.
#[derive(Default)]
pub(crate) struct Fields {
    hosts: usize,
    content_length: Option<u64>,
    chunked: bool,
    pub(crate) expects_continue: bool,
    pub(crate) keep_alive: bool,
    pub(crate) close: bool,
    conditions: Conditions,
    ranges: usize,
    /// `If-Range` names something else than what there is.
    range_is_stale: bool,
    pub(crate) is_partial: bool,
    pub(crate) content_type: ContentType,
    pub(crate) digest: Option<Hash>,
    pub(crate) origin: Option<Box<[u8]>>,
    pub(crate) asks_before: bool,
    pub(crate) credentials: Credentials,
}

fn malformed(detail: impl Into<String>) -> Problem {
    Problem::fatal(Status::BAD_REQUEST, detail)
}

fn text(value: &[u8]) -> String {
    shown(&String::from_utf8_lossy(value))
}

impl Fields {
    /// Reads all fields of a request for `target`.
    pub(crate) fn read(headers: &[httparse::Header<'_>], target: &Target) -> Result<Fields, Problem> {
        let mut fields = Fields::default();
        for httparse::Header { name, value } in headers {
            fields.take(name, value, target)?;
        }
        Ok(fields)
    }

    /// By length first: that decides almost every comparison.
    fn take(&mut self, name: &str, value: &[u8], target: &Target) -> Result<(), Problem> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match name.len() {
            4 if is("host") => self.host(value)?,
            5 if is("range") => self.range(value),
            6 if is("expect") => self.expect(value)?,
            6 if is("origin") => self.origin = Some(value.into()),
            8 if is("if-match") => {
                self.conditions.if_match = self.conditions.if_match.max(Tags::parse(value, target.block()));
            }
            // A date is never right: there are none (RFC 9110 section 13.1.5).
            8 if is("if-range") => self.range_is_stale |= Tags::parse(value, target.block()) != Tags::Own,
            10 if is("connection") => self.connection(value),
            11 if is("repr-digest") => self.digest(value)?,
            12 if is("content-type") => self.content_type(value),
            13 if is("if-none-match") => {
                self.conditions.if_none_match = self.conditions.if_none_match.max(Tags::parse(value, target.block()));
            }
            13 if is("content-range") => self.is_partial = true,
            13 if is("authorization") => self.credentials.take(value),
            14 if is("content-length") => self.content_length(value)?,
            17 if is("transfer-encoding") => self.transfer_encoding(value)?,
            29 if is("access-control-request-method") => self.asks_before = true,
            _ => {}
        }
        Ok(())
    }

    /// RFC 9112 section 3.2: a value that is no host is refused. What it says matters to nobody here.
    fn host(&mut self, value: &[u8]) -> Result<(), Problem> {
        self.hosts += 1;
        // RFC 3986 section 3.2.2: names, addresses, and what is percent-encoded.
        let is_host = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte);
        if value.iter().all(is_host) {
            Ok(())
        } else {
            Err(malformed(format!("Host \"{}\" is not a host", text(value))))
        }
    }

    /// How many `Host` fields there may be.
    pub(crate) fn check_hosts(&self, is_http_10: bool) -> Result<(), Problem> {
        if self.hosts == 1 || (is_http_10 && self.hosts == 0) {
            return Ok(());
        }
        Err(malformed(format!("{} Host header fields instead of one", self.hosts)))
    }

    /// A field that is given twice asks for two ranges.
    fn range(&mut self, value: &[u8]) {
        self.ranges += 1;
        self.conditions.range = ByteRange::parse(value);
    }

    /// The conditions, all fields being known.
    pub(crate) fn conditions(&self) -> Conditions {
        let ignored = self.range_is_stale || self.ranges > 1;
        Conditions { range: self.conditions.range.filter(|_| !ignored), ..self.conditions }
    }

    fn content_type(&mut self, value: &[u8]) {
        let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        self.content_type = if self.content_type != ContentType::Absent {
            ContentType::Other
        } else if essence.eq_ignore_ascii_case(b"text/plain") {
            ContentType::Text
        } else if essence.eq_ignore_ascii_case(b"application/octet-stream") {
            ContentType::Binary
        } else {
            ContentType::Other
        };
    }

    /// Who sends a digest wants it to be checked: one that cannot be is an error.
    fn digest(&mut self, value: &[u8]) -> Result<(), Problem> {
        let digest = digest::parse(value);
        let digest = digest.map_err(|error| malformed(format!("Repr-Digest \"{}\": {error}", text(value))))?;
        if digest.is_some() && self.digest.is_some_and(|other| Some(other) != digest) {
            return Err(malformed("Repr-Digest names two different sha-256"));
        }
        self.digest = digest.or(self.digest);
        Ok(())
    }

    /// RFC 9112 section 6.3: digits only, and given once.
    fn content_length(&mut self, value: &[u8]) -> Result<(), Problem> {
        if self.content_length.is_some() {
            return Err(malformed("Content-Length is given twice"));
        }
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        match str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()) {
            Some(length) if digits => self.content_length = Some(length),
            // More digits than any length has.
            _ if digits => return Err(too_large(&format!("{} bytes", text(value)))),
            _ => return Err(malformed(format!("Content-Length \"{}\" is not a number", text(value)))),
        }
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Problem> {
        if !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return Err(Problem::fatal(
                Status::NOT_IMPLEMENTED,
                format!("Transfer-Encoding \"{}\" is not supported, only \"chunked\"", text(value)),
            ));
        }
        if std::mem::replace(&mut self.chunked, true) {
            return Err(malformed("Transfer-Encoding is given twice"));
        }
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
            format!("Expect \"{}\" cannot be met, only \"100-continue\"", text(value)),
        ))
    }

    /// RFC 9112 section 6.1: both lengths at once are how requests are smuggled.
    pub(crate) fn framing(&self, is_http_10: bool) -> Result<BodyFraming, Problem> {
        match (self.chunked, self.content_length) {
            (true, Some(_)) => Err(malformed("Content-Length and Transfer-Encoding in one request")),
            (true, None) if is_http_10 => Err(malformed("Transfer-Encoding in HTTP/1.0")),
            (true, None) => Ok(BodyFraming::Chunked),
            (false, Some(length)) => Ok(BodyFraming::Length(length)),
            (false, None) => Ok(BodyFraming::None),
        }
    }
}
