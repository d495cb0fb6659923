//! Rights, and which one a request needs. Pure.

use crate::request::Method;
use crate::target::Target;
use std::fmt;
use std::str::FromStr;

/// What one may be allowed to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    /// Read blocks, and ask whether they are there.
    Read,
    /// Store blocks.
    Write,
    /// Remove blocks.
    Delete,
    /// Everything below `/-/`.
    Admin,
}

impl Right {
    /// All of them.
    pub const ALL: [Right; 4] = [Right::Read, Right::Write, Right::Delete, Right::Admin];

    /// Its name in files and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Right::Read => "read",
            Right::Write => "write",
            Right::Delete => "delete",
            Right::Admin => "admin",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of rights.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rights(u8);

impl Rights {
    /// No right.
    pub const NONE: Rights = Rights(0);
    /// Every right.
    pub const ALL: Rights = Rights(Right::Read.bit() | Right::Write.bit() | Right::Delete.bit() | Right::Admin.bit());

    /// Whether a right is among them.
    #[must_use]
    pub const fn has(self, right: Right) -> bool {
        self.0 & right.bit() != 0
    }

    /// Those and others.
    #[must_use]
    pub const fn and(self, others: Rights) -> Rights {
        Rights(self.0 | others.0)
    }

    /// Whether they are enough.
    #[must_use]
    pub const fn meet(self, need: Need) -> bool {
        match need {
            Need::Nothing => true,
            Need::Any => self.0 != 0,
            Need::One(right) => self.has(right),
        }
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Rights {
        Rights(rights.into_iter().fold(0, |bits, right| bits | right.bit()))
    }
}

/// A right that there is not.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is not a right: write read, write, delete, admin, several with commas between them, or none")]
pub struct RightsError(String);

impl FromStr for Rights {
    type Err = RightsError;

    fn from_str(text: &str) -> Result<Rights, RightsError> {
        if text.trim() == "none" {
            return Ok(Rights::NONE);
        }
        let right = |name: &str| {
            let found = Right::ALL.into_iter().find(|right| right.name() == name);
            found.ok_or_else(|| RightsError(name.to_owned()))
        };
        text.split(',').map(|name| right(name.trim())).collect()
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Right::ALL.into_iter().filter(|right| self.has(*right)).map(Right::name).collect();
        formatter.write_str(if names.is_empty() { "none" } else { "" })?;
        formatter.write_str(&names.join(","))
    }
}

/// What a request needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// Anybody may.
    Nothing,
    /// Whoever may do anything at all.
    Any,
    /// This right.
    One(Right),
}

impl Need {
    /// What a request with this method for this target needs, whether it is offered or not: who may do nothing learns nothing.
    ///
    /// There is no arm for everything else: whoever adds a target says here who may use it.
    #[must_use]
    pub fn of(method: Method, target: &Target) -> Need {
        match target {
            Target::Health | Target::Ready => Need::Nothing,
            // A browser asks with it whether it may send a token (Fetch, section 4.8), and does not send one with it.
            _ if method == Method::Options => Need::Nothing,
            // It says of names what HEAD says.
            Target::Missing => Need::One(Right::Read),
            Target::Stats | Target::Metrics | Target::OpenApi | Target::List(_) | Target::BadQuery(_) => {
                Need::One(Right::Admin)
            }
            Target::Unknown(path) if path.starts_with("/-/") => Need::One(Right::Admin),
            Target::Everything
            | Target::Blocks
            | Target::Block(_)
            | Target::BadName(_)
            | Target::Unknown(_)
            | Target::Malformed(_) => match method {
                Method::Get | Method::Head => Need::One(Right::Read),
                Method::Put | Method::Post => Need::One(Right::Write),
                Method::Delete => Need::One(Right::Delete),
                Method::Options | Method::Other => Need::Any,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_read_as_they_are_written() {
        let rights = |text: &str| text.parse::<Rights>().map_err(|error| error.to_string());
        assert_eq!(rights("none"), Ok(Rights::NONE));
        assert_eq!(rights("read, delete"), Ok([Right::Read, Right::Delete].into_iter().collect()));
        assert_eq!(rights("read,write,delete,admin"), Ok(Rights::ALL));
        assert!(rights("").is_err() && rights("read,").is_err() && rights("read,none").is_err());
        assert!(rights("Read").unwrap_err().contains("\"Read\" is not a right"));
        for text in ["none", "read", "write,admin", "read,write,delete,admin"] {
            assert_eq!(rights(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn every_method_on_every_target_needs_its_right() {
        let need = |method, target: &str| Need::of(method, &Target::parse(target));
        let block = format!("/{}", buddy_store::Hash::of(b"x"));
        for path in ["/", &block, "/abc", "/a/b", "*", "nonsense"] {
            assert_eq!(need(Method::Get, path), Need::One(Right::Read), "{path}");
            assert_eq!(need(Method::Head, path), Need::One(Right::Read), "{path}");
            assert_eq!(need(Method::Put, path), Need::One(Right::Write), "{path}");
            assert_eq!(need(Method::Post, path), Need::One(Right::Write), "{path}");
            assert_eq!(need(Method::Delete, path), Need::One(Right::Delete), "{path}");
            assert_eq!(need(Method::Other, path), Need::Any, "{path}");
            assert_eq!(need(Method::Options, path), Need::Nothing, "{path}");
        }
        for path in ["/-/stats", "/-/metrics", "/-/blocks", "/-/blocks?x", "/-/openapi.yaml", "/-/", "/-/nothing"] {
            for method in [Method::Get, Method::Head, Method::Put, Method::Post, Method::Delete, Method::Other] {
                assert_eq!(need(method, path), Need::One(Right::Admin), "{path}");
            }
        }
        assert_eq!(need(Method::Post, "/-/missing"), Need::One(Right::Read));
        for method in [Method::Get, Method::Put, Method::Other] {
            assert_eq!(need(method, "/-/health"), Need::Nothing);
            assert_eq!(need(method, "/-/ready"), Need::Nothing);
        }
    }

    #[test]
    fn rights_are_enough_or_not() {
        let read: Rights = [Right::Read].into_iter().collect();
        assert!(read.meet(Need::Any) && read.meet(Need::One(Right::Read)) && !read.meet(Need::One(Right::Write)));
        assert!(Rights::NONE.meet(Need::Nothing) && !Rights::NONE.meet(Need::Any));
        assert!(Right::ALL.into_iter().all(|right| Rights::ALL.meet(Need::One(right))));
    }
}
