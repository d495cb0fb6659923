//! Values as people write them: `64KiB`, `10GB`, `1s`, `500ms`.

use buddy_ring::{Address, AddressError};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes: `4096`, `64KiB`, `10GB`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bytes(pub(crate) u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Bytes, String> {
        match text.parse::<bytesize::ByteSize>().map(|size| size.as_u64()) {
            // What does not fit is cut down to this.
            Ok(u64::MAX) => Err(format!("\"{text}\" is too large for a size")),
            Ok(bytes) => Ok(Bytes(bytes)),
            Err(_) => Err(format!("\"{text}\" is not a size: write bytes, or 64KiB, 10GB …")),
        }
    }
}

/// A span of time: `1s`, `500ms`, `2min`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        add_parts(text).map(Span).ok_or_else(|| format!("\"{text}\" is not a time: write 1s, 500ms, 2min …"))
    }
}

/// `1min 30s` part by part: humantime, given all of them, panics where they come to a second more than the longest time there is.
fn add_parts(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    loop {
        // A number and its unit: up to the first digit behind a letter.
        let unit = rest.find(char::is_alphabetic).unwrap_or(rest.len());
        let digit = rest.get(unit..)?.find(|letter: char| letter.is_ascii_digit());
        let (part, more) = rest.split_at_checked(digit.map_or(rest.len(), |digit| unit + digit))?;
        total = total.checked_add(humantime::parse_duration(part).ok()?)?;
        if more.is_empty() {
            return Some(total);
        }
        rest = more;
    }
}

/// Addresses to listen on: `127.0.0.1:10001,unix:/run/buddy-blocks/buddy.sock`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Addresses(pub(crate) Vec<Address>);

impl FromStr for Addresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Addresses, String> {
        let addresses: Result<_, _> = text.split(',').map(|address| address.trim().parse()).collect();
        addresses.map(Addresses).map_err(|error: AddressError| error.to_string())
    }
}

/// Permissions of a file, in octal: `0660`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct UnixMode(pub(crate) u32);

impl FromStr for UnixMode {
    type Err = String;

    fn from_str(text: &str) -> Result<UnixMode, String> {
        u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .map(UnixMode)
            .ok_or_else(|| format!("\"{text}\" is no mode: write three octal digits, as in 0660"))
    }
}

/// In a file a size is a text, or a number of bytes.
struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a size: bytes, or \"64KiB\", \"10GB\" …")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<Bytes, E> {
        u64::try_from(bytes).map(Bytes).map_err(|_| E::custom(format!("{bytes} is not a size")))
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<Bytes, E> {
        Ok(Bytes(bytes))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        deserializer.deserialize_any(BytesVisitor)
    }
}

/// In a file these are texts, as on the command line.
macro_rules! deserialize_from_text {
    ($($name:ident),*) => {
        $(impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        })*
    };
}

deserialize_from_text!(Span, Addresses, UnixMode);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_as_people_write_them() {
        let bytes = |text: &str| text.parse::<Bytes>().map(|bytes| bytes.0);
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("64KiB"), Ok(65_536));
        assert_eq!(bytes("10GB"), Ok(10_000_000_000));
        assert_eq!(bytes("1.5 MiB"), Ok(1_572_864));
        assert!(bytes("lots").unwrap_err().contains("\"lots\""));
        assert!(bytes("-1").is_err());
        assert!(
            bytes("20EB").unwrap_err().contains("too large"),
            "more than there can be, not as much as there can be"
        );
        assert_eq!("0660".parse(), Ok(UnixMode(0o660)));
        assert!("0680".parse::<UnixMode>().is_err() && "7777".parse::<UnixMode>().is_err());
        let span = |text: &str| text.parse::<Span>().map(|span| span.0);
        assert_eq!(span("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(span("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(span(" 1min 30s500ms "), Ok(Duration::from_millis(90_500)));
        assert_eq!(span("1.5h"), Ok(Duration::from_secs(5400)));
        assert!(span("soon").unwrap_err().contains("\"soon\""));
        assert!(span("").is_err() && span("1s 2").is_err());
        assert!(span("18446744073709551615s 1000ms").is_err());
    }
}
