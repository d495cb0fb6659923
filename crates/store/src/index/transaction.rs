//! Read and write transactions of libmdbx behind safe types.
//!
//! What the C interface asks of its callers, and how it is kept: a transaction does not outlive its environment (it holds an
//! `Arc` or a borrow of it); bytes it returns are valid until the transaction changes or ends (they borrow it); a write
//! transaction stays on its thread (it is not `Send`); read transactions may move between threads, because the environment
//! is opened with `MDBX_NOSTICKYTHREADS`, but not be shared (`!Sync`).

use super::IndexError;
use super::environment::{Environment, Table, check, error};
use signet_mdbx_sys as ffi;
use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::Arc;

fn value(bytes: &[u8]) -> ffi::MDBX_val {
    ffi::MDBX_val { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

fn empty_value() -> ffi::MDBX_val {
    ffi::MDBX_val { iov_base: ptr::null_mut(), iov_len: 0 }
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
    live: bool,
    /// For [`ReadTransaction::seek`].
    cursor: Cursor,
    // Dropped last: closing the environment frees what cursor and transaction lie in.
    _environment: Arc<Environment>,
}

// SAFETY: with MDBX_NOSTICKYTHREADS a read transaction may be used from any thread, one at a time; it is not `Sync`.
unsafe impl Send for ReadTransaction {}

impl ReadTransaction {
    /// Of a transaction that was begun. It gives its snapshot up.
    pub(super) fn new(pointer: *mut ffi::MDBX_txn, environment: Arc<Environment>, cursor: Cursor) -> ReadTransaction {
        let mut transaction = ReadTransaction { pointer, live: true, cursor, _environment: environment };
        transaction.reset();
        transaction
    }

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

    fn stat(&self, table: Table) -> Result<ffi::MDBX_stat, IndexError> {
        // SAFETY: a struct of integers, for which zero is a value.
        let mut stat: ffi::MDBX_stat = unsafe { std::mem::zeroed() };
        // SAFETY: the transaction is alive; `stat` has the size that is passed.
        let code = unsafe { ffi::mdbx_dbi_stat(self.pointer, table.0, &raw mut stat, size_of::<ffi::MDBX_stat>()) };
        check("read", code).map(|()| stat)
    }

    /// Rows of a table. Needs a snapshot.
    pub(super) fn table_rows(&self, table: Table) -> Result<u64, IndexError> {
        Ok(self.stat(table)?.ms_entries)
    }

    /// Bytes of the pages of a table. Needs a snapshot.
    pub(super) fn table_bytes(&self, table: Table) -> Result<u64, IndexError> {
        let stat = self.stat(table)?;
        let pages = stat.ms_branch_pages.saturating_add(stat.ms_leaf_pages).saturating_add(stat.ms_overflow_pages);
        Ok(pages.saturating_mul(u64::from(stat.ms_psize)))
    }

    /// Ends the transaction so that the tables that it opened stay open.
    pub(super) fn commit(mut self) -> Result<(), IndexError> {
        let pointer = std::mem::replace(&mut self.pointer, ptr::null_mut());
        self.live = false;
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

    /// The value of `key`, or the rows on both sides of its place: one way down the tree for both.
    pub(super) fn seek(&self, table: Table, key: &[u8]) -> Result<Sought<'_>, IndexError> {
        if !self.live {
            return Err(error("read", libc::EINVAL));
        }
        self.cursor.bind(self.pointer, table)?;
        // SAFETY: the cursor is bound; the transaction is live, and the result borrows it, so it cannot be reset or dropped meanwhile.
        let after = match unsafe { self.cursor.step(Some(key), ffi::MDBX_SET_RANGE) }? {
            Some((found, row)) if found == key => return Ok(Sought::Found(row)),
            after => after,
        };
        let back = if after.is_some() { ffi::MDBX_PREV } else { ffi::MDBX_LAST };
        // SAFETY: as above.
        let before = unsafe { self.cursor.step(None, back) }?;
        Ok(Sought::Absent { before, after })
    }

    /// Calls `each` with every row of a table, in the order of keys, until it says false.
    pub(super) fn for_each(
        &self,
        table: Table,
        each: impl FnMut(&[u8], &[u8]) -> Result<bool, IndexError>,
    ) -> Result<(), IndexError> {
        let cursor = self.cursor_of(table)?;
        // SAFETY: the cursor is bound; the snapshot is not given up while `self` is borrowed.
        let first = unsafe { cursor.step(None, ffi::MDBX_FIRST) }?;
        walk(&cursor, first, each)
    }

    /// The same, beginning with the last row at or before the place of `key` for which `is_before` holds, or with the first.
    pub(super) fn for_each_behind(
        &self,
        table: Table,
        key: &[u8],
        is_before: impl Fn(&[u8], &[u8]) -> bool,
        each: impl FnMut(&[u8], &[u8]) -> Result<bool, IndexError>,
    ) -> Result<(), IndexError> {
        let cursor = self.cursor_of(table)?;
        // SAFETY: the cursor is bound; the snapshot is not given up while `self` is borrowed. So it is for the steps that follow.
        let mut row = unsafe { cursor.step(Some(key), ffi::MDBX_SET_RANGE) }?;
        if row.is_none() {
            // SAFETY: as above.
            row = unsafe { cursor.step(None, ffi::MDBX_LAST) }?;
        }
        while row.is_some_and(|(key, row)| !is_before(key, row)) {
            // SAFETY: as above.
            row = unsafe { cursor.step(None, ffi::MDBX_PREV) }?;
        }
        if row.is_none() {
            // SAFETY: as above.
            row = unsafe { cursor.step(None, ffi::MDBX_FIRST) }?;
        }
        walk(&cursor, row, each)
    }

    /// A cursor of its own.
    fn cursor_of(&self, table: Table) -> Result<Cursor, IndexError> {
        if !self.live {
            return Err(error("read", libc::EINVAL));
        }
        let cursor = Cursor::create()?;
        cursor.bind(self.pointer, table)?;
        Ok(cursor)
    }
}

/// Calls `each` with the row at which `cursor` is, and with those behind it, until it says false.
fn walk(
    cursor: &Cursor,
    first: Option<KeyAndValue<'_>>,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<bool, IndexError>,
) -> Result<(), IndexError> {
    let mut row = first;
    while let Some((key, value)) = row {
        if !each(key, value)? {
            break;
        }
        // SAFETY: the row before is alive, so its snapshot is, in which the cursor is.
        row = unsafe { cursor.step(None, ffi::MDBX_NEXT) }?;
    }
    Ok(())
}

impl Drop for ReadTransaction {
    fn drop(&mut self) {
        // Aborting does nothing where the environment has failed for good: the cursor would stay in a transaction whose memory goes with
        // the environment. Giving the snapshot up takes it out, always.
        self.reset();
        if !self.pointer.is_null() {
            // SAFETY: the transaction is not used again. Where this does nothing its own memory, which nothing else refers to, is lost.
            unsafe { ffi::mdbx_txn_abort(self.pointer) };
        }
    }
}

/// A place in a table. It stays near what was sought last, so that what lies beside it is found without a search from the root.
pub(super) struct Cursor(*mut ffi::MDBX_cursor);

impl Cursor {
    /// One that is nowhere.
    pub(super) fn create() -> Result<Cursor, IndexError> {
        // SAFETY: takes any context; the result is ours alone, or null where there is no memory.
        let cursor = unsafe { ffi::mdbx_cursor_create(ptr::null_mut()) };
        if cursor.is_null() { Err(error("read", libc::ENOMEM)) } else { Ok(Cursor(cursor)) }
    }

    /// Makes it one of a table, as a transaction that is alive sees it; nothing where it is that already. When the transaction ends or
    /// gives its snapshot up, libmdbx takes it out of it.
    fn bind(&self, transaction: *mut ffi::MDBX_txn, table: Table) -> Result<(), IndexError> {
        // SAFETY: both are alive; the cursor is in no other transaction, since it belongs to one of ours.
        check("read", unsafe { ffi::mdbx_cursor_bind(transaction, self.0, table.0) })
    }

    /// The value of `key`.
    ///
    /// # Safety
    ///
    /// As for [`Cursor::step`].
    unsafe fn get<'a>(&self, key: &[u8]) -> Result<Option<&'a [u8]>, IndexError> {
        // SAFETY: by this function's contract.
        Ok(unsafe { self.step(Some(key), ffi::MDBX_SET) }?.map(|(_, row)| row))
    }

    /// Sets the value of `key`, in the write transaction that it is bound to.
    fn put(&self, key: &[u8], row: &[u8]) -> Result<(), IndexError> {
        let (key, mut row) = (value(key), value(row));
        // SAFETY: the cursor is bound; without MDBX_RESERVE libmdbx only reads key and row.
        check("written", unsafe { ffi::mdbx_cursor_put(self.0, &raw const key, &raw mut row, ffi::MDBX_UPSERT) })
    }

    /// Moves as `operation` says, which may take `key`; the row there, if there is one.
    ///
    /// # Safety
    ///
    /// It must be bound ([`Cursor::bind`]) to a transaction that is alive, and that stays so, unchanged, as long as the result is used.
    unsafe fn step<'a>(
        &self,
        key: Option<&[u8]>,
        operation: ffi::MDBX_cursor_op,
    ) -> Result<Option<KeyAndValue<'a>>, IndexError> {
        let (mut key, mut row) = (key.map_or_else(empty_value, value), empty_value());
        // SAFETY: the cursor is bound to a transaction that is alive, by this function's contract; key and row receive addresses in the
        // snapshot.
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
        // SAFETY: it is not used again, and in no transaction, or in the one that it belongs to: of those that read, none when they are
        // dropped; one that writes has its memory as long as its environment is open, which it borrows.
        unsafe { ffi::mdbx_cursor_close(self.0) };
    }
}

