//! Frames of the journal, byte by byte; `docs/format.md` is the description. Integers are little-endian. Pure.
//!
//! A frame is one batch: a header, records, and zeros up to a whole number of pages. It carries the CRC-32C of itself and of the
//! frame before it: only the true successor continues a chain.

use crate::extent::{Extent, PAGE, SizeClass};
use crate::format::{FORMAT_VERSION, StoreId};
use crate::hash::Hash;
use crate::record::Record;

/// Bytes of the largest frame.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;

pub(super) const MAGIC: [u8; 8] = *b"BBFRAME\0";
pub(super) const HEADER_BYTES: usize = 80;
pub(super) const CRC_AT: usize = 68;

const KIND_OCCUPIED: u8 = 1;
const KIND_REMOVED: u8 = 2;
const KIND_QUARANTINED: u8 = 4;

/// Kind and payload length in front of every record.
const RECORD_HEADER_BYTES: usize = 3;
const OCCUPIED_BYTES: usize = Hash::BYTES + 1 + 8 + 4;
const REMOVED_BYTES: usize = Hash::BYTES + 1 + 8;

/// Bytes of a removal in a frame.
pub(crate) const REMOVAL_BYTES: usize = RECORD_HEADER_BYTES + REMOVED_BYTES;

/// One change of one name. The extent of a removal is where the block lay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JournalRecord {
    /// The name leads to a block.
    Occupied {
        /// The name.
        hash: Hash,
        /// Where the block lies.
        record: Record,
    },
    /// The name leads nowhere.
    Removed {
        /// The name.
        hash: Hash,
        /// The extent that is free from now on; `None` for the empty block.
        extent: Option<Extent>,
    },
    /// The name leads nowhere, because its bytes were damaged.
    Quarantined {
        /// The name.
        hash: Hash,
        /// The extent that is never used again.
        extent: Extent,
    },
}

impl JournalRecord {
    pub(crate) fn encoded_bytes(&self) -> usize {
        RECORD_HEADER_BYTES
            + match self {
                JournalRecord::Occupied { .. } => OCCUPIED_BYTES,
                JournalRecord::Removed { .. } | JournalRecord::Quarantined { .. } => REMOVED_BYTES,
            }
    }
}

/// What a frame says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// The store it belongs to.
    pub store_id: StoreId,
    /// The opening of the store that wrote it.
    pub epoch: u64,
    /// Sequence number of its first record.
    pub first_sequence: u64,
    /// The last sequence number known, when the frame was built, to be on stable storage with its data.
    pub durable_up_to: u64,
    /// CRC of the frame before it.
    pub previous_crc: u32,
}

/// A frame as it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// What it says about itself.
    pub header: FrameHeader,
    /// Its records, in the order in which they happened, or what it holds that this program does not know.
    pub records: Result<Vec<JournalRecord>, UnknownContent>,
    /// Its own CRC, to which the next frame chains.
    pub crc: u32,
    /// Its length in the file.
    pub bytes: usize,
}

/// Why bytes are not a frame that can be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// They are not a whole frame: never written, torn, or overwritten.
    #[error("no frame")]
    NoFrame,
    /// They are more than was passed: the frame has this many bytes.
    #[error("the frame has {0} bytes")]
    Longer(usize),
}

/// A whole frame holds what this program does not know.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a frame of the journal holds {0}, which this program does not know")]
pub struct UnknownContent(String);

/// Length in the file of a frame with these records.
#[must_use]
pub fn frame_bytes(records: &[JournalRecord]) -> usize {
    frame_bytes_of(records.iter().map(JournalRecord::encoded_bytes).sum())
}

/// As [`frame_bytes`], of records of so many bytes.
pub(crate) fn frame_bytes_of(records_bytes: usize) -> usize {
    (HEADER_BYTES + records_bytes).next_multiple_of(PAGE)
}

/// How many of `records`, from the first, fit into one frame.
pub(crate) fn fitting(records: &[JournalRecord]) -> usize {
    let mut bytes = HEADER_BYTES;
    records
        .iter()
        .take_while(|record| {
            bytes += record.encoded_bytes();
            bytes <= FRAME_BYTES_MAX
        })
        .count()
}

