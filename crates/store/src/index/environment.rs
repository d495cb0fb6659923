//! libmdbx behind safe types: an environment, tables, read and write transactions. Nothing here knows what the bytes mean.
//!
//! What the C interface asks of its callers, and how it is kept: a transaction does not outlive its environment (it holds an
//! `Arc` or a borrow of it); bytes it returns are valid until the transaction changes or ends (they borrow it); a write
//! transaction stays on its thread (it is not `Send`); read transactions may move between threads, because the environment
//! is opened with `MDBX_NOSTICKYTHREADS`, but not be shared (`!Sync`).

use super::{IndexError, IndexSizes};
use signet_mdbx_sys as ffi;
use std::ffi::{CStr, CString, c_int, c_void};
use std::fs::File;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

/// Dirty pages that a write transaction keeps in memory before it writes some out: 32 MiB. Larger is slower and takes more memory.
const DIRTY_PAGES_MAX: u64 = 8192;
/// The file grows in steps of this many bytes.
const GROWTH_STEP_BYTES: isize = 16 << 20;
const INDEX_PAGE_BYTES: isize = 4096;

/// A meta page begins with its flags at 10, its number at 16, and a magic number with the version of libmdbx's format at 20.
const META_HEAD_BYTES: usize = 28;
const META_PAGES: u32 = 3;
const META_PAGE_FLAG: u16 = 8;
const META_PAGE_MAGIC: u64 = 0x5965_9dbd_ef4c_1103;
/// Read transactions at a time: one a worker, of which there are up to 1024, and a few more.
const READERS_MAX: u64 = 1100;

/// Size limits: 1 TiB where the address space has it, else as much as it has.
const SIZE_MAX_BYTES: isize = 1 << 40;
const SIZE_MAX_BYTES_LEAST: isize = 1 << 30;

/// An open libmdbx environment: one file of named tables.
pub(super) struct Environment {
    pointer: *mut ffi::MDBX_env,
    size_max_bytes: u64,
}

// SAFETY: libmdbx environments may be used from any thread, at the same time.
unsafe impl Send for Environment {}
// SAFETY: as above.
unsafe impl Sync for Environment {}

/// A named table of an environment.
#[derive(Clone, Copy)]
pub(super) struct Table(ffi::MDBX_dbi);

/// The error that libmdbx means by `code`.
fn error(action: &'static str, code: c_int) -> IndexError {
    // SAFETY: takes any code; returns a static, terminated text, or null where the code is the system's.
    let text = unsafe { ffi::mdbx_liberr2str(code) };
    let reason = if text.is_null() {
        std::io::Error::from_raw_os_error(code).to_string()
    } else {
        // SAFETY: not null, so a static, terminated text.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    match code {
        ffi::MDBX_MAP_FULL | ffi::MDBX_UNABLE_EXTEND_MAPSIZE | libc::ENOSPC | libc::EDQUOT => IndexError::Full(reason),
        ffi::MDBX_CORRUPTED
        | ffi::MDBX_PAGE_NOTFOUND
        | ffi::MDBX_INVALID
        | ffi::MDBX_VERSION_MISMATCH
        | ffi::MDBX_WANNA_RECOVERY => IndexError::Damaged(reason),
        _ => IndexError::System { action, reason },
    }
}

fn check(action: &'static str, code: c_int) -> Result<(), IndexError> {
    if code == 0 { Ok(()) } else { Err(error(action, code)) }
}

