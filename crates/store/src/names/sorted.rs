//! The latest states of a generation's names, in the order of the names: what a checkpoint goes through.

use super::{Generation, NameState};
use crate::hash::Hash;

/// The names of a generation, sorted. Only their places are kept, 4 bytes a name: the generation is in memory already.
pub(crate) struct SortedNames<'a> {
    generation: &'a Generation,
    /// Numbers of the changes that are the latest of their names.
    numbers: Vec<u32>,
}

impl<'a> SortedNames<'a> {
    /// Of a generation that nobody adds to any more.
    pub(crate) fn of(generation: &'a Generation) -> SortedNames<'a> {
        let mut keys: Vec<(u64, u32)> = Vec::with_capacity(generation.len());
        keys.extend(generation.latest().map(|(number, hash, _)| (beginning(&hash), number)));
        // Names that begin alike hardly occur, unless somebody has looked for them.
        let whole = |number| generation.change(number).map(|(hash, _)| hash);
        keys.sort_unstable_by(|(a, a_number), (b, b_number)| {
            a.cmp(b).then_with(|| whole(*a_number).cmp(&whole(*b_number)))
        });
        SortedNames { generation, numbers: keys.iter().map(|(_, number)| *number).collect() }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Each name with its latest state, in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Hash, NameState)> {
        self.numbers.iter().filter_map(|number| self.generation.change(*number))
    }
}

/// The first eight bytes of a name, which decide nearly always.
fn beginning(hash: &Hash) -> u64 {
    hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
