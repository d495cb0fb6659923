//! Status codes (RFC 9110 section 15) and refusals as problem details (RFC 9457).

use buddy_store::StoreError;
use serde::Serialize;

/// A status code with its reason phrase.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// The code.
    pub code: u16,
    /// The reason phrase.
    pub reason: &'static str,
    /// How a reply begins, up to the date.
    pub(crate) line: &'static str,
}

macro_rules! statuses {
    ($($name:ident = $code:literal $reason:literal;)*) => {
        impl Status {
            $(
                #[doc = $reason]
                pub const $name: Status = Status {
                    code: $code,
                    reason: $reason,
                    line: concat!("HTTP/1.1 ", $code, " ", $reason, "\r\nDate: "),
                };
            )*
        }

        impl Status {
            /// All of them.
            pub const ALL: &'static [Status] = &[$(Status::$name),*];
        }
    };
}

statuses! {
    OK = 200 "OK";
    CREATED = 201 "Created";
    NO_CONTENT = 204 "No Content";
    PARTIAL_CONTENT = 206 "Partial Content";
    NOT_MODIFIED = 304 "Not Modified";
    BAD_REQUEST = 400 "Bad Request";
    UNAUTHORIZED = 401 "Unauthorized";
    FORBIDDEN = 403 "Forbidden";
    NOT_FOUND = 404 "Not Found";
    METHOD_NOT_ALLOWED = 405 "Method Not Allowed";
    REQUEST_TIMEOUT = 408 "Request Timeout";
    LENGTH_REQUIRED = 411 "Length Required";
    PRECONDITION_FAILED = 412 "Precondition Failed";
    CONTENT_TOO_LARGE = 413 "Content Too Large";
    UNSUPPORTED_MEDIA_TYPE = 415 "Unsupported Media Type";
    RANGE_NOT_SATISFIABLE = 416 "Range Not Satisfiable";
    EXPECTATION_FAILED = 417 "Expectation Failed";
    UNPROCESSABLE_CONTENT = 422 "Unprocessable Content";
    REQUEST_HEADER_FIELDS_TOO_LARGE = 431 "Request Header Fields Too Large";
    INTERNAL_SERVER_ERROR = 500 "Internal Server Error";
    NOT_IMPLEMENTED = 501 "Not Implemented";
    SERVICE_UNAVAILABLE = 503 "Service Unavailable";
    HTTP_VERSION_NOT_SUPPORTED = 505 "HTTP Version Not Supported";
    INSUFFICIENT_STORAGE = 507 "Insufficient Storage";
}

/// A request that is refused, and why, for the client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The status.
    pub status: Status,
    /// What is wrong, with the value and the limit it broke.
    pub detail: String,
    /// Methods that the target offers, for 405.
    pub allow: Option<&'static str>,
    /// What the client has to bring, for 401, and for 403 where another token may have the right.
    pub challenge: Option<&'static str>,
    /// When to try again, for 503.
    pub retry_after_s: Option<u32>,
    /// The length of what a range was asked of, for 416.
    pub whole_length: Option<u32>,
    /// Where the next request begins is unknown, or its sender cannot be trusted to say: the connection ends.
    pub ends_connection: bool,
}

/// The JSON form (RFC 9457 section 3). Without a `type` of its own the title is the status.
#[derive(Serialize)]
struct ProblemJson<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
}

impl Problem {
    /// A refusal after which the connection can go on.
    #[must_use]
    pub fn new(status: Status, detail: impl Into<String>) -> Problem {
        Problem {
            status,
            detail: detail.into(),
            allow: None,
            challenge: None,
            retry_after_s: None,
            whole_length: None,
            ends_connection: false,
        }
    }

    /// A refusal after which it cannot.
    #[must_use]
    pub fn fatal(status: Status, detail: impl Into<String>) -> Problem {
        Problem { ends_connection: true, ..Problem::new(status, detail) }
    }

    /// The body.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let json = ProblemJson {
            r#type: "about:blank",
            title: self.status.reason,
            status: self.status.code,
            detail: &self.detail,
        };
        // Strings and a number can always be written.
        serde_json::to_vec(&json).unwrap_or_default()
    }
}

/// As much of a client's text as a refusal repeats.
#[must_use]
pub fn shown(text: &str) -> String {
    text.chars().take(crate::limits::SHOWN_CHARS).collect()
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        let unavailable = |after_s| Problem {
            retry_after_s: Some(after_s),
            ..Problem::new(Status::SERVICE_UNAVAILABLE, error.to_string())
        };
        match &error {
            StoreError::NoSpace => {
                Problem::new(Status::INSUFFICIENT_STORAGE, "there is no space left; reads and deletes go on")
            }
            StoreError::Busy => unavailable(1),
            StoreError::ReadOnly => unavailable(60),
            StoreError::Corrupt(_) => Problem::new(Status::NOT_FOUND, error.to_string()),
            StoreError::Index(_) | StoreError::Io { .. } | StoreError::Internal(_) => {
                Problem::new(Status::INTERNAL_SERVER_ERROR, error.to_string())
            }
        }
    }
}
