//! Which blocks were read lately: what decides whether a block that only the disk has is worth a place in the page cache.
//!
//! A block that is read once, as by a restore or a copy of everything, is best read past the cache: that costs half as much, and drives
//! out nothing that others read again and again. One that is asked for a second time is read through the cache, and served from it
//! from then on.
//!
//! The table has a fixed size and may err, both ways: of a block one byte is kept, among four in a word that many blocks share, and threads
//! that change a word at once undo each other's changes. So nothing but speed may depend on it. Who comes to a full word takes a place
//! by chance: whatever the order in which the same blocks are read again and again, some of them are found each time, and get out of the
//! others' way.

use crate::hash::Hash;
use crate::sync::{self, AtomicU32, Ordering};

/// Places in a word.
const PLACES_IN_WORD: u32 = 4;
const PLACE_BITS: u32 = u32::BITS / PLACES_IN_WORD;

/// Blocks that were read lately, of all threads.
pub struct RecentReads {
    /// In each place the mark of a block, or 0.
    words: Box<[AtomicU32]>,
}

impl RecentReads {
    /// A table with room for `blocks`, in a byte each.
    #[must_use]
    pub fn new(blocks: usize) -> RecentReads {
        RecentReads { words: sync::zeros(blocks.div_ceil(PLACES_IN_WORD as usize).max(1)) }
    }

    /// Whether a block was read lately.
    #[must_use]
    pub fn contains(&self, hash: &Hash) -> bool {
        self.word(hash).is_some_and(|word| place_of(mark(hash), word.load(Ordering::Relaxed)).is_some())
    }

    /// Remembers that a block is read now, if need be in the place of another that `chance` draws. True where it was read lately, too.
    pub fn insert(&self, hash: &Hash, chance: u32) -> bool {
        let Some(word) = self.word(hash) else { return false };
        let (mark, marks) = (mark(hash), word.load(Ordering::Relaxed));
        if place_of(mark, marks).is_some() {
            return true;
        }
        let shift = place_of(0, marks).unwrap_or(chance % PLACES_IN_WORD * PLACE_BITS);
        word.store((marks & !(0xff << shift)) | (mark << shift), Ordering::Relaxed);
        false
    }

    /// Hashes are random: their first bits say where among all words.
    fn word(&self, hash: &Hash) -> Option<&AtomicU32> {
        let number = (u128::from(hash.leading_bits()) * self.words.len() as u128) >> u64::BITS;
        self.words.get(usize::try_from(number).ok()?)
    }
}

/// What a block is remembered as.
fn mark(hash: &Hash) -> u32 {
    let [.., last] = *hash.as_bytes();
    u32::from(last.max(1))
}

/// How far up in a word a mark lies.
fn place_of(mark: u32, marks: u32) -> Option<u32> {
    (0..u32::BITS).step_by(PLACE_BITS as usize).find(|shift| (marks >> shift) & 0xff == mark)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn hash(number: u64) -> Hash {
        Hash::of(&number.to_le_bytes())
    }

    #[test]
    fn a_block_is_remembered_when_it_was_read_and_not_before() {
        let reads = RecentReads::new(1 << 16);
        let unread = (0..1000).filter(|number| reads.contains(&hash(*number))).count();
        assert_eq!(unread, 0);
        let taken_for_read = (0..1000).filter(|number| reads.insert(&hash(*number), 0)).count();
        assert!(taken_for_read < 5, "{taken_for_read} of 1000 in 65,536 places were taken for others");
        let forgotten = (0..1000).filter(|number| !reads.contains(&hash(*number))).count();
        assert_eq!(forgotten, 0, "there is a place for every one of them");
    }

    #[test]
    fn of_blocks_that_are_read_in_turn_again_and_again_all_are_soon_found() {
        // One and a half as many as there are places. What is found is cached by then, and marked no more.
        let (reads, mut random) = (RecentReads::new(4096), fastrand::Rng::with_seed(1));
        let mut left: Vec<_> = (0..6144).map(hash).collect();
        let mut left_after = Vec::new();
        while !left.is_empty() && left_after.len() < 40 {
            left.retain(|hash| !reads.insert(hash, random.u32(..)));
            left_after.push(left.len());
        }
        assert!(left_after.get(8).is_none_or(|left| *left < 6144 / 8), "{left_after:?} are read from the disk");
        assert!(left.is_empty(), "{left_after:?} are read from the disk");
    }

    #[test]
    fn blocks_never_read_again_are_forgotten() {
        let (reads, mut random) = (RecentReads::new(1024), fastrand::Rng::with_seed(2));
        let found = (0..50_000).filter(|number| reads.insert(&hash(*number), random.u32(..))).count();
        // Four of 255 marks are in a full word.
        assert!(found < 50_000 / 40, "{found} of 50,000 were taken for others");
        let remembered = (0..40_000).filter(|number| reads.contains(&hash(*number))).count();
        assert!(remembered < 40_000 / 40, "{remembered} of the first 40,000 are remembered");
        assert_eq!(reads.words.len(), 256, "it has not grown");
    }

    #[test]
    fn the_smallest_table_has_a_place_for_every_block() {
        let reads = RecentReads::new(0);
        let (low, high) = (Hash::from_hex(&[b'0'; 64]).unwrap(), Hash::from_hex(&[b'f'; 64]).unwrap());
        for hash in [low, high] {
            assert!(!reads.insert(&hash, 0) && reads.insert(&hash, 0) && reads.contains(&hash));
        }
    }
}
