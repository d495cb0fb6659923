//! The time as `Date` says it, made once a second.

use std::cell::RefCell;
use std::time::SystemTime;

/// The time as a worker's replies say it.
#[derive(Default)]
pub(crate) struct Date(RefCell<Made>);

#[derive(Default)]
struct Made {
    /// Since 1970; 0: none was made yet.
    second: u64,
    text: String,
}

impl Date {
    /// Works on the date as `Date` says it.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&str) -> T) -> T {
        let now = SystemTime::now();
        let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut made = self.0.borrow_mut();
        if made.second != second {
            *made = Made { second, text: httpdate::fmt_http_date(now) };
        }
        work(&made.text)
    }
}
