//! A disk with a volatile write cache, on a simulated ring.
//!
//! The model: a write that completed is seen by every later read, but is on the medium only when a flush that began after its
//! completion has ended, or when it was itself durable (as with FUA: itself and nothing else). A power cut keeps none, all, or
//! some of what is not on the medium, torn at sectors or pages, in any order; writes in flight likewise. A file's new length is as
//! volatile as its bytes. A crash of the process alone loses nothing that was handed to the disk, and makes nothing of it durable.
//!
//! What must never happen is asserted right here: two writes in flight that overlap, or a write over bytes that are being read.

use crate::files::{BlockFile, Parts};
use buddy_ring::{Buffer, Ring};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// The longest that an operation takes …
const OPERATION_MAX: Duration = Duration::from_micros(300);
/// … and one that stalls.
pub(crate) const STALL_MAX: Duration = Duration::from_millis(12);

/// What happens to bytes that are not on the medium when the power goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cut {
    /// All are lost.
    LoseAll,
    /// The power does not go: only the process has died. What was in flight arrives or was never sent; what was volatile still is.
    Crash,
    /// Some are kept, in pieces.
    Random,
}

/// A fault that strikes one operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// It fails; its bytes may be on the medium in part.
    Error(i32),
    /// It does only the first half, in whole pages.
    Short,
}

/// Which operations count for fault injection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Read,
    Write,
    Flush,
}

/// A disk with its files. Survives the ring it is used on.
#[derive(Clone)]
pub(crate) struct Disk {
    inner: Rc<Inner>,
}

struct Inner {
    files: RefCell<Vec<FileState>>,
    random: RefCell<fastrand::Rng>,
    /// Completions of writes and flushes so far: the points at which power can be cut.
    events: Cell<u64>,
    /// The power goes after this many events.
    cut_at: Cell<Option<u64>>,
    is_cut: Cell<bool>,
    faults: RefCell<Vec<PlannedFault>>,
    /// All files together hold at most this many bytes.
    capacity_bytes: Cell<u64>,
    /// Now and then an operation takes much longer than others.
    stalls: Cell<bool>,
}

/// A fault to come.
pub(crate) struct PlannedFault {
    pub(crate) file: usize,
    pub(crate) kind: Kind,
    /// Strikes when this many more operations of the kind have begun.
    pub(crate) after: u64,
    pub(crate) fault: Fault,
}

#[derive(Default)]
struct FileState {
    /// What reads see: pages that are not all zeros.
    current: BTreeMap<u64, Box<[u8; PAGE]>>,
    /// What is on the medium.
    medium: BTreeMap<u64, Box<[u8; PAGE]>>,
    length: u64,
    length_on_medium: u64,
    /// Completed and not on the medium, oldest first.
    volatile: Vec<Write>,
    in_flight: Vec<Write>,
    reading: Vec<(u64, Range<u64>)>,
    next_id: u64,
}

#[derive(Clone)]
struct Write {
    id: u64,
    offset: u64,
    bytes: Rc<[u8]>,
}

impl Write {
    fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.bytes.len() as u64
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

impl Disk {
    pub(crate) fn new(seed: u64, files: usize) -> Disk {
        Disk {
            inner: Rc::new(Inner {
                files: RefCell::new((0..files).map(|_| FileState::default()).collect()),
                random: RefCell::new(fastrand::Rng::with_seed(seed)),
                events: Cell::new(0),
                cut_at: Cell::new(None),
                is_cut: Cell::new(false),
                faults: RefCell::default(),
                capacity_bytes: Cell::new(u64::MAX),
                stalls: Cell::new(false),
            }),
        }
    }

    /// File `number`, used through `ring`.
    pub(crate) fn file(&self, number: usize, ring: &Ring) -> SimulatedFile {
        SimulatedFile { disk: self.clone(), number, ring: ring.clone() }
    }

    /// Number of completed writes and flushes.
    pub(crate) fn events(&self) -> u64 {
        self.inner.events.get()
    }

    /// Lets the power go after `event` completions in all.
    pub(crate) fn cut_power_at(&self, event: u64) {
        self.inner.cut_at.set(Some(event));
    }

