//! Chunked bodies. The decoder is a state machine that is fed piece by piece; the one it is compared with reads from top to bottom
//! and has all bytes.

use crate::chunked::{ChunkedDecoder, LINE_BYTES_MAX, TRAILER_BYTES_MAX};

/// What a decoder made of bytes: the data, up to where it went wrong, and the end.
#[derive(PartialEq, Eq, Debug)]
struct Decoded {
    data: Vec<u8>,
    end: End,
}

#[derive(PartialEq, Eq, Debug)]
enum End {
    /// The body has ended; it had this many bytes.
    Done(usize),
    More,
    Refused,
}

/// A body in any bytes. The first says how many of those behind it are sizes of the pieces in which the rest arrives.
pub fn http_chunks(bytes: &[u8]) {
    let Some((sizes, rest)) = bytes.split_first() else { return };
    let (sizes, body) = rest.split_at(usize::from(*sizes).min(rest.len()));
    let expected = Reference::decode(body);
    assert!(expected.data.len() <= body.len());
    assert_eq!(decode(body, &[body.len()]), expected, "in one piece");
    assert_eq!(decode(body, &[1]), expected, "byte by byte");
    let sizes: Vec<_> = sizes.iter().map(|size| usize::from(*size)).collect();
    if sizes.iter().any(|size| *size > 0) {
        assert_eq!(decode(body, &sizes), expected, "in pieces of {sizes:?}");
    }
}

/// What the decoder says to a body that arrives in pieces of these sizes, over and over.
fn decode(body: &[u8], sizes: &[usize]) -> Decoded {
    let mut decoder = ChunkedDecoder::default();
    let mut data = Vec::new();
    let mut sizes = sizes.iter().cycle();
    let mut at = 0;
    while at < body.len() && !decoder.is_done() {
        let end = sizes.next().map_or(body.len(), |size| (at + size).min(body.len()));
        loop {
            let Ok((taken, range)) = decoder.decode(&body[at..end]) else { return Decoded { data, end: End::Refused } };
            assert!(range.start <= range.end && range.end <= taken && taken <= end - at);
            assert!(taken > 0 || at == end, "no progress");
            data.extend_from_slice(&body[at..end][range]);
            at += taken;
            if at == end || decoder.is_done() {
                break;
            }
        }
    }
    let end = if decoder.is_done() { End::Done(at) } else { End::More };
    if let End::Done(_) = end {
        assert_eq!(decoder.decode(b"next"), Ok((0, 0..0)), "what follows is the next request's");
    }
    Decoded { data, end }
}

/// RFC 9112 section 7.1, read by recursive descent.
struct Reference<'a> {
    input: &'a [u8],
    at: usize,
    data: Vec<u8>,
}

impl<'a> Reference<'a> {
    fn decode(input: &'a [u8]) -> Decoded {
        let mut reference = Reference { input, at: 0, data: Vec::new() };
        let end = match reference.body() {
            Ok(()) => End::Done(reference.at),
            Err(end) => end,
        };
        Decoded { data: reference.data, end }
    }

    fn next(&mut self) -> Result<u8, End> {
        let byte = self.input.get(self.at).ok_or(End::More)?;
        self.at += 1;
        Ok(*byte)
    }

    fn expect(&mut self, byte: u8) -> Result<(), End> {
        if self.next()? == byte { Ok(()) } else { Err(End::Refused) }
    }

    fn body(&mut self) -> Result<(), End> {
        loop {
            let size = self.size_line()?;
            if size == 0 {
                return self.trailers();
            }
            let rest = &self.input[self.at..];
            let here = usize::try_from(size).unwrap_or(usize::MAX).min(rest.len());
            self.data.extend_from_slice(&rest[..here]);
            self.at += here;
            self.expect(b'\r')?;
            self.expect(b'\n')?;
        }
    }

    fn size_line(&mut self) -> Result<u64, End> {
        let mut counted = 0;
        let mut count = || {
            counted += 1;
            if counted <= LINE_BYTES_MAX { Ok(()) } else { Err(End::Refused) }
        };
        let mut digits = String::from("0");
        let mut byte = self.next()?;
        while byte.is_ascii_hexdigit() {
            digits.push(char::from(byte));
            // Refused as soon as it is too large, not at the end of the line.
            u64::from_str_radix(&digits, 16).map_err(|_| End::Refused)?;
            count()?;
            byte = self.next()?;
        }
        if digits.len() == 1 {
            return Err(End::Refused);
        }
        let mut is_spaced = false;
        while matches!(byte, b' ' | b'\t') {
            is_spaced = true;
            count()?;
            byte = self.next()?;
        }
        if is_spaced && byte != b';' {
            return Err(End::Refused);
        }
        if byte == b';' {
            byte = self.next()?;
            while !matches!(byte, b'\r' | b'\n') {
                count()?;
                byte = self.next()?;
            }
        }
        if byte != b'\r' {
            return Err(End::Refused);
        }
        self.expect(b'\n')?;
        u64::from_str_radix(&digits, 16).map_err(|_| End::Refused)
    }

    fn trailers(&mut self) -> Result<(), End> {
        let mut counted = 0;
        loop {
            let mut byte = self.next()?;
            if byte == b'\r' {
                return self.expect(b'\n');
            }
            while byte != b'\r' {
                counted += 1;
                if byte == b'\n' || counted > TRAILER_BYTES_MAX {
                    return Err(End::Refused);
                }
                byte = self.next()?;
            }
            self.expect(b'\n')?;
        }
    }
}
