//! Names of blocks: 32 bytes, written as 64 hex digits.
//!
//! Buddy Blocks names a block by its SHA-256. Other servers let the client choose: a *numbered* name says which body was stored
//! under it, so that the body can be made again and compared. Its first bytes are spread evenly, for directories by prefix.

use crate::body::Body;
use sha2::{Digest, Sha256};
use std::fmt;

/// Bytes of a name.
const BYTES: usize = 32;
/// Hex digits of a name.
pub(crate) const HEX_DIGITS: usize = 2 * BYTES;

/// The name of a block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Name([u8; BYTES]);

impl Name {
    /// Reads 64 hex digits, in either case.
    #[must_use]
    pub fn from_hex(digits: &[u8]) -> Option<Name> {
        let mut bytes = [0; BYTES];
        hex::decode_to_slice(digits, &mut bytes).ok()?;
        Some(Name(bytes))
    }

    /// Its 64 lower-case hex digits.
    #[must_use]
    pub fn to_hex(self) -> [u8; HEX_DIGITS] {
        let mut digits = [0; HEX_DIGITS];
        // The length is right.
        let _ = hex::encode_to_slice(self.0, &mut digits);
        digits
    }

    /// The SHA-256 of the parts, one behind the other.
    pub(crate) fn hash_of(parts: &[&[u8]]) -> Name {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update(part);
        }
        Name(hasher.finalize().into())
    }

    /// A hash of a number and names.
    pub(crate) fn hash_of_names(number: u64, names: &[Name]) -> Name {
        let mut hasher = Sha256::new();
        hasher.update(number.to_be_bytes());
        names.iter().for_each(|name| hasher.update(name.0));
        Name(hasher.finalize().into())
    }

    /// Its first bytes.
    pub(crate) fn first_number(self) -> u64 {
        self.0.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    /// The name under which a body is stored where the client chooses.
    pub(crate) fn numbered(body: Body) -> Name {
        let mut bytes = [0; BYTES];
        let parts = [&spread(body).to_be_bytes()[..], &body.seed.to_be_bytes(), &body.number.to_be_bytes()];
        for (place, part) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(parts) {
            place.copy_from_slice(part);
        }
        let length = u64::try_from(body.length).unwrap_or(u64::MAX);
        if let Some(place) = bytes.last_chunk_mut::<8>() {
            *place = length.to_be_bytes();
        }
        Name(bytes)
    }

    /// The body that is stored under a numbered name; `None` where it is no such name.
    pub(crate) fn numbered_body(self) -> Option<Body> {
        let [first, seed, number, length] = self.0.as_chunks::<8>().0 else { return None };
        let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
        let body = Body::new(u64::from_be_bytes(*seed), u64::from_be_bytes(*number), length)?;
        (u64::from_be_bytes(*first) == spread(body)).then_some(body)
    }
}

/// A number that differs in all bits where seed or number differ in one (splitmix64's finisher).
fn spread(body: Body) -> u64 {
    let mut mixed = body.seed.rotate_left(32) ^ body.number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&String::from_utf8_lossy(&self.to_hex()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_64_hex_digits() {
        let digits = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let name = Name::from_hex(digits.to_uppercase().as_bytes()).unwrap();
        assert_eq!(name, Name::hash_of(&[b"he", b"llo"]), "FIPS 180-4");
        assert_eq!(name.to_string(), digits);
        assert!(Name::from_hex(&digits.as_bytes()[1..]).is_none());
        assert!(Name::from_hex(b"").is_none());
        assert!(Name::from_hex(digits.replace('2', "g").as_bytes()).is_none());
    }

    #[test]
    fn a_numbered_name_tells_its_body_and_others_tell_none() {
        let mut shards = std::collections::HashSet::new();
        for number in 0..4096 {
            let body = Body::new(7, number, 4096 + usize::try_from(number).unwrap()).unwrap();
            let name = Name::numbered(body);
            assert_eq!(name.numbered_body(), Some(body));
            shards.insert(name.to_hex()[..2].to_vec());
        }
        assert_eq!(shards.len(), 256, "all prefixes of two digits occur");
        assert_eq!(Name::hash_of(&[b"something else"]).numbered_body(), None);
    }
}
