//! Names of blocks in a body that arrives piece by piece: one a line, or 32 raw bytes each. Pure.

use crate::limits::NAMES_MAX;
use crate::status::shown;
use buddy_store::Hash;

/// Bytes of the longest line: a name and a carriage return.
const LINE_BYTES_MAX: usize = Hash::HEX_DIGITS + 1;

/// How names are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NameForm {
    /// 64 hex digits a line. Lines end in LF or CRLF, the last one need not; empty ones are passed over.
    Text,
    /// 32 bytes each.
    Raw,
}

/// Why a body does not consist of names.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum NameError {
    #[error("line {line}: \"{text}\" is not the name of a block: that is 64 hex digits")]
    Line { line: usize, text: String },
    #[error("the last name has {0} bytes instead of 32")]
    Cut(usize),
    #[error("more than {NAMES_MAX} names")]
    TooMany,
}

/// Reads names.
pub(crate) struct NameReader {
    form: NameForm,
    /// The beginning of a name whose end has not arrived.
    rest: Vec<u8>,
    /// Lines that have ended.
    lines: usize,
    names: usize,
}

impl NameReader {
    pub(crate) fn new(form: NameForm) -> NameReader {
        NameReader { form, rest: Vec::with_capacity(LINE_BYTES_MAX + 1), lines: 0, names: 0 }
    }

    /// Takes in bytes, and calls `each` with the names that they complete.
    pub(crate) fn take(&mut self, bytes: &[u8], mut each: impl FnMut(Hash)) -> Result<(), NameError> {
        match self.form {
            NameForm::Text => self.take_text(bytes, &mut each),
            NameForm::Raw => self.take_raw(bytes, &mut each),
        }
    }

    /// The body has ended.
    pub(crate) fn finish(mut self, mut each: impl FnMut(Hash)) -> Result<(), NameError> {
        match self.form {
            NameForm::Raw if self.rest.is_empty() => Ok(()),
            NameForm::Raw => Err(NameError::Cut(self.rest.len())),
            NameForm::Text => {
                let line = std::mem::take(&mut self.rest);
                self.line(&line, &mut each)
            }
        }
    }

