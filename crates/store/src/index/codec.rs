//! Rows of the index, byte by byte; `docs/format.md` is the description. Integers are little-endian, except those in a key, which
//! are big-endian so that rows lie in order. Every value ends with a checksum, which is looked at before anything else.

use super::checksum::{Row, seal, unseal};
use super::{IndexError, Meta, Totals};
use crate::extent::{Extent, PAGE_BYTES, SIZE_CLASSES, SizeClass};
use crate::format::FORMAT_VERSION;
use crate::hash::Hash;
use crate::page_map::PageMap;
use crate::quarantine::Quarantined;
use crate::record::Record;
use std::cmp::Ordering;

/// Key and value of a row beside a place in a table, if there is one.
pub(super) type Neighbour<'a> = Option<(&'a [u8], &'a [u8])>;

/// The only kind of record there is yet.
const KIND_BLOCK: u8 = 1;

/// Epochs and sequence numbers stay below this, at any rate of writing for as long as anybody cares.
const NUMBER_MAX: u64 = 1 << 62;

/// Bytes of a value of table `blocks`: kind, class, number, length.
const RECORD_BYTES: usize = 1 + 1 + 8 + 4;

pub(super) fn encode_record(hash: &Hash, record: Record) -> Row {
    let (class, number) = record.stored_extent();
    let mut bytes = [0; RECORD_BYTES];
    let (head, rest) = bytes.split_at_mut(2);
    head.copy_from_slice(&[KIND_BLOCK, class]);
    let (number_bytes, length_bytes) = rest.split_at_mut(8);
    number_bytes.copy_from_slice(&number.to_le_bytes());
    length_bytes.copy_from_slice(&record.length().to_le_bytes());
    seal(hash.as_bytes(), bytes)
}

pub(super) fn decode_record(hash: &Hash, row: &[u8]) -> Result<Record, IndexError> {
    let damaged = |what: String| IndexError::Damaged(format!("block {hash}: {what}"));
    let Some(&[kind, class, ref rest @ ..]) = unseal::<RECORD_BYTES>(hash.as_bytes(), row) else {
        return Err(damaged("its record does not match its checksum".to_owned()));
    };
    if kind != KIND_BLOCK {
        return Err(damaged(format!("its record is of kind {kind}, which this program does not know")));
    }
    let ([number @ .., _, _, _, _], [_, _, _, _, _, _, _, _, length @ ..]) = (rest, rest);
    let (number, length) = (u64::from_le_bytes(*number), u32::from_le_bytes(*length));
    Record::from_stored(class, number, length)
        .ok_or_else(|| damaged(format!("impossible record: class {class}, number {number}, length {length}")))
}

/// Makes sure that a name that was not found is absent. Where a bit of its key has changed, the search has ended beside the row that
/// it has become, or where rows are not in order: both neighbours must be whole, and on their side of the name.
pub(super) fn check_absence(hash: &Hash, before: Neighbour<'_>, after: Neighbour<'_>) -> Result<(), IndexError> {
    let lies = |neighbour: Neighbour<'_>, side: Ordering| {
        neighbour.is_none_or(|(key, row)| {
            decode_hash(key).is_ok_and(|other| other.cmp(hash) == side && decode_record(&other, row).is_ok())
        })
    };
    if lies(before, Ordering::Less) && lies(after, Ordering::Greater) {
        return Ok(());
    }
    Err(IndexError::Damaged(format!("block {hash} may be stored, but the row beside the place of its name is damaged")))
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

/// Key and value of a macroblock in table `pages`.
pub(super) fn encode_page_map(macroblock: u64, map: PageMap) -> Result<([u8; 4], Row), IndexError> {
    let key = encode_macroblock(macroblock)?;
    Ok((key, seal(&key, map.encode())))
}

pub(super) fn decode_page_map(macroblock: u64, row: &[u8]) -> Result<PageMap, IndexError> {
    unseal(&encode_macroblock(macroblock)?, row).map(PageMap::decode).ok_or_else(|| {
        IndexError::Damaged(format!("macroblock {macroblock}: its page map does not match its checksum"))
    })
}

/// Bytes of a key of table `quarantine`: class, number.
const QUARANTINE_KEY_BYTES: usize = 1 + 8;
/// Bytes of its value: hash, time.
const QUARANTINE_BYTES: usize = Hash::BYTES + 8;

