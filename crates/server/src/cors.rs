//! Which pages in browsers may use the server (the Fetch standard's CORS protocol). Pure.
//!
//! Answers name origins as they were configured, never as a request wrote them, so nothing that a client sends gets into a head.

use std::fmt::Write;

/// The header fields of an answer that a page may read beside those that it always may.
const EXPOSED: &str =
    "Accept-Ranges, Allow, Content-Range, Date, ETag, Location, Repr-Digest, Retry-After, WWW-Authenticate";
/// The header fields that a page may send beside those that it always may.
const ACCEPTED: &str = "Authorization, Content-Type, Expect, If-Match, If-None-Match, If-Range, Range, Repr-Digest";
/// For so long a browser need not ask again; none remembers longer than a day.
const MAX_AGE_S: u32 = 86_400;
/// Bytes of an origin: scheme, host and port.
pub const ORIGIN_BYTES_MAX: usize = 300;

/// A text is not an origin.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "\"{0}\" is not an origin: write \"*\", or scheme and host as in \"https://example.org\", with a port if it has one"
)]
pub struct OriginError(String);

/// The origins whose pages may use the server.
#[derive(Clone, Debug, Default)]
pub struct Cors {
    origins: Vec<Origin>,
    /// For requests from nowhere, and from origins that are not allowed.
    others: String,
}

#[derive(Clone, Debug)]
struct Origin {
    /// `*` stands for all of them.
    name: String,
    fields: String,
}

impl Cors {
    /// Allows these origins; `*` allows all. None: nothing is said about origins.
    ///
    /// # Errors
    ///
    /// [`OriginError`]
    pub fn new<'a>(origins: impl IntoIterator<Item = &'a str>) -> Result<Cors, OriginError> {
        let mut names = Vec::new();
        for name in origins {
            if name != "*" && !is_origin(name) {
                return Err(OriginError(name.to_owned()));
            }
            // Browsers write scheme and host in lower case, and no port where it is the scheme's own (RFC 6454 section 6.2).
            names.push(without_default_port(name.to_ascii_lowercase()));
        }
        if names.iter().any(|name| name == "*") {
            let fields = allow("*");
            return Ok(Cors { others: fields.clone(), origins: vec![Origin { name: "*".to_owned(), fields }] });
        }
        // Whoever keeps an answer must not give it to another origin.
        let vary = "Vary: Origin\r\n";
        let others = if names.is_empty() { String::new() } else { vary.to_owned() };
        let origins = names.into_iter().map(|name| Origin { fields: format!("{vary}{}", allow(&name)), name });
        Ok(Cors { origins: origins.collect(), others })
    }

    /// The header fields that an answer to a request from `origin` carries, as lines.
    pub(crate) fn fields(&self, origin: Option<&[u8]>) -> &str {
        self.allowed(origin).map_or(&self.others, |origin| &origin.fields)
    }

    fn allowed(&self, origin: Option<&[u8]>) -> Option<&Origin> {
        // Without the option this is where it ends.
        if self.origins.is_empty() {
            return None;
        }
        let origin = origin?;
        self.origins.iter().find(|allowed| allowed.name == "*" || allowed.name.as_bytes() == origin)
    }

    /// What the answer to a question before a request carries beside those; nothing where the origin is not allowed.
    pub(crate) fn preflight_fields(&self, origin: Option<&[u8]>, methods: &str) -> String {
        let mut fields = String::new();
        if self.allowed(origin).is_some() {
            // A text takes whatever is written.
            let _ = write!(
                fields,
                "Access-Control-Allow-Methods: {methods}\r\nAccess-Control-Allow-Headers: {ACCEPTED}\r\n\
                 Access-Control-Max-Age: {MAX_AGE_S}\r\n"
            );
        }
        fields
    }
}

fn allow(origin: &str) -> String {
    format!("Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Expose-Headers: {EXPOSED}\r\n")
}

fn without_default_port(origin: String) -> String {
    let port = if origin.starts_with("https://") {
        ":443"
    } else if origin.starts_with("http://") {
        ":80"
    } else {
        return origin;
    };
    origin.strip_suffix(port).map(str::to_owned).unwrap_or(origin)
}

/// `scheme://host[:port]` and nothing behind it (RFC 6454 section 7).
fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return false };
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let is_host =
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte));
    is_scheme && is_host && text.len() <= ORIGIN_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_allowed_by_name_or_all_at_once() {
        let none = Cors::default();
        assert_eq!((none.fields(Some(b"https://a")), &*none.preflight_fields(Some(b"https://a"), "GET")), ("", ""));
        let all = Cors::new(["*"]).unwrap();
        assert!(all.fields(Some(b"https://a")).starts_with("Access-Control-Allow-Origin: *\r\n"));
        assert_eq!(all.fields(None), all.fields(Some(b"null")));
        let some = Cors::new(["https://a.example", "http://B:8080"]).unwrap();
        assert!(some.fields(Some(b"http://b:8080")).contains("Access-Control-Allow-Origin: http://b:8080\r\n"));
        assert!(some.preflight_fields(Some(b"https://a.example"), "GET").contains("Allow-Methods: GET\r\n"));
        for other in [None, Some(&b"https://a.example.org"[..]), Some(b"null"), Some(b"https://a.example\r\nX: y")] {
            assert_eq!((some.fields(other), &*some.preflight_fields(other, "GET")), ("Vary: Origin\r\n", ""));
        }
    }

    #[test]
    fn origins_are_named_as_browsers_name_them() {
        let allowed = |configured: &str, origin: &str| {
            Cors::new([configured]).unwrap().fields(Some(origin.as_bytes())).contains("Allow-Origin")
        };
        assert!(allowed("https://a.example:443", "https://a.example"));
        assert!(allowed("HTTP://[::1]:80", "http://[::1]"));
        for (configured, origin) in [
            ("https://a.example:80", "https://a.example"),
            ("http://a.example:443", "http://a.example"),
            ("https://a.example:8443", "https://a.example"),
            ("http://a.example:8080", "http://a.example"),
            ("other://a.example:443", "other://a.example"),
        ] {
            assert!(!allowed(configured, origin) && allowed(configured, configured), "{configured}");
        }
    }

    #[test]
    fn what_is_not_an_origin_is_refused() {
        for bad in
            ["", "a.example", "https://", "https://a/", "https://a b", "https://a\r\nX: y", "://a", "1://a", "*.a"]
        {
            assert_eq!(Cors::new([bad]).unwrap_err(), OriginError(bad.to_owned()));
        }
        assert!(Cors::new([&*format!("https://{}", "a".repeat(ORIGIN_BYTES_MAX))]).is_err());
    }
}
