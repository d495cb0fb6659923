//! Looking names up in libmdbx.

use super::kept_snapshot::KeptSnapshot;
use super::mdbx_index::Tables;
use super::transaction::{ReadTransaction, Sought};
use super::{BlockRow, DAMAGED_ROWS_MAX, IndexError, IndexReader, Meta, codec};
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
            transaction.for_each(pages, |key, row| {
                each(decode_pages(key, row));
                Ok(true)
            })
        })
    }

    fn quarantined(&mut self, each: &mut dyn FnMut(Result<Quarantined, IndexError>)) -> Result<(), IndexError> {
        let quarantine = self.tables.quarantine;
        self.read_afresh(|transaction| {
            transaction.for_each(quarantine, |key, row| {
                each(codec::decode_quarantined(key, row));
                Ok(true)
            })
        })
    }

    fn blocks_after(
        &mut self,
        after: Option<&Hash>,
        count: usize,
        generation: u64,
    ) -> Result<Vec<BlockRow>, IndexError> {
        let table = self.tables.blocks;
        let (mut rows, mut whole) = (Vec::with_capacity(count), 0);
        self.read_for(generation, |transaction| {
            let each = |key: &[u8], row: &[u8]| {
                let row = decode_block(key, row);
                match &row {
                    Ok((hash, _)) if after.is_some_and(|after| hash <= after) => return Ok(true),
                    Ok(_) => whole += 1,
                    Err(error) if rows.len() - whole == DAMAGED_ROWS_MAX => return Err(error.clone()),
                    Err(_) => {}
                }
                rows.push(row);
                Ok(whole < count)
            };
            let Some(after) = after else { return transaction.for_each(table, each) };
            // Beside a name that a flipped bit has moved a search goes astray.
            let is_before = |key: &[u8], row: &[u8]| decode_block(key, row).is_ok_and(|(hash, _)| hash <= *after);
            transaction.for_each_behind(table, after.as_bytes(), is_before, each)
        })?;
        Ok(rows)
    }

    fn blocks(&mut self, each: &mut dyn FnMut(BlockRow) -> bool) -> Result<(), IndexError> {
        let blocks = self.tables.blocks;
        self.read_afresh(|transaction| transaction.for_each(blocks, |key, row| Ok(each(decode_block(key, row)))))
    }
}

fn decode_block(key: &[u8], row: &[u8]) -> BlockRow {
    let hash = codec::decode_hash(key)?;
    Ok((hash, codec::decode_record(&hash, row)?))
}

fn decode_pages(key: &[u8], row: &[u8]) -> Result<(u64, PageMap), IndexError> {
    let macroblock = codec::decode_macroblock(key)?;
    Ok((macroblock, codec::decode_page_map(macroblock, row)?))
}
