//! CPU and memory of processes, from `/proc` (proc(5)).

use rustix::process::{Pid, test_kill_process};
use std::fs;

/// States of a process that has ended.
const ENDED: [char; 2] = ['Z', 'X'];

/// What a process has used, in user mode and in the kernel on its behalf, all its threads since it started; `None` where it has ended,
/// even if its parent does not know it yet (a zombie).
pub(crate) fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(cpu_ticks(&stat)? as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// `utime` and `stime` of a process that has not ended. The name of the process, in brackets, may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    if fields.starts_with(ENDED) {
        return None;
    }
    let mut fields = fields.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Memory of its own: not what the page cache holds, and not what is mapped from files. `None` where the process is gone.
pub(crate) fn memory_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    own_kib(&status).map(|kib| kib * 1024)
}

fn own_kib(status: &str) -> Option<u64> {
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some(field("RssAnon")? + field("RssShmem")?)
}

/// Whether there is such a process, and it has not ended.
pub(crate) fn exists(pid: u32) -> bool {
    let is_known = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let is_known = is_known.is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH));
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    is_known && !stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with(ENDED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_whatever_the_name() {
        let stat = "42 (a) b ( 1 2) S 1 42 42 0 -1 4194560 1 2 3 4 150 50 7 8 20 0 3 0 5 6 7";
        assert_eq!(cpu_ticks(stat), Some(200));
        assert_eq!(cpu_ticks("42 (short) S 1"), None);
        assert_eq!(cpu_ticks(&stat.replace(" S 1", " Z 1")), None);
        let status = "Name:\tx\nVmRSS:\t  999 kB\nRssAnon:\t  100 kB\nRssFile:\t   7 kB\nRssShmem:\t   20 kB\n";
        assert_eq!(own_kib(status), Some(120));
        assert_eq!(own_kib("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn this_process_is_there() {
        let pid = std::process::id();
        assert!(exists(pid) && cpu_seconds(pid).is_some() && memory_bytes(pid).unwrap() > 0);
        assert!(!exists(u32::MAX) && cpu_seconds(u32::MAX).is_none());
    }

    #[test]
    fn a_zombie_has_ended() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while exists(pid) {
            assert!(std::time::Instant::now() < deadline, "it is still there");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!((cpu_seconds(pid), memory_bytes(pid)), (None, None));
        assert!(child.wait().unwrap().success());
    }
}
