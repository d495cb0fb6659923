//! Faults that are planned, and the operations that they strike.

use super::Disk;
use std::time::Duration;

/// A fault that strikes one operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// It fails; its bytes may be on the medium in part.
    Error(i32),
    /// It does only the first half, in whole pages.
    Short,
    /// It takes so much longer.
    Slow(Duration),
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
