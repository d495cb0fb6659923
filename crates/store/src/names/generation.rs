//! One generation of names: a table that one thread fills and any thread reads, without locks and without waiting.
//!
//! Entries are appended and never change; a slot of the hash table holds the number of the latest entry of its name, so an
//! update is one store. Nothing is ever erased: a removal is an entry, which hides every older stage.
//!
//! Invariants: an entry is completely written before any slot names it (release), and read only after a slot named it
//! (acquire); a slot, once it belongs to a name, belongs to it for good, so probing never misses a name; at most
//! two thirds of the slots are taken.

use crate::hash::Hash;
use crate::record::Record;
use crate::sync::{self, AtomicU32, AtomicU64, Ordering};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::OnceLock;

/// What a stage says of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameState {
    /// It leads to a block.
    Occupied(Record),
    /// It leads nowhere, whatever older stages say.
    Removed,
}

impl NameState {
    /// The record, where the name leads to a block.
    #[must_use]
    pub fn record(self) -> Option<Record> {
        match self {
            NameState::Occupied(record) => Some(record),
            NameState::Removed => None,
        }
    }
}

/// Entries are allocated in chunks, as they are needed.
const CHUNK_ENTRIES: usize = if cfg!(loom) { 2 } else { 4096 };

/// A slot that belongs to no name.
const VACANT: u32 = 0;

/// Hash in four words, the extent's number, and length, class and kind in one.
type Entry = [AtomicU64; 6];

const KIND_OCCUPIED: u64 = 1;
const KIND_REMOVED: u64 = 2;

/// One generation of names.
pub struct Generation {
    /// Number of an entry plus one, or [`VACANT`].
    slots: Box<[AtomicU32]>,
    chunks: Box<[OnceLock<Box<[Entry]>>]>,
    entries: AtomicU32,
    entries_max: usize,
    /// Names cannot be chosen so that they crowd in one place without knowing this.
    seed: [u64; 2],
}

impl Generation {
    /// An empty generation for up to `entries` changes.
    #[must_use]
    pub fn new(entries: usize) -> Generation {
        let entries_max = entries.max(1);
        let slots = (entries_max + entries_max / 2).next_power_of_two();
        Generation {
            slots: sync::zeros(slots),
            entries_max,
            chunks: (0..entries_max.div_ceil(CHUNK_ENTRIES)).map(|_| OnceLock::new()).collect(),
            entries: AtomicU32::new(0),
            seed: seed(),
        }
    }

    /// Number of changes taken in.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.load(Ordering::Acquire) as usize
    }

    /// True where no change was taken in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The latest state of a name. Wait-free.
    #[must_use]
    pub fn get(&self, hash: &Hash) -> Option<NameState> {
        let words = words(hash);
        for slot in self.probe(&words) {
            match slot.load(Ordering::Acquire) {
                VACANT => return None,
                number => {
                    let entry = self.entry(number - 1)?;
                    if is(entry, &words) {
                        return state(entry);
                    }
                }
            }
        }
        None
    }

    /// Takes in a change. For the one thread that fills the generation. False where it is full: the change was not taken in.
    pub fn insert(&self, hash: &Hash, state: NameState) -> bool {
        let number = self.entries.load(Ordering::Relaxed);
        let words = words(hash);
        let Some(slot) = self.slot_for(&words) else { return false };
        let Some(entry) = self.new_entry(number) else { return false };
        let (extent_number, rest) = encode(state);
        for (word, value) in entry.iter().zip(words.into_iter().chain([extent_number, rest])) {
            word.store(value, Ordering::Relaxed);
        }
        self.entries.store(number + 1, Ordering::Release);
        // Publishes the entry: everything above is visible to whoever reads this number from the slot.
        slot.store(number + 1, Ordering::Release);
        true
    }

    /// The change of this number, the first of which is 0: a name, and what it says of it.
    pub(crate) fn change(&self, number: u32) -> Option<(Hash, NameState)> {
        let entry = self.entry(number)?;
        let [first, second, third, fourth, ..] = entry;
        let words = [first, second, third, fourth].map(|word| word.load(Ordering::Relaxed));
        Some((hash(&words), state(entry)?))
    }

    /// The changes of these numbers that are there, in their order, each with its number: for looking at many a few at a time.
    pub(crate) fn changes(&self, numbers: Range<usize>) -> impl Iterator<Item = (u32, Hash, NameState)> {
        let numbers = numbers.start..numbers.end.min(self.len());
        numbers.filter_map(|number| {
            let number = u32::try_from(number).ok()?;
            self.change(number).map(|(hash, state)| (number, hash, state))
        })
    }

    /// True where the change of this number is the latest of `hash`, whose change it is.
    pub(crate) fn is_latest(&self, number: u32, hash: &Hash) -> bool {
        self.slot_for(&words(hash)).is_some_and(|slot| slot.load(Ordering::Acquire) == number + 1)
    }

    /// Every name once, with its latest state and the number of that, in the order of the numbers.
    pub(crate) fn latest(&self) -> impl Iterator<Item = (u32, Hash, NameState)> {
        self.changes(0..self.len()).filter(|(number, hash, _)| self.is_latest(*number, hash))
    }

    /// The slots in which a name may be, in order.
    fn probe(&self, words: &[u64; 4]) -> impl Iterator<Item = &AtomicU32> {
        let [a, b, c, d] = *words;
        let mixed = u128::from(a ^ self.seed[0]).wrapping_mul(u128::from(b ^ self.seed[1] | 1))
            ^ u128::from(c).wrapping_mul(u128::from(d | 1));
        #[allow(clippy::cast_possible_truncation)] // Both halves are wanted.
        let mixed = (mixed >> 64) as u64 ^ mixed as u64;
        let mask = self.slots.len() - 1;
        #[allow(clippy::cast_possible_truncation)] // The mask is smaller.
        let start = mixed as usize & mask;
        (0..self.slots.len()).filter_map(move |step| self.slots.get((start + step) & mask))
    }

    /// The slot that belongs to a name, or the vacant one that will.
    fn slot_for(&self, words: &[u64; 4]) -> Option<&AtomicU32> {
        self.probe(words).find(|slot| match slot.load(Ordering::Acquire) {
            VACANT => true,
            number => self.entry(number - 1).is_some_and(|entry| is(entry, words)),
        })
    }

    fn entry(&self, number: u32) -> Option<&Entry> {
        let number = number as usize;
        self.chunks.get(number / CHUNK_ENTRIES)?.get()?.get(number % CHUNK_ENTRIES)
    }

    fn new_entry(&self, number: u32) -> Option<&Entry> {
        let number = number as usize;
        let chunk = self.chunks.get(number / CHUNK_ENTRIES)?;
        if number >= self.entries_max {
            return None;
        }
        let zeroed = || (0..CHUNK_ENTRIES).map(|_| Entry::default()).collect();
        chunk.get_or_init(zeroed).get(number % CHUNK_ENTRIES)
    }
}