/// The write transaction. Given up when dropped.
pub(super) struct WriteTransaction<'a> {
    /// Null once committed. A raw pointer, so the transaction cannot leave its thread, as libmdbx asks.
    pointer: *mut ffi::MDBX_txn,
    environment: &'a Environment,
    /// For what is read and written in the order of its keys.
    cursor: Cursor,
}

impl WriteTransaction<'_> {
    /// Of a transaction that was begun.
    pub(super) fn new(pointer: *mut ffi::MDBX_txn, environment: &Environment, cursor: Cursor) -> WriteTransaction<'_> {
        WriteTransaction { pointer, environment, cursor }
    }

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

    /// The value of `key`, which lies near the one that was asked for or set before.
    pub(super) fn get_near(&self, table: Table, key: &[u8]) -> Result<Option<&[u8]>, IndexError> {
        self.cursor.bind(self.pointer, table)?;
        // SAFETY: the cursor is bound; the transaction is alive, and the result borrows it, so it cannot be changed or ended meanwhile.
        unsafe { self.cursor.get(key) }
    }

    /// Sets the value of `key`, which lies near the one that was asked for or set before.
    pub(super) fn put_near(&mut self, table: Table, key: &[u8], row: &[u8]) -> Result<(), IndexError> {
        self.cursor.bind(self.pointer, table)?;
        self.cursor.put(key, row)
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
        self.environment.check_change("written", unsafe { ffi::mdbx_txn_commit_ex(pointer, ptr::null_mut()) })
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
