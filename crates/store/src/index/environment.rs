//! libmdbx behind safe types: an environment, one file of named tables. Nothing here knows what the bytes mean.

use super::locks;
use super::transaction::{Cursor, ReadTransaction, WriteTransaction};
use super::{IndexError, IndexSizes};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use signet_mdbx_sys as ffi;
use std::ffi::{CStr, CString, c_int};
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;

/// Dirty pages that a write transaction keeps in memory before it writes some out: 8 MiB. These are what a commit writes and flushes at
/// once. Fewer cost time: each time some are written out, all are looked at.
const DIRTY_PAGES_MAX: u64 = 2048;
/// The file grows in steps of this many bytes.
const GROWTH_STEP_BYTES: isize = 16 << 20;
/// Its length is a multiple of this one: where it is not the one that the meta page says libmdbx mends every other length, or says where
/// it may not write that the file is damaged.
const LENGTH_STEP_BYTES: u64 = 64 << 10;
const INDEX_PAGE_BYTES: isize = 4096;

/// Read at once of a file that is read as a whole.
const READ_BYTES: usize = 1 << 20;

/// A meta page begins with its flags at 10, its number at 16, a magic number with the version of libmdbx's format at 20, the number of
/// its transaction at 28, and at 56 that of the first page that was never used.
const META_HEAD_BYTES: usize = 60;
const META_PAGES: u32 = 3;
const META_PAGE_FLAG: u16 = 8;
const META_PAGE_MAGIC: u64 = 0x5965_9dbd_ef4c_1103;
/// Read transactions at a time: one a worker, of which there are up to 1024, and a few more.
pub(super) const READERS_MAX: u64 = 1100;

/// Size limits: 1 TiB where the address space has it, else as much as it has.
const SIZE_MAX_BYTES: u64 = 1 << 40;
const SIZE_MAX_BYTES_LEAST: u64 = 1 << 30;
/// What libmdbx needs beside it, and a little for others.
const ADDRESS_SPACE_SPARE_BYTES: u64 = 16 << 20;

/// An open libmdbx environment: one file of named tables.
pub(super) struct Environment {
    pointer: *mut ffi::MDBX_env,
    path: PathBuf,
    size_max_bytes: u64,
}

// SAFETY: libmdbx environments may be used from any thread, at the same time.
unsafe impl Send for Environment {}
// SAFETY: as above.
unsafe impl Sync for Environment {}

/// A named table of an environment.
#[derive(Clone, Copy)]
pub(super) struct Table(pub(super) ffi::MDBX_dbi);

/// The error that libmdbx means by `code`.
pub(super) fn error(action: &'static str, code: c_int) -> IndexError {
    // SAFETY: takes any code; returns a static, terminated text, or null where the code is the system's.
    let text = unsafe { ffi::mdbx_liberr2str(code) };
    let reason = if text.is_null() {
        std::io::Error::from_raw_os_error(code).to_string()
    } else {
        // SAFETY: not null, so a static, terminated text.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    match code {
        ffi::MDBX_MAP_FULL | ffi::MDBX_UNABLE_EXTEND_MAPSIZE | libc::ENOSPC | libc::EDQUOT | libc::EFBIG => {
            IndexError::Full(reason)
        }
        ffi::MDBX_CORRUPTED
        | ffi::MDBX_PAGE_NOTFOUND
        | ffi::MDBX_INVALID
        | ffi::MDBX_VERSION_MISMATCH
        | ffi::MDBX_WANNA_RECOVERY => IndexError::Damaged(reason),
        libc::EREMOTE => {
            let reason = "it lies on a network file system: copy the store to a local disk first".to_owned();
            IndexError::System { action, reason }
        }
        _ => IndexError::System { action, reason },
    }
}

pub(super) fn check(action: &'static str, code: c_int) -> Result<(), IndexError> {
    if code == 0 { Ok(()) } else { Err(error(action, code)) }
}

/// The largest size for which the address space has room (it may be limited, `ulimit -v`), for a file that is `file_bytes` long now.
/// This is found out without libmdbx, which gives the file the length that it is to have before it maps it.
fn size_that_fits(file_bytes: u64) -> Result<u64, IndexError> {
    let least = file_bytes.max(SIZE_MAX_BYTES_LEAST);
    let mut bytes = SIZE_MAX_BYTES.max(least);
    while !has_address_space(bytes + ADDRESS_SPACE_SPARE_BYTES) {
        if bytes == least {
            return Err(no_address_space());
        }
        bytes = (bytes / 2).max(least);
    }
    Ok(bytes)
}

