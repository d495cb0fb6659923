//! Having the disk keep space for a file.

use super::{is_no_space, is_unsupported};
use rustix::fs::FallocateFlags;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

/// Has the disk keep space for the first `bytes` of `file`, whose content and length stay as they are. A file system that cannot does
/// without.
///
/// # Errors
///
/// The system's: [`is_no_space`] tells where there is none.
pub fn set_aside(file: impl AsFd, bytes: u64) -> io::Result<()> {
    let file = file.as_fd();
    match keep(file, 0..bytes) {
        Err(error) if is_unsupported(&error) => Ok(()),
        // xfs wants as much to be free as it is asked for, whatever the file has of it.
        Err(error) if is_no_space(&error) => fill_gaps(file, 0..bytes).unwrap_or(Err(error)),
        result => result,
    }
}

fn keep(file: BorrowedFd<'_>, range: Range<u64>) -> io::Result<()> {
    let keep = || rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, range.start, range.end - range.start);
    Ok(rustix::io::retry_on_intr(keep)?)
}

/// Has the disk keep space where the file has none yet; `None` where it does not tell where that is.
fn fill_gaps(file: BorrowedFd<'_>, range: Range<u64>) -> Option<io::Result<()>> {
    let mut left = range;
    while let Some(gap) = first_gap(file, left.clone()).ok()? {
        if let Err(error) = keep(file, gap.clone()) {
            return Some(Err(error));
        }
        left.start = gap.end;
    }
    Some(Ok(()))
}

/// Has a file share none of its first `bytes` with copies of it: a write to what is shared takes new space, which a full disk does not have.
/// Its content stays as it is. Where a file system does not tell what is shared, or cannot end that, nothing happens.
///
/// # Errors
///
/// The system's: [`is_no_space`] tells where there is none.
pub fn unshare(file: impl AsFd, bytes: u64) -> io::Result<()> {
    let file = file.as_fd();
    let flags = FallocateFlags::UNSHARE_RANGE | FallocateFlags::KEEP_SIZE;
    for range in shared(file, 0..bytes).unwrap_or_default() {
        let unshare = || rustix::fs::fallocate(file, flags, range.start, range.end - range.start);
        match rustix::io::retry_on_intr(unshare).map_err(io::Error::from) {
            Err(error) if is_unsupported(&error) => break,
            result => result?,
        }
    }
    Ok(())
}

/// Extents that are asked for at a time.
const EXTENTS_AT_A_TIME: u32 = 32;
/// `FIEMAP_EXTENT_SHARED`: another file has the same space.
const SHARED: u32 = 0x2000;
/// `FS_IOC_FIEMAP`, whose size is that of the question without the extents.
const FIEMAP: Opcode = opcode::read_write::<Question>(b'f', 11);

/// The first part of `struct fiemap` (Documentation/filesystems/fiemap.rst).
#[repr(C)]
#[derive(Default)]
struct Question {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
}

/// `struct fiemap_extent`: a part of a file that the disk keeps space for, written or not.
#[repr(C)]
#[derive(Default)]
struct MappedExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_too: [u32; 3],
}

impl MappedExtent {
    fn end(&self) -> u64 {
        self.logical.saturating_add(self.length)
    }
}

/// `struct fiemap`.
#[repr(C)]
#[derive(Default)]
struct Fiemap {
    question: Question,
    extents: [MappedExtent; EXTENTS_AT_A_TIME as usize],
}

/// The first part of `range` of a file for which the disk keeps no space.
fn first_gap(file: BorrowedFd<'_>, range: Range<u64>) -> io::Result<Option<Range<u64>>> {
    let Range { mut start, end } = range;
    let mut gap = None;
    for_each_extent(file, start..end, |extent| {
        if extent.logical > start {
            gap = Some(start..extent.logical.min(end));
            return false;
        }
        start = start.max(extent.end());
        true
    })?;
    Ok(gap.or((start < end).then_some(start..end)))
}

/// The parts of `range` of a file whose space another file has, too.
fn shared(file: BorrowedFd<'_>, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
    let mut shared = Vec::new();
    for_each_extent(file, range.clone(), |extent| {
        if extent.flags & SHARED != 0 {
            shared.push(extent.logical.max(range.start)..extent.end().min(range.end));
        }
        true
    })?;
    Ok(shared)
}

/// Calls `each` with the parts of `range` of a file for which the disk keeps space, until it says false.
fn for_each_extent(
    file: BorrowedFd<'_>,
    range: Range<u64>,
    mut each: impl FnMut(&MappedExtent) -> bool,
) -> io::Result<()> {
    let Range { mut start, end } = range;
    while start < end {
        let question = Question { start, length: end - start, extent_count: EXTENTS_AT_A_TIME, ..Question::default() };
        let mut map = Fiemap { question, extents: Default::default() };
        // SAFETY: the opcode is that of a call which reads and writes a `struct fiemap`.
        let call = unsafe { Updater::<FIEMAP, _>::new(&mut map) };
        // SAFETY: the kernel writes into `map` alone: the question, and as many extents behind it as the question says.
        unsafe { ioctl(file, call) }?;
        for extent in map.extents.get(..map.question.mapped_extents as usize).unwrap_or_default() {
            if !each(extent) {
                return Ok(());
            }
            start = start.max(extent.end());
        }
        if map.question.mapped_extents < EXTENTS_AT_A_TIME {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: u64 = 64 << 10;

    #[test]
    fn gaps_are_found_and_filled() {
        // Beside the test program, which lies on a disk, as temporary files need not.
        let program = std::env::current_exe().unwrap();
        let file = tempfile::tempfile_in(program.parent().unwrap()).unwrap();
        let file = file.as_fd();
        if first_gap(file, 0..STEP).is_err() {
            return eprintln!("skipped: the file system does not tell where there are gaps");
        }
        // More pieces than are asked for at a time, written and unwritten.
        for number in 0..100 {
            keep(file, 2 * number * STEP..(2 * number + 1) * STEP).unwrap();
        }
        rustix::io::pwrite(file, &[1; 100], 4 * STEP).unwrap();
        let gap = |range| first_gap(file, range).unwrap();
        assert_eq!(gap(0..STEP), None);
        assert_eq!(gap(0..200 * STEP), Some(STEP..2 * STEP));
        assert_eq!(gap(STEP / 2..STEP + 4096), Some(STEP..STEP + 4096));
        assert_eq!(gap(198 * STEP..200 * STEP), Some(199 * STEP..200 * STEP));
        fill_gaps(file, 0..150 * STEP).unwrap().unwrap();
        assert_eq!(gap(0..200 * STEP), Some(151 * STEP..152 * STEP));
        assert_eq!(
            rustix::fs::fstat(file).unwrap().st_size,
            i64::try_from(4 * STEP).unwrap() + 100,
            "no longer than before"
        );
    }

    #[test]
    fn what_cannot_be_told_is_no_answer() {
        let (receiver, _sender) = rustix::pipe::pipe().unwrap();
        assert!(fill_gaps(receiver.as_fd(), 0..1).is_none());
    }
}
