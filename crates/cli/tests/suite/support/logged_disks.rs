//! Disks in memory that log what is done to them: files of a FUSE file system of this very process, below loop devices. Reading takes as
//! long as a test wants, and they fail when it says so.
//!
//! A write is in the log before it is confirmed, and so is a flush. So of what happened before this process saw an answer nothing
//! lies beyond the log's length at that time: answers and the log have one clock. One thread serves all disks, one request after the
//! other; a write that a flush follows in the log was complete when that flush began.

use super::loop_device::unmount_at_last;
use super::write_log::{Entry, Image, Record};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request,
    WriteFlags,
};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// A write of the block layer comes as one request up to this size.
const WRITE_BYTES_MAX: u32 = 1 << 20;
/// Nothing about these files ever changes behind the kernel's back.
const VALID: Duration = Duration::from_secs(3600);

/// The log, as the file system writes it and a test reads it.
#[derive(Default)]
struct State {
    now: Mutex<Now>,
    length: AtomicUsize,
    held: Mutex<Held>,
    failing: Mutex<Option<Failing>>,
}

/// How disks fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failing {
    /// Nothing is read or written.
    Broken,
    /// Nothing is written, for want of space, as by a disk that has promised more than it has.
    Full,
}

/// Reads that are not answered.
#[derive(Default)]
struct Held {
    /// Those of this disk are held.
    disk: Option<usize>,
    reads: Vec<(Vec<u8>, ReplyData)>,
}

#[derive(Default)]
struct Now {
    disks: Vec<Image>,
    record: Record,
}

impl State {
    /// The error of a read, where it is to fail.
    fn read_error(&self) -> Option<Errno> {
        (*self.failing.lock().unwrap() == Some(Failing::Broken)).then_some(Errno::EIO)
    }

    /// The error of a write, or of a flush.
    fn write_error(&self) -> Option<Errno> {
        self.failing.lock().unwrap().map(|failing| match failing {
            Failing::Broken => Errno::EIO,
            Failing::Full => Errno::ENOSPC,
        })
    }

    fn log(&self, now: &mut Now, entry: Entry) {
        now.record.entries.push(entry);
        self.length.store(now.record.entries.len(), Ordering::SeqCst);
    }
}

/// Disks that log. They end when this is dropped: take away what is mounted on them before.
pub struct Disks {
    state: Arc<State>,
    path: PathBuf,
    _session: BackgroundSession,
}

impl Disks {
    /// Disks of `bytes` each, with these contents, as files in the directory at `path`.
    pub fn serve(images: Vec<Image>, bytes: u64, path: &Path) -> Result<Disks, String> {
        let now = Now { record: Record { disks: images.clone(), entries: Vec::new() }, disks: images };
        let state = Arc::new(State { now: Mutex::new(now), ..State::default() });
        let files = Files { state: Arc::clone(&state), bytes };
        let session = fuser::spawn_mount(files, path, &Config::default()).map_err(|error| format!("FUSE: {error}"))?;
        Ok(Disks { state, path: path.to_owned(), _session: session })
    }

    /// The file that is the disk.
    pub fn file(&self, number: usize) -> PathBuf {
        self.path.join(number.to_string())
    }

    /// Length of the log: all that was confirmed up to now lies before it.
    pub fn position(&self) -> usize {
        self.state.length.load(Ordering::SeqCst)
    }

    /// Begins a new log, as if all up to now had been kept.
    pub fn begin_log(&self) {
        let mut now = self.state.now.lock().unwrap();
        now.record = Record { disks: now.disks.clone(), entries: Vec::new() };
        self.state.length.store(0, Ordering::SeqCst);
    }

    /// Answers no read of this disk as long as what is returned lives.
    pub fn hold_reads(&self, disk: usize) -> HeldReads {
        self.state.held.lock().unwrap().disk = Some(disk);
        HeldReads(Arc::clone(&self.state))
    }

    /// From now on all disks fail like this, or work again.
    pub fn fail(&self, failing: Option<Failing>) {
        *self.state.failing.lock().unwrap() = failing;
    }

