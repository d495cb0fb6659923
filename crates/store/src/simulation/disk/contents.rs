//! The bytes of a file: what reads see, what is on the medium, and what lies in between.

use super::Cut;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

pub(super) const PAGE: usize = 4096;
const SECTOR: usize = 512;

type Pages = BTreeMap<u64, Box<[u8; PAGE]>>;

/// What there is of a file.
#[derive(Default)]
pub(super) struct FileState {
    /// What reads see: pages that are not all zeros.
    current: Pages,
    /// What is on the medium.
    medium: Pages,
    pub(super) length: u64,
    length_on_medium: u64,
    /// Completed and not on the medium, oldest first.
    volatile: Vec<Write>,
    pub(super) in_flight: Vec<Write>,
    pub(super) reading: Vec<(u64, Range<u64>)>,
    pub(super) next_id: u64,
    /// Pages that were read through the cache, and not forgotten since.
    cached: BTreeSet<u64>,
}

#[derive(Clone)]
pub(super) struct Write {
    pub(super) id: u64,
    pub(super) offset: u64,
    pub(super) bytes: Rc<[u8]>,
}

impl Write {
    pub(super) fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.bytes.len() as u64
    }
}

pub(super) fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

/// The pages of a range of bytes.
fn pages(range: &Range<u64>) -> Range<u64> {
    range.start / PAGE as u64..range.end.div_ceil(PAGE as u64)
}

const ZEROS: [u8; PAGE] = [0; PAGE];

fn zero_page() -> Box<[u8; PAGE]> {
    Box::new([0; PAGE])
}

/// Puts a random part of a write into pages; returns where it ends.
fn put_some(pages: &mut Pages, write: &Write, random: &mut fastrand::Rng) -> u64 {
    let unit = if random.bool() { SECTOR } else { PAGE };
    let chance = match random.u8(0..4) {
        0 => 0.0,
        1 => 1.0,
        _ => random.f64(),
    };
    let mut end = 0;
    for (piece, bytes) in write.bytes.chunks(unit).enumerate() {
        if random.f64() < chance {
            let offset = write.offset + (piece * unit) as u64;
            put(pages, offset, bytes);
            end = offset + bytes.len() as u64;
        }
    }
    end
}

/// Puts bytes into pages; pages of zeros are not kept.
fn put(pages: &mut Pages, offset: u64, bytes: &[u8]) {
    let mut at = 0;
    while at < bytes.len() {
        let position = offset + at as u64;
        let (page, start) = (position / PAGE as u64, usize::try_from(position % PAGE as u64).unwrap());
        let length = (PAGE - start).min(bytes.len() - at);
        let piece = &bytes[at..at + length];
        if length == PAGE && piece == &ZEROS[..] {
            pages.remove(&page);
        } else {
            pages.entry(page).or_insert_with(zero_page)[start..start + length].copy_from_slice(piece);
        }
        at += length;
    }
}

impl FileState {
    pub(super) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(super) fn read(&self, offset: u64, target: &mut [u8]) {
        target.fill(0);
        let mut at = 0;
        while at < target.len() {
            let position = offset + at as u64;
            let (page, start) = (position / PAGE as u64, usize::try_from(position % PAGE as u64).unwrap());
            let length = (PAGE - start).min(target.len() - at);
            if let Some(page) = self.current.get(&page) {
                target[at..at + length].copy_from_slice(&page[start..start + length]);
            }
            at += length;
        }
    }

    /// Something of `range`, in bytes, was read through the cache.
    pub(super) fn keep_cached(&mut self, range: &Range<u64>) {
        self.cached.extend(pages(range));
    }

    pub(super) fn has_cached(&self, range: &Range<u64>) -> bool {
        self.cached.range(pages(range)).next().is_some()
    }

    pub(super) fn forget_cached(&mut self, range: &Range<u64>) {
        pages(range).for_each(|page| _ = self.cached.remove(&page));
    }

    pub(super) fn forget_all_cached(&mut self) {
        self.cached.clear();
    }