/// Key and value of an extent in table `quarantine`.
pub(super) fn encode_quarantined(quarantined: &Quarantined) -> ([u8; QUARANTINE_KEY_BYTES], Row) {
    let mut key = [0; QUARANTINE_KEY_BYTES];
    key[0] = quarantined.extent.class().number();
    key[1..].copy_from_slice(&quarantined.extent.number().to_be_bytes());
    let mut value = [0; QUARANTINE_BYTES];
    let (hash, since) = value.split_at_mut(Hash::BYTES);
    hash.copy_from_slice(quarantined.hash.as_bytes());
    since.copy_from_slice(&quarantined.since_s.to_le_bytes());
    (key, seal(&key, value))
}

pub(super) fn decode_quarantined(key: &[u8], row: &[u8]) -> Result<Quarantined, IndexError> {
    let damaged = || IndexError::Damaged("table quarantine: a row that does not match its checksum".to_owned());
    let value = unseal::<QUARANTINE_BYTES>(key, row).ok_or_else(damaged)?;
    let (class, number) = key.split_first().ok_or_else(damaged)?;
    let number = u64::from_be_bytes(number.try_into().map_err(|_| damaged())?);
    let extent = SizeClass::new(*class).and_then(|class| Extent::new(class, number)).ok_or_else(damaged)?;
    let (hash, since) = value.split_first_chunk().ok_or_else(damaged)?;
    let since_s = u64::from_le_bytes(since.try_into().map_err(|_| damaged())?);
    Ok(Quarantined { extent, hash: Hash::from_bytes(*hash), since_s })
}

/// Numbers in a row, one behind the other.
fn encode_counts<const COUNT: usize, const BYTES: usize>(counts: &[u64; COUNT]) -> [u8; BYTES] {
    const { assert!(BYTES == 8 * COUNT) };
    let mut bytes = [0; BYTES];
    bytes.as_chunks_mut().0.iter_mut().zip(counts).for_each(|(place, count)| *place = count.to_le_bytes());
    bytes
}

fn decode_counts<const COUNT: usize, const BYTES: usize>(bytes: &[u8; BYTES]) -> [u64; COUNT] {
    const { assert!(BYTES == 8 * COUNT) };
    let mut counts = [0; COUNT];
    counts.iter_mut().zip(bytes.as_chunks().0).for_each(|(count, place)| *count = u64::from_le_bytes(*place));
    counts
}

/// Bytes of the value of `blocks` in table `meta`: a number for each class, and one for what has no extent.
const BLOCKS_BYTES: usize = 8 * (SIZE_CLASSES + 1);
/// Bytes of the value of `bytes_stored`: a number for each class.
const BYTES_STORED_BYTES: usize = 8 * SIZE_CLASSES;

/// Keys of table `meta`, each with a value of 8 bytes and a checksum, but `store_id`, which has 16, and what is counted by class.
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
}

/// The rows of table `meta`.
pub(super) fn encode_meta(meta: &Meta) -> impl Iterator<Item = (&'static str, Row)> {
    let store_id = (key::STORE_ID, seal(key::STORE_ID.as_bytes(), meta.store_id));
    let integers = [
        (key::FORMAT_VERSION, u64::from(FORMAT_VERSION)),
        (key::EPOCH, meta.epoch),
        (key::SEQUENCE, meta.sequence),
        (key::JOURNAL_BYTES, meta.journal_bytes),
        (key::JOURNAL_OFFSET, meta.journal_offset),
        (key::JOURNAL_CRC, u64::from(meta.journal_crc)),
        (key::CLEAN, u64::from(meta.clean)),
    ];
    let blocks = encode_counts::<_, BLOCKS_BYTES>(&meta.totals.blocks);
    let bytes_stored = encode_counts::<_, BYTES_STORED_BYTES>(&meta.totals.bytes_stored);
    let counts = [
        (key::BLOCKS, seal(key::BLOCKS.as_bytes(), blocks)),
        (key::BYTES_STORED, seal(key::BYTES_STORED.as_bytes(), bytes_stored)),
    ];
    integers
        .into_iter()
        .map(|(name, value)| (name, seal(name.as_bytes(), value.to_le_bytes())))
        .chain(counts)
        .chain(std::iter::once(store_id))
}

fn missing_from_meta(name: &str) -> IndexError {
    IndexError::Damaged(format!("table meta: row {name} is missing or damaged"))
}

