//! Finding the token that a request brings among those that are known, in a time that helps nobody to guess one.
//!
//! Who guesses must not learn from the time of a refusal how close a guess came. Nothing here ever sees a token: what is looked up
//! is its SHA-256, of which a guess that shares all bytes but one with a token shares no more than any other. So the time of a look-up may
//! depend on the digest without saying anything about the token. It says next to nothing about the digests that are kept, either, which a
//! search ordered by their bytes would give away one by one:
//!
//! - The place in the table follows from a keyed hash of the whole digest, whose key is drawn at random for every table and never leaves it.
//!   Which digests meet, and how long a search is, cannot be foreseen, and digests that begin alike are as far from each other as any.
//! - Where a search meets a digest it compares all of it, whatever the first difference ([`TokenDigest`]).
//!
//! Comparing each request with every token would say as little, and cost as much as there are tokens.

use super::token::{Token, TokenDigest};
use std::collections::HashMap;

/// The tokens that are known, by their digests.
#[derive(Clone, Debug)]
pub(super) struct KnownTokens(HashMap<TokenDigest, Token>);

impl KnownTokens {
    /// The token with this digest.
    pub(super) fn find(&self, digest: &TokenDigest) -> Option<&Token> {
        self.0.get(digest)
    }
}

impl FromIterator<Token> for KnownTokens {
    fn from_iter<I: IntoIterator<Item = Token>>(tokens: I) -> KnownTokens {
        KnownTokens(tokens.into_iter().map(|token| (*token.digest(), token)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::rights::Rights;
    use super::*;
    use buddy_store::Hash;

    #[test]
    fn every_token_is_found_and_one_changed_bit_is_another() {
        let digests: Vec<_> = (0..300_u32).map(|number| TokenDigest::of(&number.to_le_bytes())).collect();
        let token = |(number, digest): (usize, &TokenDigest)| {
            Token::new(&format!("token-{number}"), *digest, Rights::NONE).unwrap()
        };
        let known: KnownTokens = digests.iter().enumerate().map(token).collect();
        for (number, digest) in digests.iter().enumerate() {
            assert_eq!(known.find(digest).map(Token::name), Some(format!("token-{number}").as_str()));
            for bit in 0..8 * Hash::BYTES {
                let mut bytes = *Hash::from_hex(digest.to_hex().as_bytes()).unwrap().as_bytes();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let other = TokenDigest::from_hex(&Hash::from_bytes(bytes).to_string()).unwrap();
                assert!(known.find(&other).is_none(), "bit {bit} of {number}");
            }
        }
        assert!(KnownTokens::from_iter([]).find(&digests[0]).is_none());
    }
}
