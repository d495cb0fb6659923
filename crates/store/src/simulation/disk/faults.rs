//! Faults that are planned, and the operations that they strike.

use super::Disk;
use super::contents::PAGE;
use std::ops::Range;
use std::time::Duration;

/// A fault that strikes one operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// It fails; its bytes may be there in part, and may stay.
    Error(i32),
    /// It does only the first half, in whole pages.
    Short,
    /// It takes so much longer.
    Slow(Duration),
    /// It fails half of that time after it has begun, when a flush loses what is not on the medium, and says so when the rest has passed.
    LateError(Duration, i32),
}

impl Fault {
    /// How much longer the operation takes.
    pub(super) fn delay(self) -> Duration {
        match self {
            Fault::Slow(longer) | Fault::LateError(longer, _) => longer,
            Fault::Error(_) | Fault::Short => Duration::ZERO,
        }
    }

    /// Its error.
    pub(super) fn code(self) -> Option<i32> {
        match self {
            Fault::Error(code) | Fault::LateError(_, code) => Some(code),
            Fault::Short | Fault::Slow(_) => None,
        }
    }
}

/// Which operations count for fault injection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Read,
    Write,
    Preallocate,
    Flush,
}

/// A fault to come.
#[derive(Clone)]
pub(crate) struct PlannedFault {
    pub(crate) file: usize,
    pub(crate) kind: Kind,
    /// Strikes when this many more operations of the kind have begun.
    pub(crate) after: u64,
    pub(crate) fault: Fault,
}

impl Disk {
    /// From now on the page at `offset` cannot be read, until it is written again.
    pub(crate) fn make_unreadable(&self, file: usize, offset: u64) {
        self.inner.unreadable.borrow_mut().insert((file, offset / PAGE as u64));
    }

    /// True where any page of the range cannot be read.
    pub(super) fn is_unreadable(&self, file: usize, bytes: &Range<u64>) -> bool {
        self.inner.unreadable.borrow().range(pages(file, bytes)).next().is_some()
    }

    /// What is written gets another place on the medium.
    pub(super) fn make_readable(&self, file: usize, bytes: &Range<u64>) {
        let pages = pages(file, bytes);
        self.inner.unreadable.borrow_mut().retain(|page| !pages.contains(page));
    }

    /// The fault that strikes an operation, if one does.
    pub(super) fn strike(&self, file: usize, kind: Kind) -> Option<Fault> {
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
}

/// The pages of a range of a file.
fn pages(file: usize, bytes: &Range<u64>) -> Range<(usize, u64)> {
    (file, bytes.start / PAGE as u64)..(file, bytes.end.div_ceil(PAGE as u64))
}
