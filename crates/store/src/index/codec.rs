//! Rows of the index, byte by byte; `docs/format.md` is the description. Integers are little-endian, except the macroblock in a key,
//! which is big-endian so that rows lie in order.

use super::{FORMAT_VERSION, IndexError, Meta, Totals};
use crate::extent::{Extent, PAGE_BYTES, SizeClass};
use crate::hash::Hash;
use crate::page_map::PageMap;
use crate::quarantine::Quarantined;
use crate::record::Record;

/// The only kind of record there is yet.
const KIND_BLOCK: u8 = 1;

/// Epochs and sequence numbers stay below this, at any rate of writing for as long as anybody cares.
const NUMBER_MAX: u64 = 1 << 62;

/// Bytes of a value of table `blocks`: kind, class, number, length.
pub(super) const RECORD_BYTES: usize = 1 + 1 + 8 + 4;

pub(super) fn encode_record(record: Record) -> [u8; RECORD_BYTES] {
    let (class, number) = record.stored_extent();
    let mut bytes = [0; RECORD_BYTES];
    let (head, rest) = bytes.split_at_mut(2);
    head.copy_from_slice(&[KIND_BLOCK, class]);
    let (number_bytes, length_bytes) = rest.split_at_mut(8);
    number_bytes.copy_from_slice(&number.to_le_bytes());
    length_bytes.copy_from_slice(&record.length().to_le_bytes());
    bytes
}

pub(super) fn decode_record(hash: &Hash, bytes: &[u8]) -> Result<Record, IndexError> {
    let damaged = |what: String| IndexError::Damaged(format!("block {hash}: {what}"));
    let Some((&[kind, class], rest)) = bytes.split_first_chunk() else {
        return Err(damaged(format!("a record of {} bytes instead of {RECORD_BYTES}", bytes.len())));
    };
    if kind != KIND_BLOCK {
        return Err(damaged(format!("its record is of kind {kind}, which this program does not know")));
    }
    let (Some(number), Some(length), RECORD_BYTES) = (read(rest, 0), rest.get(8..).and_then(read_u32), bytes.len())
    else {
        return Err(damaged(format!("a record of {} bytes instead of {RECORD_BYTES}", bytes.len())));
    };
    Record::from_stored(class, number, length)
        .ok_or_else(|| damaged(format!("impossible record: class {class}, number {number}, length {length}")))
}

pub(super) fn decode_hash(bytes: &[u8]) -> Result<Hash, IndexError> {
    bytes
        .try_into()
        .map(Hash::from_bytes)
        .map_err(|_| IndexError::Damaged(format!("a name of {} bytes instead of {}", bytes.len(), Hash::BYTES)))
}

/// Key of a macroblock in table `pages`.
pub(super) fn encode_macroblock(macroblock: u64) -> Result<[u8; 4], IndexError> {
    u32::try_from(macroblock)
        .map(u32::to_be_bytes)
        .map_err(|_| IndexError::Damaged(format!("macroblock {macroblock} is beyond the largest store of 4 PiB")))
}

pub(super) fn decode_macroblock(bytes: &[u8]) -> Result<u64, IndexError> {
    bytes
        .try_into()
        .map(|bytes| u64::from(u32::from_be_bytes(bytes)))
        .map_err(|_| IndexError::Damaged(format!("a macroblock's key has {} bytes instead of 4", bytes.len())))
}

pub(super) fn decode_page_map(macroblock: u64, bytes: &[u8]) -> Result<PageMap, IndexError> {
    bytes.try_into().map(PageMap::decode).map_err(|_| {
        IndexError::Damaged(format!(
            "macroblock {macroblock}: a page map of {} bytes instead of {}",
            bytes.len(),
            PageMap::ENCODED_BYTES
        ))
    })
}

/// Bytes of a key of table `quarantine`: class, number.
const QUARANTINE_KEY_BYTES: usize = 1 + 8;
/// Bytes of its value: hash, time.
const QUARANTINE_BYTES: usize = Hash::BYTES + 8;