fn seed() -> [u64; 2] {
    // A model must do the same again and again.
    if cfg!(loom) {
        return [0; 2];
    }
    let state = RandomState::new();
    [state.hash_one(0), state.hash_one(1)]
}

fn words(hash: &Hash) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(hash.as_bytes().as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

fn hash(words: &[u64; 4]) -> Hash {
    let mut bytes = [0; Hash::BYTES];
    for (word, bytes) in words.iter().zip(bytes.as_chunks_mut().0) {
        *bytes = word.to_le_bytes();
    }
    Hash::from_bytes(bytes)
}

fn is(entry: &Entry, words: &[u64; 4]) -> bool {
    entry.iter().zip(words).all(|(stored, word)| stored.load(Ordering::Relaxed) == *word)
}

/// The last two words of an entry.
fn encode(state: NameState) -> (u64, u64) {
    match state {
        NameState::Removed => (0, KIND_REMOVED << 40),
        NameState::Occupied(record) => {
            let (class, number) = record.stored_extent();
            (number, KIND_OCCUPIED << 40 | u64::from(class) << 32 | u64::from(record.length()))
        }
    }
}

fn state(entry: &Entry) -> Option<NameState> {
    let [.., number, rest] = entry;
    let rest = rest.load(Ordering::Relaxed);
    match rest >> 40 {
        KIND_REMOVED => Some(NameState::Removed),
        KIND_OCCUPIED => {
            #[allow(clippy::cast_possible_truncation)] // Each part is cut out of the word it was put into.
            let (class, length) = ((rest >> 32) as u8, rest as u32);
            Record::from_stored(class, number.load(Ordering::Relaxed), length).map(NameState::Occupied)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::{Extent, SizeClass};
    use crate::names::SortedNames;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, HashMap};

    fn name(number: u64) -> Hash {
        Hash::of(&number.to_le_bytes())
    }

    fn occupied(number: u64) -> NameState {
        NameState::Occupied(Record::new(Extent::new(SizeClass::LARGEST, number), 400_000).unwrap())
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(changes in proptest::collection::vec((0..60u64, 0..5u64), 0..300)) {
            let generation = Generation::new(1000);
            let mut model = HashMap::new();
            for (key, value) in &changes {
                let state = if *value == 0 { NameState::Removed } else { occupied(*value) };
                prop_assert!(generation.insert(&name(*key), state));
                model.insert(name(*key), state);
                prop_assert_eq!(generation.get(&name(*key)), Some(state));
            }
            for key in 0..80 {
                prop_assert_eq!(generation.get(&name(key)), model.get(&name(key)).copied());
            }
            let latest: Vec<_> = generation.latest().collect();
            prop_assert!(latest.is_sorted_by_key(|(number, ..)| *number));
            let all: HashMap<_, _> = latest.iter().map(|(_, hash, state)| (*hash, *state)).collect();
            prop_assert_eq!((&all, latest.len()), (&model, model.len()));
            let sorted: Vec<_> = SortedNames::of(&generation).iter().collect();
            prop_assert_eq!(sorted, BTreeMap::from_iter(model).into_iter().collect::<Vec<_>>());
            prop_assert_eq!(generation.len(), changes.len());
        }
    }

    #[test]
    fn a_full_generation_refuses_and_keeps_what_it_has() {
        let generation = Generation::new(8);
        let taken = (0..100).take_while(|number| generation.insert(&name(*number), occupied(*number))).count();
        assert_eq!((taken, generation.len()), (8, 8));
        assert!((0..taken as u64).all(|number| generation.get(&name(number)) == Some(occupied(number))));
    }

    /// Readers beside the writer see each name as absent or in one of the states that were written, whole.
    #[test]
    fn readers_see_whole_states_while_the_writer_goes_on() {
        const NAMES: u64 = 64;
        let generation = Generation::new(60_000);
        let last = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut newest = [0; 64];
                    while last.load(Ordering::Acquire) < 50_000 {
                        for key in 0..NAMES {
                            let Some(state) = generation.get(&name(key)) else { continue };
                            let Some(record) = state.record() else { panic!("never removed") };
                            let number = record.extent().unwrap().number();
                            assert_eq!(number % NAMES, key, "another name's record");
                            assert!(number >= newest[usize::try_from(key).unwrap()], "an older state came back");
                            newest[usize::try_from(key).unwrap()] = number;
                        }
                    }
                });
            }
            for number in 0..50_000 {
                assert!(generation.insert(&name(number % NAMES), occupied(number)));
                last.store(number + 1, Ordering::Release);
            }
        });
    }
}
