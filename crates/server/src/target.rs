//! What a request is about: the request target (RFC 9112 section 3.2) as one of the few things that are here.

use crate::request::Method;
use buddy_store::Hash;
use percent_encoding::percent_decode_str;

/// What a request is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// `/`: blocks, whatever their names turn out to be.
    Blocks,
    /// `/{hash}`
    Block(Hash),
    /// `/something` that is not a hash.
    BadName(String),
    /// `/-/health`
    Health,
    /// `/-/ready`
    Ready,
    /// `/-/stats`
    Stats,
    /// Anything else.
    Unknown(String),
}

impl Target {
    /// Reads an origin-form or absolute-form target. A query is ignored; a hash may be percent-encoded.
    #[must_use]
    pub fn parse(target: &str) -> Target {
        let target = target.split(['?', '#']).next().unwrap_or(target);
        let path = match target.strip_prefix('/') {
            Some(_) => target,
            None => absolute_form_path(target).unwrap_or(target),
        };
        match path {
            "/" | "" => Target::Blocks,
            "/-/health" => Target::Health,
            "/-/ready" => Target::Ready,
            "/-/stats" => Target::Stats,
            _ => Target::named(path),
        }
    }

    fn named(path: &str) -> Target {
        let Some(name) = path.strip_prefix('/') else { return Target::Unknown(path.to_owned()) };
        if name.contains('/') {
            return Target::Unknown(path.to_owned());
        }
        let decoded: Vec<u8> = percent_decode_str(name).collect();
        match Hash::from_hex(&decoded) {
            Ok(hash) => Target::Block(hash),
            Err(_) => Target::BadName(String::from_utf8_lossy(&decoded).into_owned()),
        }
    }

    /// The methods that it offers, as they stand in `Allow`; `None` where there is nothing.
    #[must_use]
    pub fn allow(&self) -> Option<&'static str> {
        match self {
            Target::Blocks => Some("PUT, POST"),
            Target::Block(_) => Some("GET, HEAD, PUT, DELETE"),
            Target::Health | Target::Ready | Target::Stats => Some("GET, HEAD"),
            Target::BadName(_) | Target::Unknown(_) => None,
        }
    }

    /// Whether it offers a method.
    #[must_use]
    pub fn offers(&self, method: Method) -> bool {
        match self {
            Target::Blocks => matches!(method, Method::Put | Method::Post),
            Target::Block(_) => matches!(method, Method::Get | Method::Head | Method::Put | Method::Delete),
            Target::Health | Target::Ready | Target::Stats => matches!(method, Method::Get | Method::Head),
            Target::BadName(_) | Target::Unknown(_) => false,
        }
    }
}

/// The path of `http://host/path`.
fn absolute_form_path(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    Some(rest.find('/').and_then(|slash| rest.get(slash..)).unwrap_or("/"))
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
        assert_eq!(Target::parse("/abc"), Target::BadName("abc".into()));
        assert_eq!(Target::parse(&format!("/{text}0")), Target::BadName(format!("{text}0")));
        assert_eq!(Target::parse("/-/nothing"), Target::Unknown("/-/nothing".into()));
        assert_eq!(Target::parse("/a/b"), Target::Unknown("/a/b".into()));
        assert_eq!(Target::parse("*"), Target::Unknown("*".into()));
        assert_eq!(Target::parse("ftp://host/x"), Target::Unknown("ftp://host/x".into()));
    }
}
