//! A file of a simulated disk, as the store uses it: operations take their time, and faults strike them.

use super::contents::{FileState, PAGE, Write, overlap};
use super::{Disk, Fault, Kind};
use crate::files::{BlockFile, Parts};
use buddy_ring::{Buffer, Ring};
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

/// What direct reads are aligned to.
const SECTOR: usize = 512;

/// A file of a simulated disk.
#[derive(Clone)]
pub(crate) struct SimulatedFile {
    disk: Disk,
    number: usize,
    ring: Ring,
    /// Read past the cache, as O_DIRECT does.
    is_uncached: bool,
}

impl SimulatedFile {
    pub(super) fn new(disk: &Disk, number: usize, ring: &Ring) -> SimulatedFile {
        SimulatedFile { disk: disk.clone(), number, ring: ring.clone(), is_uncached: false }
    }

    fn with<T>(&self, work: impl FnOnce(&mut FileState) -> T) -> T {
        work(&mut self.disk.inner.files.borrow_mut()[self.number])
    }

    async fn take_time(&self, fault: Option<Fault>) {
        if let Some(fault) = fault {
            self.ring.sleep(fault.delay()).await;
        }
        self.disk.take_time(&self.ring).await;
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
            assert!(!file.has_cached(&range), "{range:?} is written while the cache has what lay there");
            let write = Write { id: file.new_id(), offset, bytes };
            file.in_flight.push(write.clone());
            write
        });
        self.take_time(fault).await;
        self.disk.make_readable(self.number, &write.range());
        let written = self.finish_write(write, durable, fault);
        self.disk.completed().await;
        written
    }

    async fn preallocate_now(&self, end: u64) -> io::Result<()> {
        if !self.disk.inner.preallocates {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        let fault = self.disk.strike(self.number, Kind::Preallocate);
        self.take_time(fault).await;
        let length = self.with(|file| file.length);
        let (grows_by, free) = (end.saturating_sub(length), self.disk.free_bytes());
        let result = match fault.and_then(Fault::code) {
            Some(code) => Err(code),
            _ if grows_by > free => Err(libc::ENOSPC),
            _ => Ok(grows_by),
        };
        // A part of it, where it fails.
        let part = || self.disk.inner.random.borrow_mut().u64(0..=grows_by.min(free));
        let by = result.unwrap_or_else(|_| part());
        self.with(|file| file.length = length + by);
        self.disk.completed().await;
        result.map(drop).map_err(io::Error::from_raw_os_error)
    }

    fn finish_write(&self, write: Write, durable: bool, fault: Option<Fault>) -> io::Result<usize> {
        let grows_by = self.with(|file| write.range().end.saturating_sub(file.length));
        let is_full = grows_by > self.disk.free_bytes();
        self.with(|file| {
            file.in_flight.retain(|other| other.id != write.id);
            let fault = if is_full { Some(Fault::Error(libc::ENOSPC)) } else { fault };
            let id = file.new_id();
            match fault.and_then(Fault::code) {
                Some(code) => {
                    if code != libc::ENOSPC {
                        file.fail_write(Write { id, ..write }, &mut self.disk.inner.random.borrow_mut());
                    }
                    Err(io::Error::from_raw_os_error(code))
                }
                None => {
                    let whole = write.bytes.len();
                    let half = (whole / 2).next_multiple_of(PAGE).min(whole);
                    let done = if fault == Some(Fault::Short) { half } else { whole };
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
        SimulatedFile { is_uncached: true, ..self.clone() }
    }

    fn may_pass_cache(&self) -> bool {
        !self.is_uncached
    }

    fn is_cached(&self, _offset: u64, _bytes: u64) -> bool {
        false
    }

    async fn read<G: 'static>(
        &self,
        mut buffer: Buffer,
        range: Range<usize>,
        offset: u64,
        guard: G,
    ) -> (io::Result<usize>, Buffer, G) {
        let file = self.clone();
        if self.is_uncached {
            let (start, length, offset) = (range.start % SECTOR, range.len() % SECTOR, offset % SECTOR as u64);
            assert_eq!((start, length, offset), (0, 0, 0), "a direct read is aligned");
        }
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
                file.take_time(fault).await;
                let unreadable = file.disk.is_unreadable(file.number, &(offset..offset + range.len() as u64));
                let fault = if unreadable { Some(Fault::Error(libc::EIO)) } else { fault };
                let result = file.with(|state| {
                    state.reading.retain(|(other, _)| *other != id);
                    let there = usize::try_from(state.length.saturating_sub(offset)).unwrap().min(range.len());
                    match fault.and_then(Fault::code) {
                        Some(code) => Err(io::Error::from_raw_os_error(code)),
                        None => {
                            let half = if file.is_uncached { there / 2 / SECTOR * SECTOR } else { there.div_ceil(2) };
                            let wanted = if fault == Some(Fault::Short) { half } else { there };
                            state.read(offset, &mut buffer[range.start..range.start + wanted]);
                            if !file.is_uncached {
                                state.keep_cached(&(offset..offset + wanted as u64));
                            }
                            if file.disk.inner.cache_is_wrong.get() && !file.is_uncached {
                                buffer[range.start] ^= 0x10;
                            }
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

    async fn preallocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let file = self.clone();
        self.ring.spawn(async move { file.preallocate_now(offset + bytes).await }).await
    }

    async fn flush(&self) -> io::Result<()> {
        let file = self.clone();
        self.ring
            .spawn(async move {
                let fault = file.disk.strike(file.number, Kind::Flush);
                let (up_to, length) = file.with(|state| (state.next_id, state.length));
                if let Some(Fault::LateError(longer, _)) = fault {
                    file.ring.sleep(longer / 2).await;
                    file.with(FileState::lose_volatile);
                    file.ring.sleep(longer / 2).await;
                } else {
                    file.take_time(fault).await;
                }
                let result = match fault.and_then(Fault::code) {
                    Some(code) => Err(io::Error::from_raw_os_error(code)),
                    None => {
                        file.with(|state| state.complete_flush(up_to, length));
                        Ok(())
                    }
                };
                file.disk.completed().await;
                result
            })
            .await
    }

    fn may_have_cached(&self, offset: u64, bytes: u64) -> bool {
        self.with(|file| file.has_cached(&(offset..offset + bytes)))
    }

    async fn forget_cached(&self, offset: u64, bytes: u64) {
        let file = self.clone();
        let forgotten = async move {
            file.take_time(None).await;
            file.with(|state| state.forget_cached(&(offset..offset + bytes)));
        };
        self.ring.spawn(forgotten).await;
    }
}
