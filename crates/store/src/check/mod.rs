//! Checking a stopped store: does everything that is written down about it agree?
//!
//! Nothing is changed. A store that was not stopped in order is checked as opening it would find it: with the names of its
//! journal.
//!
//! | file | one idea |
//! | --- | --- |
//! | `shared_pages` | pages that more than one name claims |
//! | `verify` | reading every block, and hashing it |

mod shared_pages;
mod verify;

pub(crate) use verify::window_blocks;

use crate::extent::{Extent, MACROBLOCK_BYTES, macroblocks_in};
use crate::files::{BlockFile, Stamp};
use crate::hash::Hash;
use crate::index::{Index, IndexError, IndexReader, Totals};
use crate::journal::replay::{Replay, replay};
use crate::names::NameState;
use crate::page_map::PageMap;
use crate::quarantine::Quarantined;
use crate::record::Record;
use crate::recovery::{
    OLDER_THAN_DATA, RecoveryError, io_error, is_older_than_data, lost_with_journal, refuse_lost_index,
};
use buddy_ring::{BufferPool, Ring};
use shared_pages::SharedPages;
use std::collections::BTreeMap;
use verify::verify_blocks;

const BUFFER_BYTES_MAX: usize = 16 << 20;
/// A damaged store may have millions of faults: the first are named, all are counted.
const FAULTS_NAMED_MAX: usize = 10_000;

/// What a check found.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// What is stored.
    pub totals: Totals,
    /// Bytes of the data file.
    pub file_bytes: u64,
    /// Changes of names that are in the journal and not yet in the index.
    pub journal_changes: usize,
    /// False where the store was not stopped in order.
    pub clean: bool,
    /// Blocks whose bytes were read and hashed.
    pub verified: u64,
    /// Extents that are out of service.
    pub quarantined: Vec<Quarantined>,
    /// Blocks that are not whole, of those that the journal does not know to be durable: whether they were not completely written or are
    /// damaged, nothing can tell, and opening the store removes their names.
    pub unwritten: u64,
    /// What does not agree, a line each; the first ones.
    pub faults: Vec<String>,
    /// How many faults there are.
    pub fault_count: u64,
}

impl CheckReport {
    fn fault(&mut self, fault: String) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_NAMED_MAX {
            self.faults.push(fault);
        }
    }
}

/// How far a check has come.
#[derive(Clone, Copy, Debug)]
pub enum CheckProgress {
    /// Names looked at, of about so many.
    Names(u64, u64),
    /// Blocks verified, of so many.
    Verified(u64, u64),
}

/// Checks a store whose data file has this stamp; with `verify`, reads every block and hashes it, so many for each walk over the index.
///
/// # Errors
///
/// [`RecoveryError`] where the store cannot even be read. What merely does not agree is in the report.
pub async fn check<F: BlockFile, I: Index>(
    ring: &Ring,
    index: &I,
    data: &F,
    journal: &F,
    stamp: Option<Stamp>,
    verify: Option<usize>,
    progress: &mut dyn FnMut(CheckProgress),
) -> Result<CheckReport, RecoveryError> {
    let buffers = BufferPool::new(BUFFER_BYTES_MAX);
    let mut reader = index.reader()?;
    let Some(meta) = reader.meta()? else {
        refuse_lost_index(data)?;
        return Err(RecoveryError::NotMade);
    };
    let replay = replay(journal, &meta, &buffers).await?;
    let length = data.length().map_err(io_error("reading the data file"))?;
    let macroblocks = macroblocks_in(length);
    let mut report = CheckReport {
        file_bytes: macroblocks * MACROBLOCK_BYTES,
        journal_changes: replay.names.len(),
        clean: meta.clean,
        ..CheckReport::default()
    };
    if is_older_than_data(&meta, stamp, length)? {
        report.fault(OLDER_THAN_DATA.to_owned());
    }
    lost_with_journal(&meta, &replay).for_each(|lost| report.fault(lost));
    let named = [replay.unreadable_start, replay.unreadable_end];
    for at in replay.unreadable.iter().filter(|at| !named.contains(&Some(**at))) {
        report.fault(format!("the journal cannot be read at byte {at}"));
    }
    let mut occupancy = Occupancy::new(macroblocks);
    let replaced = check_names(&mut reader, &replay, &mut occupancy, &mut report, meta.totals, progress)?;
    check_quarantine(&mut reader, &mut occupancy, &mut report)?;
    check_pages(&mut reader, &occupancy, &mut report)?;
    check_journal(&replay, replaced, &mut occupancy, &mut report);
    name_sharers(&mut reader, &replay, occupancy.shared, &mut report)?;
    if let Some(window_blocks) = verify {
        verify_blocks(ring, &mut reader, data, &replay, window_blocks, &mut report, progress).await?;
    }
    Ok(report)
}

