//! What who watches the machine is told of an idle server: nothing.

use crate::support::{Server, directory};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A group of processes (cgroup v2) of the test's own, whose waits the kernel counts by themselves. Removed when dropped, without
/// processes.
struct Group(PathBuf);

impl Group {
    fn new() -> Result<Group, String> {
        let mounts = fs::read_to_string("/proc/mounts").map_err(|error| error.to_string())?;
        let mount = |line: &str| {
            let mut fields = line.split(' ').skip(1);
            fields.next().zip(fields.next()).filter(|(_, kind)| *kind == "cgroup2").map(|(path, _)| PathBuf::from(path))
        };
        let root = mounts.lines().find_map(mount).ok_or("cgroup2 is not mounted here")?;
        let group = Group(root.join(format!("buddy-test-{}", std::process::id())));
        fs::create_dir(&group.0).map_err(|error| format!("no group of processes can be made here: {error}"))?;
        group.stalled_micros().map(|_| group)
    }

    fn add(&self, process: u32) {
        fs::write(self.0.join("cgroup.procs"), process.to_string()).unwrap();
    }

    /// Time for which some process of it waited for a disk, in microseconds.
    fn stalled_micros(&self) -> Result<u64, String> {
        let path = self.0.join("io.pressure");
        let pressure = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let total = pressure.lines().find(|line| line.starts_with("some")).and_then(|line| line.split("total=").nth(1));
        total.and_then(|total| total.parse().ok()).ok_or_else(|| format!("{}: {pressure}", path.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn kernel_can_tell() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0_u32), numbers.next().unwrap_or(0_u32)) >= (6, 15)
}

#[test]
fn an_idle_server_does_not_look_as_if_it_waited_for_the_disk() {
    let group = match Group::new() {
        Ok(group) if kernel_can_tell() => group,
        Ok(_) => return eprintln!("skipped: this kernel takes every wait of a ring for one for a disk"),
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let directory = directory();
    let server = Server::start(Path::new(&directory.path().join("store")), &[]);
    group.add(server.pid());
    let before = group.stalled_micros().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let stalled = group.stalled_micros().unwrap() - before;
    server.stop();
    assert!(stalled < 500_000, "{stalled} µs of two seconds");
}
