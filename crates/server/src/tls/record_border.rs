//! Where records begin and end in bytes from the wire (RFC 8446 section 5.1): rustls does not say whether it waits for the rest of one. Pure.

/// Bytes of a record's header: its type, two of a version, two of the length of what follows.
const HEADER_BYTES: u8 = 5;

/// Where bytes that were passed end: between two records, or inside one.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct RecordBorder {
    header_bytes: u8,
    /// The last two bytes of the header so far.
    length: u16,
    /// Bytes behind the header that have not passed yet.
    left: u16,
}

impl RecordBorder {
    /// More bytes have passed.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let passed = usize::from(self.left).min(bytes.len());
                self.left = self.left.saturating_sub(u16::try_from(passed).unwrap_or(u16::MAX));
                bytes = bytes.get(passed..).unwrap_or_default();
                continue;
            }
            self.length = self.length << 8 | u16::from(*first);
            self.header_bytes += 1;
            if self.header_bytes == HEADER_BYTES {
                (self.header_bytes, self.left) = (0, self.length);
            }
            bytes = rest;
        }
    }

    /// Whether they end inside a record.
    pub(super) fn is_inside(self) -> bool {
        self.header_bytes > 0 || self.left > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_are_found_wherever_bytes_are_cut() {
        let records: [&[u8]; 4] = [&[22, 3, 1, 0, 2, 7, 7], &[20, 3, 3, 0, 0], &[23, 3, 3, 1, 0], &[9; 256]];
        let bytes = records.concat();
        let ends = [0, 7, 12, bytes.len()];
        for cut in 0..=bytes.len() {
            let mut border = RecordBorder::default();
            border.pass(&bytes[..cut]);
            assert_eq!(border.is_inside(), !ends.contains(&cut), "{cut}");
            border.pass(&bytes[cut..]);
            assert!(!border.is_inside(), "{cut}");
        }
    }
}
