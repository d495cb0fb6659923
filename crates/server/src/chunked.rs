//! The chunked transfer coding (RFC 9112 section 7.1), decoded piece by piece. Pure.
//!
//! Strict where leniency is how requests are smuggled: lines end in CRLF, sizes are hex digits alone. Chunk extensions and
//! trailers are read and ignored.

/// Bytes of a chunk's line, with its extensions.
pub(crate) const LINE_BYTES_MAX: usize = 1024;
/// Bytes of all trailers.
pub(crate) const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// Why a chunked body cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChunkError {
    /// It breaks the grammar.
    #[error("malformed chunk: {0}")]
    Malformed(&'static str),
    /// A line or the trailers are longer than any client needs.
    #[error("the {0} of a chunked body is too long")]
    TooLong(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// In the digits of a size; true after the first.
    Size(bool),
    /// In the white space between a size and an extension.
    SizeSpace,
    Extension,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    /// At the start of a trailer line.
    TrailerStart,
    Trailer,
    TrailerLineFeed,
    LastLineFeed,
    Done,
}

/// Decodes one body.
#[derive(Debug)]
pub struct ChunkedDecoder {
    state: State,
    /// Bytes left of this chunk's data; while its size is read, the size so far.
    left: u64,
    line_bytes: usize,
    trailer_bytes: usize,
}

impl Default for ChunkedDecoder {
    fn default() -> ChunkedDecoder {
        ChunkedDecoder { state: State::Size(false), left: 0, line_bytes: 0, trailer_bytes: 0 }
    }
}

impl ChunkedDecoder {
    /// True when the body has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes in bytes up to the next piece of data or the end of the body. Returns how many were taken, and where among them data
    /// lies.
    ///
    /// # Errors
    ///
    /// [`ChunkError`]
    pub fn decode(&mut self, input: &[u8]) -> Result<(usize, std::ops::Range<usize>), ChunkError> {
        let mut at = 0;
        while let Some(byte) = input.get(at) {
            if self.state == State::Done {
                break;
            }
            if self.state == State::Data {
                let data = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len() - at);
                self.left -= data as u64;
                if self.left == 0 {
                    self.state = State::DataReturn;
                }
                return Ok((at + data, at..at + data));
            }
            self.step(*byte)?;
            at += 1;
        }
        Ok((at, at..at))
    }

    fn step(&mut self, byte: u8) -> Result<(), ChunkError> {
        self.state = match (self.state, byte) {
            (State::Size(_), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(byte)?,
            (State::Size(true) | State::Extension, b'\r') => State::SizeLineFeed,
            (State::Size(true) | State::SizeSpace, b' ' | b'\t') => self.count_line(State::SizeSpace)?,
            (State::Size(true) | State::SizeSpace, b';') => State::Extension,
            (State::Size(_) | State::SizeSpace, _) => {
                return Err(ChunkError::Malformed("its size is not a hex number"));
            }
            (State::Extension, b'\n') => return Err(ChunkError::Malformed("a line feed without a carriage return")),
            (State::Extension, _) => self.count_line(State::Extension)?,
            (State::SizeLineFeed, b'\n') if self.left == 0 => State::TrailerStart,
            (State::SizeLineFeed, b'\n') => State::Data,
            (State::DataReturn, b'\r') => State::DataLineFeed,
            (State::DataLineFeed, b'\n') => {
                self.line_bytes = 0;
                State::Size(false)
            }
            (State::TrailerStart, b'\r') => State::LastLineFeed,
            (State::TrailerStart | State::Trailer, b'\n') => {
                return Err(ChunkError::Malformed("a line feed without a carriage return"));
            }
            (State::Trailer, b'\r') => State::TrailerLineFeed,
            (State::TrailerStart | State::Trailer, _) => self.count_trailer()?,
            (State::TrailerLineFeed, b'\n') => State::TrailerStart,
            (State::LastLineFeed, b'\n') => State::Done,
            (State::DataReturn | State::DataLineFeed, _) => {
                return Err(ChunkError::Malformed("its data is longer than its size"));
            }
            (State::SizeLineFeed | State::TrailerLineFeed | State::LastLineFeed, _) => {
                return Err(ChunkError::Malformed("a carriage return without a line feed"));
            }
            (State::Data | State::Done, _) => self.state,
        };
        Ok(())
    }

    fn digit(&mut self, byte: u8) -> Result<State, ChunkError> {
        let value = char::from(byte).to_digit(16).unwrap_or(0);
        self.left = self.left.checked_mul(16).ok_or(ChunkError::TooLong("size"))? + u64::from(value);
        self.count_line(State::Size(true))
    }

    fn count_line(&mut self, next: State) -> Result<State, ChunkError> {
        self.line_bytes += 1;
        if self.line_bytes > LINE_BYTES_MAX { Err(ChunkError::TooLong("line")) } else { Ok(next) }
    }

    fn count_trailer(&mut self) -> Result<State, ChunkError> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX { Err(ChunkError::TooLong("trailer")) } else { Ok(State::Trailer) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type DataAndRest = (Vec<u8>, Vec<u8>);

    /// Decodes in pieces of the given sizes; returns the data and what follows the body.
    fn decode(input: &[u8], pieces: &[usize]) -> Result<Option<DataAndRest>, ChunkError> {
        let mut decoder = ChunkedDecoder::default();
        let mut data = Vec::new();
        let mut at = 0;
        let mut pieces = pieces.iter().cycle();
        while at < input.len() && !decoder.is_done() {
            let end = (at + pieces.next().unwrap()).min(input.len());
            let (taken, range) = decoder.decode(&input[at..end])?;
            data.extend_from_slice(&input[at..end][range]);
            at += taken;
        }
        Ok(decoder.is_done().then(|| (data, input[at..].to_vec())))
    }

    proptest! {
        #[test]
        fn data_survives_however_it_is_cut(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..8),
            pieces in proptest::collection::vec(1usize..30, 1..10),
            extension: bool,
            trailer: bool,
        ) {
            let mut encoded = Vec::new();
            for chunk in &chunks {
                encoded.extend(format!("{:X}{}\r\n", chunk.len(), if extension { ";a=\"b\"" } else { "" }).bytes());
                encoded.extend(chunk);
                encoded.extend(b"\r\n");
            }
            encoded.extend(b"0\r\n");
            if trailer {
                encoded.extend(b"Some: thing\r\nElse: too\r\n");
            }
            encoded.extend(b"\r\nnext");
            let expected = (chunks.concat(), b"next".to_vec());
            prop_assert_eq!(decode(&encoded, &pieces).unwrap(), Some(expected));
            let cut = encoded.len() - b"next".len() - 1;
            prop_assert_eq!(decode(&encoded[..cut], &pieces).unwrap(), None);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, &[7]);
        }
    }

    #[test]
    fn what_breaks_the_grammar_is_refused() {
        let refused = |text: &str| decode(text.as_bytes(), &[64]).is_err();
        for bad in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1\n",
            "1\ra",
            "5 garbage\r\n",
            "5 \r\n",
            "5\t\r\n",
            "1;a\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "0\r\n\n",
            "0\r\na\n",
            "0\r\na\rb",
            "0\r\n\rx",
            "11111111111111111\r\n",
        ] {
            assert!(refused(bad), "{bad:?}");
        }
        assert!(refused(&format!("1;{}", "a".repeat(LINE_BYTES_MAX))));
        assert!(refused(&format!("0\r\n{}", "a: b\r\n".repeat(TRAILER_BYTES_MAX))));
        assert!(!refused("1 ;a\r\nx\r\n0\r\n\r\n"));
    }
}
