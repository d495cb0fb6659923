//! Whether a name leads to a block, and which names there are.
//!
//! Listing looks at a few names a turn, so that requests are served in between, and holds no snapshot of the index from one turn to the
//! next. In each turn the published stages are loaded first and the index is read after, as for any look-up: a name that moves from
//! one to the next is found in one of them.
//!
//! A page of names is made of those of the index, in their order, and of those of the stages. The latter are gathered first,
//! once: a name that is there throughout the walk is in a stage then, or in the index from then on, where the walk comes past. What is
//! listed of it is decided when it is its turn, by the newest stage.
//!
//! A damaged row of the index, and a name of which only such a row could tell, is passed over: it costs the list that block alone.

use super::Session;
use crate::error::StoreError;
use crate::files::BlockFile;
use crate::hash::Hash;
use crate::index::{IndexError, IndexReader};
use crate::names::{Generation, NameState};
use crate::record::Record;
use std::collections::BinaryHeap;
use std::iter::Peekable;

/// Changes of a generation looked at in a turn. In tests few, so that much happens in between.
const CHANGES_A_TURN: usize = if cfg!(test) { 3 } else { 2048 };
/// Rows of the index taken in a turn.
const ROWS_A_TURN: usize = if cfg!(test) { 3 } else { 256 };

/// A block, as it is listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Its name.
    pub hash: Hash,
    /// Its length in bytes.
    pub length: u32,
}

/// Blocks, and what is missing among them.
#[derive(Default, Debug)]
pub struct Listing {
    /// In the order of their names.
    pub blocks: Vec<Listed>,
    /// Rows of the index that were passed over.
    pub damaged: DamagedRows,
}

/// Damaged rows of the index that were come upon.
#[derive(Default, Debug)]
pub struct DamagedRows {
    /// How many.
    pub count: u64,
    /// What is wrong with the first.
    pub first: Option<IndexError>,
}

impl DamagedRows {
    fn add(&mut self, error: IndexError) {
        self.count += 1;
        self.first.get_or_insert(error);
    }
}

/// Whole rows of the index, in the order of their names.
pub(super) struct Rows {
    pub(super) whole: Vec<(Hash, Record)>,
    /// Generations that were dropped when they were read.
    seen: u64,
}

