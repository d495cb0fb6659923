//! `Repr-Digest` (RFC 9530): the SHA-256 of a block, as it stands in a header field. Pure.
//!
//! A block has no content coding and its name is its SHA-256, so this field says in another form what the name says already; it is for
//! those who check what they receive without knowing what a name is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use buddy_store::Hash;
use sfv::{BareItem, Dictionary, Item, ListEntry, Parser};

/// Bytes of a SHA-256 in base64.
const DIGITS: usize = Hash::BYTES.div_ceil(3) * 4;

/// A hash in base64, as ASCII.
pub(crate) fn encode(hash: &Hash) -> [u8; DIGITS] {
    let mut digits = [0; DIGITS];
    // The array has just as much room as is needed.
    let _ = STANDARD.encode_slice(hash.as_bytes(), &mut digits);
    digits
}

/// Why a field cannot be checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum DigestError {
    #[error("it is not a dictionary of digests (RFC 9530)")]
    Malformed,
    #[error("its sha-256 is not 32 bytes in base64 between colons")]
    NotADigest,
}

/// The SHA-256 that a `Repr-Digest` field names. `None` where it names only digests of other kinds, which nobody has to check.
pub(crate) fn parse(value: &[u8]) -> Result<Option<Hash>, DigestError> {
    let members: Dictionary = Parser::new(value).parse().map_err(|_| DigestError::Malformed)?;
    match members.get("sha-256") {
        None => Ok(None),
        Some(ListEntry::Item(Item { bare_item: BareItem::ByteSequence(bytes), .. })) => {
            let bytes: [u8; Hash::BYTES] = bytes.as_slice().try_into().map_err(|_| DigestError::NotADigest)?;
            Ok(Some(Hash::from_bytes(bytes)))
        }
        Some(_) => Err(DigestError::NotADigest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        let text = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
        let hash = parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!(format!("sha-256=:{}:", String::from_utf8_lossy(&encode(&hash))), text);
        assert_eq!(parse(format!("md5=:AAAA:, {text};a=1").as_bytes()), Ok(Some(hash)));
        assert_eq!(parse(b"sha-512=:AAAA:"), Ok(None));
        for bad in ["sha-256", "sha-256=1", "sha-256=:AAAA:", "sha-256=\"x\"", "sha-256=(:AAAA:)"] {
            assert_eq!(parse(bad.as_bytes()), Err(DigestError::NotADigest), "{bad}");
        }
        for bad in ["sha-256=:RK/0:x", "=", "sha-256=RK/0qy18 x", "sha-256=:*:"] {
            assert_eq!(parse(bad.as_bytes()), Err(DigestError::Malformed), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes: [u8; 32]) {
            let hash = Hash::from_bytes(bytes);
            let field = [b"sha-256=:", &encode(&hash)[..], b":"].concat();
            prop_assert_eq!(parse(&field), Ok(Some(hash)));
        }
    }
}
