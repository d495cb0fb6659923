//! Conditions that a request makes (RFC 9110 section 13). Pure.
//!
//! A block never changes and its entity tag is its name, so a list of tags is compared with the one tag that the target can have as soon
//! as it is read. There are no dates of modification: conditions on those are ignored, as the RFC asks.

use crate::range::ByteRange;
use buddy_store::Hash;

/// What the tags of `If-Match` or `If-None-Match` have to do with the target's own; a later one says more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Tags {
    /// The field is not there.
    #[default]
    Absent,
    /// The target's tag is not among them.
    Other,
    /// It is, but marked as weak.
    Weak,
    /// It is.
    Own,
    /// `*`: whatever there is.
    Any,
}

impl Tags {
    /// Reads the value of a field. `own`: the target, if it is a block.
    #[must_use]
    pub fn parse(value: &[u8], own: Option<&Hash>) -> Tags {
        if value.trim_ascii() == b"*" {
            return Tags::Any;
        }
        let own = own.map(Hash::to_hex);
        let mut rest = value;
        let mut found = Tags::Other;
        while let Some((is_weak, tag, after)) = next_tag(rest) {
            if own.as_ref().is_some_and(|own| own == tag) {
                found = found.max(if is_weak { Tags::Weak } else { Tags::Own });
            }
            rest = after;
        }
        found
    }
}

/// The next entity tag of a list: whether it is weak, what is between its quotes, and what follows.
fn next_tag(list: &[u8]) -> Option<(bool, &[u8], &[u8])> {
    let start = list.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
    let list = list.get(start..)?;
    let (is_weak, list) = match list.strip_prefix(b"W/") {
        Some(list) => (true, list),
        None => (false, list),
    };
    let list = list.strip_prefix(b"\"")?;
    let end = list.iter().position(|byte| *byte == b'"')?;
    Some((is_weak, list.get(..end)?, list.get(end + 1..)?))
}

/// The conditions of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Conditions {
    /// `If-Match`
    pub if_match: Tags,
    /// `If-None-Match`
    pub if_none_match: Tags,
    /// `Range`, where `If-Range` has nothing against it.
    pub range: Option<ByteRange>,
}

/// What conditions say to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Go on.
    Holds,
    /// The client has it already: `304` to GET and HEAD.
    NotModified,
    /// `412`
    Failed,
}

impl Conditions {
    /// True where there is nothing to be looked at before a request is carried out.
    #[must_use]
    pub fn are_empty(&self) -> bool {
        self.if_match == Tags::Absent && self.if_none_match == Tags::Absent
    }

    /// Judges a request, in the order of RFC 9110 section 13.2.2. `exists`: the target leads to something. `reads`: the method is GET
    /// or HEAD.
    #[must_use]
    pub fn judge(&self, exists: bool, reads: bool) -> Verdict {
        let matched = match self.if_match {
            Tags::Absent => true,
            // Compared strongly (section 13.1.1).
            tags => exists && tags >= Tags::Own,
        };
        let unmatched = !exists || self.if_none_match < Tags::Weak;
        match (matched, unmatched, reads) {
            (true, true, _) => Verdict::Holds,
            (true, false, true) => Verdict::NotModified,
            _ => Verdict::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_tags_are_compared_with_the_targets_own() {
        let own = Hash::of(b"x");
        let tags = |text: String| Tags::parse(text.as_bytes(), Some(&own));
        assert_eq!(tags(format!("\"{own}\"")), Tags::Own);
        assert_eq!(tags(format!("W/\"{own}\"")), Tags::Weak);
        assert_eq!(tags(format!("\"a\", W/\"b,c\" ,,\t\"{own}\"")), Tags::Own);
        assert_eq!(tags(format!("W/\"{own}\", \"{own}\"")), Tags::Own);
        assert_eq!(tags(" * ".into()), Tags::Any);
        for other in ["", "\"\"", "\"a\"", "x", "\"", "W/", "*, \"a\"", "w/\"a\""] {
            assert_eq!(tags(other.into()), Tags::Other, "{other}");
        }
        assert_eq!(tags(own.to_string()), Tags::Other, "a tag has quotes");
        assert_eq!(tags(format!("\"{own}")), Tags::Other);
        assert_eq!(
            tags(format!("\"{}\"", own.to_string().to_uppercase())),
            Tags::Other,
            "tags are compared byte by byte"
        );
        assert_eq!(tags(format!("\"a\" x \"{own}\"")), Tags::Other, "what is malformed ends the list");
        assert_eq!(Tags::parse(format!("\"{own}\"").as_bytes(), None), Tags::Other);
    }

    #[test]
    fn conditions_are_judged_in_order() {
        let judge = |if_match, if_none_match, exists, reads| {
            Conditions { if_match, if_none_match, range: None }.judge(exists, reads)
        };
        let none = Tags::Absent;
        assert_eq!(judge(none, none, false, true), Verdict::Holds);
        assert_eq!(judge(Tags::Own, none, true, true), Verdict::Holds);
        assert_eq!(judge(Tags::Any, none, true, false), Verdict::Holds);
        assert_eq!(judge(Tags::Any, none, false, false), Verdict::Failed);
        assert_eq!(judge(Tags::Weak, none, true, true), Verdict::Failed, "weak tags never match strongly");
        assert_eq!(judge(Tags::Other, Tags::Own, true, true), Verdict::Failed, "If-Match comes first");
        assert_eq!(judge(none, Tags::Weak, true, true), Verdict::NotModified, "weak tags match weakly");
        assert_eq!(judge(none, Tags::Any, true, true), Verdict::NotModified);
        assert_eq!(judge(none, Tags::Any, true, false), Verdict::Failed);
        assert_eq!(judge(none, Tags::Any, false, false), Verdict::Holds);
        assert_eq!(judge(none, Tags::Other, true, true), Verdict::Holds);
    }
}