    fn take_text(&mut self, bytes: &[u8], each: &mut impl FnMut(Hash)) -> Result<(), NameError> {
        let mut begin = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let line = bytes.get(begin..end).unwrap_or_default();
            begin = end + 1;
            if self.rest.is_empty() {
                self.line(line, each)?;
            } else {
                self.keep(line)?;
                let line = std::mem::take(&mut self.rest);
                self.line(&line, each)?;
                self.rest = line;
                self.rest.clear();
            }
        }
        self.keep(bytes.get(begin..).unwrap_or_default())
    }

    fn take_raw(&mut self, bytes: &[u8], each: &mut impl FnMut(Hash)) -> Result<(), NameError> {
        let missing = if self.rest.is_empty() { 0 } else { Hash::BYTES - self.rest.len() };
        let (first, rest) = bytes.split_at(missing.min(bytes.len()));
        self.rest.extend_from_slice(first);
        if let Ok(name) = <[u8; Hash::BYTES]>::try_from(&*self.rest) {
            self.rest.clear();
            self.name(Hash::from_bytes(name), each)?;
        }
        let (names, cut) = rest.as_chunks();
        for name in names {
            self.name(Hash::from_bytes(*name), each)?;
        }
        self.rest.extend_from_slice(cut);
        Ok(())
    }

    /// Keeps a part of a line. One that is too long for a name is an error now and not when it ends.
    fn keep(&mut self, part: &[u8]) -> Result<(), NameError> {
        let room = LINE_BYTES_MAX + 1 - self.rest.len();
        self.rest.extend_from_slice(part.get(..room).unwrap_or(part));
        if self.rest.len() > LINE_BYTES_MAX { Err(self.bad_line(&self.rest)) } else { Ok(()) }
    }

    fn line(&mut self, line: &[u8], each: &mut impl FnMut(Hash)) -> Result<(), NameError> {
        let name = line.strip_suffix(b"\r").unwrap_or(line);
        if !name.is_empty() {
            let name = Hash::from_hex(name).map_err(|_| self.bad_line(line))?;
            self.name(name, each)?;
        }
        self.lines += 1;
        Ok(())
    }

    fn bad_line(&self, line: &[u8]) -> NameError {
        // As much of it as is kept where it arrives in pieces.
        let line = line.get(..=LINE_BYTES_MAX).unwrap_or(line);
        NameError::Line { line: self.lines + 1, text: shown(&String::from_utf8_lossy(line)) }
    }

    fn name(&mut self, name: Hash, each: &mut impl FnMut(Hash)) -> Result<(), NameError> {
        self.names += 1;
        if self.names > NAMES_MAX {
            return Err(NameError::TooMany);
        }
        each(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(form: NameForm, body: &[u8], piece: usize) -> Result<Vec<Hash>, NameError> {
        let mut names = Vec::new();
        let mut reader = NameReader::new(form);
        for piece in body.chunks(piece) {
            reader.take(piece, |name| names.push(name))?;
        }
        reader.finish(|name| names.push(name))?;
        Ok(names)
    }

    proptest! {
        #[test]
        fn names_survive_however_they_are_cut(
            names in proptest::collection::vec(any::<[u8; 32]>(), 0..40),
            ends in proptest::collection::vec(0..4usize, 40),
            piece in 1..200usize,
            ended: bool,
        ) {
            let names: Vec<_> = names.into_iter().map(Hash::from_bytes).collect();
            let raw: Vec<u8> = names.iter().flat_map(|name| *name.as_bytes()).collect();
            prop_assert_eq!(read(NameForm::Raw, &raw, piece).unwrap(), names.clone());
            let mut text = String::new();
            for (name, end) in names.iter().zip(ends) {
                let name = if end % 2 == 0 { name.to_string() } else { name.to_string().to_uppercase() };
                text.push_str(&name);
                text.push_str(["\n", "\r\n", "\n\n", "\r\n\r\n"][end]);
            }
            let text = if ended { &text[..] } else { text.trim_end() };
            prop_assert_eq!(read(NameForm::Text, text.as_bytes(), piece).unwrap(), names);
        }

        #[test]
        fn arbitrary_bytes_are_names_or_an_error(body in proptest::collection::vec(any::<u8>(), 0..300), piece in 1..99usize) {
            prop_assert_eq!(read(NameForm::Raw, &body, piece).is_ok(), body.len() % 32 == 0);
            prop_assert_eq!(read(NameForm::Text, &body, piece), read(NameForm::Text, &body, 300));
        }
    }

    #[test]
    fn what_is_not_a_name_is_told_by_its_line() {
        let name = Hash::of(b"x");
        for piece in [1, 7, 1000] {
            let error = |body: String| read(NameForm::Text, body.as_bytes(), piece).unwrap_err().to_string();
            assert!(error(format!("{name}\r\n\nabc\n{name}\n")).starts_with("line 3: \"abc\" is not"));
            assert!(error(format!("{name} \n")).starts_with("line 1"));
            assert!(error(format!("{name}\n{}", "y".repeat(5000))).starts_with("line 2: \"yyy"));
            assert!(error(format!("{name}\n{}", &name.to_string()[1..])).starts_with("line 2"));
        }
        assert_eq!(read(NameForm::Raw, &[0; 33], 5), Err(NameError::Cut(1)));
        assert_eq!(read(NameForm::Raw, &vec![0; 32 * NAMES_MAX], 999).unwrap().len(), NAMES_MAX);
        assert_eq!(read(NameForm::Raw, &vec![0; 32 * NAMES_MAX + 32], 999), Err(NameError::TooMany));
    }
}
