//! Paths of blocks: `/{name}`, `/{shard:2}/{name}`.
//!
//! `{name}` is 64 hex digits that the client chooses, `{hash}` the SHA-256 of the body, `{shard:N}` the first N digits of either.

use crate::name::{HEX_DIGITS, Name};
use std::str::FromStr;

/// Where a block lies on a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template {
    parts: Vec<Part>,
    is_hash: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Text(String),
    /// The first digits of the name.
    Digits(usize),
}

/// Why a text is no template.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TemplateError {
    /// Paths are absolute.
    #[error("the path \"{0}\" does not begin with \"/\"")]
    NotAbsolute(String),
    /// A bracket without its counterpart.
    #[error("the path \"{0}\" has a bracket without its counterpart")]
    Bracket(String),
    /// Something else in brackets.
    #[error("{{{0}}} is not {{name}}, {{hash}} or {{shard:N}} with N from 1 to 64")]
    Unknown(String),
    /// Without the name all blocks would lie in one place.
    #[error("the path \"{0}\" needs {{name}} or {{hash}}, one of them, once")]
    Name(String),
    /// It could not be sent.
    #[error("the path \"{0}\" has a character that needs percent-encoding")]
    Character(String),
}

impl Template {
    /// `/{name}`.
    #[must_use]
    pub fn plain() -> Template {
        Template { parts: vec![Part::Text("/".to_owned()), Part::Digits(HEX_DIGITS)], is_hash: false }
    }

    /// Whether blocks are named by their SHA-256.
    #[must_use]
    pub fn is_hash(&self) -> bool {
        self.is_hash
    }

    /// Appends the path of `name`.
    pub(crate) fn write(&self, name: Name, out: &mut Vec<u8>) {
        let digits = name.to_hex();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Digits(count) => out.extend_from_slice(digits.get(..*count).unwrap_or_default()),
            }
        }
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Template, TemplateError> {
        if !text.starts_with('/') {
            return Err(TemplateError::NotAbsolute(text.to_owned()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(TemplateError::Character(text.to_owned()));
        }
        let (mut parts, mut names, mut is_hash) = (Vec::new(), 0, false);
        let mut rest = text;
        while !rest.is_empty() {
            let (literal, bracket) = rest.split_once('{').map_or((rest, None), |(before, after)| (before, Some(after)));
            if literal.contains('}') {
                return Err(TemplateError::Bracket(text.to_owned()));
            }
            parts.push(Part::Text(literal.to_owned()));
            let Some(bracket) = bracket else { break };
            let (inside, after) = bracket.split_once('}').ok_or_else(|| TemplateError::Bracket(text.to_owned()))?;
            let digits = digits_of(inside).ok_or_else(|| TemplateError::Unknown(inside.to_owned()))?;
            names += usize::from(!inside.starts_with("shard"));
            is_hash |= inside == "hash";
            parts.push(Part::Digits(digits));
            rest = after;
        }
        if names != 1 {
            return Err(TemplateError::Name(text.to_owned()));
        }
        Ok(Template { parts, is_hash })
    }
}

/// How many digits of the name what stands in brackets is.
fn digits_of(inside: &str) -> Option<usize> {
    match inside {
        "name" | "hash" => Some(HEX_DIGITS),
        _ => inside.strip_prefix("shard:")?.parse().ok().filter(|digits| (1..=HEX_DIGITS).contains(digits)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(template: &str) -> String {
        let mut out = Vec::new();
        template.parse::<Template>().unwrap().write(Name::hash_of(&[b"hello"]), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn paths_are_made_of_the_name() {
        let digits = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!(path("/{name}"), format!("/{digits}"));
        assert_eq!(path("/{shard:2}/{name}"), format!("/2c/{digits}"));
        assert_eq!(path("/a/{hash}.block?x={shard:3}"), format!("/a/{digits}.block?x=2cf"));
        assert!("/{hash}".parse::<Template>().unwrap().is_hash());
        assert!(!"/{name}".parse::<Template>().unwrap().is_hash());
        assert_eq!("/{name}".parse(), Ok(Template::plain()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |text: &str| text.parse::<Template>().unwrap_err().to_string();
        assert!(error("{name}").contains("does not begin"));
        assert!(error("/{name").contains("bracket") && error("/name}").contains("bracket"));
        assert!(error("/{file}").contains("{file} is not {name}"));
        assert!(error("/{shard:0}/{name}").contains("{shard:0}") && error("/{shard:65}/{name}").contains("1 to 64"));
        assert!(error("/{shard:2}").contains("needs {name}") && error("/{name}{hash}").contains("once"));
        assert!(error("/a b/{name}").contains("percent-encoding"));
    }
}
