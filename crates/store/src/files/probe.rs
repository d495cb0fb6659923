//! Finding out about a file system what its name does not say.
//!
//! *Whether pages that were sent without a copy keep their bytes when the file is overwritten*, how long a flush takes, and how much
//! longer than others a first write.
//!
//! A reply sent without a copy is made of page-cache pages. Overwriting the file with O_DIRECT detaches such pages and leaves
//! them as they are; overwriting it through the cache changes bytes already sent. Some file systems accept O_DIRECT and write
//! through the cache all the same, so the property is tried out, not looked up.

use super::directory::{Access, open_cached, open_direct};
use memmap2::MmapMut;
use rustix::fs::FallocateFlags;
use rustix::io::{ReadWriteFlags, pread, pwrite, pwritev2, read};
use rustix::pipe::{SpliceFlags, pipe, splice};
use std::io::{self, IoSlice};
use std::path::Path;
use std::time::{Duration, Instant};

const PAGE: usize = 4096;

/// True where a direct write leaves a page that is on its way through a pipe as it was, and is seen by later reads. Where that cannot be
/// tried, on a full disk say, it counts as no. Uses a scratch file at `path`.
pub(super) fn direct_writes_spare_sent_pages(path: &Path) -> bool {
    on_scratch_file(path, overwrite_a_sent_page).unwrap_or_else(|error| {
        tracing::warn!(%error, "the file system could not be tried: it counts as a bad one until the store is opened again");
        false
    })
}

/// What `attempt` finds out with a file at `path`, which is gone afterwards.
fn on_scratch_file<T>(path: &Path, attempt: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let result = attempt(path);
    // It may not have come into being.
    let _ = std::fs::remove_file(path);
    result
}

fn overwrite_a_sent_page(path: &Path) -> io::Result<bool> {
    let (direct, is_direct) = open_direct(path, Access::Write)?;
    if !is_direct {
        return Ok(false);
    }
    let cached = open_cached(path)?;
    let mut page = MmapMut::map_anon(PAGE)?;
    page.fill(b'a');
    pwrite(&direct, &page, 0)?;
    let mut seen = vec![0; PAGE];
    pread(&cached, &mut seen, 0)?;
    let (receiver, sender) = pipe()?;
    splice(&cached, Some(&mut 0), &sender, None, PAGE, SpliceFlags::empty())?;
    page.fill(b'b');
    pwrite(&direct, &page, 0)?;
    let mut sent = vec![0; PAGE];
    let length = read(&receiver, &mut sent)?;
    pread(&cached, &mut seen, 0)?;
    Ok(length == PAGE && sent.iter().all(|byte| *byte == b'a') && seen.iter().all(|byte| *byte == b'b'))
}

/// How much longer a write takes that is on stable storage when it returns. `None` where that cannot be told. Uses a scratch file at
/// `path`.
pub(super) fn durable_write_takes_longer_by(path: &Path) -> Option<Duration> {
    on_scratch_file(path, time_writes).ok()
}

/// Writes of each kind.
const TIMED_WRITES: usize = 9;

fn time_writes(path: &Path) -> io::Result<Duration> {
    let (file, _) = open_direct(path, Access::Write)?;
    let page = MmapMut::map_anon(PAGE)?;
    pwrite(&file, &page, 0)?;
    rustix::fs::fsync(&file)?;
    let (mut plain, mut durable) = (Vec::new(), Vec::new());
    for _ in 0..TIMED_WRITES {
        for (flags, times) in [(ReadWriteFlags::empty(), &mut plain), (ReadWriteFlags::DSYNC, &mut durable)] {
            let began = Instant::now();
            pwritev2(&file, &[IoSlice::new(&page)], 0, flags)?;
            times.push(began.elapsed());
        }
    }
    Ok(median(durable).saturating_sub(median(plain)))
}

/// Bytes of a write to new space that is timed: several small blocks that lie side by side.
const FIRST_WRITE_BYTES: usize = 64 << 10;
/// So many come before those that count: the file then is of more pieces than an inode holds, like the data file of any larger store.
const FIRST_WRITES_UNTIMED: usize = 5;
const FIRST_WRITES_TIMED: usize = 5;

/// How long durable writes take to space that was set aside and never written, and to the same space again. `None` where that cannot be
/// told, or no space can be set aside. Uses a scratch file at `path`.
pub(super) fn first_and_next_write_take(path: &Path) -> Option<(Duration, Duration)> {
    on_scratch_file(path, time_first_writes).ok()
}

fn time_first_writes(path: &Path) -> io::Result<(Duration, Duration)> {
    let (file, _) = open_direct(path, Access::Write)?;
    let bytes = MmapMut::map_anon(FIRST_WRITE_BYTES)?;
    // Every other place stays unwritten, so that each write is a piece of its own.
    let step = 2 * FIRST_WRITE_BYTES as u64;
    let writes = FIRST_WRITES_UNTIMED + FIRST_WRITES_TIMED;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, step * writes as u64)?;
    rustix::fs::fsync(&file)?;
    let round = || {
        let offsets = (0..writes as u64).map(|number| number * step);
        let times = offsets.map(|offset| {
            let began = Instant::now();
            pwritev2(&file, &[IoSlice::new(&bytes)], offset, ReadWriteFlags::DSYNC).map(|_| began.elapsed())
        });
        Ok::<_, io::Error>(median(times.collect::<Result<Vec<_>, _>>()?.split_off(FIRST_WRITES_UNTIMED)))
    };
    Ok((round()?, round()?))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_direct_writes_does_not_have_the_property() {
        // tmpfs serves O_DIRECT through its cache, or refuses it.
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        assert!(!direct_writes_spare_sent_pages(&directory.path().join("probe")));
        assert!(std::fs::read_dir(directory.path()).unwrap().next().is_none(), "leaves nothing behind");
    }

    #[test]
    fn first_writes_are_timed_where_space_can_be_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let (first, again) = first_and_next_write_take(&directory.path().join("probe")).unwrap();
        assert!(first > Duration::ZERO && again > Duration::ZERO);
        assert!(std::fs::read_dir(directory.path()).unwrap().next().is_none(), "leaves nothing behind");
        assert_eq!(first_and_next_write_take(&directory.path().join("missing/probe")), None);
    }
}
