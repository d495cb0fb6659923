//! Looking names up in libmdbx.

use super::kept_snapshot::KeptSnapshot;
use super::mdbx_index::Tables;
use super::transaction::{ReadTransaction, Sought};
use super::{IndexError, IndexReader, Meta, codec};
use crate::hash::Hash;
use crate::page_map::PageMap;
use crate::quarantine::Quarantined;
use crate::record::Record;
use std::sync::Arc;

/// Looks names up in libmdbx.
pub struct MdbxReader {
    transaction: ReadTransaction,
    kept: Arc<KeptSnapshot>,
    tables: Tables,
    /// The generation for which the present snapshot was taken.
    generation: u64,
}

impl MdbxReader {
    /// Looks up in snapshots that `transaction` takes, or in the one that is `kept`.
    pub(super) fn new(transaction: ReadTransaction, kept: Arc<KeptSnapshot>, tables: Tables) -> MdbxReader {
        MdbxReader { transaction, kept, tables, generation: 0 }
    }

    /// Reads in a snapshot that will do for `generation`: taken after it was first passed.
    fn read_for<T>(
        &mut self,
        generation: u64,
        read: impl FnOnce(&ReadTransaction) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        if self.transaction.is_live() && self.generation == generation {
            return self.read_snapshot(read);
        }
        self.generation = generation;
        self.read_afresh(read)
    }

    /// Reads what was committed last, or what is kept where that cannot be had any more.
    fn read_afresh<T>(
        &mut self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        match self.transaction.renew() {
            Ok(()) => self.read_snapshot(read),
            Err(error) => self.kept.read(read).unwrap_or(Err(error)),
        }
    }

    /// Reads in the present snapshot. libmdbx answers nothing more in one in which it has come upon a damaged page: who asks next, for a name
    /// that may lie elsewhere, gets another.
    fn read_snapshot<T>(
        &mut self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        let result = read(&self.transaction);
        if result.is_err() {
            self.transaction.reset();
        }
        result
    }
}

impl IndexReader for MdbxReader {
    fn block(&mut self, hash: &Hash, generation: u64) -> Result<Option<Record>, IndexError> {
        let blocks = self.tables.blocks;
        self.read_for(generation, |transaction| match transaction.seek(blocks, hash.as_bytes())? {
            Sought::Found(row) => codec::decode_record(hash, row).map(Some),
            Sought::Absent { before, after } => codec::check_absence(hash, before, after).map(|()| None),
        })
    }

    fn rest(&mut self) {
        self.transaction.reset();
    }

    fn meta(&mut self) -> Result<Option<Meta>, IndexError> {
        let table = self.tables.meta;
        self.read_afresh(|transaction| codec::decode_meta(|name| transaction.get(table, name.as_bytes())))
    }

    fn block_count(&mut self) -> Result<u64, IndexError> {
        let blocks = self.tables.blocks;
        self.read_afresh(|transaction| transaction.table_rows(blocks))
    }

    fn page_maps(&mut self, each: &mut dyn FnMut(Result<(u64, PageMap), IndexError>)) -> Result<(), IndexError> {
        let pages = self.tables.pages;
        self.read_afresh(|transaction| {
            transaction.for_each(pages, None, |key, row| {
                each(decode_pages(key, row));
                Ok(true)
            })
        })
    }

    fn quarantined(&mut self, each: &mut dyn FnMut(Result<Quarantined, IndexError>)) -> Result<(), IndexError> {
        let quarantine = self.tables.quarantine;
        self.read_afresh(|transaction| {
            transaction.for_each(quarantine, None, |key, row| {
                each(codec::decode_quarantined(key, row));
                Ok(true)
            })
        })
    }

    fn names_after(&mut self, after: Option<&Hash>, count: usize) -> Result<Vec<Hash>, IndexError> {
        let blocks = self.tables.blocks;
        let mut names = Vec::with_capacity(count);
        self.read_afresh(|transaction| {
            transaction.for_each(blocks, after.map(|hash| &hash.as_bytes()[..]), |key, _| {
                let hash = codec::decode_hash(key)?;
                if Some(&hash) != after {
                    names.push(hash);
                }
                Ok(names.len() < count)
            })
        })?;
        self.rest();
        Ok(names)
    }

    fn blocks_after(
        &mut self,
        after: Option<&Hash>,
        count: usize,
        generation: u64,
    ) -> Result<Vec<(Hash, Record)>, IndexError> {
        let table = self.tables.blocks;
        let mut blocks = Vec::with_capacity(count);
        self.read_for(generation, |transaction| {
            transaction.for_each(table, after.map(|hash| &hash.as_bytes()[..]), |key, row| {
                let hash = codec::decode_hash(key)?;
                if Some(&hash) != after {
                    blocks.push((hash, codec::decode_record(&hash, row)?));
                }
                Ok(blocks.len() < count)
            })
        })?;
        Ok(blocks)
    }

    fn blocks(&mut self, each: &mut dyn FnMut(Result<(Hash, Record), IndexError>) -> bool) -> Result<(), IndexError> {
        let blocks = self.tables.blocks;
        self.read_afresh(|transaction| transaction.for_each(blocks, None, |key, row| Ok(each(decode_block(key, row)))))
    }
}

fn decode_block(key: &[u8], row: &[u8]) -> Result<(Hash, Record), IndexError> {
    let hash = codec::decode_hash(key)?;
    Ok((hash, codec::decode_record(&hash, row)?))
}

fn decode_pages(key: &[u8], row: &[u8]) -> Result<(u64, PageMap), IndexError> {
    let macroblock = codec::decode_macroblock(key)?;
    Ok((macroblock, codec::decode_page_map(macroblock, row)?))
}