/// Writes a frame into `target`, whose length must be [`frame_bytes`]. Returns its CRC.
pub fn encode_frame(header: &FrameHeader, records: &[JournalRecord], target: &mut [u8]) -> u32 {
    let total = u32::try_from(target.len()).unwrap_or(u32::MAX);
    let payload: usize = records.iter().map(JournalRecord::encoded_bytes).sum();
    let mut writer = Writer { target, at: 0 };
    writer.bytes(&MAGIC);
    writer.bytes(&FORMAT_VERSION.to_le_bytes());
    writer.bytes(&total.to_le_bytes());
    writer.bytes(&header.store_id);
    writer.bytes(&header.epoch.to_le_bytes());
    writer.bytes(&header.first_sequence.to_le_bytes());
    writer.bytes(&u32::try_from(records.len()).unwrap_or(u32::MAX).to_le_bytes());
    writer.bytes(&u32::try_from(payload).unwrap_or(u32::MAX).to_le_bytes());
    writer.bytes(&header.durable_up_to.to_le_bytes());
    writer.bytes(&header.previous_crc.to_le_bytes());
    // The CRC, computed with zeros in its place, and 8 bytes to come.
    writer.bytes(&[0; HEADER_BYTES - CRC_AT]);
    for record in records {
        writer.record(record);
    }
    let at = writer.at;
    if let Some(padding) = target.get_mut(at..) {
        padding.fill(0);
    }
    let crc = crc32c::crc32c(target);
    if let Some(place) = target.get_mut(CRC_AT..CRC_AT + 4) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
    crc
}

struct Writer<'a> {
    target: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        let end = self.at + bytes.len();
        if let Some(place) = self.target.get_mut(self.at..end) {
            place.copy_from_slice(bytes);
        }
        self.at = end;
    }

    fn record(&mut self, record: &JournalRecord) {
        let payload = u16::try_from(record.encoded_bytes() - RECORD_HEADER_BYTES).unwrap_or(u16::MAX).to_le_bytes();
        match record {
            JournalRecord::Occupied { hash, record } => {
                self.bytes(&[KIND_OCCUPIED]);
                self.bytes(&payload);
                self.bytes(hash.as_bytes());
                self.extent(record.stored_extent());
                self.bytes(&record.length().to_le_bytes());
            }
            JournalRecord::Quarantined { hash, extent } => {
                self.bytes(&[KIND_QUARANTINED]);
                self.bytes(&payload);
                self.bytes(hash.as_bytes());
                self.extent((extent.class().number(), extent.number()));
            }
            JournalRecord::Removed { hash, extent } => {
                self.bytes(&[KIND_REMOVED]);
                self.bytes(&payload);
                self.bytes(hash.as_bytes());
                self.extent(extent.map_or((Record::NO_EXTENT, 0), |extent| (extent.class().number(), extent.number())));
            }
        }
    }

    fn extent(&mut self, (class, number): (u8, u64)) {
        self.bytes(&[class]);
        self.bytes(&number.to_le_bytes());
    }
}

/// Takes fixed-size pieces off the front of bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }
}

/// Reads the frame at the start of `bytes`, which may go on behind it.
///
/// # Errors
///
/// [`FrameError`]: `Longer` where `bytes` ends before the frame does, if there is one.
pub fn decode_frame(bytes: &[u8]) -> Result<Frame, FrameError> {
    let mut reader = Reader(bytes);
    let fixed = read_header(&mut reader).ok_or(FrameError::NoFrame)?;
    let whole = bytes.get(..fixed.total).ok_or(FrameError::Longer(fixed.total))?;
    let (before, crc_and_after) = whole.split_at_checked(CRC_AT).ok_or(FrameError::NoFrame)?;
    let (_, after) = crc_and_after.split_at_checked(4).ok_or(FrameError::NoFrame)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]), after);
    if crc != fixed.crc {
        return Err(FrameError::NoFrame);
    }
    let payload = reader.slice(fixed.payload).ok_or(FrameError::NoFrame)?;
    let records = if fixed.version == FORMAT_VERSION {
        read_records(payload, fixed.count)
    } else {
        Err(UnknownContent(format!("format version {}", fixed.version)))
    };
    Ok(Frame { header: fixed.header, records, crc, bytes: fixed.total })
}