fn value(bytes: &[u8]) -> ffi::MDBX_val {
    ffi::MDBX_val { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

fn empty_value() -> ffi::MDBX_val {
    ffi::MDBX_val { iov_base: ptr::null_mut(), iov_len: 0 }
}

impl Environment {
    /// Opens the file at `path`, for this process alone, with room for `tables` named tables. `read_only`: it must exist and is
    /// not changed; otherwise it is created where it is missing.
    pub(super) fn open(path: &Path, tables: u64, read_only: bool) -> Result<Environment, IndexError> {
        if read_only {
            refuse_damaged_meta_pages(path)?;
        }
        let mut size_max_bytes = SIZE_MAX_BYTES;
        loop {
            match Environment::open_sized(path, tables, read_only, size_max_bytes) {
                // No room for the mapping in the address space (or its `ulimit -v`).
                Err((libc::ENOMEM | ffi::MDBX_TOO_LARGE, _)) if size_max_bytes > SIZE_MAX_BYTES_LEAST => {
                    size_max_bytes /= 2;
                }
                Err((_, error)) => return Err(error),
                Ok(environment) => {
                    if size_max_bytes < SIZE_MAX_BYTES {
                        tracing::warn!(
                            index_max_bytes = size_max_bytes,
                            "the address space is too small for an index of 1 TiB: it can grow to less"
                        );
                    }
                    return Ok(environment);
                }
            }
        }
    }

    fn open_sized(
        path: &Path,
        tables: u64,
        read_only: bool,
        size_max_bytes: isize,
    ) -> Result<Environment, (c_int, IndexError)> {
        let fail = |code| (code, error("opened", code));
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| fail(libc::EINVAL))?;
        let mut pointer = ptr::null_mut();
        // SAFETY: `pointer` receives the new environment.
        let code = unsafe { ffi::mdbx_env_create(&raw mut pointer) };
        if code != 0 {
            return Err(fail(code));
        }
        // From here on `Drop` closes it.
        let environment = Environment { pointer, size_max_bytes: size_max_bytes.unsigned_abs() as u64 };
        // SAFETY: the environment was created and not opened yet, as these two ask.
        let code = unsafe { ffi::mdbx_env_set_option(pointer, ffi::MDBX_opt_max_db, tables) };
        if code != 0 {
            return Err(fail(code));
        }
        // SAFETY: as above.
        let code = unsafe { ffi::mdbx_env_set_option(pointer, ffi::MDBX_opt_max_readers, READERS_MAX) };
        if code != 0 {
            return Err(fail(code));
        }
        if !read_only {
            // SAFETY: as above; -1 keeps the default or the present value, 0 never shrinks.
            let code = unsafe {
                ffi::mdbx_env_set_geometry(pointer, -1, -1, size_max_bytes, GROWTH_STEP_BYTES, 0, INDEX_PAGE_BYTES)
            };
            if code != 0 {
                return Err(fail(code));
            }
        }
        // Exclusive use needs the right to write; a reader relies on the locks of the files beside the index.
        let access = if read_only { ffi::MDBX_RDONLY } else { ffi::MDBX_EXCLUSIVE };
        let flags =
            access | ffi::MDBX_NOSUBDIR | ffi::MDBX_NORDAHEAD | ffi::MDBX_NOSTICKYTHREADS | ffi::MDBX_VALIDATION;
        // SAFETY: the path is a terminated string; the environment is ours alone.
        let code = unsafe { ffi::mdbx_env_open(pointer, path.as_ptr(), flags, 0o640) };
        if code != 0 {
            return Err(fail(code));
        }
        if !read_only {
            // SAFETY: the environment is open; the option may be set at any time.
            let code = unsafe { ffi::mdbx_env_set_option(pointer, ffi::MDBX_opt_txn_dp_limit, DIRTY_PAGES_MAX) };
            if code != 0 {
                return Err(fail(code));
            }
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
        let bytes = isize::try_from(bytes.min(self.size_max_bytes)).unwrap_or(isize::MAX);
        // SAFETY: the environment is open, no transaction of this thread is under way; -1 keeps what is.
        let code = unsafe { ffi::mdbx_env_set_geometry(self.pointer, -1, bytes, -1, -1, -1, -1) };
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
        let pointer = self.begin(ffi::MDBX_TXN_RDONLY)?;
        let mut transaction = ReadTransaction { pointer, _environment: Arc::clone(self), live: true };
        transaction.reset();
        Ok(transaction)
    }

    /// Begins the one write transaction there can be; waits while another is under way.
    pub(super) fn writer(&self) -> Result<WriteTransaction<'_>, IndexError> {
        let pointer = self.begin(ffi::MDBX_TXN_READWRITE)?;
        Ok(WriteTransaction { pointer, _environment: PhantomData })
    }
}

/// libmdbx begins with three meta pages, of which the newest whole one counts. Where one is damaged it writes it anew; opened
/// read-only it cannot, and follows a null pointer instead: such a file is refused before.
fn refuse_damaged_meta_pages(path: &Path) -> Result<(), IndexError> {
    let file = File::open(path).map_err(|error| IndexError::System { action: "opened", reason: error.to_string() })?;
    for number in 0..META_PAGES {
        let mut page = [0; META_HEAD_BYTES];
        let read = file.read_exact_at(&mut page, u64::from(number) * INDEX_PAGE_BYTES.unsigned_abs() as u64);
        let whole = page.get(10..12) == Some(&META_PAGE_FLAG.to_le_bytes())
            && page.get(16..20) == Some(&number.to_le_bytes())
            && page.get(20..) == Some(&META_PAGE_MAGIC.to_le_bytes());
        if read.is_err() || !whole {
            return Err(IndexError::Damaged(format!("meta page {number} is not whole (serving the store mends one)")));
        }
    }
    Ok(())
}

impl Drop for Environment {
    fn drop(&mut self) {
        // SAFETY: all transactions are over: each holds or borrows the environment.
        unsafe { ffi::mdbx_env_close_ex(self.pointer, false) };
    }
}

/// Looks `key` up.
///
/// # Safety
///
/// `transaction` must be alive, and the result must not be used after it changes or ends.
unsafe fn get<'a>(transaction: *mut ffi::MDBX_txn, table: Table, key: &[u8]) -> Result<Option<&'a [u8]>, IndexError> {
    let key = value(key);
    let mut found = empty_value();
    // SAFETY: the transaction is alive, by this function's contract; key and result are valid for the call.
    let code = unsafe { ffi::mdbx_get(transaction, table.0, &raw const key, &raw mut found) };
    if code == ffi::MDBX_NOTFOUND {
        return Ok(None);
    }
    check("read", code)?;
    // SAFETY: the bytes are in the transaction's snapshot, which outlives their use by this function's contract.
    Ok(Some(unsafe { bytes(found) }))
}

/// The bytes that a value points to.
///
/// # Safety
///
/// The transaction that filled `value` must be alive and unchanged as long as the result is used.
unsafe fn bytes<'a>(value: ffi::MDBX_val) -> &'a [u8] {
    if value.iov_len == 0 {
        return &[];
    }
    // SAFETY: libmdbx returned this address and length; they stay valid by this function's contract.
    unsafe { std::slice::from_raw_parts(value.iov_base.cast::<c_void>().cast(), value.iov_len) }
}

/// Key and value of a row.
type KeyAndValue<'a> = (&'a [u8], &'a [u8]);

/// What a search has found.
pub(super) enum Sought<'a> {
    /// The value of the key.
    Found(&'a [u8]),
    /// No such key: the rows on both sides of its place.
    Absent { before: Option<KeyAndValue<'a>>, after: Option<KeyAndValue<'a>> },
}

/// A read transaction, with or without a snapshot.
pub(super) struct ReadTransaction {
    pointer: *mut ffi::MDBX_txn,
    _environment: Arc<Environment>,
    live: bool,
}

// SAFETY: with MDBX_NOSTICKYTHREADS a read transaction may be used from any thread, one at a time; it is not `Sync`.
unsafe impl Send for ReadTransaction {}

impl ReadTransaction {
    /// Takes a snapshot of what was committed last.
    pub(super) fn renew(&mut self) -> Result<(), IndexError> {
        self.reset();
        // SAFETY: the transaction was reset, as renewing asks.
        check("read", unsafe { ffi::mdbx_txn_renew(self.pointer) })?;
        self.live = true;
        Ok(())
    }

    /// Gives the snapshot up.
    pub(super) fn reset(&mut self) {
        if std::mem::take(&mut self.live) {
            // SAFETY: the transaction is a live read transaction; no bytes of it are borrowed, since this borrows it mutably.
            unsafe { ffi::mdbx_txn_reset(self.pointer) };
        }
    }

    /// True while it holds a snapshot.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    /// Opens a table that exists. Needs a snapshot.
    pub(super) fn table(&self, name: &CStr) -> Result<Table, IndexError> {
        let mut table = 0;
        // SAFETY: the transaction is alive; the name is a terminated string.
        let code = unsafe { ffi::mdbx_dbi_open(self.pointer, name.as_ptr(), ffi::MDBX_DB_DEFAULTS, &raw mut table) };
        if code == ffi::MDBX_NOTFOUND {
            return Err(IndexError::Damaged(format!("table {} is missing", name.to_string_lossy())));
        }
        check("opened", code)?;
        Ok(Table(table))
    }

    /// Bytes of the pages of a table. Needs a snapshot.
    pub(super) fn table_bytes(&self, table: Table) -> Result<u64, IndexError> {
        // SAFETY: a struct of integers, for which zero is a value.
        let mut stat: ffi::MDBX_stat = unsafe { std::mem::zeroed() };
        // SAFETY: the transaction is alive; `stat` has the size that is passed.
        let code = unsafe { ffi::mdbx_dbi_stat(self.pointer, table.0, &raw mut stat, size_of::<ffi::MDBX_stat>()) };
        check("read", code)?;
        let pages = stat.ms_branch_pages.saturating_add(stat.ms_leaf_pages).saturating_add(stat.ms_overflow_pages);
        Ok(pages.saturating_mul(u64::from(stat.ms_psize)))
    }

    /// Ends the transaction so that the tables that it opened stay open.
    pub(super) fn commit(mut self) -> Result<(), IndexError> {
        let pointer = std::mem::replace(&mut self.pointer, ptr::null_mut());
        // SAFETY: the transaction is alive, and not used again whatever the outcome.
        check("read", unsafe { ffi::mdbx_txn_commit_ex(pointer, ptr::null_mut()) })
    }

    /// The value of `key`.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, IndexError> {
        if !self.live {
            return Err(error("read", libc::EINVAL));
        }
        // SAFETY: the transaction is live; the result borrows it, so it cannot be reset or dropped meanwhile.
        unsafe { get(self.pointer, table, key) }
    }

    /// The value of `key`, or the rows on both sides of its place.
    pub(super) fn seek(&self, table: Table, key: &[u8]) -> Result<Sought<'_>, IndexError> {
        if let Some(row) = self.get(table, key)? {
            return Ok(Sought::Found(row));
        }
        let cursor = Cursor::open(self.pointer, table)?;
        // SAFETY: the transaction is live; the result borrows it, so it cannot be reset or dropped meanwhile.
        let after = unsafe { cursor.step(Some(key), ffi::MDBX_SET_RANGE) }?;
        let back = if after.is_some() { ffi::MDBX_PREV } else { ffi::MDBX_LAST };
        // SAFETY: as above.
        let before = unsafe { cursor.step(None, back) }?;
        Ok(Sought::Absent { before, after })
    }

    /// Calls `each` with every row of a table in the order of keys, from the first key not below `from` on, until it says false.
    pub(super) fn for_each(
        &self,
        table: Table,
        from: Option<&[u8]>,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<bool, IndexError>,
    ) -> Result<(), IndexError> {
        if !self.live {
            return Err(error("read", libc::EINVAL));
        }
        let cursor = Cursor::open(self.pointer, table)?;
        let mut step = if from.is_some() { ffi::MDBX_SET_RANGE } else { ffi::MDBX_FIRST };
        // SAFETY: the snapshot is not given up while `self` is borrowed.
        while let Some((key, row)) = unsafe { cursor.step(from, step) }? {
            if !each(key, row)? {
                break;
            }
            step = ffi::MDBX_NEXT;
        }
        Ok(())
    }
}

