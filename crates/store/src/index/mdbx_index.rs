//! The index in libmdbx: four tables, see `docs/format.md`.

use super::creation;
use super::environment::{Environment, Table};
use super::kept_snapshot::KeptSnapshot;
use super::mdbx_reader::MdbxReader;
use super::transaction::WriteTransaction;
use super::{Index, IndexError, IndexSizes, IndexTransaction, Meta, codec};
use crate::files::{is_no_space, is_shortage, set_aside, warm_up, write_out};
use crate::hash::Hash;
use crate::page_map::PageMap;
use crate::quarantine::Quarantined;
use crate::record::Record;
use std::ffi::CStr;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Tables that the file has room for: those of today and some to come.
const TABLES_MAX: u64 = 16;

/// A name whose leaf page is copied takes a page and its share of the branches above it.
const BYTES_WRITTEN_PER_NAME: u64 = 4096 + 512;
/// What a name takes: key, value and their overhead are 60 bytes, in pages that are 60 to 70 % full.
const BYTES_PER_NAME: u64 = 96;
/// Pages that every change writes, whatever it changes.
const BYTES_PER_CHANGE: u64 = 1 << 20;
/// The data file takes space in leaps of up to 64 MiB, which hold so many of the smallest blocks: their names come later.
const NAMES_IN_A_LEAP: u64 = 64 * 256;

/// The index in libmdbx.
#[derive(Clone)]
pub struct MdbxIndex {
    environment: Arc<Environment>,
    tables: Tables,
    kept: Arc<KeptSnapshot>,
}

#[derive(Clone, Copy)]
pub(super) struct Tables {
    pub(super) blocks: Table,
    pub(super) pages: Table,
    pub(super) quarantine: Table,
    pub(super) meta: Table,
}

impl Tables {
    fn open(mut table: impl FnMut(&CStr) -> Result<Table, IndexError>) -> Result<Tables, IndexError> {
        Ok(Tables {
            blocks: table(c"blocks")?,
            pages: table(c"pages")?,
            quarantine: table(c"quarantine")?,
            meta: table(c"meta")?,
        })
    }
}

impl MdbxIndex {
    /// Opens the index file at `path`, creating it where it is missing or empty. Every page that is used is checked, until
    /// [`MdbxIndex::trust_pages`].
    ///
    /// # Errors
    ///
    /// [`IndexError`]
    pub fn open(path: &Path) -> Result<MdbxIndex, IndexError> {
        creation::make_if_new(path, |path| MdbxIndex::open_or_create(path).map(drop))?;
        MdbxIndex::open_or_create(path)
    }

    fn open_or_create(path: &Path) -> Result<MdbxIndex, IndexError> {
        let environment = Environment::open(path, TABLES_MAX, false)?;
        let mut transaction = environment.writer()?;
        let tables = Tables::open(|name| transaction.table(name))?;
        transaction.commit()?;
        MdbxIndex::of(Arc::new(environment), tables)
    }

    fn of(environment: Arc<Environment>, tables: Tables) -> Result<MdbxIndex, IndexError> {
        let kept = Arc::new(KeptSnapshot::new(environment.reader()?));
        Ok(MdbxIndex { environment, tables, kept })
    }

    /// Opens the index file at `path`, which must exist, without ever changing it.
    ///
    /// # Errors
    ///
    /// [`IndexError`]
    pub fn open_read_only(path: &Path) -> Result<MdbxIndex, IndexError> {
        let environment = Arc::new(Environment::open(path, TABLES_MAX, true)?);
        let mut transaction = environment.reader()?;
        transaction.renew()?;
        let tables = Tables::open(|name| transaction.table(name))?;
        transaction.commit()?;
        MdbxIndex::of(environment, tables)
    }
}

impl MdbxIndex {
    /// No more checks of whole pages, for speed: the store was opened, and rows have checksums.
    ///
    /// # Errors
    ///
    /// [`IndexError`]
    pub fn trust_pages(&self) -> Result<(), IndexError> {
        self.environment.trust_pages()
    }

    /// Bytes of the pages that the tables consist of now.
    fn live_bytes(&self) -> Result<u64, IndexError> {
        let mut transaction = self.environment.reader()?;
        transaction.renew()?;
        let Tables { blocks, pages, quarantine, meta } = self.tables;
        [blocks, pages, quarantine, meta]
            .into_iter()
            .try_fold(0, |sum, table| Ok(sum + transaction.table_bytes(table)?))
    }