/// What the start of `bytes` says if it is that of a frame, whole or not: its header and its length in the file.
pub(super) fn peek_header(bytes: &[u8]) -> Option<(FrameHeader, usize)> {
    read_header(&mut Reader(bytes)).map(|fixed| (fixed.header, fixed.total))
}

struct Fixed {
    version: u32,
    total: usize,
    count: u32,
    payload: usize,
    crc: u32,
    header: FrameHeader,
}

fn read_header(reader: &mut Reader<'_>) -> Option<Fixed> {
    if reader.array()? != MAGIC {
        return None;
    }
    let version = reader.u32()?;
    let total = usize::try_from(reader.u32()?).ok()?;
    let plausible = total.is_multiple_of(PAGE) && (PAGE..=FRAME_BYTES_MAX).contains(&total);
    if !plausible {
        return None;
    }
    let store_id = reader.array()?;
    let epoch = reader.u64()?;
    let first_sequence = reader.u64()?;
    let count = reader.u32()?;
    let payload = usize::try_from(reader.u32()?).ok()?;
    let durable_up_to = reader.u64()?;
    let previous_crc = reader.u32()?;
    let crc = reader.u32()?;
    let _to_come = reader.u64()?;
    let header = FrameHeader { store_id, epoch, first_sequence, durable_up_to, previous_crc };
    Some(Fixed { version, total, count, payload, crc, header })
}

fn read_records(payload: &[u8], count: u32) -> Result<Vec<JournalRecord>, UnknownContent> {
    let mut reader = Reader(payload);
    let mut records = Vec::new();
    for _ in 0..count {
        records.push(read_record(&mut reader)?);
    }
    if !reader.0.is_empty() {
        return Err(UnknownContent("more than its count of records".to_owned()));
    }
    Ok(records)
}

fn read_record(reader: &mut Reader<'_>) -> Result<JournalRecord, UnknownContent> {
    let malformed = || UnknownContent("a malformed record".to_owned());
    let kind = reader.u8().ok_or_else(malformed)?;
    let length = reader.u16().ok_or_else(malformed)?;
    let mut payload = Reader(reader.slice(usize::from(length)).ok_or_else(malformed)?);
    let record = match (kind, usize::from(length)) {
        (KIND_OCCUPIED, OCCUPIED_BYTES) => read_occupied(&mut payload),
        (KIND_REMOVED, REMOVED_BYTES) => read_removed(&mut payload),
        (KIND_QUARANTINED, REMOVED_BYTES) => read_quarantined(&mut payload),
        (kind, length) => return Err(UnknownContent(format!("a record of kind {kind} with {length} bytes"))),
    };
    record.ok_or_else(malformed)
}

fn read_occupied(payload: &mut Reader<'_>) -> Option<JournalRecord> {
    let hash = Hash::from_bytes(payload.array()?);
    let (class, number, length) = (payload.u8()?, payload.u64()?, payload.u32()?);
    Some(JournalRecord::Occupied { hash, record: Record::from_stored(class, number, length)? })
}

fn read_removed(payload: &mut Reader<'_>) -> Option<JournalRecord> {
    let hash = Hash::from_bytes(payload.array()?);
    let (class, number) = (payload.u8()?, payload.u64()?);
    let extent = match class {
        Record::NO_EXTENT if number == 0 => None,
        class => Some(Extent::new(SizeClass::new(class)?, number)?),
    };
    Some(JournalRecord::Removed { hash, extent })
}

