//! Bodies: unique, incompressible, made for nothing, and made again from their number.
//!
//! A body is a stamp (the run's seed and the body's number) and a cut of one random buffer, the *noise*, which is the same in every
//! run. A small body is copied behind the request's head; the noise of a large one goes to the socket from where it is.

use crate::name::Name;
use std::ops::Range;

/// Largest body: the largest block.
pub const BODY_BYTES_MAX: usize = 524_288;
/// Smallest body: a stamp. Smaller ones could not all be different.
pub const BODY_BYTES_MIN: usize = 16;
/// Bodies of up to this size are copied, and go out in one send with the head.
pub(crate) const COPIED_BYTES_MAX: usize = 32 * 1024;

/// Cuts begin at multiples of this, in the first [`WINDOW_BYTES`] of the noise.
const STEP_BYTES: u64 = 64;
/// Small enough that the noise of small bodies stays in the processor's cache.
const WINDOW_BYTES: u64 = 64 * 1024;
const NOISE_SEED: u64 = 0x6275_6464_7962_6c6b;

/// Which body it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Body {
    pub(crate) seed: u64,
    pub(crate) number: u64,
    pub(crate) length: usize,
}

impl Body {
    /// `None` where there are no bodies of this length.
    pub(crate) fn new(seed: u64, number: u64, length: usize) -> Option<Body> {
        (BODY_BYTES_MIN..=BODY_BYTES_MAX).contains(&length).then_some(Body { seed, number, length })
    }

    /// Its first bytes, which no other body has.
    pub(crate) fn stamp(self) -> [u8; BODY_BYTES_MIN] {
        (u128::from(self.seed) << 64 | u128::from(self.number)).to_le_bytes()
    }

    /// The part of the noise that follows the stamp.
    pub(crate) fn cut(self) -> Range<usize> {
        let start = self.number.wrapping_mul(STEP_BYTES) % WINDOW_BYTES;
        let start = usize::try_from(start).unwrap_or(0);
        start..start + self.length - BODY_BYTES_MIN
    }
}

/// The random bytes that all bodies are cut from.
pub(crate) struct Noise {
    bytes: Vec<u8>,
}

impl Noise {
    /// Makes the noise, the same every time.
    pub(crate) fn new() -> Noise {
        let mut bytes = vec![0; usize::try_from(WINDOW_BYTES).unwrap_or(0) + BODY_BYTES_MAX];
        fastrand::Rng::with_seed(NOISE_SEED).fill(&mut bytes);
        Noise { bytes }
    }

    /// What follows the stamp of `body`.
    pub(crate) fn of(&self, body: Body) -> &[u8] {
        self.bytes.get(body.cut()).unwrap_or_default()
    }

    /// The SHA-256 of `body`.
    pub(crate) fn hash(&self, body: Body) -> Name {
        Name::hash_of(&[&body.stamp(), self.of(body)])
    }

    /// Whether `bytes` are `body`.
    pub(crate) fn is(&self, body: Body, bytes: &[u8]) -> bool {
        bytes.len() == body.length && bytes.strip_prefix(&body.stamp()[..]) == Some(self.of(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_differ_and_are_made_again_from_their_number() {
        let noise = Noise::new();
        let again = Noise::new();
        let mut names = std::collections::HashSet::new();
        for number in 0..2000 {
            let body = Body::new(1, number, BODY_BYTES_MIN + usize::try_from(number).unwrap()).unwrap();
            let bytes = [&body.stamp()[..], noise.of(body)].concat();
            assert_eq!(bytes.len(), body.length);
            assert!(again.is(body, &bytes) && again.hash(body) == Name::hash_of(&[&bytes]));
            assert!(!noise.is(Body { number: number + 1, ..body }, &bytes));
            assert!(!noise.is(body, &bytes[1..]));
            assert!(names.insert(noise.hash(body)));
        }
        assert!(Body::new(1, 1, BODY_BYTES_MIN - 1).is_none() && Body::new(1, 1, BODY_BYTES_MAX + 1).is_none());
    }
}
