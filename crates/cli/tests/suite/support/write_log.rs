//! What was written to disks and flushed, in order, and what a power cut at any point of that leaves behind.
//!
//! A disk keeps every write that a flush of that disk came after. Of the writes since its last flush it keeps any, in whole or in
//! part, sector by sector; where two of them wrote the same sector and both are kept, the later one is what is there. Only its
//! first page is written as a whole or not at all: ext4 needs that of its superblock, which has two sectors and one checksum, and
//! is not ours to mend.

use std::collections::HashMap;
use std::sync::Arc;

/// What a disk writes as a whole or not at all.
pub const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;
const PAGE: u64 = PAGE_BYTES as u64;

/// The contents of a disk; what was never written is zeros. Copies share the pages in which they agree.
#[derive(Clone, Default)]
pub struct Image {
    pages: HashMap<u64, Arc<[u8; PAGE_BYTES]>>,
}

impl Image {
    pub fn read(&self, mut offset: u64, mut target: &mut [u8]) {
        while !target.is_empty() {
            let within = (offset % PAGE) as usize;
            let (piece, rest) = target.split_at_mut(target.len().min(PAGE_BYTES - within));
            match self.pages.get(&(offset / PAGE)) {
                Some(page) => piece.copy_from_slice(&page[within..within + piece.len()]),
                None => piece.fill(0),
            }
            offset += piece.len() as u64;
            target = rest;
        }
    }

    pub fn write(&mut self, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let within = (offset % PAGE) as usize;
            let (piece, rest) = bytes.split_at(bytes.len().min(PAGE_BYTES - within));
            let page = self.pages.entry(offset / PAGE).or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(page)[within..within + piece.len()].copy_from_slice(piece);
            offset += piece.len() as u64;
            bytes = rest;
        }
    }
}

/// Something that a disk was told to do, and confirmed.
#[derive(Clone)]
pub enum Entry {
    Write { disk: usize, offset: u64, bytes: Arc<[u8]> },
    Flush { disk: usize },
}

/// What a disk keeps of the writes that no flush came after.
#[derive(Clone, Copy, Debug)]
pub enum Keep {
    Nothing,
    Everything,
    /// Each write, or not.
    SomeWrites,
    /// Each write, or not, or some of its sectors.
    SomeSectors,
}

impl Keep {
    pub fn any(random: &mut fastrand::Rng) -> Keep {
        [Keep::Nothing, Keep::Everything, Keep::SomeWrites, Keep::SomeSectors][random.usize(..4)]
    }

    fn apply(self, random: &mut fastrand::Rng, image: &mut Image, offset: u64, bytes: &[u8]) {
        let torn = match self {
            Keep::Nothing => return,
            Keep::Everything => false,
            Keep::SomeWrites if random.bool() => return,
            Keep::SomeWrites => false,
            Keep::SomeSectors => match random.u8(..3) {
                0 => return,
                choice => choice == 1,
            },
        };
        if !torn {
            return image.write(offset, bytes);
        }
        let first_page = usize::try_from(PAGE.saturating_sub(offset)).unwrap().min(bytes.len());
        if random.bool() {
            image.write(offset, &bytes[..first_page]);
        }
        for (number, sector) in bytes[first_page..].chunks(SECTOR_BYTES).enumerate() {
            if random.bool() {
                image.write(offset + (first_page + number * SECTOR_BYTES) as u64, sector);
            }
        }
    }
}

/// Some disks at the beginning, and all that happened to them since. A position is a count of entries.
#[derive(Clone, Default)]
pub struct Record {
    pub disks: Vec<Image>,
    pub entries: Vec<Entry>,
}

impl Record {
    /// Where each disk has kept everything up to, when the power goes at `position`: right behind its last flush.
    pub fn flushed(&self, position: usize) -> Vec<usize> {
        let mut flushed = vec![0; self.disks.len()];
        for (number, entry) in self.entries[..position].iter().enumerate() {
            if let Entry::Flush { disk } = entry {
                flushed[*disk] = number + 1;
            }
        }
        flushed
    }

    /// The disks, after the power went at `position`.
    pub fn after_cut(&self, position: usize, keep: &[Keep], random: &mut fastrand::Rng) -> Vec<Image> {
        let flushed = self.flushed(position);
        let mut images = self.disks.clone();
        for (number, entry) in self.entries[..position].iter().enumerate() {
            match entry {
                Entry::Write { disk, offset, bytes } if number < flushed[*disk] => images[*disk].write(*offset, bytes),
                Entry::Write { disk, offset, bytes } => {
                    keep[*disk].apply(random, &mut images[*disk], *offset, bytes);
                }
                Entry::Flush { .. } => {}
            }
        }
        images
    }
}
