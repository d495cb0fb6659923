//! What a request is about: the request target (RFC 9112 section 3.2) as one of the few things that are here.

use crate::limits::{LISTED_DEFAULT, LISTED_MAX};
use crate::request::Method;
use crate::status::shown;
use buddy_store::Hash;
use percent_encoding::percent_decode_str;

/// What a request is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// `*`: the server as a whole, for OPTIONS.
    Everything,
    /// `/`: blocks, whatever their names turn out to be.
    Blocks,
    /// `/{hash}`
    Block(Hash),
    /// `/something` that is not a hash.
    BadName(String),
    /// `/-/missing`
    Missing,
    /// `/-/blocks`
    List(ListQuery),
    /// `/-/blocks` with a query that makes no sense, and why.
    BadQuery(String),
    /// `/-/health`
    Health,
    /// `/-/ready`
    Ready,
    /// `/-/stats`
    Stats,
    /// `/-/metrics`
    Metrics,
    /// `/-/openapi.yaml`
    OpenApi,
    /// Anything else.
    Unknown(String),
    /// None of the forms that a target has.
    Malformed(String),
}

/// Which names `/-/blocks` is to list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListQuery {
    /// Those behind this one; `None`: from the first.
    pub after: Option<Hash>,
    /// At most so many.
    pub limit: usize,
}

impl Target {
    /// Reads a target. On blocks a query is ignored; anything may be percent-encoded.
    #[must_use]
    pub fn parse(target: &str) -> Target {
        if target == "*" {
            return Target::Everything;
        }
        // A fragment is for the client alone.
        if target.contains('#') {
            return Target::Malformed(target.to_owned());
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = if path.starts_with('/') { Some(path) } else { absolute_form_path(path) };
        match path {
            None => Target::Malformed(target.to_owned()),
            Some("/" | "") => Target::Blocks,
            Some(path) => match path.strip_prefix('/').map(|name| Hash::from_hex(name.as_bytes())) {
                Some(Ok(hash)) => Target::Block(hash),
                _ => Target::parse_path(path, query),
            },
        }
    }

    fn parse_path(path: &str, query: &str) -> Target {
        let decoded = percent_decode_str(path).decode_utf8_lossy();
        // A slash that is encoded separates nothing.
        let is_one_segment = path.rfind('/') == Some(0);
        let name = decoded.strip_prefix('/').unwrap_or(&decoded);
        if is_one_segment {
            return Hash::from_hex(name.as_bytes()).map_or_else(|_| Target::BadName(name.to_owned()), Target::Block);
        }
        match &*decoded {
            "/-/health" => Target::Health,
            "/-/ready" => Target::Ready,
            "/-/stats" => Target::Stats,
            "/-/metrics" => Target::Metrics,
            "/-/openapi.yaml" => Target::OpenApi,
            "/-/missing" => Target::Missing,
            "/-/blocks" => ListQuery::parse(query).map_or_else(Target::BadQuery, Target::List),
            _ => Target::Unknown(decoded.into_owned()),
        }
    }

    /// The block that it is about, if it is about one.
    #[must_use]
    pub fn block(&self) -> Option<&Hash> {
        match self {
            Target::Block(hash) => Some(hash),
            _ => None,
        }
    }

    /// The methods that it offers beside OPTIONS, as they stand in `Allow`; `None` where there is nothing.
    #[must_use]
    pub fn allow(&self) -> Option<&'static str> {
        match self {
            Target::Everything => Some("GET, HEAD, PUT, POST, DELETE"),
            Target::Blocks => Some("PUT, POST"),
            Target::Block(_) => Some("GET, HEAD, PUT, DELETE"),
            Target::Missing => Some("POST"),
            Target::List(_) | Target::BadQuery(_) => Some("GET, HEAD"),
            Target::Health | Target::Ready | Target::Stats | Target::Metrics | Target::OpenApi => Some("GET, HEAD"),
            Target::BadName(_) | Target::Unknown(_) | Target::Malformed(_) => None,
        }
    }

    /// Whether it offers a method.
    #[must_use]
    pub fn offers(&self, method: Method) -> bool {
        if method == Method::Options {
            return self.allow().is_some();
        }
        match self {
            Target::Blocks => matches!(method, Method::Put | Method::Post),
            Target::Block(_) => matches!(method, Method::Get | Method::Head | Method::Put | Method::Delete),
            Target::Missing => method == Method::Post,
            Target::List(_)
            | Target::BadQuery(_)
            | Target::Health
            | Target::Ready
            | Target::Stats
            | Target::Metrics
            | Target::OpenApi => {
                matches!(method, Method::Get | Method::Head)
            }
            Target::Everything | Target::BadName(_) | Target::Unknown(_) | Target::Malformed(_) => false,
        }
    }
}