impl Drop for ReadTransaction {
    fn drop(&mut self) {
        if !self.pointer.is_null() {
            // SAFETY: aborting ends a read transaction in any state; it is not used again.
            unsafe { ffi::mdbx_txn_abort(self.pointer) };
        }
    }
}

struct Cursor(*mut ffi::MDBX_cursor);

impl Cursor {
    fn open(transaction: *mut ffi::MDBX_txn, table: Table) -> Result<Cursor, IndexError> {
        let mut cursor = ptr::null_mut();
        // SAFETY: the caller's transaction is alive; `cursor` receives the new cursor.
        check("read", unsafe { ffi::mdbx_cursor_open(transaction, table.0, &raw mut cursor) })?;
        Ok(Cursor(cursor))
    }

    /// Moves as `operation` says, which may take `key`; the row there, if there is one.
    ///
    /// # Safety
    ///
    /// The transaction must be alive and unchanged as long as the result is used.
    unsafe fn step<'a>(
        &self,
        key: Option<&[u8]>,
        operation: ffi::MDBX_cursor_op,
    ) -> Result<Option<KeyAndValue<'a>>, IndexError> {
        let (mut key, mut row) = (key.map_or_else(empty_value, value), empty_value());
        // SAFETY: cursor and transaction are alive; key and row receive addresses in the snapshot.
        let code = unsafe { ffi::mdbx_cursor_get(self.0, &raw mut key, &raw mut row, operation) };
        if code == ffi::MDBX_NOTFOUND {
            return Ok(None);
        }
        check("read", code)?;
        // SAFETY: the bytes are in the transaction's snapshot, which outlives their use by this function's contract.
        Ok(Some((unsafe { bytes(key) }, unsafe { bytes(row) })))
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        // SAFETY: the cursor is open and not used again.
        unsafe { ffi::mdbx_cursor_close(self.0) };
    }
}