    /// True once the power is gone: nothing completes any more.
    pub(crate) fn is_cut(&self) -> bool {
        self.inner.is_cut.get()
    }

    /// Lets operations fail, counted from now on.
    pub(crate) fn plan_faults(&self, faults: impl IntoIterator<Item = PlannedFault>) {
        self.inner.faults.borrow_mut().extend(faults);
    }

    /// Limits what all files together may hold.
    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.inner.capacity_bytes.set(bytes);
    }

    /// From now on an operation in sixteen takes up to [`STALL_MAX`].
    pub(crate) fn stall_now_and_then(&self) {
        self.inner.stalls.set(true);
    }

    /// After a power cut or a crash: decides what has survived. Nothing may be using the disk.
    pub(crate) fn restore(&self, cut: Cut) {
        let mut random = self.inner.random.borrow_mut();
        for file in self.inner.files.borrow_mut().iter_mut() {
            file.restore(cut, &mut random);
        }
        self.inner.is_cut.set(false);
        self.inner.cut_at.set(None);
        self.inner.faults.borrow_mut().clear();
    }

    /// Changes bits of a file behind everybody's back.
    pub(crate) fn corrupt(&self, file: usize, offset: u64, mask: u8) {
        let mut files = self.inner.files.borrow_mut();
        let state = &mut files[file];
        let (page, at) = (offset / PAGE as u64, usize::try_from(offset % PAGE as u64).unwrap());
        state.medium.entry(page).or_insert_with(zero_page)[at] ^= mask;
        state.current.entry(page).or_insert_with(zero_page)[at] ^= mask;
    }

    /// Cuts a file short, or lengthens it with zeros.
    pub(crate) fn truncate(&self, file: usize, length: u64) {
        let mut files = self.inner.files.borrow_mut();
        let state = &mut files[file];
        (state.length, state.length_on_medium) = (length, length);
        state.forget_beyond_end();
    }

    /// The bytes of a file as reads would see them.
    pub(crate) fn contents(&self, file: usize, range: Range<u64>) -> Vec<u8> {
        let files = self.inner.files.borrow();
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
        files[file].read(range.start, &mut bytes);
        bytes
    }

    fn strike(&self, file: usize, kind: Kind) -> Option<Fault> {
        let mut faults = self.inner.faults.borrow_mut();
        let mut struck = None;
        faults.retain_mut(|planned| {
            if planned.file != file || planned.kind != kind || struck.is_some() {
                return true;
            }
            if planned.after == 0 {
                struck = Some(planned.fault);
                return false;
            }
            planned.after -= 1;
            true
        });
        struck
    }

    /// An operation takes a while, in virtual time.
    pub(crate) async fn take_time(&self, ring: &Ring) {
        let duration = {
            let mut random = self.inner.random.borrow_mut();
            let stalls = self.inner.stalls.get() && random.u8(0..16) == 0;
            let longest = if stalls { STALL_MAX } else { OPERATION_MAX };
            longest.mul_f64(random.f64())
        };
        ring.sleep(duration).await;
        if self.is_cut() {
            std::future::pending::<()>().await;
        }
    }

    /// Counts a completion. The power may go right after it, before anybody hears of it.
    pub(crate) async fn completed(&self) {
        let events = self.inner.events.get() + 1;
        self.inner.events.set(events);
        if self.inner.cut_at.get().is_some_and(|cut_at| events >= cut_at) {
            self.inner.is_cut.set(true);
            std::future::pending::<()>().await;
        }
    }

    fn used_bytes(&self) -> u64 {
        self.inner.files.borrow().iter().map(|file| file.length).sum()
    }
}

const ZEROS: [u8; PAGE] = [0; PAGE];

fn zero_page() -> Box<[u8; PAGE]> {
    Box::new([0; PAGE])
}

