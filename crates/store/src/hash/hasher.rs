//! SHA-256 of bytes that arrive piece by piece (FIPS 180-4), and of several such at once.

use super::Hash;
use super::pair::{self, Block, State};
use sha2::block_api::compress256;

const BLOCK_BYTES: usize = size_of::<Block>();
/// The length of the message, in bits, ends it.
const LENGTH_BYTES: usize = 8;
/// FIPS 180-4 section 5.3.3.
const INITIAL: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// Computes the hash of bytes that arrive piece by piece, with the processor's own instructions where it has them.
#[derive(Clone)]
pub struct Hasher {
    state: State,
    /// Bytes taken in.
    length: u64,
    /// Its first `length % 64` bytes are the last ones taken in, which fill no block yet.
    tail: Block,
}

impl Default for Hasher {
    fn default() -> Hasher {
        Hasher { state: INITIAL, length: 0, tail: [0; BLOCK_BYTES] }
    }
}

impl Hasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new() -> Hasher {
        Hasher::default()
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let (blocks, rest) = self.begin(bytes);
        compress256(&mut self.state, blocks);
        self.keep(rest);
    }

    /// Takes in the next bytes of several messages. Faster than one after the other on processors that are quicker at two at once.
    pub fn update_together<'a>(messages: impl IntoIterator<Item = (&'a mut Hasher, &'a [u8])>) {
        let mut messages = messages.into_iter().map(|(hasher, bytes)| {
            let (blocks, rest) = hasher.begin(bytes);
            hasher.keep(rest);
            (hasher, blocks)
        });
        let Some(mut left) = messages.next() else { return };
        for mut next in messages {
            let together = left.1.len().min(next.1.len());
            if !pair::compress([&mut left.0.state, &mut next.0.state], [left.1, next.1]) {
                compress256(&mut left.0.state, left.1.get(..together).unwrap_or_default());
                compress256(&mut next.0.state, next.1.get(..together).unwrap_or_default());
            }
            left.1 = left.1.get(together..).unwrap_or_default();
            next.1 = next.1.get(together..).unwrap_or_default();
            // The longer one goes on beside whatever comes after.
            if left.1.is_empty() {
                left = next;
            }
        }
        compress256(&mut left.0.state, left.1);
    }

    /// The hash of everything taken in.
    #[must_use]
    pub fn finish(mut self) -> Hash {
        // Section 5.1.1: a bit that is set, zeros, and the length, up to the end of a block.
        let length_bits = self.length.wrapping_mul(8);
        let filled = self.filled();
        let zeros = (2 * BLOCK_BYTES - 1 - LENGTH_BYTES - filled) % BLOCK_BYTES;
        let mut padding = [0; 2 * BLOCK_BYTES];
        let end = 1 + zeros + LENGTH_BYTES;
        if let Some((bit, length)) = padding.split_at_mut_checked(1 + zeros) {
            bit.iter_mut().take(1).for_each(|byte| *byte = 0x80);
            length.iter_mut().zip(length_bits.to_be_bytes()).for_each(|(byte, of_length)| *byte = of_length);
        }
        self.update(padding.get(..end).unwrap_or_default());
        let mut bytes = [0; Hash::BYTES];
        for (target, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(self.state) {
            *target = word.to_be_bytes();
        }
        Hash::from_bytes(bytes)
    }

    fn filled(&self) -> usize {
        #[allow(clippy::cast_possible_truncation)] // Less than a block.
        let filled = (self.length % BLOCK_BYTES as u64) as usize;
        filled
    }

    /// Counts `bytes`, completes the tail with the first of them, and takes that in where it is a block. Returns the whole blocks that
    /// are to be taken in next, and the rest, which fills none.
    fn begin<'a>(&mut self, bytes: &'a [u8]) -> (&'a [Block], &'a [u8]) {
        let filled = self.filled();
        self.length = self.length.wrapping_add(bytes.len() as u64);
        if filled == 0 {
            return bytes.as_chunks();
        }
        let missing = (BLOCK_BYTES - filled).min(bytes.len());
        let (first, others) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
        if let Some(target) = self.tail.get_mut(filled..filled + missing) {
            target.copy_from_slice(first);
        }
        if filled + missing < BLOCK_BYTES {
            return (&[], &[]);
        }
        compress256(&mut self.state, &[self.tail]);
        others.as_chunks()
    }

    /// Keeps what fills no block.
    fn keep(&mut self, rest: &[u8]) {
        if let Some(target) = self.tail.get_mut(..rest.len()) {
            target.copy_from_slice(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::Digest;

    fn expected(bytes: &[u8]) -> Hash {
        Hash::from_bytes(sha2::Sha256::digest(bytes).into())
    }

    /// Every length around the borders of blocks and of the padding.
    #[test]
    fn every_length_is_padded_as_it_should_be() {
        let bytes: Vec<u8> = (0..300_u32).map(|number| number.wrapping_mul(31).to_le_bytes()[0]).collect();
        for length in 0..bytes.len() {
            assert_eq!(Hash::of(&bytes[..length]), expected(&bytes[..length]), "{length} bytes");
        }
    }

    fn messages() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
        let piece = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..3 * BLOCK_BYTES),
            (any::<u8>(), 0..5000_usize).prop_map(|(first, length)| (0..length)
                .map(|at| first ^ at.wrapping_mul(7).to_le_bytes()[0])
                .collect()),
        ];
        prop::collection::vec(prop::collection::vec(piece, 0..5), 0..6)
    }

    proptest! {
        /// Messages of any pieces, each round of pieces taken in together, come out as each by itself.
        #[test]
        fn together_or_alone_the_hash_is_the_same(messages in messages()) {
            let mut hashers = vec![Hasher::new(); messages.len()];
            for round in 0..5 {
                let pieces = hashers.iter_mut().zip(&messages).filter_map(|(hasher, pieces)| Some((hasher, &pieces.get(round)?[..])));
                Hasher::update_together(pieces);
            }
            for (hasher, pieces) in hashers.into_iter().zip(&messages) {
                let mut alone = Hasher::new();
                pieces.iter().for_each(|piece| alone.update(piece));
                let expected = expected(&pieces.concat());
                prop_assert_eq!(hasher.finish(), expected);
                prop_assert_eq!(alone.finish(), expected);
            }
        }
    }
}
