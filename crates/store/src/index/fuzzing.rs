//! What must hold for any bytes in the index. It panics where it does not; `fuzz/` runs it on bytes that libFuzzer invents, the
//! test here on those that are kept in `fuzz/corpus`.
// A panic is how it reports.
#![allow(clippy::expect_used, clippy::indexing_slicing)]

use super::checksum::{CHECKSUM_BYTES, checksum};
use super::codec::{
    decode_hash, decode_macroblock, decode_meta, decode_page_map, decode_record, encode_macroblock, encode_meta,
    encode_page_map, encode_record, key,
};
use super::{Meta, Totals};
use crate::extent::{Extent, MACROBLOCK_PAGES, SIZE_CLASSES, SizeClass};
use crate::format::FORMAT_VERSION;
use crate::hash::Hash;
use crate::page_map::PageMap;
use crate::record::Record;
use std::collections::HashMap;

/// Any bytes as each kind of row; the first byte says which.
pub fn index_values(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 5 {
        0 => record(bytes),
        1 => name(bytes),
        2 => macroblock(bytes),
        3 => page_map(bytes),
        _ => meta(bytes),
    }
}

/// Any bytes with the checksum that they need to be looked at.
fn sealed(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    [bytes, &checksum(key, bytes)].concat()
}

fn record(bytes: &[u8]) {
    let hash = Hash::of(b"x");
    assert!(
        decode_record(&hash, bytes).is_err()
            || bytes.ends_with(&checksum(hash.as_bytes(), &bytes[..bytes.len() - CHECKSUM_BYTES]))
    );
    let row = sealed(hash.as_bytes(), bytes);
    if let Ok(record) = decode_record(&hash, &row) {
        assert_eq!(encode_record(&hash, record)[..], row, "{record:?}");
        let end = record.extent().map_or(0, |extent| extent.offset() + extent.bytes());
        assert!(u64::from(record.length()) <= record.allocated_bytes() && i64::try_from(end).is_ok());
    }
    // Any record that can be made.
    let Some((&[class, length @ .., number], _)) = bytes.split_first_chunk::<6>() else { return };
    let length = u32::from_le_bytes(length);
    let number = u64::from(number) << (class % 64);
    let extent = SizeClass::new(class % 8).and_then(|class| Extent::new(class, number));
    for record in [Record::new(extent, length), Record::new(None, length)].into_iter().flatten() {
        let row = encode_record(&hash, record);
        assert_eq!(decode_record(&hash, &row).expect("its own"), record);
        assert!(decode_record(&hash, &row[..row.len() - 1]).is_err());
    }
}

fn name(bytes: &[u8]) {
    match decode_hash(bytes) {
        Ok(hash) => assert_eq!(hash.as_bytes(), bytes),
        Err(_) => assert_ne!(bytes.len(), Hash::BYTES),
    }
    if let Ok(hash) = Hash::from_hex(bytes) {
        assert_eq!(hash.to_hex().to_vec(), bytes.to_ascii_lowercase());
    }
}

fn macroblock(bytes: &[u8]) {
    match decode_macroblock(bytes) {
        Ok(macroblock) => assert_eq!(encode_macroblock(macroblock).expect("its own"), bytes),
        Err(_) => assert_ne!(bytes.len(), 4),
    }
    let Some(number) = bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else { return };
    match encode_macroblock(number) {
        Ok(key) => assert_eq!(decode_macroblock(&key).expect("its own"), number),
        Err(_) => assert!(u32::try_from(number).is_err()),
    }
}

fn page_map(bytes: &[u8]) {
    let row = sealed(&encode_macroblock(3).expect("below the last"), bytes);
    let Ok(map) = decode_page_map(3, &row) else {
        return assert_ne!(bytes.len(), PageMap::ENCODED_BYTES);
    };
    assert_eq!(encode_page_map(3, map).expect("below the last").1[..], row);
    // Free extents and occupied pages tile the macroblock.
    let mut tiled = map;
    map.free_extents(3, &mut |extent| assert!(extent.macroblock() == 3 && tiled.occupy(extent)));
    assert_eq!(u64::from(tiled.occupied_pages()), MACROBLOCK_PAGES);
}

/// Rows that are missing, rows that are a byte short, and their values.
fn meta(bytes: &[u8]) {
    let Some((&[missing_low, missing_high, short_low, short_high], values)) = bytes.split_first_chunk() else { return };
    let missing = u16::from_le_bytes([missing_low, missing_high]);
    let short = u16::from_le_bytes([short_low, short_high]);
    let mut rows = HashMap::new();
    let mut values = values;
    for (at, (name, length)) in names().into_iter().enumerate() {
        let (value, rest) = values.split_at(values.len().min(length));
        values = rest;
        if missing & 1 << at == 0 {
            let length = value.len().saturating_sub(usize::from(short >> at & 1));
            rows.insert(name, sealed(name.as_bytes(), &value[..length]));
        }
    }
    let decode = |rows: &HashMap<&'static str, Vec<u8>>| decode_meta(|name| Ok(rows.get(name).map(Vec::as_slice)));
    match decode(&rows) {
        Ok(Some(meta)) => assert_eq!(encode(&meta), rows, "{meta:?}"),
        Ok(None) => assert!(!rows.contains_key(key::FORMAT_VERSION) && !rows.contains_key(key::STORE_ID)),
        Err(_) => {}
    }
    if let Some(meta) = possible_meta(bytes) {
        assert_eq!(decode(&encode(&meta)).expect("its own"), Some(meta));
    }
}

/// All rows, with the lengths of their values.
fn names() -> Vec<(&'static str, usize)> {
    let meta = possible_meta(&[0; 80]).expect("bytes enough");
    encode_meta(&meta).map(|(name, row)| (name, row.len() - CHECKSUM_BYTES)).collect()
}

fn encode(meta: &Meta) -> HashMap<&'static str, Vec<u8>> {
    encode_meta(meta).map(|(name, row)| (name, row.to_vec())).collect()
}

/// Values that a checkpoint could have written.
fn possible_meta(bytes: &[u8]) -> Option<Meta> {
    let numbers: Vec<_> = bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    let &[epoch, sequence, journal, offset, crc, id_low, id_high, ref counts @ ..] = &numbers[..] else {
        return None;
    };
    let mut counts = counts.iter().copied();
    let mut count = |_| counts.next().unwrap_or(0);
    let journal_pages = journal % (1 << 40) + 1;
    Some(Meta {
        store_id: (u128::from(id_low) << 64 | u128::from(id_high)).to_le_bytes(),
        epoch: epoch >> 2,
        sequence: sequence >> 2,
        journal_bytes: journal_pages * 4096,
        journal_offset: offset % (journal_pages + 1) * 4096,
        journal_crc: u32::try_from(crc >> 32).ok()?,
        clean: crc % 2 == 1,
        totals: Totals {
            blocks: std::array::from_fn::<_, { SIZE_CLASSES + 1 }, _>(&mut count),
            bytes_stored: std::array::from_fn::<_, SIZE_CLASSES, _>(&mut count),
        },
    })
}

const _: () = assert!(FORMAT_VERSION == 1, "the kept rows are of this version");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz_corpus;

    #[test]
    fn kept_rows_hold() {
        fuzz_corpus::replay("index_values", index_values);
    }
}