/// Puts bytes into pages; pages of zeros are not kept.
fn put(pages: &mut BTreeMap<u64, Box<[u8; PAGE]>>, offset: u64, bytes: &[u8]) {
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
    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn read(&self, offset: u64, target: &mut [u8]) {
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

    fn complete_write(&mut self, write: Write, durable: bool) {
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

    fn complete_flush(&mut self, up_to: u64, length: u64) {
        let (flushed, left): (Vec<_>, _) =
            std::mem::take(&mut self.volatile).into_iter().partition(|write| write.id <= up_to);
        self.volatile = left;
        for write in flushed {
            put(&mut self.medium, write.offset, &write.bytes);
        }
        self.length_on_medium = self.length_on_medium.max(length);
    }

    fn restore(&mut self, cut: Cut, random: &mut fastrand::Rng) {
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
                end = end.max(self.keep_some(&write, random));
            }
            // The length may be ahead of the bytes or behind them.
            let length = random.u64(self.length_on_medium..=end.max(self.length));
            self.length_on_medium = length / SECTOR as u64 * SECTOR as u64;
        }
        self.length = self.length_on_medium;
        self.forget_beyond_end();
        self.current = self.medium.clone();
    }

    /// Keeps a random part of a write; returns where it ends.
    fn keep_some(&mut self, write: &Write, random: &mut fastrand::Rng) -> u64 {
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
                put(&mut self.medium, offset, bytes);
                end = offset + bytes.len() as u64;
            }
        }
        end
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

/// A file of a simulated disk.
#[derive(Clone)]
pub(crate) struct SimulatedFile {
    disk: Disk,
    number: usize,
    ring: Ring,
}

impl SimulatedFile {
    fn with<T>(&self, work: impl FnOnce(&mut FileState) -> T) -> T {
        work(&mut self.disk.inner.files.borrow_mut()[self.number])
    }

    async fn write_now(&self, bytes: Rc<[u8]>, offset: u64, durable: bool) -> io::Result<usize> {
        let fault = self.disk.strike(self.number, Kind::Write);
        let range = offset..offset + bytes.len() as u64;
        let write = self.with(|file| {
            for other in &file.in_flight {
                assert!(!overlap(&other.range(), &range), "two writes in flight overlap at {range:?}");
            }
            for (_, reading) in &file.reading {
                assert!(!overlap(reading, &range), "{range:?} is written while {reading:?} is read");
            }
            let write = Write { id: file.new_id(), offset, bytes };
            file.in_flight.push(write.clone());
            write
        });
        self.disk.take_time(&self.ring).await;
        let written = self.finish_write(write, durable, fault);
        self.disk.completed().await;
        written
    }

    fn finish_write(&self, write: Write, durable: bool, fault: Option<Fault>) -> io::Result<usize> {
        let grows_by = self.with(|file| write.range().end.saturating_sub(file.length));
        let is_full = self.disk.used_bytes() + grows_by > self.disk.inner.capacity_bytes.get();
        self.with(|file| {
            file.in_flight.retain(|other| other.id != write.id);
            let fault = if is_full { Some(Fault::Error(libc::ENOSPC)) } else { fault };
            let id = file.new_id();
            match fault {
                Some(Fault::Error(code)) => {
                    if code != libc::ENOSPC {
                        // How much of it has reached the disk is anybody's guess.
                        file.volatile.push(Write { id, ..write });
                    }
                    Err(io::Error::from_raw_os_error(code))
                }
                fault => {
                    let whole = write.bytes.len();
                    let half = (whole / 2).next_multiple_of(PAGE).min(whole);
                    let done = if fault.is_some() { half } else { whole };
                    let bytes = if done == whole { write.bytes } else { Rc::from(&write.bytes[..done]) };
                    file.complete_write(Write { id, offset: write.offset, bytes }, durable);
                    Ok(done)
                }
            }
        })
    }
}

