//! SHA-256 of bytes that arrive piece by piece (FIPS 180-4), and of several such at once.

use super::Hash;
use super::sha256::{Block, INITIAL, Message, State};
use super::together::{self, Ways};
use sha2::block_api::compress256;

const BLOCK_BYTES: usize = size_of::<Block>();
/// The length of the message, in bits, ends it.
const LENGTH_BYTES: usize = 8;

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

    /// Takes in the next bytes of several messages. Faster than one after the other on processors that are quicker at several at once.
    pub fn update_together<'a>(messages: impl IntoIterator<Item = (&'a mut Hasher, &'a [u8])>) {
        update_together(messages, Ways::of_this_processor());
    }

    /// With so many messages [together](Hasher::update_together) each takes this processor the least time: 1 where they are taken in
    /// one after the other.
    #[must_use]
    pub fn together_max() -> usize {
        Ways::of_this_processor().together_max()
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

fn update_together<'a>(messages: impl IntoIterator<Item = (&'a mut Hasher, &'a [u8])>, ways: Ways) {
    let begin = |(hasher, bytes): (&'a mut Hasher, &'a [u8])| {
        let (blocks, rest) = hasher.begin(bytes);
        hasher.keep(rest);
        Message { state: &mut hasher.state, blocks }
    };
    together::compress(messages.into_iter().map(begin).collect(), ways);
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

    /// What processors do: this one, those that can do nothing or only one of both, and one in lanes from a few on.
    const PROCESSORS: [Ways; 4] = [
        Ways { pairs: false, lanes_min: usize::MAX },
        Ways { pairs: true, lanes_min: usize::MAX },
        Ways { pairs: false, lanes_min: 1 },
        Ways { pairs: true, lanes_min: 7 },
    ];

    fn message(first: u8, length: usize) -> Vec<u8> {
        (0..length).map(|at| first ^ at.wrapping_mul(7).to_le_bytes()[0] ^ (at >> 6).to_le_bytes()[0]).collect()
    }

    /// Whole messages, of lengths that differ, by every number of them.
    #[test]
    fn any_number_is_hashed_together() {
        for (count, ways) in (1..=40_u8).flat_map(|count| PROCESSORS.map(|ways| (count, ways))) {
            let messages: Vec<Vec<u8>> =
                (0..count).map(|number| message(number, usize::from(number) * 37 % 11 * BLOCK_BYTES + 60)).collect();
            let mut hashers = vec![Hasher::new(); messages.len()];
            update_together(hashers.iter_mut().zip(messages.iter().map(Vec::as_slice)), ways);
            for (hasher, message) in hashers.into_iter().zip(&messages) {
                assert_eq!(hasher.finish(), expected(message), "one of {count}, {} bytes", message.len());
            }
        }
    }

    fn messages() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
        let at_a_border =
            (0..4_usize, 0..3_usize).prop_map(|(blocks, more)| (blocks * BLOCK_BYTES + more).saturating_sub(1));
        let length = prop_oneof![at_a_border, 0..3 * BLOCK_BYTES, 0..5000_usize];
        let piece = (any::<u8>(), length).prop_map(|(first, length)| message(first, length));
        prop::collection::vec(prop::collection::vec(piece, 0..5), 0..=40)
    }

    proptest! {
        /// Messages of any pieces, each round of pieces taken in together, come out as each by itself.
        #[test]
        fn together_or_alone_the_hash_is_the_same(messages in messages()) {
            for ways in PROCESSORS {
                let mut hashers = vec![Hasher::new(); messages.len()];
                for round in 0..5 {
                    let pieces = hashers.iter_mut().zip(&messages).filter_map(|(hasher, pieces)| Some((hasher, &pieces.get(round)?[..])));
                    update_together(pieces, ways);
                }
                for (hasher, pieces) in hashers.into_iter().zip(&messages) {
                    prop_assert_eq!(hasher.finish(), expected(&pieces.concat()));
                }
            }
            for pieces in &messages {
                let mut alone = Hasher::new();
                pieces.iter().for_each(|piece| alone.update(piece));
                prop_assert_eq!(alone.finish(), expected(&pieces.concat()));
            }
        }
    }
}
