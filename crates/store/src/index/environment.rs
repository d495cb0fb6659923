//! libmdbx behind safe types: an environment, one file of named tables. Nothing here knows what the bytes mean.

use super::locks;
use super::meta_pages::{INDEX_PAGE_BYTES, refuse_damaged_meta_pages, refuse_truncated, refuse_unreadable_places};
use super::transaction::{Cursor, ReadTransaction, WriteTransaction};
use super::{IndexError, IndexSizes};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use signet_mdbx_sys as ffi;
use std::ffi::{CStr, CString, c_int};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
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
        libc::ENOMEM => IndexError::Shortage(reason),
        ffi::MDBX_CORRUPTED
        | ffi::MDBX_PAGE_NOTFOUND
        | ffi::MDBX_INVALID
        | ffi::MDBX_VERSION_MISMATCH
        | ffi::MDBX_WANNA_RECOVERY => IndexError::Damaged(reason),
        _ => IndexError::System { action, reason },
    }
}

/// What came of opening the file. Elsewhere these codes mean what they mean to the system: disks have the one for networks, too.
fn check_opened(code: c_int) -> Result<(), IndexError> {
    match code {
        ffi::MDBX_ENOMEM => Err(no_address_space()),
        ffi::MDBX_EREMOTE => {
            let reason = "it lies on a network file system: copy the store to a local disk first".to_owned();
            Err(IndexError::System { action: "opened", reason })
        }
        code => check("opened", code),
    }
}

pub(super) fn check(action: &'static str, code: c_int) -> Result<(), IndexError> {
    if code == 0 { Ok(()) } else { Err(error(action, code)) }
}

/// The largest size that leaves half of the address space to others (it may be limited, `ulimit -v`), or the least that will do, for a file
/// that is `file_bytes` long now. This is found out without libmdbx, which gives the file the length that it is to have before it maps it.
fn size_that_fits(file_bytes: u64) -> Result<u64, IndexError> {
    let least = file_bytes.max(SIZE_MAX_BYTES_LEAST);
    let mut bytes = SIZE_MAX_BYTES.max(least);
    while bytes > least && !has_address_space(bytes.saturating_mul(2)) {
        bytes = (bytes / 2).max(least);
    }
    if has_address_space(bytes + ADDRESS_SPACE_SPARE_BYTES) { Ok(bytes) } else { Err(no_address_space()) }
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
            let code = unsafe {
                ffi::mdbx_env_set_geometry(pointer, -1, now, max, GROWTH_STEP_BYTES, 0, signed(INDEX_PAGE_BYTES))
            };
            check("opened", code)?;
        }
        // Exclusive use needs the right to write; a reader relies on the locks of the files beside the index.
        let access = if read_only { ffi::MDBX_RDONLY } else { ffi::MDBX_EXCLUSIVE };
        let flags =
            access | ffi::MDBX_NOSUBDIR | ffi::MDBX_NORDAHEAD | ffi::MDBX_NOSTICKYTHREADS | ffi::MDBX_VALIDATION;
        // SAFETY: the path is a terminated string; the environment is ours alone.
        check_opened(unsafe { ffi::mdbx_env_open(pointer, path_text.as_ptr(), flags, 0o640) })?;
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
        self.lengthen(bytes)?;
        self.set_length(bytes)
    }

    /// The file first, durably: libmdbx flushes the meta page that says how long it is, and not that it is so long. Should it end in
    /// between, the file is longer than the meta page says: that is allowed, and mended when it is opened to be written.
    fn lengthen(&self, bytes: u64) -> Result<(), IndexError> {
        let failed = |errno: Errno| error("extended", errno.raw_os_error());
        let file = self.descriptor()?;
        // Nobody makes it longer meanwhile, what would be cut off again: there is one writer at a time, and this is it. libmdbx asks the
        // file how long it is before it grows it, and what it has mapped reaches beyond the end.
        if u64::try_from(rustix::fs::fstat(file).map_err(failed)?.st_size).unwrap_or(0) < bytes {
            rustix::fs::ftruncate(file, bytes).map_err(failed)?;
        }
        // Whatever a flush fails of, the next one does not tell of it again.
        rustix::fs::fdatasync(file)
            .map_err(|errno| IndexError::System { action: "extended", reason: std::io::Error::from(errno).to_string() })
    }

    /// What came of a change. Where libmdbx has failed for good with it, as after a flush, nothing can be tried again, and its reason is not
    /// told again either.
    pub(super) fn check_change(&self, action: &'static str, code: c_int) -> Result<(), IndexError> {
        match check(action, code) {
            Err(IndexError::Full(reason) | IndexError::Shortage(reason)) if self.has_failed() => {
                Err(IndexError::System { action, reason })
            }
            outcome => outcome,
        }
    }

    fn has_failed(&self) -> bool {
        let mut flags = 0;
        // SAFETY: the environment is open; `flags` receives its flags.
        let code = unsafe { ffi::mdbx_env_get_flags(self.pointer, &raw mut flags) };
        code == ffi::MDBX_PANIC
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
            Err(error) if error.may_pass() => Ok(()),
            outcome => outcome,
        }
    }

    /// Has libmdbx take the file for so long, and make it so.
    pub(super) fn set_length(&self, bytes: u64) -> Result<(), IndexError> {
        // SAFETY: the environment is open; -1 keeps what is. No write transaction is under way on any thread: with MDBX_NOSTICKYTHREADS
        // libmdbx would take whichever there is for the caller's, and do this as a part of it. Only who changes the index (opening it,
        // then the checkpointer) makes it longer, between two changes. There may be snapshots, this thread's own among them (see
        // `MdbxIndex::allocate`): the largest size stays as it is, so nothing is mapped anew, and while there are any the file only grows.
        let code = unsafe { ffi::mdbx_env_set_geometry(self.pointer, -1, signed(bytes), -1, -1, -1, -1) };
        self.check_change("extended", code)
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
        Ok(WriteTransaction::new(pointer, self, cursor))
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        // SAFETY: all transactions are over, or were given up and are not used again: each holds or borrows the environment.
        unsafe { ffi::mdbx_env_close_ex(self.pointer, false) };
        // Who opens it next may find a full disk. If it is full already, that one is told.
        let _ = locks::keep_space(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_waited_for_as_space_is() {
        for code in [libc::ENOSPC, libc::EDQUOT, ffi::MDBX_MAP_FULL] {
            assert!(matches!(error("written", code), IndexError::Full(_)), "{code}");
        }
        assert!(matches!(error("written", libc::ENOMEM), IndexError::Shortage(_)));
        assert!(matches!(error("written", libc::EIO), IndexError::System { .. }));
    }

    #[test]
    fn what_to_do_about_a_network_file_system_is_said() {
        // As libmdbx calls it: see MDBX_EREMOTE in mdbx.h.
        let said = check_opened(libc::EREMOTEIO).unwrap_err().to_string();
        assert_eq!(
            said,
            "the index cannot be opened: it lies on a network file system: copy the store to a local disk first"
        );
        let read = error("read", libc::EREMOTEIO).to_string();
        assert!(!read.contains("network"), "{read}");
    }
}