/// Which pages are taken, according to names.
struct Occupancy {
    macroblocks: u64,
    maps: BTreeMap<u64, PageMap>,
    /// Extents that overlap another's.
    shared: Vec<Extent>,
}

impl Occupancy {
    fn new(macroblocks: u64) -> Occupancy {
        Occupancy { macroblocks, maps: BTreeMap::new(), shared: Vec::new() }
    }

    fn occupy(&mut self, hash: &Hash, extent: impl Into<Option<Extent>>, report: &mut CheckReport) {
        let Some(extent) = extent.into() else { return };
        if extent.macroblock() >= self.macroblocks {
            report.fault(format!("block {hash} lies in {extent}, beyond the end of the data file"));
        }
        if !self.maps.entry(extent.macroblock()).or_default().occupy(extent) {
            self.shared.push(extent);
        }
    }

    fn release(&mut self, record: Record) {
        if let Some(extent) = record.extent() {
            // A page that others hold too was reported already.
            let _ = self.maps.entry(extent.macroblock()).or_default().release(extent);
        }
    }
}

/// What comes of walking a table. Where the walk ends at damage, that is a fault like that of a single row.
fn walked(outcome: Result<(), IndexError>, report: &mut CheckReport) -> Result<(), RecoveryError> {
    match outcome {
        Err(damaged @ IndexError::Damaged(_)) => report.fault(damaged.to_string()),
        outcome => outcome?,
    }
    Ok(())
}

/// Every row of `blocks` is a name with a place inside the file, and they are as many as `meta` says. Returns the records of those
/// names that the journal has, too.
fn check_names<R: IndexReader>(
    reader: &mut R,
    replay: &Replay,
    occupancy: &mut Occupancy,
    report: &mut CheckReport,
    expected: Totals,
    progress: &mut dyn FnMut(CheckProgress),
) -> Result<Vec<Record>, RecoveryError> {
    let (mut totals, mut replaced) = (Totals::default(), Vec::new());
    let mut seen = 0;
    let outcome = reader.blocks(&mut |row| {
        seen += 1;
        if seen % 65_536 == 0 {
            progress(CheckProgress::Names(seen, expected.block_count()));
        }
        match row {
            Ok((hash, record)) => {
                totals.add(record);
                occupancy.occupy(&hash, record.extent(), report);
                if replay.names.get(&hash).is_some() {
                    replaced.push(record);
                }
            }
            Err(error) => report.fault(error.to_string()),
        }
        true
    });
    walked(outcome, report)?;
    progress(CheckProgress::Names(seen, seen.max(1)));
    for (expected, found) in expected.by_class().zip(totals.by_class()).filter(|(expected, found)| expected != found) {
        report.fault(format!("the index counts {expected}, but it holds {found}"));
    }
    report.totals = totals;
    Ok(replaced)
}