fn meta_value<'a, const BYTES: usize>(
    get: impl Fn(&'static str) -> Result<Option<&'a [u8]>, IndexError>,
    name: &'static str,
) -> Result<&'a [u8; BYTES], IndexError> {
    get(name)?.and_then(|row| unseal(name.as_bytes(), row)).ok_or_else(|| missing_from_meta(name))
}

/// Reads table `meta` through `get`; `None` where it has no rows. The version is looked at before anything else.
pub(super) fn decode_meta<'a>(
    get: impl Fn(&'static str) -> Result<Option<&'a [u8]>, IndexError>,
) -> Result<Option<Meta>, IndexError> {
    let integer = |name| meta_value(&get, name).map(|bytes| u64::from_le_bytes(*bytes));
    if get(key::FORMAT_VERSION)?.is_none() {
        return if get(key::STORE_ID)?.is_none() { Ok(None) } else { Err(missing_from_meta(key::FORMAT_VERSION)) };
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
    Ok(Some(Meta {
        store_id: *meta_value(&get, key::STORE_ID)?,
        epoch,
        sequence,
        journal_bytes,
        journal_offset,
        journal_crc: u32::try_from(integer(key::JOURNAL_CRC)?).map_err(|_| missing_from_meta(key::JOURNAL_CRC))?,
        clean: clean == 1,
        totals: Totals {
            blocks: decode_counts::<_, BLOCKS_BYTES>(meta_value(&get, key::BLOCKS)?),
            bytes_stored: decode_counts::<_, BYTES_STORED_BYTES>(meta_value(&get, key::BYTES_STORED)?),
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::checksum::{CHECKSUM_BYTES, checksum};
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
            totals: Totals { blocks: [1, 2, 3, 4, 5, 6, 7, 8, 9], bytes_stored: [10, 11, 12, 13, 14, 15, 16, 17] },
        }
    }

    fn rows(meta: &Meta) -> HashMap<&'static str, Vec<u8>> {
        encode_meta(meta).map(|(name, row)| (name, row.to_vec())).collect()
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
        neither.insert(key::CLEAN, seal(key::CLEAN.as_bytes(), 2u64.to_le_bytes()).to_vec());
        assert!(decode(&neither).unwrap_err().to_string().contains("clean 2"));
        let mut other = rows;
        other.insert(key::FORMAT_VERSION, seal(key::FORMAT_VERSION.as_bytes(), 2u64.to_le_bytes()).to_vec());
        assert!(matches!(decode(&other), Err(IndexError::Version { found: 2 })));
    }

    #[test]
    fn a_name_is_absent_only_between_whole_rows_in_order() {
        let mut hashes = [Hash::of(b"1"), Hash::of(b"2"), Hash::of(b"3")];
        hashes.sort();
        let rows = hashes.map(|hash| (*hash.as_bytes(), encode_record(&hash, Record::EMPTY).to_vec()));
        let absent = |at: usize, before: Option<&([u8; 32], Vec<u8>)>, after: Option<&([u8; 32], Vec<u8>)>| {
            let [before, after] = [before, after].map(|row| row.map(|(key, row)| (&key[..], &row[..])));
            check_absence(&hashes[at], before, after).is_ok()
        };
        let [first, second, third] = [0, 1, 2].map(|at| Some(&rows[at]));
        assert!(absent(1, first, third) && absent(1, None, None) && absent(0, None, second) && absent(2, second, None));
        assert!(!absent(1, third, None) && !absent(1, None, first), "out of order");
        assert!(!absent(1, second, third) && !absent(1, first, second), "it is there");
        for flip_key in [false, true] {
            let mut damaged = [rows[0].clone(), rows[2].clone()];
            for (key, row) in &mut damaged {
                if flip_key { key[31] ^= 1 } else { row[3] ^= 1 }
            }
            assert!(!absent(1, Some(&damaged[0]), third) && !absent(1, first, Some(&damaged[1])));
        }
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
            for record in [record, Record::EMPTY] {
                let row = encode_record(&hash, record);
                prop_assert_eq!(row.len(), RECORD_BYTES + CHECKSUM_BYTES);
                prop_assert_eq!(decode_record(&hash, &row).unwrap(), record);
                prop_assert!(decode_record(&Hash::of(b"y"), &row).is_err(), "the name is covered too");
            }
        }

        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            let hash = Hash::of(b"x");
            let row = [&bytes[..], &checksum(hash.as_bytes(), &bytes)].concat();
            if let Ok(record) = decode_record(&hash, &row) {
                prop_assert_eq!(&encode_record(&hash, record)[..], &row[..]);
            }
        }
    }
}