    /// Makes the file so long, and has the disk keep the space for all of it.
    fn allocate(&self, bytes: u64) -> Result<(), IndexError> {
        if bytes > self.environment.size_max_bytes() {
            return Err(IndexError::Full(format!(
                "it needs {bytes} bytes and can have {}",
                self.environment.size_max_bytes()
            )));
        }
        if bytes > self.environment.sizes()?.file_bytes {
            self.kept.take()?;
            self.environment.extend_to(bytes)?;
            self.kept.give_up();
        }
        set_aside(self.environment.descriptor()?, bytes).map_err(system_error("extended"))
    }
}

/// Of what was no flush: what it lacked may be had a moment later.
fn system_error(action: &'static str) -> impl Fn(io::Error) -> IndexError {
    move |error| match error.to_string() {
        reason if is_no_space(&error) => IndexError::Full(reason),
        reason if is_shortage(&error) => IndexError::Shortage(reason),
        reason => IndexError::System { action, reason },
    }
}

impl Index for MdbxIndex {
    type Reader = MdbxReader;
    type Transaction<'a> = MdbxTransaction<'a>;

    fn reader(&self) -> Result<MdbxReader, IndexError> {
        Ok(MdbxReader::new(self.environment.reader()?, Arc::clone(&self.kept), self.tables))
    }

    fn begin(&self) -> Result<MdbxTransaction<'_>, IndexError> {
        let transaction = self.environment.writer()?;
        self.kept.take()?;
        Ok(MdbxTransaction { transaction, index: self })
    }

    /// What is needed grows with what is stored, and the data file would have taken the last space of the disk long before the
    /// names of its blocks come: so more is allocated, where the disk still has it.
    fn reserve(&self, names: u64) -> Result<(), IndexError> {
        let live = self.live_bytes()?;
        let names_to_come = names / 2 + NAMES_IN_A_LEAP;
        match self.allocate(bytes_needed(live + names_to_come * BYTES_PER_NAME, names)) {
            Err(IndexError::Full(_)) => self.allocate(bytes_needed(live, names)),
            outcome => outcome,
        }
    }

    fn warm_up(&self, names: u64) {
        if let (Ok(file), Ok(sizes)) = (self.environment.descriptor(), self.environment.sizes()) {
            warm_up(file, sizes.used_bytes, names);
        }
    }

    fn sizes(&self) -> IndexSizes {
        self.environment.sizes().unwrap_or_default()
    }
}

/// Bytes of a file whose tables take `live`, that has room for two changes of `names` names each and for any number of removals
/// after them.
fn bytes_needed(live: u64, names: u64) -> u64 {
    let grown = names.saturating_mul(BYTES_PER_NAME);
    let grown_twice = live.saturating_add(grown.saturating_mul(2));
    // Names in random order touch a leaf each, but no more leaves than there are. What a change replaces can be used again only
    // after the one that follows it: two of them take new pages.
    let rewritten = names.saturating_mul(BYTES_WRITTEN_PER_NAME).min(grown_twice);
    grown_twice.saturating_add(rewritten.saturating_mul(2)).saturating_add(BYTES_PER_CHANGE)
}

/// A change to the index in libmdbx.
pub struct MdbxTransaction<'a> {
    transaction: WriteTransaction<'a>,
    index: &'a MdbxIndex,
}