impl<F: BlockFile, R: IndexReader> Session<F, R> {
    /// Whether a name leads to a block.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub async fn is_stored(&self, hash: &Hash) -> Result<bool, StoreError> {
        Ok(self.counted.count_failure(self.locate(hash).await)?.0.is_some())
    }

    /// Lists blocks in the order of their names, behind `after` if it is given, at most `count`. An empty list is the end. What
    /// is stored from the beginning of a walk to its end, and not passed over, is listed once.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub async fn list(&self, after: Option<Hash>, count: usize) -> Result<Listing, StoreError> {
        let mut after = after;
        let mut listing = Listing::default();
        loop {
            let recent = self.recent_names(after, count).await;
            self.counted.count_failure(self.merge(after, count, &recent, &mut listing).await)?;
            match recent.last_known {
                // Every one of them was removed meanwhile, and this is not the end.
                Some(last) if listing.blocks.is_empty() => after = Some(last),
                _ => return Ok(listing),
            }
        }
    }

    /// The next whole rows of the index behind `after`, if there are so many.
    pub(super) fn rows_after(
        &self,
        after: Option<&Hash>,
        count: usize,
        damaged: &mut DamagedRows,
    ) -> Result<Rows, StoreError> {
        let seen = self.shared.names.load().dropped();
        let rows = self.reader.borrow_mut().blocks_after(after, count, seen)?;
        let whole = rows.into_iter().filter_map(|row| row.map_err(|error| self.pass_over(error, damaged)).ok());
        Ok(Rows { whole: whole.collect(), seen })
    }

    fn pass_over(&self, error: IndexError, damaged: &mut DamagedRows) {
        damaged.add(error.clone());
        self.counted.count_error(&error.into());
    }

    /// The first names behind `after` that the stages lead to blocks with: `count` of them, if there are so many.
    async fn recent_names(&self, after: Option<Hash>, count: usize) -> RecentNames {
        let generations: Vec<_> = {
            let stages = self.shared.names.load();
            stages.sealed().into_iter().chain([stages.active()]).cloned().collect()
        };
        // Each name may be in both: of twice as many, `count` are different.
        let room = 2 * count;
        let mut first = BinaryHeap::new();
        for generation in &generations {
            self.gather(generation, after, room, &mut first).await;
        }
        let is_all = first.len() < room;
        let mut names = first.into_sorted_vec();
        names.dedup();
        RecentNames { last_known: if is_all { None } else { names.last().copied() }, names }
    }

    /// Adds names of a generation to the `room` first.
    async fn gather(&self, generation: &Generation, after: Option<Hash>, room: usize, first: &mut BinaryHeap<Hash>) {
        let mut begin = 0;
        // It may be growing; what comes in meanwhile may be the latest word on a name that was there before.
        while begin < generation.len() {
            let numbers = begin..generation.len().min(begin + CHANGES_A_TURN);
            begin = numbers.end;
            let bound = if first.len() < room { None } else { first.peek().copied() };
            let wanted =
                |hash: &Hash| after.is_none_or(|after| *hash > after) && bound.is_none_or(|bound| *hash < bound);
            for (number, hash, state) in generation.changes(numbers) {
                if matches!(state, NameState::Occupied(_)) && wanted(&hash) && generation.is_latest(number, &hash) {
                    first.push(hash);
                }
            }
            while first.len() > room {
                first.pop();
            }
            self.ring.next_turn().await;
        }
    }

    /// Lists the blocks behind `after`, at most `count`, of the index and of the stages, as far as the latter are known.
    async fn merge(
        &self,
        after: Option<Hash>,
        count: usize,
        recent: &RecentNames,
        listing: &mut Listing,
    ) -> Result<(), StoreError> {
        let mut names = recent.names.iter().copied().peekable();
        let is_known = |hash: &Hash| recent.last_known.is_none_or(|last| *hash <= last);
        let mut after = after;
        loop {
            let rows = self.rows_after(after.as_ref(), ROWS_A_TURN, &mut listing.damaged)?;
            after = rows.whole.last().map_or(after, |(hash, _)| Some(*hash));
            let is_end = rows.whole.len() < ROWS_A_TURN;
            let Listing { blocks, damaged } = listing;
            self.merge_rows(rows, &mut names, is_end, damaged, &mut |block| {
                if blocks.len() < count && is_known(&block.hash) {
                    blocks.push(block);
                }
            })?;
            if is_end || listing.blocks.len() == count || after.is_some_and(|after| !is_known(&after)) {
                return Ok(());
            }
            self.ring.next_turn().await;
        }
    }

    /// Calls `each` with the blocks of some rows and of the names that lie among them; where the rows are the last, also of those behind them.
    fn merge_rows(
        &self,
        rows: Rows,
        names: &mut Peekable<impl Iterator<Item = Hash>>,
        is_end: bool,
        damaged: &mut DamagedRows,
        each: &mut impl FnMut(Listed),
    ) -> Result<(), StoreError> {
        for (hash, record) in rows.whole {
            while let Some(name) = names.next_if(|name| *name < hash) {
                self.list_one(name, None, damaged, each)?;
            }
            let _ = names.next_if_eq(&hash);
            self.list_one(hash, Some((record, rows.seen)), damaged, each)?;
        }
        while let Some(name) = names.next_if(|_| is_end) {
            self.list_one(name, None, damaged, each)?;
        }
        Ok(())
    }

    /// The newest stage decides. A row of the index counts while no generation was dropped since it was read.
    fn list_one(
        &self,
        hash: Hash,
        row: Option<(Record, u64)>,
        damaged: &mut DamagedRows,
        each: &mut impl FnMut(Listed),
    ) -> Result<(), StoreError> {
        let found = self.shared.names.look_up(&hash, |now| match row {
            Some((record, seen)) if seen == now => Ok(Some(record)),
            _ => self.reader.borrow_mut().block(&hash, now),
        });
        match found {
            Ok((Some(record), _)) => each(Listed { hash, length: record.length() }),
            Ok((None, _)) => {}
            Err(error @ IndexError::Damaged(_)) => self.pass_over(error, damaged),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Names of the stages, in order, each once.
struct RecentNames {
    names: Vec<Hash>,
    /// Behind this one there may be others; `None`: there are none.
    last_known: Option<Hash>,
}