fn has_address_space(bytes: u64) -> bool {
    let Ok(bytes) = usize::try_from(bytes) else { return false };
    // SAFETY: the kernel chooses a place where nothing is mapped, and nobody gets to know it.
    let mapped =
        unsafe { mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE) };
    // SAFETY: it was mapped just now, so long, and nothing refers to it.
    mapped.is_ok_and(|place| unsafe { munmap(place, bytes) }.is_ok())
}

fn no_address_space() -> IndexError {
    let reason = "the address space is too small for it (`ulimit -v`)".to_owned();
    IndexError::System { action: "opened", reason }
}

/// As libmdbx takes sizes.
fn signed(bytes: u64) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

impl Environment {
    /// Opens the file at `path`, for this process alone, with room for `tables` named tables. `read_only`: it must exist and is
    /// not changed; otherwise it is created where it is missing.
    pub(super) fn open(path: &Path, tables: u64, read_only: bool) -> Result<Environment, IndexError> {
        if read_only {
            refuse_damaged_meta_pages(path)?;
            refuse_unreadable_places(path)?;
        }
        refuse_truncated(path)?;
        let file_bytes = std::fs::metadata(path).map_or(0, |file| file.len());
        // A reader maps as much as the writer before it did.
        let size_max_bytes = if read_only { SIZE_MAX_BYTES } else { size_that_fits(file_bytes)? };
        locks::keep_space(path)?;
        let environment = Environment::open_sized(path, tables, read_only, file_bytes, size_max_bytes)?;
        if !read_only {
            environment.mend_length()?;
        }
        if size_max_bytes < SIZE_MAX_BYTES {
            tracing::warn!(
                index_max_bytes = size_max_bytes,
                "the address space is too small for an index of 1 TiB: it can grow to less"
            );
        }
        Ok(environment)
    }

    fn open_sized(
        path: &Path,
        tables: u64,
        read_only: bool,
        file_bytes: u64,
        size_max_bytes: u64,
    ) -> Result<Environment, IndexError> {
        let path_text = CString::new(path.as_os_str().as_bytes()).map_err(|_| error("opened", libc::EINVAL))?;
        let mut pointer = ptr::null_mut();
        // SAFETY: `pointer` receives the new environment.
        check("opened", unsafe { ffi::mdbx_env_create(&raw mut pointer) })?;
        // From here on `Drop` closes it.
        let environment = Environment { pointer, path: path.to_owned(), size_max_bytes };
        // SAFETY: the environment was created and not opened yet, as these two ask.
        check("opened", unsafe { ffi::mdbx_env_set_option(pointer, ffi::MDBX_opt_max_db, tables) })?;
        // SAFETY: as above.
        check("opened", unsafe { ffi::mdbx_env_set_option(pointer, ffi::MDBX_opt_max_readers, READERS_MAX) })?;
        if !read_only {
            // Where the largest size is another one than before libmdbx gives the file this length, too: it keeps its own.
            let now = if file_bytes > 0 { signed(file_bytes) } else { -1 };
            let max = signed(size_max_bytes);
            // SAFETY: as above; -1 keeps the default or the present value, 0 never shrinks.
            let code =
                unsafe { ffi::mdbx_env_set_geometry(pointer, -1, now, max, GROWTH_STEP_BYTES, 0, INDEX_PAGE_BYTES) };
            check("opened", code)?;
        }
        // Exclusive use needs the right to write; a reader relies on the locks of the files beside the index.
        let access = if read_only { ffi::MDBX_RDONLY } else { ffi::MDBX_EXCLUSIVE };
        let flags =
            access | ffi::MDBX_NOSUBDIR | ffi::MDBX_NORDAHEAD | ffi::MDBX_NOSTICKYTHREADS | ffi::MDBX_VALIDATION;
        // SAFETY: the path is a terminated string; the environment is ours alone.
        match unsafe { ffi::mdbx_env_open(pointer, path_text.as_ptr(), flags, 0o640) } {
            libc::ENOMEM => return Err(no_address_space()),
            code => check("opened", code)?,
        }
        if !read_only {
            // SAFETY: the environment is open; the option may be set at any time.
            check("opened", unsafe { ffi::mdbx_env_set_option(pointer, ffi::MDBX_opt_txn_dp_limit, DIRTY_PAGES_MAX) })?;
        }
        Ok(environment)
    }

    /// From here on pages are believed to be well-formed: checking each one that is passed takes three times as long as a look-up.
    /// Builds for tests go on checking, because libmdbx asserts there what is not so in a damaged page.
    pub(super) fn trust_pages(&self) -> Result<(), IndexError> {
        if cfg!(debug_assertions) {
            return Ok(());
        }
        // SAFETY: the environment is open; this flag may be changed at any time.
        check("opened", unsafe { ffi::mdbx_env_set_flags(self.pointer, ffi::MDBX_VALIDATION, false) })
    }

