//! An index in memory with libmdbx's commit semantics: a transaction becomes visible and durable as a whole or not at all,
//! readers keep the snapshot they took.

use crate::extent::Extent;
use crate::hash::Hash;
use crate::index::{BlockRow, Index, IndexError, IndexReader, IndexSizes, IndexTransaction, Meta, Totals};
use crate::page_map::PageMap;
use crate::quarantine::Quarantined;
use crate::record::Record;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
struct Tables {
    blocks: BTreeMap<Hash, Record>,
    pages: BTreeMap<u64, PageMap>,
    quarantine: BTreeMap<Extent, Quarantined>,
    meta: Option<Meta>,
}

/// A row that may be damaged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Row {
    Block(Hash),
    Pages(u64),
    Quarantine(Extent),
}

/// How the next commits end.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Commits {
    #[default]
    Happen,
    /// The change contradicts what is there, and nothing of it happens.
    Contradict,
    /// The system has no memory for the change, and nothing of it happens.
    LackMemory,
    /// The change happens, and an error is reported all the same, as by libmdbx where the last flush fails.
    HappenAndFail,
}

/// An index in memory. Clones are handles to the same tables, which survive "power cuts" of the store above.
#[derive(Clone, Default)]
pub(crate) struct MemoryIndex {
    committed: Arc<Mutex<Arc<Tables>>>,
    full: Arc<AtomicBool>,
    /// Only what was reserved before can be had.
    exhausted: Arc<AtomicBool>,
    /// The system fails when space is to be reserved.
    reserving_fails: Arc<AtomicBool>,
    commits: Arc<Mutex<Commits>>,
    damaged: Arc<Mutex<BTreeSet<Row>>>,
}

impl MemoryIndex {
    fn snapshot(&self) -> Arc<Tables> {
        Arc::clone(&self.committed.lock().unwrap())
    }

    /// Another index that holds what this one holds now.
    pub(crate) fn copy(&self) -> MemoryIndex {
        MemoryIndex { committed: Arc::new(Mutex::new(self.snapshot())), ..MemoryIndex::default() }
    }

    /// Lets reservations fail for want of space, or work again.
    pub(crate) fn exhaust(&self, exhausted: bool) {
        self.exhausted.store(exhausted, Ordering::Relaxed);
    }

    pub(crate) fn set_reserving_fails(&self, fails: bool) {
        self.reserving_fails.store(fails, Ordering::Relaxed);
    }

    pub(crate) fn set_commits(&self, commits: Commits) {
        *self.commits.lock().unwrap() = commits;
    }

    /// Lets a row not match its checksum from now on.
    pub(crate) fn damage(&self, row: Row) {
        self.damaged.lock().unwrap().insert(row);
    }

    /// All names, in ascending order.
    pub(crate) fn names(&self) -> Vec<Hash> {
        self.snapshot().blocks.keys().copied().collect()
    }

    fn check_row(&self, row: Row) -> Result<(), IndexError> {
        let damaged = self.damaged.lock().unwrap().contains(&row);
        if damaged { Err(IndexError::Damaged(format!("{row:?} does not match its checksum"))) } else { Ok(()) }
    }

    /// The same of commits and reservations.
    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Puts other page maps into the place of the committed ones, behind everybody's back.
    pub(crate) fn change_page_maps(&self, change: impl FnOnce(&mut BTreeMap<u64, PageMap>)) {
        let mut committed = self.committed.lock().unwrap();
        let mut tables = Tables::clone(&committed);
        change(&mut tables.pages);
        *committed = Arc::new(tables);
    }

    /// The same of what is counted.
    pub(crate) fn change_totals(&self, change: impl FnOnce(&mut Totals)) {
        let mut committed = self.committed.lock().unwrap();
        let mut tables = Tables::clone(&committed);
        change(&mut tables.meta.as_mut().unwrap().totals);
        *committed = Arc::new(tables);
    }

    fn check_space(&self) -> Result<(), IndexError> {
        if self.full.load(Ordering::Relaxed) { Err(IndexError::Full("simulated".to_owned())) } else { Ok(()) }
    }
}

fn failed_flush() -> IndexError {
    IndexError::System { action: "extended", reason: "simulated".to_owned() }
}

impl Index for MemoryIndex {
    type Reader = MemoryReader;
    type Transaction<'a> = MemoryTransaction;

    fn reader(&self) -> Result<MemoryReader, IndexError> {
        Ok(MemoryReader { index: self.clone(), snapshot: None, generation: 0 })
    }

    fn begin(&self) -> Result<MemoryTransaction, IndexError> {
        Ok(MemoryTransaction { index: self.clone(), tables: Tables::clone(&self.snapshot()) })
    }

    fn reserve(&self, _names: u64) -> Result<(), IndexError> {
        self.check_space()?;
        if self.reserving_fails.load(Ordering::Relaxed) {
            return Err(failed_flush());
        }
        if self.exhausted.load(Ordering::Relaxed) { Err(IndexError::Full("simulated".to_owned())) } else { Ok(()) }
    }

    fn warm_up(&self, _names: u64) {}

    fn sizes(&self) -> IndexSizes {
        IndexSizes::default()
    }
}

