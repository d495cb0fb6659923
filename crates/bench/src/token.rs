//! The token that says who asks (RFC 6750): from a file, for on the command line everybody on the machine could read it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A token, which is shown to nobody.
#[derive(Clone)]
pub struct Token(String);

/// Why there is no token. What is in the file is not repeated: it may be one.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The system's.
    #[error("token-file: {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something else, or something beside it.
    #[error("token-file: {0}: it must hold the token, as buddy-blocks token prints it, and nothing else")]
    Form(PathBuf),
}

impl Token {
    /// Reads a file that holds a token, and white space around it.
    ///
    /// # Errors
    ///
    /// [`TokenError`]
    pub fn read(path: &Path) -> Result<Token, TokenError> {
        let bytes = std::fs::read(path).map_err(|source| TokenError::File { path: path.to_owned(), source })?;
        Token::parse(&bytes).ok_or_else(|| TokenError::Form(path.to_owned()))
    }

    /// The characters that RFC 6750, section 2.1, allows.
    fn parse(bytes: &[u8]) -> Option<Token> {
        let text = std::str::from_utf8(bytes.trim_ascii()).ok()?;
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        (!text.is_empty() && text.bytes().all(is_allowed)).then(|| Token(text.to_owned()))
    }

    /// For the `Authorization` field.
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_and_is_not_shown() {
        let token = Token::parse(b"  buddy_1-a\r\n").unwrap();
        assert_eq!((token.secret(), format!("{token:?}").as_str()), ("buddy_1-a", "Token(…)"));
        for text in ["", "\n", "a b", "a\r\nHost: b", "ü", "a\0"] {
            assert!(Token::parse(text.as_bytes()).is_none(), "{text:?}");
        }
    }
}
