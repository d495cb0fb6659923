//! What damage of its file costs an index that is open: the names that lie there, and no others.

use super::{Index, IndexReader, IndexTransaction, MdbxIndex};
use crate::extent::{Extent, SizeClass};
use crate::hash::Hash;
use crate::record::Record;
use std::os::unix::fs::FileExt;
use std::path::Path;

const PAGE_BYTES: usize = 4096;

fn name(number: u64) -> Hash {
    Hash::of(&number.to_le_bytes())
}

/// An index of so many names, which nothing is written to any more, and the bytes of its file.
fn filled(path: &Path, names: u64) -> (MdbxIndex, Vec<u8>) {
    let index = MdbxIndex::open(path).unwrap();
    let mut transaction = index.begin().unwrap();
    // In their order, as a checkpoint does: pages that are split would leave copies of rows behind.
    let mut numbers: Vec<_> = (0..names).collect();
    numbers.sort_by_key(|number| name(*number));
    for number in numbers {
        let record = Record::new(Extent::new(SizeClass::SMALLEST, number), 100);
        transaction.set_block(&name(number), record).unwrap();
    }
    transaction.commit().unwrap();
    index.trust_pages().unwrap();
    (index, std::fs::read(path).unwrap())
}

/// Where the row of a name lies.
fn row_of(content: &[u8], hash: &Hash) -> usize {
    // The branches have some names, too.
    let is_leaf = |at: &usize| content[at / PAGE_BYTES * PAGE_BYTES + 10] & 2 != 0;
    let names = content.windows(Hash::BYTES).enumerate().filter(|(_, bytes)| bytes == hash.as_bytes());
    names.map(|(at, _)| at).find(is_leaf).unwrap()
}

/// Changes bits of the file under an open index.
fn flip(path: &Path, content: &[u8], at: usize, mask: u8) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[content[at] ^ mask], at as u64).unwrap();
}

/// libmdbx answers nothing more in a snapshot in which it has come upon a damaged page.
#[test]
fn a_damaged_page_costs_the_names_on_it_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index");
    let (index, content) = filled(&path, 500);
    let (damaged, whole) = ((0..500).map(name).min().unwrap(), (0..500).map(name).max().unwrap());
    let page = row_of(&content, &damaged) / PAGE_BYTES * PAGE_BYTES;
    (page..page + PAGE_BYTES).for_each(|at| flip(&path, &content, at, 0xff));
    let mut reader = index.reader().unwrap();
    for _ in 0..2 {
        assert!(reader.block(&whole, 1).unwrap().is_some());
        assert!(reader.block(&damaged, 1).is_err());
    }
}

/// The names that a walk comes upon, so many whole rows at a time, and how many damaged rows.
fn walk(index: &MdbxIndex, count: usize) -> (Vec<Hash>, usize) {
    let mut reader = index.reader().unwrap();
    let (mut names, mut damaged) = (Vec::new(), 0);
    loop {
        let rows = reader.blocks_after(names.last(), count, 1).unwrap();
        reader.rest();
        let whole: Vec<_> = rows.iter().flatten().map(|(hash, _)| *hash).collect();
        damaged += rows.len() - whole.len();
        names.extend(&whole);
        if whole.len() < count {
            return (names, damaged);
        }
    }
}

/// A bit of the place, of the checksum, or of the name, which then may lie far from where it belongs: searches go astray there.
#[test]
fn a_walk_passes_over_a_damaged_row_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index");
    let (index, content) = filled(&path, 200);
    let mut names: Vec<_> = (0..200).map(name).collect();
    names.sort();
    assert_eq!(walk(&index, 7), (names.clone(), 0));
    for hash in names.iter().step_by(9).chain(names.last()) {
        let row = row_of(&content, hash);
        let others: Vec<_> = names.iter().filter(|other| *other != hash).copied().collect();
        for (byte, mask) in [(34, 1), (46, 1), (31, 1), (0, 1), (0, 0x80)] {
            // Builds for tests do not trust pages: where rows are not in order libmdbx refuses the page.
            if byte == 0 && cfg!(debug_assertions) {
                continue;
            }
            flip(&path, &content, row + byte, mask);
            for count in [1, 3, 256] {
                let (walked, damaged) = walk(&index, count);
                assert_eq!(walked, others, "byte {byte}, mask {mask}, {count} at a time");
                assert!(damaged > 0);
            }
            flip(&path, &content, row + byte, 0);
        }
    }
}