/// Key and value of an extent in table `quarantine`.
pub(super) fn encode_quarantined(quarantined: &Quarantined) -> ([u8; QUARANTINE_KEY_BYTES], [u8; QUARANTINE_BYTES]) {
    let mut key = [0; QUARANTINE_KEY_BYTES];
    key[0] = quarantined.extent.class().number();
    key[1..].copy_from_slice(&quarantined.extent.number().to_be_bytes());
    let mut value = [0; QUARANTINE_BYTES];
    let (hash, since) = value.split_at_mut(Hash::BYTES);
    hash.copy_from_slice(quarantined.hash.as_bytes());
    since.copy_from_slice(&quarantined.since_s.to_le_bytes());
    (key, value)
}

pub(super) fn decode_quarantined(key: &[u8], value: &[u8]) -> Result<Quarantined, IndexError> {
    let damaged = || IndexError::Damaged("table quarantine: a row that no extent can have".to_owned());
    let (class, number) = key.split_first().ok_or_else(damaged)?;
    let number = u64::from_be_bytes(number.try_into().map_err(|_| damaged())?);
    let extent = SizeClass::new(*class).and_then(|class| Extent::new(class, number)).ok_or_else(damaged)?;
    let (hash, since) = value.split_first_chunk().ok_or_else(damaged)?;
    let since_s = u64::from_le_bytes(since.try_into().map_err(|_| damaged())?);
    Ok(Quarantined { extent, hash: Hash::from_bytes(*hash), since_s })
}

/// Keys of table `meta`, each with a value of 8 bytes but `store_id`, which has 16.
pub(super) mod key {
    pub const FORMAT_VERSION: &str = "format_version";
    pub const STORE_ID: &str = "store_id";
    pub const EPOCH: &str = "epoch";
    pub const SEQUENCE: &str = "sequence";
    pub const JOURNAL_BYTES: &str = "journal_bytes";
    pub const JOURNAL_OFFSET: &str = "journal_offset";
    pub const JOURNAL_CRC: &str = "journal_crc";
    pub const CLEAN: &str = "clean";
    pub const BLOCKS: &str = "blocks";
    pub const BYTES_STORED: &str = "bytes_stored";
    pub const BYTES_ALLOCATED: &str = "bytes_allocated";
}

/// The rows of table `meta` that hold integers.
pub(super) fn meta_rows(meta: &Meta) -> [(&'static str, u64); 10] {
    [
        (key::FORMAT_VERSION, u64::from(FORMAT_VERSION)),
        (key::EPOCH, meta.epoch),
        (key::SEQUENCE, meta.sequence),
        (key::JOURNAL_BYTES, meta.journal_bytes),
        (key::JOURNAL_OFFSET, meta.journal_offset),
        (key::JOURNAL_CRC, u64::from(meta.journal_crc)),
        (key::CLEAN, u64::from(meta.clean)),
        (key::BLOCKS, meta.totals.blocks),
        (key::BYTES_STORED, meta.totals.bytes_stored),
        (key::BYTES_ALLOCATED, meta.totals.bytes_allocated),
    ]
}

/// Reads table `meta` through `get`; `None` where it has no rows. The version is looked at before anything else.
pub(super) fn decode_meta<'a>(
    get: impl Fn(&'static str) -> Result<Option<&'a [u8]>, IndexError>,
) -> Result<Option<Meta>, IndexError> {
    let missing = |name: &str| IndexError::Damaged(format!("table meta: row {name} is missing or has a wrong length"));
    let integer = |name| {
        get(name)?.filter(|bytes| bytes.len() == 8).and_then(|bytes| read(bytes, 0)).ok_or_else(|| missing(name))
    };
    if get(key::FORMAT_VERSION)?.is_none() {
        return if get(key::STORE_ID)?.is_none() { Ok(None) } else { Err(missing(key::FORMAT_VERSION)) };
    }
    let version = integer(key::FORMAT_VERSION)?;
    if version != u64::from(FORMAT_VERSION) {
        return Err(IndexError::Version { found: version });
    }
    let journal_bytes = integer(key::JOURNAL_BYTES)?;
    let journal_offset = integer(key::JOURNAL_OFFSET)?;
    let (epoch, sequence) = (integer(key::EPOCH)?, integer(key::SEQUENCE)?);
    let clean = integer(key::CLEAN)?;
    let possible = journal_bytes > 0
        && journal_bytes.is_multiple_of(PAGE_BYTES)
        && journal_offset.is_multiple_of(PAGE_BYTES)
        && journal_offset <= journal_bytes
        && epoch.max(sequence) < NUMBER_MAX
        && clean <= 1;
    if !possible {
        return Err(IndexError::Damaged(format!(
            "table meta: impossible values: journal of {journal_bytes} bytes, offset {journal_offset}, epoch {epoch}, \
             sequence {sequence}, clean {clean}"
        )));
    }
    let store_id = get(key::STORE_ID)?.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| missing(key::STORE_ID))?;
    Ok(Some(Meta {
        store_id,
        epoch,
        sequence,
        journal_bytes,
        journal_offset,
        journal_crc: u32::try_from(integer(key::JOURNAL_CRC)?).map_err(|_| missing(key::JOURNAL_CRC))?,
        clean: clean == 1,
        totals: Totals {
            blocks: integer(key::BLOCKS)?,
            bytes_stored: integer(key::BYTES_STORED)?,
            bytes_allocated: integer(key::BYTES_ALLOCATED)?,
        },
    }))
}