    /// The size that the file can grow to.
    pub(super) fn size_max_bytes(&self) -> u64 {
        self.size_max_bytes
    }

    /// The sizes of the file now.
    pub(super) fn sizes(&self) -> Result<IndexSizes, IndexError> {
        // SAFETY: a struct of integers, for which zero is a value.
        let mut info: ffi::MDBX_envinfo = unsafe { std::mem::zeroed() };
        // SAFETY: the environment is open; `info` has the size that is passed.
        let code =
            unsafe { ffi::mdbx_env_info_ex(self.pointer, ptr::null(), &raw mut info, size_of::<ffi::MDBX_envinfo>()) };
        check("read", code)?;
        let page_bytes = u64::from(info.mi_dxb_pagesize);
        Ok(IndexSizes {
            used_bytes: info.mi_last_pgno.saturating_add(1).saturating_mul(page_bytes),
            file_bytes: info.mi_geo.current,
        })
    }

    /// Makes the file at least `bytes` long.
    pub(super) fn extend_to(&self, bytes: u64) -> Result<(), IndexError> {
        let bytes = bytes.next_multiple_of(LENGTH_STEP_BYTES).min(self.size_max_bytes);
        self.lengthen(bytes).map_err(|errno| error("extended", errno.raw_os_error()))?;
        self.set_length(bytes)
    }

    /// The file first, durably: libmdbx flushes the meta page that says how long it is, and not that it is so long. Should it end in
    /// between, the file is longer than the meta page says: that is allowed, and mended when it is opened to be written.
    fn lengthen(&self, bytes: u64) -> rustix::io::Result<()> {
        let file = self.descriptor().map_err(|_| Errno::BADF)?;
        // Nobody makes it longer meanwhile, what would be cut off again: there is one writer at a time, and this is it. libmdbx asks the
        // file how long it is before it grows it, and what it has mapped reaches beyond the end.
        if u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0) < bytes {
            rustix::fs::ftruncate(file, bytes)?;
        }
        rustix::fs::fdatasync(file)
    }

    /// Makes the length of an index of earlier versions a multiple of [`LENGTH_STEP_BYTES`]. Only here: libmdbx takes the length back
    /// that the meta page says when it opens a file, and what it refuses is to stay as it is.
    fn mend_length(&self) -> Result<(), IndexError> {
        let bytes = self.sizes()?.file_bytes;
        if bytes.is_multiple_of(LENGTH_STEP_BYTES) {
            return Ok(());
        }
        match self.extend_to(bytes) {
            // A full disk is no reason not to open it.
            Err(IndexError::Full(_)) => Ok(()),
            outcome => outcome,
        }
    }

    /// Has libmdbx take the file for so long, and make it so.
    pub(super) fn set_length(&self, bytes: u64) -> Result<(), IndexError> {
        // SAFETY: the environment is open, no transaction of this thread is under way; -1 keeps what is.
        let code = unsafe { ffi::mdbx_env_set_geometry(self.pointer, -1, signed(bytes), -1, -1, -1, -1) };
        check("extended", code)
    }

    /// The file itself, to allocate its space.
    pub(super) fn descriptor(&self) -> Result<BorrowedFd<'_>, IndexError> {
        let mut descriptor = -1;
        // SAFETY: the environment is open.
        check("read", unsafe { ffi::mdbx_env_get_fd(self.pointer, &raw mut descriptor) })?;
        // SAFETY: the descriptor stays open as long as the environment, which the result borrows.
        Ok(unsafe { BorrowedFd::borrow_raw(descriptor) })
    }

    fn begin(&self, flags: ffi::MDBX_txn_flags_t) -> Result<*mut ffi::MDBX_txn, IndexError> {
        let mut transaction = ptr::null_mut();
        // SAFETY: the environment is open; `transaction` receives the new one.
        let code = unsafe {
            ffi::mdbx_txn_begin_ex(self.pointer, ptr::null_mut(), flags, &raw mut transaction, ptr::null_mut())
        };
        check("read", code)?;
        Ok(transaction)
    }

    /// A read transaction without a snapshot: see [`ReadTransaction::renew`].
    pub(super) fn reader(self: &Arc<Self>) -> Result<ReadTransaction, IndexError> {
        let cursor = Cursor::create()?;
        let pointer = self.begin(ffi::MDBX_TXN_RDONLY)?;
        Ok(ReadTransaction::new(pointer, Arc::clone(self), cursor))
    }

    /// Begins the one write transaction there can be; waits while another is under way.
    pub(super) fn writer(&self) -> Result<WriteTransaction<'_>, IndexError> {
        let cursor = Cursor::create()?;
        let pointer = self.begin(ffi::MDBX_TXN_READWRITE)?;
        Ok(WriteTransaction::new(pointer, cursor))
    }
}