/// The write transaction. Given up when dropped.
pub(super) struct WriteTransaction<'a> {
    /// Null once committed. A raw pointer, so the transaction cannot leave its thread, as libmdbx asks.
    pointer: *mut ffi::MDBX_txn,
    _environment: PhantomData<&'a Environment>,
}

impl WriteTransaction<'_> {
    /// Opens a table, creating it where it is missing.
    pub(super) fn table(&mut self, name: &CStr) -> Result<Table, IndexError> {
        let mut table = 0;
        // SAFETY: the transaction is alive; the name is a terminated string.
        let code = unsafe { ffi::mdbx_dbi_open(self.pointer, name.as_ptr(), ffi::MDBX_CREATE, &raw mut table) };
        check("opened", code)?;
        Ok(Table(table))
    }

    /// The value of `key`.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, IndexError> {
        // SAFETY: the transaction is alive; the result borrows it, so it cannot be changed or ended meanwhile.
        unsafe { get(self.pointer, table, key) }
    }

    /// Sets the value of `key`.
    pub(super) fn put(&mut self, table: Table, key: &[u8], row: &[u8]) -> Result<(), IndexError> {
        let (key, mut row) = (value(key), value(row));
        // SAFETY: the transaction is alive; without MDBX_RESERVE libmdbx only reads key and row.
        let code = unsafe { ffi::mdbx_put(self.pointer, table.0, &raw const key, &raw mut row, ffi::MDBX_UPSERT) };
        check("written", code)
    }

    /// Removes `key`, if it is there.
    pub(super) fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), IndexError> {
        let key = value(key);
        // SAFETY: the transaction is alive; libmdbx only reads the key.
        let code = unsafe { ffi::mdbx_del(self.pointer, table.0, &raw const key, ptr::null()) };
        if code == ffi::MDBX_NOTFOUND { Ok(()) } else { check("written", code) }
    }

    /// Makes the change durable and visible.
    pub(super) fn commit(mut self) -> Result<(), IndexError> {
        let pointer = std::mem::replace(&mut self.pointer, ptr::null_mut());
        // SAFETY: the transaction is alive, and not used again whatever the outcome.
        check("written", unsafe { ffi::mdbx_txn_commit_ex(pointer, ptr::null_mut()) })
    }
}

impl Drop for WriteTransaction<'_> {
    fn drop(&mut self) {
        if !self.pointer.is_null() {
            // SAFETY: the transaction is alive and not used again.
            unsafe { ffi::mdbx_txn_abort(self.pointer) };
        }
    }
}