fn read(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

fn read_u32(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    pub(crate) fn meta() -> Meta {
        Meta {
            store_id: [7; 16],
            epoch: 3,
            sequence: 99,
            journal_bytes: 1 << 22,
            journal_offset: 8192,
            journal_crc: 0xdead_beef,
            clean: true,
            totals: Totals { blocks: 4, bytes_stored: 5, bytes_allocated: 16_384 },
        }
    }

    fn rows(meta: &Meta) -> HashMap<&'static str, Vec<u8>> {
        let mut rows: HashMap<_, _> =
            meta_rows(meta).into_iter().map(|(name, value)| (name, value.to_le_bytes().to_vec())).collect();
        rows.insert(key::STORE_ID, meta.store_id.to_vec());
        rows
    }

    fn decode(rows: &HashMap<&'static str, Vec<u8>>) -> Result<Option<Meta>, IndexError> {
        decode_meta(|name| Ok(rows.get(name).map(Vec::as_slice)))
    }

    #[test]
    fn meta_survives_and_a_missing_or_short_row_is_named() {
        let rows = rows(&meta());
        assert_eq!(decode(&rows).unwrap(), Some(meta()));
        assert_eq!(decode(&HashMap::new()).unwrap(), None);
        for name in rows.keys() {
            let mut without = rows.clone();
            without.remove(name);
            assert!(decode(&without).unwrap_err().to_string().contains(name), "{name}");
            let mut short = rows.clone();
            short.get_mut(name).unwrap().pop();
            assert!(decode(&short).unwrap_err().to_string().contains(name), "{name}");
        }
        let mut neither = rows.clone();
        neither.insert(key::CLEAN, 2u64.to_le_bytes().to_vec());
        assert!(decode(&neither).unwrap_err().to_string().contains("clean 2"));
        let mut other = rows;
        other.insert(key::FORMAT_VERSION, 2u64.to_le_bytes().to_vec());
        assert!(matches!(decode(&other), Err(IndexError::Version { found: 2 })));
    }

    proptest! {
        #[test]
        fn quarantined_extents_survive(class in 0..8u8, number in 0..1u64 << 40, hash: [u8; 32], since_s: u64) {
            let extent = Extent::new(SizeClass::new(class).unwrap(), number).unwrap();
            let quarantined = Quarantined { extent, hash: Hash::from_bytes(hash), since_s };
            let (key, value) = encode_quarantined(&quarantined);
            prop_assert_eq!(decode_quarantined(&key, &value).unwrap(), quarantined);
            prop_assert!(decode_quarantined(&key[1..], &value).is_err());
            prop_assert!(decode_quarantined(&key, &value[1..]).is_err());
        }

        #[test]
        fn records_survive(class in 0..8u8, number in 0..1u64 << 40, fill in 0..4096u32) {
            let class = SizeClass::new(class).unwrap();
            let length = u32::try_from(class.bytes()).unwrap() - fill % (u32::try_from(class.bytes()).unwrap() / 2);
            let record = Record::new(Extent::new(class, number), length).unwrap();
            let hash = Hash::of(b"x");
            prop_assert_eq!(decode_record(&hash, &encode_record(record)).unwrap(), record);
            prop_assert_eq!(decode_record(&hash, &encode_record(Record::EMPTY)).unwrap(), Record::EMPTY);
        }

        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            let hash = Hash::of(b"x");
            if let Ok(record) = decode_record(&hash, &bytes) {
                let encoded = encode_record(record);
                prop_assert_eq!(encoded.as_slice(), bytes.as_slice());
            }
        }
    }
}
