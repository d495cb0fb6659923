//! How much memory this process may use: that of the machine, or less where it runs in a control group that has a limit, as services
//! and containers do.

use std::fs;
use std::path::Path;

/// Bytes of memory.
#[must_use]
pub fn bytes() -> u64 {
    let information = rustix::system::sysinfo();
    let machine = information.totalram.saturating_mul(u64::from(information.mem_unit));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    machine.min(limit_of_group(Path::new("/sys/fs/cgroup"), &groups))
}

/// The smallest limit of the group that `groups` names (`/proc/self/cgroup`) and those it lies in, below `root`: version 2 of control
/// groups, see cgroups(7).
fn limit_of_group(root: &Path, groups: &str) -> u64 {
    let Some(group) = groups.lines().find_map(|line| line.strip_prefix("0::/")) else { return u64::MAX };
    let limit = |group: &Path| fs::read_to_string(root.join(group).join("memory.max")).ok()?.trim().parse().ok();
    Path::new(group).ancestors().filter_map(limit).min().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let slice = root.join("system.slice");
        fs::create_dir_all(slice.join("buddy.service")).unwrap();
        let limit = |groups| limit_of_group(root, groups);
        assert_eq!(limit("0::/system.slice/buddy.service\n"), u64::MAX, "no limits");
        fs::write(slice.join("buddy.service/memory.max"), "max\n").unwrap();
        assert_eq!(limit("0::/system.slice/buddy.service\n"), u64::MAX);
        fs::write(slice.join("memory.max"), "67108864\n").unwrap();
        assert_eq!(limit("0::/system.slice/buddy.service\n"), 64 << 20);
        assert_eq!(limit("1:memory:/x\n0::/system.slice/buddy.service\n"), 64 << 20);
        fs::write(root.join("memory.max"), "33554432\n").unwrap();
        assert_eq!(limit("0::/\n"), 32 << 20, "the root of a container");
        assert_eq!(limit("1:memory:/x\n"), u64::MAX, "version 1 only");
    }

    #[test]
    fn this_machine_has_some() {
        assert!(bytes() > 1 << 20);
    }
}