impl IndexTransaction for MdbxTransaction<'_> {
    fn block(&self, hash: &Hash) -> Result<Option<Record>, IndexError> {
        let row = self.transaction.get_near(self.index.tables.blocks, hash.as_bytes())?;
        row.map(|row| codec::decode_record(hash, row)).transpose()
    }

    fn set_block(&mut self, hash: &Hash, record: Option<Record>) -> Result<(), IndexError> {
        match record {
            Some(record) => self.transaction.put_near(
                self.index.tables.blocks,
                hash.as_bytes(),
                &codec::encode_record(hash, record),
            ),
            None => self.transaction.delete(self.index.tables.blocks, hash.as_bytes()),
        }
    }

    fn page_map(&self, macroblock: u64) -> Result<PageMap, IndexError> {
        match self.transaction.get(self.index.tables.pages, &codec::encode_macroblock(macroblock)?)? {
            Some(row) => codec::decode_page_map(macroblock, row),
            None => Ok(PageMap::EMPTY),
        }
    }

    fn set_page_map(&mut self, macroblock: u64, map: PageMap) -> Result<(), IndexError> {
        let (key, row) = codec::encode_page_map(macroblock, map)?;
        if map.is_empty() {
            self.transaction.delete(self.index.tables.pages, &key)
        } else {
            self.transaction.put(self.index.tables.pages, &key, &row)
        }
    }

    fn set_quarantined(&mut self, quarantined: &Quarantined) -> Result<(), IndexError> {
        let (key, row) = codec::encode_quarantined(quarantined);
        self.transaction.put(self.index.tables.quarantine, &key, &row)
    }

    fn meta(&self) -> Result<Option<Meta>, IndexError> {
        codec::decode_meta(|name| self.transaction.get(self.index.tables.meta, name.as_bytes()))
    }

    fn set_meta(&mut self, meta: &Meta) -> Result<(), IndexError> {
        codec::encode_meta(meta)
            .try_for_each(|(name, row)| self.transaction.put(self.index.tables.meta, name.as_bytes(), &row))
    }

    /// Most of a large change has gone into the page cache by now. Others write to the same disk, and would wait for all of it if it was
    /// flushed at once.
    fn commit(self) -> Result<(), IndexError> {
        let MdbxIndex { environment, kept, .. } = self.index;
        write_out(environment.descriptor()?, environment.sizes()?.file_bytes).map_err(system_error("written"))?;
        self.transaction.commit()?;
        kept.give_up();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{CheckpointJob, checkpoint};
    use crate::extent::{Extent, SizeClass};
    use crate::index::{IndexReader, Totals};
    use crate::names::{Generation, NameState};

    fn meta() -> Meta {
        Meta {
            store_id: [1; 16],
            epoch: 1,
            sequence: 2,
            journal_bytes: 1 << 22,
            journal_offset: 4096,
            journal_crc: 3,
            clean: false,
            totals: Totals::default(),
        }
    }

    fn record(number: u64) -> Record {
        Record::new(Extent::new(SizeClass::SMALLEST, number), 100).unwrap()
    }

    #[test]
    fn a_change_is_seen_as_a_whole_after_its_commit_and_by_new_snapshots_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        let index = MdbxIndex::open(&path).unwrap();
        let mut reader = index.reader().unwrap();
        assert_eq!(reader.meta().unwrap(), None);
        let (first, second) = (Hash::of(b"1"), Hash::of(b"2"));
        let mut map = PageMap::EMPTY;
        assert!(map.occupy(record(1).extent().unwrap()));
        let mut change = index.begin().unwrap();
        change.set_block(&first, Some(record(1))).unwrap();
        change.set_page_map(700, map).unwrap();
        change.set_meta(&meta()).unwrap();
        assert_eq!(change.block(&first).unwrap(), Some(record(1)));
        assert_eq!(reader.block(&first, 0).unwrap(), None);
        change.commit().unwrap();
        assert_eq!(reader.block(&first, 0).unwrap(), None, "the snapshot of generation 0 stands");
        assert_eq!(reader.block(&first, 1).unwrap(), Some(record(1)));
        reader.rest();
        assert_eq!(reader.block(&first, 1).unwrap(), Some(record(1)));

        let mut dropped = index.begin().unwrap();
        dropped.set_block(&second, Some(record(2))).unwrap();
        drop(dropped);
        let mut change = index.begin().unwrap();
        assert_eq!(change.block(&second).unwrap(), None);
        change.set_block(&first, None).unwrap();
        change.set_block(&first, None).unwrap();
        change.set_block(&second, Some(Record::EMPTY)).unwrap();
        change.set_page_map(700, PageMap::EMPTY).unwrap();
        change.set_page_map(3, map).unwrap();
        change.set_page_map(0x0100_0000, map).unwrap();
        change.commit().unwrap();
        drop(reader);
        drop(index);

        let index = MdbxIndex::open_read_only(&path).unwrap();
        let mut reader = index.reader().unwrap();
        assert_eq!(reader.meta().unwrap(), Some(meta()));
        let mut maps = Vec::new();
        reader.page_maps(&mut |row| maps.push(row.unwrap())).unwrap();
        assert_eq!(maps, [(3, map), (0x0100_0000, map)], "in ascending order");
        let mut blocks = Vec::new();
        reader
            .blocks(&mut |row| {
                blocks.push(row.unwrap());
                true
            })
            .unwrap();
        assert_eq!(blocks, [(second, Record::EMPTY)]);
        assert_eq!(reader.block_count().unwrap(), 1);
    }

    #[test]
    fn space_is_allocated_ahead() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        let index = MdbxIndex::open(&path).unwrap();
        index.reserve(100_000).unwrap();
        let allocated = std::fs::metadata(&path).unwrap().blocks() * 512;
        assert!(allocated >= bytes_needed(NAMES_IN_A_LEAP * BYTES_PER_NAME, 100_000), "{allocated}");
        assert!(index.sizes().file_bytes >= 100_000 * BYTES_PER_NAME);
    }

    /// A power cut may leave the file as long as it was when it was last flushed, and the meta page that says how long it is to be; or a
    /// file that is longer than the meta page says. At first its length is what earlier versions chose: any number of pages.
    #[test]
    fn a_file_that_was_to_grow_can_be_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        let index = MdbxIndex::open(&path).unwrap();
        let mut transaction = index.begin().unwrap();
        transaction.set_meta(&meta()).unwrap();
        transaction.commit().unwrap();
        index.environment.set_length(77 * 4096).unwrap();
        drop(index);
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let length = || file.metadata().unwrap().len();
        assert_eq!(length(), 77 * 4096);
        let look = |what: &str| {
            let index = MdbxIndex::open_read_only(&path).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(index.reader().unwrap().meta().unwrap(), Some(meta()), "{what}");
        };
        look("a length of earlier versions");
        for names in [1, 1000, 30_000, 100_000] {
            let index = MdbxIndex::open(&path).unwrap();
            let opened = length();
            index.reserve(names).unwrap();
            drop(index);
            let grown = length();
            assert!(grown > opened, "{names} names: it did not grow");
            file.set_len(opened).unwrap();
            look("it has not grown yet");
            drop(MdbxIndex::open(&path).unwrap());
            assert_eq!(length(), grown, "what the meta page says");
            file.set_len(2 * grown).unwrap();
            look("it has grown, and nothing says so");
            drop(MdbxIndex::open(&path).unwrap());
            look("it was opened again");
        }
    }

    fn job(names: std::ops::Range<u64>, removed: bool) -> CheckpointJob {
        let generation = Generation::new(100_000);
        for name in names {
            let state = if removed { NameState::Removed } else { NameState::Occupied(record(name)) };
            assert!(generation.insert(&Hash::of(&name.to_le_bytes()), state));
        }
        CheckpointJob { generation: Arc::new(generation), quarantined: Vec::new(), meta: meta(), names_max: 0 }
    }

    /// On a disk that is full since the last reservation: two checkpoints of new names, then removals of everything, a little at
    /// a time or much, use only what was reserved.
    #[test]
    fn what_is_reserved_suffices_for_two_checkpoints_and_then_for_removals() {
        const NAMES: u64 = 2000;
        for stored in [0, NAMES, 5 * NAMES, 50 * NAMES] {
            for removals in [NAMES / 20, NAMES / 4, NAMES] {
                let directory = tempfile::tempdir().unwrap();
                let index = MdbxIndex::open(&directory.path().join("index")).unwrap();
                let mut transaction = index.begin().unwrap();
                transaction.set_meta(&meta()).unwrap();
                transaction.commit().unwrap();
                // All at once: no page was replaced yet that could be used again.
                checkpoint(&index, &job(0..stored, false)).unwrap();
                let reserved = bytes_needed(index.live_bytes().unwrap(), NAMES);
                let all = stored + 2 * NAMES;
                for first in [stored, stored + NAMES] {
                    checkpoint(&index, &job(first..first + NAMES, false)).unwrap();
                }
                let mut most = 0;
                for first in (0..all).step_by(usize::try_from(removals).unwrap()) {
                    most = most.max(index.sizes().used_bytes);
                    checkpoint(&index, &job(first..first + removals, true)).unwrap();
                }
                assert!(most <= reserved, "stored {stored}, removals {removals}: {most} bytes of {reserved}");
            }
        }
    }

    #[test]
    fn there_is_a_reader_for_each_of_many_workers() {
        let directory = tempfile::tempdir().unwrap();
        let index = MdbxIndex::open(&directory.path().join("index")).unwrap();
        let mut readers: Vec<_> = (0..1030).map(|_| index.reader().unwrap()).collect();
        assert_eq!(readers.last_mut().unwrap().block(&Hash::of(b"x"), 1).unwrap(), None);
    }

    #[test]
    fn a_file_that_is_no_index_is_named_as_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        std::fs::write(&path, vec![7; 65_536]).unwrap();
        let error = MdbxIndex::open(&path).err().unwrap();
        assert!(matches!(error, IndexError::Damaged(_)), "{error}");
    }
}
