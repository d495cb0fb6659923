//! The name of a block: the SHA-256 of its bytes (FIPS 180-4).

mod hasher;
mod lanes;
mod pair;
mod queue;
mod sha256;
mod together;

pub use hasher::Hasher;
pub use queue::HashQueue;
use std::fmt;
use std::str::FromStr;

/// A SHA-256, the name of a block. Displayed as 64 lower-case hex digits, read in either case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; Hash::BYTES]);

/// A text is not a hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a block's name is 64 hex digits")]
pub struct ParseHashError;

impl Hash {
    /// Length in bytes.
    pub const BYTES: usize = 32;
    /// Length as text.
    pub const HEX_DIGITS: usize = 64;

    /// The hash with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Hash::BYTES]) -> Hash {
        Hash(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Hash::BYTES] {
        &self.0
    }

    /// Its first eight bytes as a number: where it lies among all hashes.
    #[must_use]
    pub fn leading_bits(&self) -> u64 {
        self.0.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
    }

    /// The SHA-256 of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Hash {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Its 64 lower-case hex digits, as ASCII.
    #[must_use]
    pub fn to_hex(&self) -> [u8; Hash::HEX_DIGITS] {
        let mut digits = [0; Hash::HEX_DIGITS];
        for (byte, pair) in self.0.iter().zip(digits.as_chunks_mut::<2>().0) {
            *pair = [hex_digit(byte >> 4), hex_digit(byte & 15)];
        }
        digits
    }

    /// Reads 64 hex digits in either case.
    ///
    /// # Errors
    ///
    /// [`ParseHashError`] where it is anything else.
    pub fn from_hex(digits: &[u8]) -> Result<Hash, ParseHashError> {
        let digits: &[u8; Hash::HEX_DIGITS] = digits.try_into().map_err(|_| ParseHashError)?;
        let mut bytes = [0; Hash::BYTES];
        for (byte, [high, low]) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            *byte = hex_value(*high)? << 4 | hex_value(*low)?;
        }
        Ok(Hash(bytes))
    }
}

fn hex_digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'a' + value - 10 }
}

fn hex_value(digit: u8) -> Result<u8, ParseHashError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(ParseHashError),
    }
}

impl FromStr for Hash {
    type Err = ParseHashError;

    fn from_str(text: &str) -> Result<Hash, ParseHashError> {
        Hash::from_hex(text.as_bytes())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(std::str::from_utf8(&self.to_hex()).unwrap_or_default())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4 examples.
    #[test]
    fn names_are_sha_256() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Hash::of(b"").to_string(), empty);
        assert_eq!(Hash::of(b"abc").to_string(), abc);
        let mut hasher = Hasher::new();
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hasher.finish(), abc.parse().unwrap());
    }

    #[test]
    fn hex_is_read_in_either_case_and_nothing_else_is() {
        let hash = Hash::of(b"abc");
        assert_eq!(hash.to_string().to_uppercase().parse(), Ok(hash));
        let text = hash.to_string();
        for bad in ["", &text[1..], &format!("{text}0"), &text.replace('b', "g"), &text.replacen('b', "é", 1)] {
            assert_eq!(bad.parse::<Hash>(), Err(ParseHashError), "{bad}");
        }
    }
}
