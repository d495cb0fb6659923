//! Tokens, as they are kept and as requests bring them (RFC 6750 section 2.1: in the `Authorization` field, and nowhere else).

use super::rights::Rights;
use buddy_store::Hash;
use std::fmt;
use std::hash;
use std::io;
use subtle::{Choice, ConstantTimeEq};

/// Bytes of chance in a token.
const TOKEN_BYTES: usize = 32;
/// How tokens begin: whoever finds one in a file knows what it is, and no name of a block looks like it.
const PREFIX: &str = "buddy_";
/// A token that a request brings is not longer than this.
const TOKEN_CHARS_MAX: usize = 256;
/// The name of a token is not longer than this.
const NAME_CHARS_MAX: usize = 64;

/// Draws a token that nobody can guess.
///
/// # Errors
///
/// The system's, where it has no random numbers.
pub fn new_token() -> io::Result<String> {
    let mut bytes = [0; TOKEN_BYTES];
    let drawn = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if drawn != TOKEN_BYTES {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // 64 hex digits, as a hash has them.
    Ok(format!("{PREFIX}{}", Hash::from_bytes(bytes)))
}

/// The SHA-256 of a token: what is kept of it, here and in files.
///
/// A fast hash without a salt is enough: passwords need slow ones because people choose them from few, but a token is 256 bits of
/// chance, which nobody finds from its hash by trying, and no two are the same.
///
/// Two are compared as a whole, whatever the first difference.
#[derive(Clone, Copy)]
pub struct TokenDigest([u8; Hash::BYTES]);

impl TokenDigest {
    /// Of a token.
    #[must_use]
    pub fn of(token: &[u8]) -> TokenDigest {
        TokenDigest(*Hash::of(token).as_bytes())
    }

    /// From 64 hex digits; `None` where they are not that.
    #[must_use]
    pub fn from_hex(digits: &str) -> Option<TokenDigest> {
        Hash::from_hex(digits.as_bytes()).ok().map(|hash| TokenDigest(*hash.as_bytes()))
    }

    /// Its 64 hex digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        Hash::from_bytes(self.0).to_string()
    }
}

impl ConstantTimeEq for TokenDigest {
    fn ct_eq(&self, other: &TokenDigest) -> Choice {
        // Four words take an eighth of the time of so many bytes.
        let words = |digest: &TokenDigest| {
            let mut words = [0; Hash::BYTES / 8];
            for (word, bytes) in words.iter_mut().zip(digest.0.as_chunks().0) {
                *word = u64::from_ne_bytes(*bytes);
            }
            words
        };
        words(self).ct_eq(&words(other))
    }
}

impl PartialEq for TokenDigest {
    fn eq(&self, other: &TokenDigest) -> bool {
        self.ct_eq(other).into()
    }
}

impl Eq for TokenDigest {}

impl hash::Hash for TokenDigest {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

/// Digests are not for logs.
impl fmt::Debug for TokenDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TokenDigest")
    }
}

/// Why something is not a token's name.
#[derive(Debug, thiserror::Error)]
#[error("a token's name has 1 to {NAME_CHARS_MAX} letters, digits, - and _")]
pub struct TokenError;

/// A token that is known here.
#[derive(Clone, Debug)]
pub struct Token {
    name: String,
    digest: TokenDigest,
    pub(super) rights: Rights,
}

impl Token {
    /// With a name, for people and logs.
    ///
    /// # Errors
    ///
    /// [`TokenError`] where the name is not fit for a log. It is not repeated: somebody may have put the token in its place.
    pub fn new(name: &str, digest: TokenDigest, rights: Rights) -> Result<Token, TokenError> {
        let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        // A token is longer than any name.
        if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.bytes().all(is_fit) {
            return Err(TokenError);
        }
        Ok(Token { name: name.to_owned(), digest, rights })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The digest that is kept of it.
    #[must_use]
    pub fn digest(&self) -> &TokenDigest {
        &self.digest
    }
}

const _: () = assert!(PREFIX.len() + 2 * TOKEN_BYTES > NAME_CHARS_MAX);

/// What a request says about who sends it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Credentials {
    /// Nothing.
    #[default]
    Absent,
    /// A token.
    Token(TokenDigest),
    /// Something that is not one token.
    Unusable,
}

