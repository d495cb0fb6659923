//! Finding out about a file system what its name does not say.
//!
//! *Whether pages that were sent without a copy keep their bytes when the file is overwritten*, how long a flush takes, how much
//! longer than others a first write, and how long a read.
//!
//! A reply sent without a copy is made of page-cache pages. Overwriting the file with O_DIRECT detaches such pages and leaves
//! them as they are; overwriting it through the cache changes bytes already sent. Some file systems accept O_DIRECT and write
//! through the cache all the same, so the property is tried out, not looked up.
//!
//! All of it is a property of the file system on which a certain file lies, so it is tried out beside that file: its name may be a link
//! that leads elsewhere. Where that cannot be done nothing is known.

use super::directory::{Access, open_cached, open_direct};
use crate::extent::PAGE;
use memmap2::MmapMut;
use rustix::fs::FallocateFlags;
use rustix::io::{ReadWriteFlags, pread, pwrite, pwritev2, read};
use rustix::pipe::{SpliceFlags, pipe, splice};
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// What its name has at the end behind that of the file beside which it is made.
const SCRATCH: &str = ".probe.tmp";

/// True where a direct write leaves a page that is on its way through a pipe as it was, and is seen by later reads. Where that cannot be
/// tried, on a full disk say, it counts as no. About the file at `path`, open as `file`.
pub(super) fn direct_writes_spare_sent_pages(path: &Path, file: impl AsFd) -> bool {
    on_scratch_file(path, file, overwrite_a_sent_page).unwrap_or_else(|error| {
        tracing::warn!(%error, "the file system could not be tried: it counts as a bad one until the store is opened again");
        false
    })
}

/// What `attempt` finds out with a file beside the one at `path`, which is open as `file`. It is gone afterwards.
fn on_scratch_file<T>(path: &Path, file: impl AsFd, attempt: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let mut scratch = path.canonicalize()?.into_os_string();
    scratch.push(SCRATCH);
    let scratch = Path::new(&scratch);
    // An earlier attempt may have been cut off. Others may use that directory, too: what is written to is a new file, and no link of theirs.
    let _ = std::fs::remove_file(scratch);
    let result = File::create_new(scratch).and_then(|made| {
        // A file that is mounted by itself has a directory that lies elsewhere.
        if rustix::fs::fstat(made)?.st_dev != rustix::fs::fstat(file)?.st_dev {
            return Err(io::Error::other(format!("{} lies on another one", scratch.display())));
        }
        attempt(scratch)
    });
    // It may not have come into being.
    let _ = std::fs::remove_file(scratch);
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

/// How much longer a write takes that is on stable storage when it returns. `None` where that cannot be told. About the
/// file at `path`, open as `file`.
pub(super) fn durable_write_takes_longer_by(path: &Path, file: impl AsFd) -> Option<Duration> {
    on_scratch_file(path, file, time_writes).ok()
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
    Ok(lower_quartile(durable).saturating_sub(lower_quartile(plain)))
}

/// Bytes of a write to new space that is timed: several small blocks that lie side by side.
const FIRST_WRITE_BYTES: usize = 64 << 10;
/// So many come before those that count: the file then is of more pieces than an inode holds, like the data file of any larger store.
const FIRST_WRITES_UNTIMED: usize = 5;
const FIRST_WRITES_TIMED: usize = 5;

/// How long durable writes take to space that was set aside and never written, and to the same space again. `None` where that cannot be
/// told, or no space can be set aside. About the file at `path`, open as `file`.
pub(super) fn first_and_next_write_take(path: &Path, file: impl AsFd) -> Option<(Duration, Duration)> {
    on_scratch_file(path, file, time_first_writes).ok()
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
        Ok::<_, io::Error>(lower_quartile(times.collect::<Result<Vec<_>, _>>()?.split_off(FIRST_WRITES_UNTIMED)))
    };
    Ok((round()?, round()?))
}

/// How long the disk takes to read a page, where reads pass the cache. `None` where that cannot be told. About the file at `path`, open as `file`.
pub(super) fn read_takes(path: &Path, file: impl AsFd) -> Option<Duration> {
    on_scratch_file(path, file, time_reads).ok()
}

/// Each of another page: a disk may have the one before at hand.
const TIMED_READS: usize = 9;

fn time_reads(path: &Path) -> io::Result<Duration> {
    let (file, _) = open_direct(path, Access::Write)?;
    let mut pages = MmapMut::map_anon(TIMED_READS * PAGE)?;
    // Not zeros, of which a file system may make a hole.
    pages.fill(b'r');
    pwrite(&file, &pages, 0)?;
    rustix::fs::fsync(&file)?;
    let times = pages.chunks_mut(PAGE).zip((0..).step_by(PAGE)).map(|(page, offset)| {
        let began = Instant::now();
        pread(&file, page, offset).map(|_| began.elapsed())
    });
    Ok(lower_quartile(times.collect::<Result<_, _>>()?))
}

/// What a disk takes by itself: who else uses it only makes it longer.
fn lower_quartile(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 4).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A file in a directory.
    fn file_in(directory: &tempfile::TempDir) -> (PathBuf, File) {
        let path = directory.path().join("file");
        let file = File::create(&path).unwrap();
        (path, file)
    }

    fn entries(directory: &tempfile::TempDir) -> usize {
        std::fs::read_dir(directory.path()).unwrap().count()
    }

    #[test]
    fn a_file_system_without_direct_writes_does_not_have_the_property() {
        // tmpfs serves O_DIRECT through its cache, or refuses it.
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let (path, file) = file_in(&directory);
        assert!(!direct_writes_spare_sent_pages(&path, &file));
        assert_eq!(entries(&directory), 1, "leaves nothing behind");
    }

    #[test]
    fn first_writes_are_timed_where_space_can_be_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let (path, file) = file_in(&directory);
        let (first, again) = first_and_next_write_take(&path, &file).unwrap();
        assert!(first > Duration::ZERO && again > Duration::ZERO);
        assert_eq!(entries(&directory), 1, "leaves nothing behind");
        assert_eq!(first_and_next_write_take(&directory.path().join("missing"), &file), None);
    }

    #[test]
    fn reads_are_timed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, file) = file_in(&directory);
        assert!(read_takes(&path, &file).unwrap() > Duration::ZERO);
        assert_eq!(entries(&directory), 1, "leaves nothing behind");
        assert_eq!(read_takes(&directory.path().join("missing"), &file), None);
    }

    /// As where the file is a mount of its own.
    #[test]
    fn what_a_file_on_another_file_system_shows_does_not_count() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
        let ((path, own), (_, other)) = (file_in(&here), file_in(&there));
        if rustix::fs::fstat(&own).unwrap().st_dev == rustix::fs::fstat(&other).unwrap().st_dev {
            return eprintln!("skipped: {} lies in memory, too", here.path().display());
        }
        assert!(durable_write_takes_longer_by(&path, &own).is_some());
        assert_eq!(durable_write_takes_longer_by(&path, &other), None);
        assert_eq!(read_takes(&path, &other), None);
        assert!(!direct_writes_spare_sent_pages(&path, &other));
        assert_eq!(entries(&here), 1, "leaves nothing behind");
    }
}