impl BlockFile for SimulatedFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.with(|file| file.length))
    }

    fn uncached(&self) -> SimulatedFile {
        self.clone()
    }

    async fn read<G: 'static>(
        &self,
        mut buffer: Buffer,
        range: Range<usize>,
        offset: u64,
        guard: G,
    ) -> (io::Result<usize>, Buffer, G) {
        let file = self.clone();
        // A task of its own: what is dropped by its caller goes on in the kernel.
        self.ring
            .spawn(async move {
                let fault = file.disk.strike(file.number, Kind::Read);
                let bytes = offset..offset + range.len() as u64;
                let id = file.with(|state| {
                    for other in &state.in_flight {
                        assert!(!overlap(&other.range(), &bytes), "{bytes:?} is read while it is written");
                    }
                    let id = state.new_id();
                    state.reading.push((id, bytes));
                    id
                });
                file.disk.take_time(&file.ring).await;
                let result = file.with(|state| {
                    state.reading.retain(|(other, _)| *other != id);
                    let there = usize::try_from(state.length.saturating_sub(offset)).unwrap().min(range.len());
                    match fault {
                        Some(Fault::Error(code)) => Err(io::Error::from_raw_os_error(code)),
                        fault => {
                            let wanted = if fault.is_some() { there.div_ceil(2) } else { there };
                            state.read(offset, &mut buffer[range.start..range.start + wanted]);
                            Ok(wanted)
                        }
                    }
                });
                (result, buffer, guard)
            })
            .await
    }

    fn read_cached(&self, _target: &mut [u8], _offset: u64) -> Option<usize> {
        None
    }

    fn cached_descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    async fn write(&self, parts: Parts, offset: u64, durable: bool) -> (io::Result<usize>, Parts) {
        let file = self.clone();
        self.ring
            .spawn(async move {
                let bytes = parts.iter().map(|(buffer, length)| &buffer[..*length]).collect::<Vec<_>>().concat();
                let result = file.write_now(bytes.into(), offset, durable).await;
                (result, parts)
            })
            .await
    }

    async fn flush(&self) -> io::Result<()> {
        let file = self.clone();
        self.ring
            .spawn(async move {
                let fault = file.disk.strike(file.number, Kind::Flush);
                let (up_to, length) = file.with(|state| (state.next_id, state.length));
                file.disk.take_time(&file.ring).await;
                let result = match fault {
                    Some(Fault::Error(code)) => Err(io::Error::from_raw_os_error(code)),
                    _ => {
                        file.with(|state| state.complete_flush(up_to, length));
                        Ok(())
                    }
                };
                file.disk.completed().await;
                result
            })
            .await
    }

    fn drop_cached(&self, _offset: u64, _bytes: u64) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use buddy_ring::{BufferPool, Runtime};

    fn parts(byte: u8, pages: usize) -> Parts {
        let mut buffer = BufferPool::new(1 << 20).try_take(pages * PAGE).unwrap().unwrap();
        buffer.fill(byte);
        vec![(buffer, pages * PAGE)]
    }

    #[test]
    fn only_a_flush_that_began_later_or_its_own_durability_saves_a_write() {
        let runtime = Runtime::simulated(1);
        let disk = Disk::new(1, 1);
        let file = disk.file(0, &runtime.ring());
        runtime.block_on(async {
            let _ = file.write(parts(1, 2), 0, false).await;
            file.flush().await.unwrap();
            let _ = file.write(parts(2, 1), 0, false).await;
            let _ = file.write(parts(3, 1), 4096, true).await;
            let _ = file.write(parts(4, 1), 8192, false).await;
        });
        assert_eq!(disk.contents(0, 0..1), [2]);
        assert_eq!(file.length().unwrap(), 12_288);
        disk.restore(Cut::LoseAll);
        assert_eq!(disk.contents(0, 0..1), [1], "neither a durable write nor an earlier flush saves others");
        assert_eq!(disk.contents(0, 4096..4097), [3]);
        assert_eq!(file.length().unwrap(), 8192, "a length is as volatile as bytes");
    }

    #[test]
    fn the_power_goes_before_anybody_hears_of_the_last_completion() {
        let runtime = Runtime::simulated(1);
        let disk = Disk::new(1, 1);
        let file = disk.file(0, &runtime.ring());
        disk.cut_power_at(2);
        let ended = runtime.run(async {
            let _ = file.write(parts(1, 1), 0, true).await;
            let _ = file.write(parts(2, 1), 4096, true).await;
        });
        assert!(ended.is_none() && disk.is_cut());
        drop(runtime);
        disk.restore(Cut::LoseAll);
        assert_eq!(disk.contents(0, 4096..4097), [2]);
    }
}