impl Credentials {
    /// Takes in the value of an `Authorization` field. A second one makes both unusable.
    pub(crate) fn take(&mut self, value: &[u8]) {
        *self = match (*self, bearer_token(value)) {
            (Credentials::Absent, Some(token)) => Credentials::Token(TokenDigest::of(token)),
            _ => Credentials::Unusable,
        };
    }
}

/// The token in `Bearer token` (RFC 6750 section 2.1).
fn bearer_token(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    let token = token.trim_ascii();
    let is_token = (1..=TOKEN_CHARS_MAX).contains(&token.len()) && is_token68(token);
    (scheme.eq_ignore_ascii_case(b"Bearer ") && is_token).then_some(token)
}

/// Whether all bytes may be in a token (RFC 9110 section 11.2). Looked up instead of compared: branches on whether a byte is a digit or a
/// letter are mispredicted in every token that was not seen just before, which takes some tens of nanoseconds.
fn is_token68(token: &[u8]) -> bool {
    #[allow(clippy::indexing_slicing)] // By the compiler.
    const ALLOWED: [bool; 256] = {
        let mut allowed = [false; 256];
        let mut byte = 0_u8;
        while byte < u8::MAX {
            allowed[byte as usize] =
                byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=');
            byte += 1;
        }
        allowed
    };
    token.iter().all(|byte| ALLOWED.get(usize::from(*byte)).is_some_and(|allowed| *allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_drawn_and_recognised() {
        let (one, other) = (new_token().unwrap(), new_token().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), PREFIX.len() + 64);
        let digest = TokenDigest::of(one.as_bytes());
        assert_eq!(TokenDigest::from_hex(&digest.to_hex()), Some(digest));
        assert_ne!(digest, TokenDigest::of(other.as_bytes()));
        let mut credentials = Credentials::default();
        credentials.take(format!("Bearer {one}").as_bytes());
        assert_eq!(credentials, Credentials::Token(digest));
        assert!(!format!("{credentials:?}").contains(&digest.to_hex()));
        credentials.take(format!("Bearer {one}").as_bytes());
        assert_eq!(credentials, Credentials::Unusable, "given twice");
    }

    #[test]
    fn only_one_bearer_token_is_a_token() {
        let taken = |value: &[u8]| {
            let mut credentials = Credentials::default();
            credentials.take(value);
            credentials
        };
        let token = Credentials::Token(TokenDigest::of(b"abc"));
        for value in ["Bearer abc", "bearer abc", "BEARER   abc", "Bearer abc "] {
            assert_eq!(taken(value.as_bytes()), token, "{value}");
        }
        let long = format!("Bearer {}", "a".repeat(TOKEN_CHARS_MAX + 1));
        for value in ["", "Bearer", "Bearer ", "Bearer a b", "Bearerabc", "Basic abc", "abc", "Bearer \"abc\"", &long] {
            assert_eq!(taken(value.as_bytes()), Credentials::Unusable, "{value}");
        }
        for byte in 0..=u8::MAX {
            let allowed = byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
            let is_token = matches!(taken(&[b"Bearer a", &[byte][..], b"a"].concat()), Credentials::Token(_));
            assert_eq!(is_token, allowed, "{byte:#x}");
        }
    }

    #[test]
    fn names_are_fit_for_a_log() {
        let digest = TokenDigest::of(b"x");
        for name in ["a", "backup-1_B"] {
            assert_eq!(Token::new(name, digest, Rights::NONE).unwrap().name(), name);
        }
        let token = new_token().unwrap();
        for name in ["", "a b", "a\n", "ä", "a.b", &token] {
            let error = Token::new(name, digest, Rights::NONE).unwrap_err().to_string();
            assert!(!error.contains(&token));
        }
    }
}
