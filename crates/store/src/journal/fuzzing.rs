//! What must hold for any bytes in the journal. It panics where it does not; `fuzz/` runs it on bytes that libFuzzer invents, the
//! test here on those that are kept in `fuzz/corpus`.
// A panic is how it reports.
#![allow(clippy::expect_used, clippy::indexing_slicing)]

use super::frame::{
    CRC_AT, FRAME_BYTES_MAX, FrameError, FrameHeader, HEADER_BYTES, JournalRecord, MAGIC, decode_frame, encode_frame,
    fitting, frame_bytes,
};
use crate::extent::{BLOCK_BYTES_MAX, Extent, PAGE, SizeClass};
use crate::hash::Hash;
use crate::record::Record;

/// Any bytes as a frame, as the contents of a whole frame, and as a list of records to make one of.
pub fn journal_frame(bytes: &[u8]) {
    any_bytes(bytes);
    any_contents(bytes);
    any_records(bytes);
}

fn any_bytes(bytes: &[u8]) {
    match decode_frame(bytes) {
        Ok(frame) => assert!(frame.bytes <= bytes.len()),
        Err(FrameError::Longer(length)) => assert!(length > bytes.len() && length <= FRAME_BYTES_MAX),
        Err(FrameError::NoFrame) => {}
    }
}

/// Bytes with a length and a CRC that are right, as a program that is not this one could have written them: what they say is read
/// and written as it stands, or not at all.
fn any_contents(bytes: &[u8]) {
    let mut whole = bytes[..bytes.len().min(FRAME_BYTES_MAX)].to_vec();
    whole.resize(whole.len().next_multiple_of(PAGE).max(PAGE), 0);
    whole[..MAGIC.len()].copy_from_slice(&MAGIC);
    let length = u32::try_from(whole.len()).expect("a frame's length");
    whole[12..16].copy_from_slice(&length.to_le_bytes());
    whole[CRC_AT..CRC_AT + 4].fill(0);
    let crc = crc32c::crc32c(&whole);
    whole[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    let frame = match decode_frame(&whole) {
        Ok(frame) => frame,
        Err(error) => return assert_eq!(error, FrameError::NoFrame),
    };
    assert_eq!((frame.crc, frame.bytes), (crc, whole.len()));
    let Ok(records) = frame.records else { return };
    let mut again = vec![0xaa; frame_bytes(&records)];
    encode_frame(&frame.header, &records, &mut again);
    // All but length and CRC of the frame, which may be longer than it had to be.
    let payload = u32::from_le_bytes(*again[52..].first_chunk().expect("a header"));
    let end = HEADER_BYTES + usize::try_from(payload).expect("a length");
    assert_eq!(again[16..CRC_AT], whole[16..CRC_AT]);
    assert_eq!(again[HEADER_BYTES..end], whole[HEADER_BYTES..end]);
}

fn any_records(bytes: &[u8]) {
    let Some((header, mut records, flipped)) = Source(bytes).frame() else { return };
    records.truncate(fitting(&records));
    let mut frame = vec![0xaa; frame_bytes(&records)];
    let crc = encode_frame(&header, &records, &mut frame);
    let decoded = decode_frame(&frame).expect("a whole frame");
    assert_eq!((decoded.header, decoded.crc, decoded.bytes), (header, crc, frame.len()));
    assert_eq!(decoded.records, Ok(records));
    // Torn, or with one bit that is not as it was written, it is no frame.
    assert_eq!(decode_frame(&frame[..frame.len() - 1]), Err(FrameError::Longer(frame.len())));
    let bit = usize::from(flipped) % (frame.len() * 8);
    frame[bit / 8] ^= 1 << (bit % 8);
    assert!(decode_frame(&frame).is_err(), "with bit {bit} flipped");
}

/// Takes values off the front of bytes.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A header, records, and which bit to flip.
    fn frame(&mut self) -> Option<(FrameHeader, Vec<JournalRecord>, u16)> {
        let flipped = self.array().map(u16::from_le_bytes)?;
        let [times] = self.array()?;
        let header = FrameHeader {
            store_id: self.array()?,
            epoch: self.u64()?,
            first_sequence: self.u64()?,
            durable_up_to: self.u64()?,
            previous_crc: self.array().map(u32::from_le_bytes)?,
        };
        let mut records: Vec<_> = std::iter::from_fn(|| self.record()).collect();
        // Up to the largest frame, without as many bytes.
        records = records.repeat(usize::from(times).max(1));
        Some((header, records, flipped))
    }

    fn record(&mut self) -> Option<JournalRecord> {
        let [kind, class, name] = self.array()?;
        let number = self.u64()?;
        let hash = Hash::from_bytes([name; Hash::BYTES]);
        let extent = SizeClass::new(class).and_then(|class| Extent::new(class, number));
        if kind % 2 == 0 {
            return Some(JournalRecord::Removed { hash, extent });
        }
        let length = self.array().map(u32::from_le_bytes)? % (BLOCK_BYTES_MAX + 1);
        let record = Record::new(extent, length).or_else(|| {
            let extent = SizeClass::for_length(length).and_then(|class| Extent::new(class, number >> 16));
            Record::new(extent, length)
        });
        Some(JournalRecord::Occupied { hash, record: record? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz_corpus;

    #[test]
    fn kept_frames_hold() {
        fuzz_corpus::replay("journal_frame", journal_frame);
    }
}