/// Extents out of service lie where no block does.
fn check_quarantine<R: IndexReader>(
    reader: &mut R,
    occupancy: &mut Occupancy,
    report: &mut CheckReport,
) -> Result<(), RecoveryError> {
    let outcome = reader.quarantined(&mut |row| match row {
        Ok(quarantined) => {
            occupancy.occupy(&quarantined.hash, quarantined.extent, report);
            report.quarantined.push(quarantined);
        }
        Err(error) => report.fault(error.to_string()),
    });
    walked(outcome, report)
}

/// Table `pages` says exactly what the names say. Its rows and those maps come in the same order.
fn check_pages<R: IndexReader>(
    reader: &mut R,
    occupancy: &Occupancy,
    report: &mut CheckReport,
) -> Result<(), RecoveryError> {
    let mut by_names = occupancy.maps.iter().peekable();
    let outcome = reader.page_maps(&mut |row| match row {
        Ok((macroblock, by_pages)) => {
            while let Some((before, map)) = by_names.next_if(|(other, _)| **other < macroblock) {
                compare_pages(*before, *map, PageMap::EMPTY, report);
            }
            let map = by_names.next_if(|(other, _)| **other == macroblock).map_or(PageMap::EMPTY, |(_, map)| *map);
            compare_pages(macroblock, map, by_pages, report);
            if macroblock >= occupancy.macroblocks && !by_pages.is_empty() {
                report.fault(format!("MiB {macroblock}: pages beyond the end of the data file are marked occupied"));
            }
        }
        Err(error) => report.fault(error.to_string()),
    });
    by_names.for_each(|(macroblock, map)| compare_pages(*macroblock, *map, PageMap::EMPTY, report));
    walked(outcome, report)
}

fn compare_pages(macroblock: u64, by_names: PageMap, by_pages: PageMap, report: &mut CheckReport) {
    if by_names != by_pages {
        report.fault(format!(
            "MiB {macroblock}: {} pages are marked occupied, but blocks take {} (or others)",
            by_pages.occupied_pages(),
            by_names.occupied_pages()
        ));
    }
}

/// The names of the journal fit beside those of the index that they do not replace.
fn check_journal(replay: &Replay, replaced: Vec<Record>, occupancy: &mut Occupancy, report: &mut CheckReport) {
    for record in replaced {
        occupancy.release(record);
        report.totals.subtract(record);
    }
    for quarantined in &replay.quarantined {
        occupancy.occupy(&quarantined.hash, quarantined.extent, report);
        report.quarantined.push(*quarantined);
    }
    for (hash, state, _) in replay.latest() {
        if let NameState::Occupied(record) = state {
            occupancy.occupy(&hash, record.extent(), report);
            report.totals.add(record);
        }
    }
}

/// Calls `each` with every name as opening the store would find it, and whether its bytes are known to be durable.
fn effective_blocks<R: IndexReader>(
    reader: &mut R,
    replay: &Replay,
    mut each: impl FnMut(Hash, Record, bool),
) -> Result<(), RecoveryError> {
    for (hash, state, is_durable) in replay.latest() {
        if let NameState::Occupied(record) = state {
            each(hash, record, is_durable);
        }
    }
    let outcome = reader.blocks(&mut |row| {
        if let Ok((hash, record)) = row
            && replay.names.get(&hash).is_none()
        {
            each(hash, record, true);
        }
        true
    });
    match outcome {
        // Reported when the names were looked at.
        Err(IndexError::Damaged(_)) => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Names every block that shares a page with another.
fn name_sharers<R: IndexReader>(
    reader: &mut R,
    replay: &Replay,
    claimed_twice: Vec<Extent>,
    report: &mut CheckReport,
) -> Result<(), RecoveryError> {
    let shared = SharedPages::of(claimed_twice);
    if shared.is_empty() {
        return Ok(());
    }
    effective_blocks(reader, replay, |hash, record, _| {
        let Some(extent) = record.extent() else { return };
        if let Some(other) = shared.overlapping(extent) {
            report.fault(format!("block {hash} in {extent} shares pages with another block (at {other})"));
        }
    })
}