impl ListQuery {
    fn parse(query: &str) -> Result<ListQuery, String> {
        let (mut after, mut limit) = (None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let given_twice = match &*name {
                // So that a script can begin with nothing.
                "after" if value.is_empty() => after.replace(None).is_some(),
                "after" => {
                    let hash = Hash::from_hex(value.as_bytes())
                        .map_err(|_| format!("after is \"{}\": it must be 64 hex digits", shown(&value)))?;
                    after.replace(Some(hash)).is_some()
                }
                "limit" => {
                    let count = value.parse().ok().filter(|count| (1..=LISTED_MAX).contains(count));
                    let count = count.ok_or_else(|| {
                        format!("limit is \"{}\": it must be a number between 1 and {LISTED_MAX}", shown(&value))
                    })?;
                    limit.replace(count).is_some()
                }
                _ => return Err(format!("\"{}\" is not known here, only after and limit", shown(&name))),
            };
            if given_twice {
                return Err(format!("{name} is given twice"));
            }
        }
        Ok(ListQuery { after: after.flatten(), limit: limit.unwrap_or(LISTED_DEFAULT) })
    }
}

/// The path of `http://host/path`; `None` where it is nothing like that.
fn absolute_form_path(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    let is_known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    // What a client writes before a host does not matter here, nor does the port; an empty host is an error (RFC 9110 section 4.2.1).
    let host = authority.rsplit('@').next().unwrap_or_default();
    if !is_known || host.is_empty() || host.starts_with(':') {
        return None;
    }
    Some(if path.is_empty() { "/" } else { path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_in_every_form() {
        let hash = Hash::of(b"x");
        let block = Target::Block(hash);
        let text = hash.to_string();
        assert_eq!(Target::parse("/"), Target::Blocks);
        assert_eq!(Target::parse("/?query"), Target::Blocks);
        assert_eq!(Target::parse("http://host"), Target::Blocks);
        assert_eq!(Target::parse(&format!("http://host?x=/{text}")), Target::Blocks, "the slash is the query's");
        assert_eq!(Target::parse(&format!("/{text}")), block);
        assert_eq!(Target::parse(&format!("/{}", text.to_uppercase())), block);
        assert_eq!(Target::parse(&format!("/{text}?a=b&c")), block);
        assert_eq!(Target::parse(&format!("HTTP://host:1/{text}")), block);
        assert_eq!(Target::parse(&format!("/%{:02x}{}", text.as_bytes()[0], &text[1..])), block);
        assert_eq!(Target::parse("/-/stats?pretty"), Target::Stats);
        assert_eq!(Target::parse("/%2D/he%61lth"), Target::Health);
        assert_eq!(Target::parse("/abc"), Target::BadName("abc".into()));
        assert_eq!(Target::parse("/a%2Fb"), Target::BadName("a/b".into()));
        assert_eq!(Target::parse("/-%2Fhealth"), Target::BadName("-/health".into()));
        assert_eq!(Target::parse(&format!("/{text}0")), Target::BadName(format!("{text}0")));
        assert_eq!(Target::parse("/-/nothing"), Target::Unknown("/-/nothing".into()));
        assert_eq!(Target::parse("/a/b"), Target::Unknown("/a/b".into()));
        assert_eq!(Target::parse(&format!("//{text}")), Target::Unknown(format!("//{text}")));
        assert_eq!(Target::parse("*"), Target::Everything);
        assert_eq!(Target::parse(&format!("http://user:word@[::1]:80/{text}")), block);
        let hostless =
            ["http:///x", "http://", "http://:80/x", "http://:80", "http://a@/x", "http://a:b@:80/x", "https://?x"];
        for malformed in ["ftp://host/x", "host:80", "x", "", "-/health", "/x#y", "#"].into_iter().chain(hostless) {
            assert_eq!(Target::parse(malformed), Target::Malformed(malformed.into()));
        }
    }

    #[test]
    fn queries_of_lists_are_read_and_nonsense_is_refused() {
        let (hash, list) = (Hash::of(b"x"), |query: &str| Target::parse(&format!("/-/blocks{query}")));
        let expected = |after, limit| Target::List(ListQuery { after, limit });
        assert_eq!(list(""), expected(None, 1000));
        assert_eq!(list("?after=&limit=7"), expected(None, 7));
        assert_eq!(list(&format!("?limit=10000&after={hash}")), expected(Some(hash), 10_000));
        assert_eq!(list(&format!("?after=%{:02x}{}", b'2', &hash.to_string()[1..])), expected(Some(hash), 1000));
        for bad in [
            "?after=x",
            "?limit=0",
            "?limit=10001",
            "?limit=-1",
            "?limit=x",
            "?limit=1&limit=1",
            "?after=&after=",
            "?x",
        ] {
            assert!(matches!(list(bad), Target::BadQuery(_)), "{bad}");
        }
    }
}