    /// What happened since the log began.
    pub fn record(&self) -> Record {
        self.state.now.lock().unwrap().record.clone()
    }
}

impl Drop for Disks {
    /// A loop device lets go of its file some time after it is detached; the session alone would not wait for that.
    fn drop(&mut self) {
        unmount_at_last(&self.path);
    }
}

/// Reads that wait for their answer. They get it when this is dropped: before whoever waits for one, who could not even be killed.
pub struct HeldReads(Arc<State>);

impl HeldReads {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.held.lock().unwrap().reads.len()
    }
}

impl Drop for HeldReads {
    fn drop(&mut self) {
        let held = std::mem::take(&mut *self.0.held.lock().unwrap());
        held.reads.into_iter().for_each(|(bytes, reply)| reply.data(&bytes));
    }
}

/// A directory with a file for each disk, named by its number.
struct Files {
    state: Arc<State>,
    bytes: u64,
}

impl Files {
    /// The inode of a disk comes after those of nothing and the root.
    fn inode(disk: usize) -> INodeNo {
        INodeNo(disk as u64 + 2)
    }

    fn disk(inode: INodeNo) -> Option<usize> {
        usize::try_from(inode.0.checked_sub(2)?).ok()
    }

    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let is_directory = inode == INodeNo::ROOT;
        FileAttr {
            ino: inode,
            size: if is_directory { 0 } else { self.bytes },
            blocks: if is_directory { 0 } else { self.bytes / 512 },
            atime: SystemTime::UNIX_EPOCH,
            mtime: SystemTime::UNIX_EPOCH,
            ctime: SystemTime::UNIX_EPOCH,
            crtime: SystemTime::UNIX_EPOCH,
            kind: if is_directory { FileType::Directory } else { FileType::RegularFile },
            perm: if is_directory { 0o700 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Files {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Where less is possible a write comes in several parts, each of which may be lost: that is allowed too.
        let _ = config.set_max_write(WRITE_BYTES_MAX);
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let disks = self.state.now.lock().unwrap().disks.len();
        match name.to_str().and_then(|name| name.parse::<usize>().ok()) {
            Some(disk) if disk < disks => {
                reply.entry(&VALID, &self.attributes(Files::inode(disk)), Generation(0));
            }
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&VALID, &self.attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // No page cache in between: what the loop device writes arrives here before it is confirmed.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if let Some(error) = self.state.read_error() {
            return reply.error(error);
        }
        let mut bytes = vec![0; usize::try_from(u64::from(size).min(self.bytes.saturating_sub(offset))).unwrap()];
        let now = self.state.now.lock().unwrap();
        let Some(image) = Files::disk(inode).and_then(|disk| now.disks.get(disk)) else {
            return reply.error(Errno::EIO);
        };
        image.read(offset, &mut bytes);
        let mut held = self.state.held.lock().unwrap();
        if held.disk.is_some() && held.disk == Files::disk(inode) {
            held.reads.push((bytes, reply));
        } else {
            reply.data(&bytes);
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if let Some(error) = self.state.write_error() {
            return reply.error(error);
        }
        let mut now = self.state.now.lock().unwrap();
        let Some(disk) = Files::disk(inode).filter(|disk| *disk < now.disks.len()) else {
            return reply.error(Errno::EIO);
        };
        if offset + data.len() as u64 > self.bytes {
            return reply.error(Errno::ENOSPC);
        }
        now.disks[disk].write(offset, data);
        self.state.log(&mut now, Entry::Write { disk, offset, bytes: data.into() });
        reply.written(u32::try_from(data.len()).unwrap());
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if let Some(error) = self.state.write_error() {
            return reply.error(error);
        }
        match Files::disk(inode) {
            Some(disk) => self.state.log(&mut self.state.now.lock().unwrap(), Entry::Flush { disk }),
            None => return reply.error(Errno::EIO),
        }
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // A file is being closed, which makes nothing durable.
        reply.ok();
    }
}