pub(crate) struct MemoryReader {
    index: MemoryIndex,
    snapshot: Option<Arc<Tables>>,
    generation: u64,
}

impl MemoryReader {
    fn snapshot(&mut self, generation: u64) -> &Tables {
        if self.generation != generation {
            self.rest();
        }
        self.generation = generation;
        self.snapshot.get_or_insert_with(|| self.index.snapshot())
    }
}

impl IndexReader for MemoryReader {
    fn block(&mut self, hash: &Hash, generation: u64) -> Result<Option<Record>, IndexError> {
        let index = self.index.clone();
        let blocks = &self.snapshot(generation).blocks;
        if let Some(record) = blocks.get(hash) {
            return index.check_row(Row::Block(*hash)).map(|()| Some(*record));
        }
        // A name is absent between whole rows only.
        let neighbours = [blocks.range(..hash).next_back(), blocks.range(hash..).next()];
        neighbours.into_iter().flatten().try_for_each(|(other, _)| index.check_row(Row::Block(*other)))?;
        Ok(None)
    }

    fn rest(&mut self) {
        self.snapshot = None;
    }

    fn meta(&mut self) -> Result<Option<Meta>, IndexError> {
        Ok(self.index.snapshot().meta)
    }

    fn block_count(&mut self) -> Result<u64, IndexError> {
        Ok(self.index.snapshot().blocks.len() as u64)
    }

    fn page_maps(&mut self, each: &mut dyn FnMut(Result<(u64, PageMap), IndexError>)) -> Result<(), IndexError> {
        for (macroblock, map) in &self.index.snapshot().pages {
            each(self.index.check_row(Row::Pages(*macroblock)).map(|()| (*macroblock, *map)));
        }
        Ok(())
    }

    fn quarantined(&mut self, each: &mut dyn FnMut(Result<Quarantined, IndexError>)) -> Result<(), IndexError> {
        for quarantined in self.index.snapshot().quarantine.values() {
            each(self.index.check_row(Row::Quarantine(quarantined.extent)).map(|()| *quarantined));
        }
        Ok(())
    }

    fn blocks_after(
        &mut self,
        after: Option<&Hash>,
        count: usize,
        generation: u64,
    ) -> Result<Vec<BlockRow>, IndexError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, |after| Excluded(*after));
        let index = self.index.clone();
        let (mut rows, mut whole) = (Vec::new(), 0);
        for (hash, record) in self.snapshot(generation).blocks.range((from, Unbounded)) {
            let row = index.check_row(Row::Block(*hash)).map(|()| (*hash, *record));
            whole += usize::from(row.is_ok());
            rows.push(row);
            if whole == count {
                break;
            }
        }
        Ok(rows)
    }

    fn blocks(&mut self, each: &mut dyn FnMut(BlockRow) -> bool) -> Result<(), IndexError> {
        self.index
            .snapshot()
            .blocks
            .iter()
            .all(|(hash, record)| each(self.index.check_row(Row::Block(*hash)).map(|()| (*hash, *record))));
        Ok(())
    }
}

pub(crate) struct MemoryTransaction {
    index: MemoryIndex,
    tables: Tables,
}

impl IndexTransaction for MemoryTransaction {
    fn block(&self, hash: &Hash) -> Result<Option<Record>, IndexError> {
        self.index.check_row(Row::Block(*hash))?;
        Ok(self.tables.blocks.get(hash).copied())
    }

    fn set_block(&mut self, hash: &Hash, record: Option<Record>) -> Result<(), IndexError> {
        match record {
            Some(record) => self.tables.blocks.insert(*hash, record),
            None => self.tables.blocks.remove(hash),
        };
        Ok(())
    }

    fn page_map(&self, macroblock: u64) -> Result<PageMap, IndexError> {
        self.index.check_row(Row::Pages(macroblock))?;
        Ok(self.tables.pages.get(&macroblock).copied().unwrap_or_default())
    }

    fn set_page_map(&mut self, macroblock: u64, map: PageMap) -> Result<(), IndexError> {
        if map.is_empty() {
            self.tables.pages.remove(&macroblock);
        } else {
            self.tables.pages.insert(macroblock, map);
        }
        Ok(())
    }

    fn set_quarantined(&mut self, quarantined: &Quarantined) -> Result<(), IndexError> {
        self.tables.quarantine.insert(quarantined.extent, *quarantined);
        Ok(())
    }

    fn meta(&self) -> Result<Option<Meta>, IndexError> {
        Ok(self.tables.meta)
    }

    fn set_meta(&mut self, meta: &Meta) -> Result<(), IndexError> {
        self.tables.meta = Some(*meta);
        Ok(())
    }

    fn commit(self) -> Result<(), IndexError> {
        let commits = *self.index.commits.lock().unwrap();
        if commits == Commits::Contradict {
            return Err(IndexError::Damaged("simulated".to_owned()));
        }
        if commits == Commits::LackMemory {
            return Err(IndexError::Shortage("simulated".to_owned()));
        }
        self.index.check_space()?;
        *self.index.committed.lock().unwrap() = Arc::new(self.tables);
        if commits == Commits::HappenAndFail { Err(failed_flush()) } else { Ok(()) }
    }
}