/// libmdbx begins with three meta pages, of which the newest whole one counts. Where one is damaged it writes it anew; opened
/// read-only it cannot, and follows a null pointer instead: such a file is refused before.
fn refuse_damaged_meta_pages(path: &Path) -> Result<(), IndexError> {
    let file = File::open(path).map_err(|error| IndexError::System { action: "opened", reason: error.to_string() })?;
    if file.metadata().is_ok_and(|file| file.len() == 0) {
        return Err(IndexError::Damaged("it is empty: it was lost or replaced".to_owned()));
    }
    for number in 0..META_PAGES {
        if MetaPage::read(&file, number).is_none() {
            return Err(IndexError::Damaged(format!("meta page {number} is not whole (serving the store mends one)")));
        }
    }
    Ok(())
}

/// What a meta page says.
struct MetaPage {
    transaction: u64,
    used_bytes: u64,
}

impl MetaPage {
    /// `None` where it is not whole.
    fn read(file: &File, number: u32) -> Option<MetaPage> {
        let page_bytes = INDEX_PAGE_BYTES.unsigned_abs() as u64;
        let mut page = [0; META_HEAD_BYTES];
        file.read_exact_at(&mut page, u64::from(number) * page_bytes).ok()?;
        let whole = page.get(10..12) == Some(&META_PAGE_FLAG.to_le_bytes())
            && page.get(16..20) == Some(&number.to_le_bytes())
            && page.get(20..28) == Some(&META_PAGE_MAGIC.to_le_bytes());
        let transaction = u64::from_le_bytes(page.get(28..36)?.try_into().ok()?);
        let used_pages = u32::from_le_bytes(page.get(56..60)?.try_into().ok()?);
        whole.then_some(MetaPage { transaction, used_bytes: u64::from(used_pages) * page_bytes })
    }
}

/// A file that is shorter than what its newest meta page uses was truncated: a commit makes those pages durable first. libmdbx begins
/// with an older meta page then, makes the file as long as it was, and finds zeros; but what is refused has to stay as it is.
fn refuse_truncated(path: &Path) -> Result<(), IndexError> {
    // What cannot be read is for libmdbx to refuse, or to make.
    let Ok(file) = File::open(path) else { return Ok(()) };
    let newest = (0..META_PAGES).filter_map(|number| MetaPage::read(&file, number)).max_by_key(|page| page.transaction);
    let used_bytes = newest.map_or(0, |page| page.used_bytes);
    match file.metadata() {
        Ok(file) if file.len() < used_bytes => {
            let bytes = file.len();
            Err(IndexError::Damaged(format!("it was truncated to {bytes} bytes, and what it holds takes {used_bytes}")))
        }
        _ => Ok(()),
    }
}

/// A page that the disk cannot read would end the process when it is looked at, because the file is mapped. Who looks at all of it
/// reads all of it before, which can be told.
fn refuse_unreadable_places(path: &Path) -> Result<(), IndexError> {
    let failed = |error: std::io::Error| IndexError::System { action: "opened", reason: error.to_string() };
    let file = File::open(path).map_err(failed)?;
    let mut piece = vec![0; READ_BYTES];
    let mut offset = 0;
    loop {
        match file.read_at(&mut piece, offset) {
            Ok(0) => return Ok(()),
            Ok(bytes) => offset += bytes as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(IndexError::Damaged(format!("at {offset} it cannot be read: {error}"))),
        }
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        // SAFETY: all transactions are over: each holds or borrows the environment.
        unsafe { ffi::mdbx_env_close_ex(self.pointer, false) };
        // Who opens it next may find a full disk. If it is full already, that one is told.
        let _ = locks::keep_space(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_about_a_network_file_system_is_said() {
        let said = error("opened", libc::EREMOTE).to_string();
        assert_eq!(
            said,
            "the index cannot be opened: it lies on a network file system: copy the store to a local disk first"
        );
    }

    #[test]
    fn a_place_that_cannot_be_read_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let index = directory.path().join("index");
        std::fs::write(&index, vec![1; 3 * READ_BYTES / 2]).unwrap();
        refuse_unreadable_places(&index).unwrap();
        // A directory can be opened, and not read.
        let error = refuse_unreadable_places(directory.path()).unwrap_err();
        assert!(
            matches!(&error, IndexError::Damaged(reason) if reason.contains("at 0 it cannot be read: ")),
            "{error}"
        );
    }
}