fn read_quarantined(payload: &mut Reader<'_>) -> Option<JournalRecord> {
    let hash = Hash::from_bytes(payload.array()?);
    let (class, number) = (payload.u8()?, payload.u64()?);
    Some(JournalRecord::Quarantined { hash, extent: Extent::new(SizeClass::new(class)?, number)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = JournalRecord> {
        let extent = (0..8u8, 0..1u64 << 40)
            .prop_map(|(class, number)| Extent::new(SizeClass::new(class).unwrap(), number).unwrap());
        let hash = any::<[u8; 32]>().prop_map(Hash::from_bytes);
        prop_oneof![
            (hash.clone(), extent.clone()).prop_map(|(hash, extent)| {
                let length = u32::try_from(extent.bytes()).unwrap();
                JournalRecord::Occupied { hash, record: Record::new(Some(extent), length).unwrap() }
            }),
            hash.clone().prop_map(|hash| JournalRecord::Occupied { hash, record: Record::EMPTY }),
            (hash.clone(), extent.clone()).prop_map(|(hash, extent)| JournalRecord::Quarantined { hash, extent }),
            (hash, proptest::option::of(extent)).prop_map(|(hash, extent)| JournalRecord::Removed { hash, extent }),
        ]
    }

    fn header() -> impl Strategy<Value = FrameHeader> {
        (any::<[u8; 16]>(), any::<[u64; 3]>(), any::<u32>()).prop_map(|(store_id, [epoch, first, durable], crc)| {
            FrameHeader { store_id, epoch, first_sequence: first, durable_up_to: durable, previous_crc: crc }
        })
    }

    fn encode(header: &FrameHeader, records: &[JournalRecord]) -> Vec<u8> {
        let mut bytes = vec![0xaa; frame_bytes(records)];
        encode_frame(header, records, &mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn frames_survive_and_no_flipped_bit_passes(
            header in header(),
            records in proptest::collection::vec(record(), 0..200),
            flip: proptest::sample::Index,
            bit in 0..8u8,
        ) {
            let mut bytes = encode(&header, &records);
            let length = bytes.len();
            prop_assert_eq!(length % 4096, 0);
            let frame = decode_frame(&bytes).unwrap();
            prop_assert_eq!(frame.header, header);
            prop_assert_eq!(frame.records.as_ref(), Ok(&records));
            prop_assert_eq!(frame.bytes, length);
            prop_assert!(matches!(decode_frame(&bytes[..length - 1]), Err(FrameError::Longer(whole)) if whole == length));
            bytes.extend_from_slice(&[1; 100]);
            prop_assert!(decode_frame(&bytes).is_ok());
            bytes.truncate(length);
            bytes[flip.index(length)] ^= 1 << bit;
            prop_assert!(matches!(decode_frame(&bytes), Err(FrameError::NoFrame | FrameError::Longer(_))));
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), magic: bool) {
            if magic && bytes.len() >= 8 {
                bytes[..8].copy_from_slice(&MAGIC);
            }
            prop_assert!(decode_frame(&bytes).is_err());
        }
    }

    #[test]
    fn unknown_versions_and_kinds_are_named_not_guessed() {
        let header = FrameHeader { store_id: [1; 16], epoch: 1, first_sequence: 1, durable_up_to: 0, previous_crc: 0 };
        let record = JournalRecord::Removed { hash: Hash::of(b""), extent: None };
        let repaired = |mut bytes: Vec<u8>| {
            bytes[CRC_AT..CRC_AT + 4].fill(0);
            let crc = crc32c::crc32c(&bytes);
            bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
            decode_frame(&bytes).unwrap().records
        };
        let mut other_version = encode(&header, &[record]);
        other_version[8] = 9;
        assert!(repaired(other_version).unwrap_err().to_string().contains("format version 9"));
        let mut other_kind = encode(&header, &[record]);
        other_kind[HEADER_BYTES] = 9;
        assert!(repaired(other_kind).unwrap_err().to_string().contains("kind 9"));
        let mut count = encode(&header, &[record]);
        count[48] = 2;
        assert!(repaired(count).is_err());
        let mut numbered = encode(&header, &[record]);
        numbered[HEADER_BYTES + RECORD_HEADER_BYTES + Hash::BYTES + 1] = 7;
        assert!(repaired(numbered).is_err(), "no extent has no number");
    }

    #[test]
    fn a_frame_is_filled_up_to_its_limit() {
        let record = JournalRecord::Removed { hash: Hash::of(b""), extent: None };
        let records = vec![record; 10_000];
        let fits = fitting(&records);
        assert!(frame_bytes(&records[..fits]) <= FRAME_BYTES_MAX && frame_bytes(&records[..=fits]) > FRAME_BYTES_MAX);
    }
}