    pub(super) fn complete_write(&mut self, write: Write, durable: bool) {
        put(&mut self.current, write.offset, &write.bytes);
        self.length = self.length.max(write.range().end);
        if durable {
            put(&mut self.medium, write.offset, &write.bytes);
            self.length_on_medium = self.length_on_medium.max(write.range().end);
            self.supersede(&write.range());
        } else {
            self.volatile.push(write);
        }
    }

    /// A write has failed: how much of it has reached the disk is anybody's guess, as is how much of that stays.
    pub(super) fn fail_write(&mut self, write: Write, random: &mut fastrand::Rng) {
        self.length = self.length.max(put_some(&mut self.current, &write, random));
        self.volatile.push(write);
    }

    /// What is volatile within `range` can no longer reach the medium: something newer is there.
    fn supersede(&mut self, range: &Range<u64>) {
        for older in std::mem::take(&mut self.volatile) {
            let (start, end) = (older.range().start, older.range().end);
            for left in [start..end.min(range.start), start.max(range.end)..end] {
                if !left.is_empty() {
                    let within = |offset: u64| usize::try_from(offset - start).unwrap();
                    let bytes = Rc::from(&older.bytes[within(left.start)..within(left.end)]);
                    self.volatile.push(Write { id: older.id, offset: left.start, bytes });
                }
            }
        }
    }

    pub(super) fn complete_flush(&mut self, up_to: u64, length: u64) {
        let (flushed, left): (Vec<_>, _) =
            std::mem::take(&mut self.volatile).into_iter().partition(|write| write.id <= up_to);
        self.volatile = left;
        for write in flushed {
            put(&mut self.medium, write.offset, &write.bytes);
        }
        self.length_on_medium = self.length_on_medium.max(length);
    }

    pub(super) fn restore(&mut self, cut: Cut, random: &mut fastrand::Rng) {
        self.reading.clear();
        let in_flight = std::mem::take(&mut self.in_flight);
        if cut == Cut::Crash {
            for write in in_flight {
                if random.bool() {
                    let id = self.new_id();
                    self.complete_write(Write { id, ..write }, false);
                }
            }
            return;
        }
        let mut undecided = std::mem::take(&mut self.volatile);
        undecided.extend(in_flight);
        if cut == Cut::Random {
            random.shuffle(&mut undecided);
            let mut end = self.length_on_medium;
            for write in undecided {
                end = end.max(put_some(&mut self.medium, &write, random));
            }
            // The length may be ahead of the bytes or behind them.
            let length = random.u64(self.length_on_medium..=end.max(self.length));
            self.length_on_medium = length / SECTOR as u64 * SECTOR as u64;
        }
        self.length = self.length_on_medium;
        self.forget_beyond_end();
        self.current = self.medium.clone();
    }

    /// What has completed and is not on the medium never gets there, and is seen until then.
    pub(super) fn lose_volatile(&mut self) {
        self.volatile.clear();
    }

    /// Changes bits of a byte, wherever it is.
    pub(super) fn corrupt(&mut self, offset: u64, mask: u8) {
        let (page, at) = (offset / PAGE as u64, usize::try_from(offset % PAGE as u64).unwrap());
        self.medium.entry(page).or_insert_with(zero_page)[at] ^= mask;
        self.current.entry(page).or_insert_with(zero_page)[at] ^= mask;
    }

    pub(super) fn truncate(&mut self, length: u64) {
        (self.length, self.length_on_medium) = (length, length);
        self.forget_beyond_end();
    }

    fn forget_beyond_end(&mut self) {
        let length = self.length;
        for pages in [&mut self.current, &mut self.medium] {
            pages.split_off(&length.div_ceil(PAGE as u64));
            let within = usize::try_from(length % PAGE as u64).unwrap();
            if within > 0
                && let Some(last) = pages.get_mut(&(length / PAGE as u64))
            {
                last[within..].fill(0);
            }
        }
    }
}
