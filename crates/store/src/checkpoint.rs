//! Folding a generation of names into the index: one durable transaction.
//!
//! The order within it: first the bits of every record that the index held for those names are cleared, then the bits of
//! their final states, and of extents taken out of service, are set. An extent may have passed from one of those names to another,
//! so the two must not be mixed.

use crate::crash_point::crash_point;
use crate::extent::Extent;
use crate::hash::Hash;
use crate::index::{Index, IndexError, IndexSizes, IndexTransaction, Meta, Totals};
use crate::names::{Generation, NameState, SortedNames};
use crate::page_map::PageMap;
use crate::quarantine::Quarantined;
use crate::record::Record;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a checkpoint writes.
pub struct CheckpointJob {
    /// The names; every record of theirs is durable with its data.
    pub generation: Arc<Generation>,
    /// Extents taken out of service since the last checkpoint.
    pub quarantined: Vec<Quarantined>,
    /// What is remembered with them; its totals are computed anew.
    pub meta: Meta,
    /// Changes that one of the next checkpoints may hold, for which space is allocated ahead.
    pub names_max: u64,
}

/// What came of a checkpoint.
#[derive(Debug)]
pub struct CheckpointDone {
    /// What is stored now.
    pub totals: Totals,
    /// How large the index is.
    pub index_sizes: IndexSizes,
    /// Whether the next checkpoints find their space allocated: see [`Index::reserve`].
    pub space_ahead: Result<(), IndexError>,
}

/// Carries a job out. On an error nothing of it has happened, or all of it, where it was the system's.
///
/// # Errors
///
/// [`IndexError`]
pub fn checkpoint<I: Index>(index: &I, job: &CheckpointJob) -> Result<CheckpointDone, IndexError> {
    // Sorted, neighbours in the tree are written together: one pass over its leaves.
    let changes = SortedNames::of(&job.generation);
    index.warm_up(changes.len() as u64);
    let totals = commit(index, &changes, job).map_err(|error| match error {
        // A write that falls short for want of space looks like any other failure of the system.
        IndexError::System { .. } => match index.reserve(job.names_max) {
            Err(full @ IndexError::Full(_)) => full,
            _ => error,
        },
        error => error,
    })?;
    Ok(CheckpointDone { totals, space_ahead: index.reserve(job.names_max), index_sizes: index.sizes() })
}

fn commit<I: Index>(index: &I, changes: &SortedNames<'_>, job: &CheckpointJob) -> Result<Totals, IndexError> {
    let mut transaction = index.begin()?;
    let totals = apply(&mut transaction, changes, &job.quarantined)?;
    transaction.set_meta(&Meta { totals, ..job.meta })?;
    crash_point("checkpoint-prepared");
    transaction.commit()?;
    crash_point("checkpoint-committed");
    Ok(totals)
}

/// Brings names and page maps to their final states.
fn apply<T: IndexTransaction>(
    transaction: &mut T,
    changes: &SortedNames<'_>,
    quarantined: &[Quarantined],
) -> Result<Totals, IndexError> {
    let mut totals = transaction.meta()?.map_or_else(Totals::default, |meta| meta.totals);
    let mut maps = PageMaps::default();
    // Each name is looked up and written at once, while its leaf is at hand.
    for (hash, state) in changes.iter() {
        let before = transaction.block(&hash)?;
        if let Some(record) = before {
            totals.subtract(record);
            maps.release(transaction, &hash, record)?;
        }
        match state {
            NameState::Occupied(record) => {
                totals.add(record);
                transaction.set_block(&hash, Some(record))?;
            }
            NameState::Removed if before.is_some() => transaction.set_block(&hash, None)?,
            NameState::Removed => {}
        }
    }
    for (hash, state) in changes.iter() {
        if let NameState::Occupied(record) = state {
            maps.occupy(transaction, &hash, record.extent())?;
        }
    }
    for extent in quarantined {
        maps.occupy(transaction, &extent.hash, Some(extent.extent))?;
        transaction.set_quarantined(extent)?;
    }
    for (macroblock, map) in maps.0 {
        transaction.set_page_map(macroblock, map)?;
    }
    Ok(totals)
}

/// The page maps that a checkpoint touches.
#[derive(Default)]
struct PageMaps(BTreeMap<u64, PageMap>);

impl PageMaps {
    fn of<T: IndexTransaction>(&mut self, transaction: &T, macroblock: u64) -> Result<&mut PageMap, IndexError> {
        use std::collections::btree_map::Entry;
        match self.0.entry(macroblock) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Ok(entry.insert(transaction.page_map(macroblock)?)),
        }
    }

    fn release<T: IndexTransaction>(&mut self, transaction: &T, hash: &Hash, record: Record) -> Result<(), IndexError> {
        let Some(extent) = record.extent() else { return Ok(()) };
        if self.of(transaction, extent.macroblock())?.release(extent) {
            return Ok(());
        }
        Err(IndexError::Damaged(format!("block {hash} lies in {extent}, whose pages are marked free")))
    }

    fn occupy<T: IndexTransaction>(
        &mut self,
        transaction: &T,
        hash: &Hash,
        extent: Option<Extent>,
    ) -> Result<(), IndexError> {
        let Some(extent) = extent else { return Ok(()) };
        if self.of(transaction, extent.macroblock())?.occupy(extent) {
            return Ok(());
        }
        Err(IndexError::Damaged(format!("block {hash} lies in {extent}, whose pages are another block's")))
    }
}
