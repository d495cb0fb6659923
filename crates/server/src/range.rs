//! One range of a block's bytes, as a client asks for it (RFC 9110 section 14). Pure.
//!
//! A malformed field, and one that asks for several ranges, is as good as none: the whole block is a correct answer to both.

use std::ops::Range;

/// A range of bytes, before the length of the block is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ByteRange {
    /// `a-`: from here to the end.
    From(u64),
    /// `a-b`: both ends included, the first not behind the last.
    Between(u64, u64),
    /// `-n`: so many at the end.
    Last(u64),
}

/// What a range selects of a block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Selected {
    /// Everything, and it is not called a part: the empty block has no last byte that could be named.
    Whole,
    /// These bytes, at least one.
    Part(Range<u32>),
    /// Nothing: the block ends before.
    Nothing,
}

impl ByteRange {
    /// Reads the value of a `Range` field. `None` where it is malformed, in another unit than bytes, or asks for several ranges.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<ByteRange> {
        let equals = value.iter().position(|byte| *byte == b'=')?;
        let (unit, set) = value.split_at_checked(equals)?;
        if !unit.eq_ignore_ascii_case(b"bytes") {
            return None;
        }
        // Empty elements of a list are passed over (RFC 9110 section 5.6.1.2).
        let mut ranges =
            set.get(1..)?.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|one| !one.is_empty());
        let range = ByteRange::parse_one(ranges.next()?)?;
        ranges.next().is_none().then_some(range)
    }

    fn parse_one(text: &[u8]) -> Option<ByteRange> {
        let dash = text.iter().position(|byte| *byte == b'-')?;
        let (first, last) = (text.get(..dash)?, text.get(dash + 1..)?);
        match (first.is_empty(), last.is_empty()) {
            (true, true) => None,
            (true, false) => Some(ByteRange::Last(number(last)?)),
            (false, true) => Some(ByteRange::From(number(first)?)),
            (false, false) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(ByteRange::Between(first, last))
            }
        }
    }

    /// What it selects of a block of `length` bytes.
    #[must_use]
    pub fn select(self, length: u32) -> Selected {
        let whole = u64::from(length);
        let (start, end) = match self {
            ByteRange::Last(0) => return Selected::Nothing,
            ByteRange::Last(_) if length == 0 => return Selected::Whole,
            ByteRange::Last(count) => (whole.saturating_sub(count), whole),
            ByteRange::From(first) => (first, whole),
            ByteRange::Between(first, last) => (first, last.saturating_add(1).min(whole)),
        };
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) if start < length => Selected::Part(start..end),
            _ => Selected::Nothing,
        }
    }
}

/// Digits only; what is larger than any block is as large as a number can be.
fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |number, digit| {
        let value = char::from(*digit).to_digit(10)?;
        Some(number.saturating_mul(10).saturating_add(u64::from(value)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Option<ByteRange> {
        ByteRange::parse(text.as_bytes())
    }

    #[test]
    fn one_range_is_read_and_everything_else_is_ignored() {
        assert_eq!(parse("bytes=0-99"), Some(ByteRange::Between(0, 99)));
        assert_eq!(parse("BYTES=7-"), Some(ByteRange::From(7)));
        assert_eq!(parse("bytes=-5"), Some(ByteRange::Last(5)));
        assert_eq!(parse("bytes= 1-2 , ,"), Some(ByteRange::Between(1, 2)));
        assert_eq!(parse(&format!("bytes={}-", "9".repeat(40))), Some(ByteRange::From(u64::MAX)));
        for ignored in
            ["", "bytes", "bytes=", "bytes=-", "bytes=,", "bytes=2-1", "bytes=+1-2", "bytes=1 - 2", "bytes=a-", "0-1"]
        {
            assert_eq!(parse(ignored), None, "{ignored}");
        }
        for ignored in ["items=0-1", "bytes=0-1,3-4", "bytes=1--2", "bytes =0-1", "bytes=0x1-2", "bytes=0-1;x"] {
            assert_eq!(parse(ignored), None, "{ignored}");
        }
    }

    #[test]
    fn ends_of_blocks_are_where_they_should_be() {
        let select = |text: &str, length| parse(text).unwrap().select(length);
        assert_eq!(select("bytes=0-0", 1), Selected::Part(0..1));
        assert_eq!(select("bytes=1-1", 1), Selected::Nothing);
        assert_eq!(select("bytes=0-99", 10), Selected::Part(0..10));
        assert_eq!(select("bytes=9-", 10), Selected::Part(9..10));
        assert_eq!(select("bytes=10-", 10), Selected::Nothing);
        assert_eq!(select("bytes=-3", 10), Selected::Part(7..10));
        assert_eq!(select("bytes=-30", 10), Selected::Part(0..10));
        assert_eq!(select("bytes=-0", 10), Selected::Nothing);
        assert_eq!(select("bytes=0-", 0), Selected::Nothing);
        assert_eq!(select("bytes=-1", 0), Selected::Whole);
        assert_eq!(select("bytes=18446744073709551615-18446744073709551615", 10), Selected::Nothing);
        assert_eq!(select("bytes=4294967296-", 10), Selected::Nothing, "not its lower half");
    }

    proptest! {
        #[test]
        fn what_is_selected_is_what_was_asked_for(length in 0..600_000u32, first: u32, last: u32) {
            let (first, last) = (first % 700_000, last % 700_000);
            let wanted: Vec<u32> = (0..length).filter(|at| (first..=last).contains(at)).collect();
            match ByteRange::parse(format!("bytes={first}-{last}").as_bytes()) {
                None => prop_assert!(first > last),
                Some(range) => match range.select(length) {
                    Selected::Part(part) => prop_assert_eq!(part.collect::<Vec<_>>(), wanted),
                    Selected::Nothing => prop_assert!(wanted.is_empty()),
                    Selected::Whole => prop_assert!(false, "that is for ranges at the end"),
                },
            }
        }
    }
}
