//! Every value of the index ends with the CRC-32C of its key and of what precedes it: libmdbx has no checksums of its own, and a bit
//! that the disk changed in a row must not lead to other bytes, or to none.

use std::ops::Deref;

/// Bytes of the checksum.
pub(super) const CHECKSUM_BYTES: usize = 4;
/// The longest value without it.
const VALUE_BYTES_MAX: usize = 72;

/// A value and its checksum, as it is stored.
#[derive(Clone, Copy)]
pub(super) struct Row {
    bytes: [u8; VALUE_BYTES_MAX + CHECKSUM_BYTES],
    length: usize,
}

impl Deref for Row {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// The checksum of a row.
pub(super) fn checksum(key: &[u8], value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    crc32c::crc32c_append(crc32c::crc32c(key), value).to_le_bytes()
}

/// Puts the checksum behind a value.
pub(super) fn seal<const VALUE_BYTES: usize>(key: &[u8], value: [u8; VALUE_BYTES]) -> Row {
    const { assert!(VALUE_BYTES <= VALUE_BYTES_MAX) };
    let mut bytes = [0; VALUE_BYTES_MAX + CHECKSUM_BYTES];
    let stored = value.into_iter().chain(checksum(key, &value));
    bytes.iter_mut().zip(stored).for_each(|(byte, stored)| *byte = stored);
    Row { bytes, length: VALUE_BYTES + CHECKSUM_BYTES }
}

/// The value without its checksum; `None` where that does not match. The length comes first: that of a damaged row may be anything.
pub(super) fn unseal<'a, const VALUE_BYTES: usize>(key: &[u8], row: &'a [u8]) -> Option<&'a [u8; VALUE_BYTES]> {
    if row.len() != VALUE_BYTES + CHECKSUM_BYTES {
        return None;
    }
    let (value, stored) = row.split_first_chunk()?;
    (*stored == checksum(key, value)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_sealed_comes_out_and_one_changed_bit_is_noticed(key: [u8; 32], value: [u8; 14], bit in 0..400usize) {
            let row = seal(&key, value).to_vec();
            prop_assert_eq!(row.len(), 18);
            prop_assert_eq!(unseal(&key, &row), Some(&value));
            let mut all = [&key[..], &row].concat();
            all[bit / 8] ^= 1 << (bit % 8);
            let (key, row) = all.split_at(32);
            prop_assert_eq!(unseal::<14>(key, row), None);
            for length in 0..row.len() {
                prop_assert_eq!(unseal::<14>(key, &row[..length]), None);
            }
            let longer = [&value[..], &[0]].concat();
            let row = [&longer[..], &checksum(key, &longer)].concat();
            prop_assert_eq!(unseal::<14>(key, &row), None);
        }
    }
}
