//! Whether a name leads to a block, and which names there are.
//!
//! Listing looks at a few names a turn, so that requests are served in between, and holds no snapshot of the index from one turn to the
//! next. In each turn the published stages are loaded first and the index is read after, as for any look-up: a name that moves from
//! one to the next is found in one of them.
//!
//! A page of names is made of those of the index, in their order, and of those of the stages. The latter are gathered first,
//! once: a name that is there throughout the walk is in a stage then, or in the index from then on, where the walk comes past. What is
//! listed of it is decided when it is its turn, by the newest stage.

use super::Session;
use crate::error::StoreError;
use crate::files::BlockFile;
use crate::hash::Hash;
use crate::index::IndexReader;
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

impl<F: BlockFile, R: IndexReader> Session<F, R> {
    /// Whether a name leads to a block.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub async fn is_stored(&self, hash: &Hash) -> Result<bool, StoreError> {
        Ok(self.locate(hash).await?.0.is_some())
    }

    /// Lists blocks in the order of their names, behind `after` if it is given, at most `count`. An empty list is the end. What
    /// is stored from the beginning of a walk to its end is listed once.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub async fn list(&self, after: Option<Hash>, count: usize) -> Result<Vec<Listed>, StoreError> {
        let mut after = after;
        loop {
            let recent = self.recent_names(after, count).await;
            let listed = self.merge(after, count, &recent).await?;
            match recent.last_known {
                // Every one of them was removed meanwhile, and this is not the end.
                Some(last) if listed.is_empty() => after = Some(last),
                _ => return Ok(listed),
            }
        }
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

    /// The blocks behind `after`, at most `count`, of the index and of the stages, as far as the latter are known.
    async fn merge(&self, after: Option<Hash>, count: usize, recent: &RecentNames) -> Result<Vec<Listed>, StoreError> {
        let mut listed = Vec::new();
        let mut names = recent.names.iter().copied().peekable();
        let is_known = |hash: &Hash| recent.last_known.is_none_or(|last| *hash <= last);
        let mut after = after;
        loop {
            let seen = self.shared.names.load().dropped();
            let rows = self.reader.borrow_mut().blocks_after(after.as_ref(), ROWS_A_TURN, seen)?;
            after = rows.last().map_or(after, |(hash, _)| Some(*hash));
            let is_end = rows.len() < ROWS_A_TURN;
            self.merge_rows(rows, seen, &mut names, is_end, &mut |block| {
                if listed.len() < count && is_known(&block.hash) {
                    listed.push(block);
                }
            })?;
            if is_end || listed.len() == count || after.is_some_and(|after| !is_known(&after)) {
                return Ok(listed);
            }
            self.ring.next_turn().await;
        }
    }

    /// Calls `each` with the blocks of some rows, read when `seen` generations were dropped, and of the names that lie among
    /// them; where the rows are the last, also of those behind them.
    fn merge_rows(
        &self,
        rows: Vec<(Hash, Record)>,
        seen: u64,
        names: &mut Peekable<impl Iterator<Item = Hash>>,
        is_end: bool,
        each: &mut impl FnMut(Listed),
    ) -> Result<(), StoreError> {
        for (hash, record) in rows {
            while let Some(name) = names.next_if(|name| *name < hash) {
                self.list_one(name, None, each)?;
            }
            let _ = names.next_if_eq(&hash);
            self.list_one(hash, Some((record, seen)), each)?;
        }
        while let Some(name) = names.next_if(|_| is_end) {
            self.list_one(name, None, each)?;
        }
        Ok(())
    }

    /// The newest stage decides. A row of the index counts while no generation was dropped since it was read.
    fn list_one(
        &self,
        hash: Hash,
        row: Option<(Record, u64)>,
        each: &mut impl FnMut(Listed),
    ) -> Result<(), StoreError> {
        let (record, _) = self.shared.names.look_up(&hash, |now| match row {
            Some((record, seen)) if seen == now => Ok(Some(record)),
            _ => self.reader.borrow_mut().block(&hash, now),
        })?;
        if let Some(record) = record {
            each(Listed { hash, length: record.length() });
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
