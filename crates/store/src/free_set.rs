//! The free extents of one size class: a set of numbers that finds its lowest member and runs of neighbours fast.
//!
//! A bitmap cut into chunks of 512 numbers; chunks without a member are not stored, so memory follows fragmentation, not
//! the size of the file: at most 40 MiB a TiB when every second page is free, next to nothing when most is occupied or most is
//! merged into larger extents.
//!
//! Invariants: no stored chunk is empty; `count` is the number of set bits.

use std::collections::BTreeMap;
use std::ops::Range;

const CHUNK_BITS: u64 = 512;
const WORDS: usize = 8;

/// A set of extent numbers.
#[derive(Default, Debug)]
pub(crate) struct FreeSet {
    chunks: BTreeMap<u64, [u64; WORDS]>,
    count: u64,
}

/// Chunk, word in the chunk, mask in the word.
fn locate(number: u64) -> (u64, usize, u64) {
    let bit = number % CHUNK_BITS;
    // `bit / 64` is below 8.
    (number / CHUNK_BITS, usize::try_from(bit / 64).unwrap_or(0), 1 << (bit % 64))
}

impl FreeSet {
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        let (chunk, word, mask) = locate(number);
        self.chunks.get(&chunk).and_then(|words| words.get(word)).is_some_and(|word| word & mask != 0)
    }

    /// Adds a number; false where it was there.
    pub(crate) fn insert(&mut self, number: u64) -> bool {
        let (chunk, word, mask) = locate(number);
        let words = self.chunks.entry(chunk).or_default();
        let Some(word) = words.get_mut(word) else { return false };
        let added = *word & mask == 0;
        *word |= mask;
        self.count += u64::from(added);
        added
    }

    /// Adds a range of numbers, whole chunks at once.
    pub(crate) fn insert_range(&mut self, numbers: Range<u64>) {
        let mut next = numbers.start;
        while next < numbers.end {
            if next.is_multiple_of(CHUNK_BITS) && numbers.end - next >= CHUNK_BITS {
                let before = self.chunks.insert(next / CHUNK_BITS, [u64::MAX; WORDS]);
                let there = before.iter().flatten().map(|word| u64::from(word.count_ones())).sum::<u64>();
                self.count += CHUNK_BITS - there;
                next += CHUNK_BITS;
            } else {
                self.insert(next);
                next += 1;
            }
        }
    }

    /// Takes a number out; false where it was not there.
    pub(crate) fn remove(&mut self, number: u64) -> bool {
        let (chunk, word, mask) = locate(number);
        let Some(words) = self.chunks.get_mut(&chunk) else { return false };
        let removed = words.get_mut(word).is_some_and(|word| {
            let present = *word & mask != 0;
            *word &= !mask;
            present
        });
        if *words == [0; WORDS] {
            self.chunks.remove(&chunk);
        }
        self.count -= u64::from(removed);
        removed
    }

    /// The lowest member.
    pub(crate) fn first(&self) -> Option<u64> {
        let (chunk, words) = self.chunks.first_key_value()?;
        let (index, word) = (0..).zip(words).find(|(_, word)| **word != 0)?;
        Some(chunk * CHUNK_BITS + index * 64 + u64::from(word.trailing_zeros()))
    }

    /// Takes the lowest member and those right behind it out, at most `limit`. Returns the first number and how many.
    pub(crate) fn take_first_run(&mut self, limit: u32) -> Option<(u64, u32)> {
        let first = self.first()?;
        let mut taken = 0;
        while taken < limit && self.remove(first + u64::from(taken)) {
            taken += 1;
        }
        Some((first, taken))
    }

    /// All members, lowest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.chunks.iter().flat_map(|(chunk, words)| {
            let start = chunk * CHUNK_BITS;
            (0..)
                .zip(words)
                .flat_map(move |(index, word)| {
                    (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| index * 64 + bit)
                })
                .map(move |bit| start + bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        InsertRange(u64, u64),
        Remove(u64),
        TakeRun(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        let number = prop_oneof![0..40u64, 500..530u64, 0..5000u64, Just(1 << 40)];
        prop_oneof![
            3 => number.clone().prop_map(Step::Insert),
            1 => (number.clone(), 0..1500u64).prop_map(|(first, count)| Step::InsertRange(first, count)),
            2 => number.prop_map(Step::Remove),
            1 => (1..40u32).prop_map(Step::TakeRun),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_sorted_set(steps in proptest::collection::vec(step(), 1..300)) {
            let mut model = BTreeSet::new();
            let mut set = FreeSet::default();
            for step in steps {
                match step {
                    Step::Insert(number) => prop_assert_eq!(set.insert(number), model.insert(number)),
                    Step::InsertRange(first, count) => {
                        set.insert_range(first..first + count);
                        model.extend(first..first + count);
                    }
                    Step::Remove(number) => prop_assert_eq!(set.remove(number), model.remove(&number)),
                    Step::TakeRun(limit) => {
                        let expected = model.first().map(|first| {
                            let count = (0..limit).take_while(|step| model.contains(&(first + u64::from(*step)))).count();
                            (*first, u32::try_from(count).unwrap())
                        });
                        prop_assert_eq!(set.take_first_run(limit), expected);
                        if let Some((first, count)) = expected {
                            model.retain(|number| !(first..first + u64::from(count)).contains(number));
                        }
                    }
                }
                prop_assert_eq!(set.count(), model.len() as u64);
                prop_assert_eq!(set.first(), model.first().copied());
                prop_assert!(set.chunks.values().all(|words| *words != [0; WORDS]));
            }
            prop_assert!(set.iter().eq(model.iter().copied()));
            prop_assert!(model.iter().all(|number| set.contains(*number)));
        }
    }
}
