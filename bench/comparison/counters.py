"""What the kernel counts, from /proc (proc(5)): the processor time, memory and transfers of processes, of threads, of the disk."""

import os

from . import Failure

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
SECTOR_BYTES = 512  # in /proc/diskstats, whatever the device has


def stat_fields(pid):
    """/proc/PID/stat from its third field on: state, parent …"""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def cpu_seconds(pids):
    """Of all threads, in user mode and in the kernel on their behalf, since their start."""
    ticks = 0
    for pid in pids:
        try:
            state, *others = stat_fields(pid)
        except OSError:
            state, others = "X", []
        if state in "ZX":
            raise Failure("the server has ended while it was measured")
        ticks += int(others[10]) + int(others[11])
    return ticks / TICKS_PER_SECOND


def memory_bytes(pids):
    """Of their own: not what the page cache holds, and not what is mapped from files. Those that have ended have none."""
    return sum(own_memory_bytes(pid) for pid in pids)


def own_memory_bytes(pid):
    try:
        lines = named_values(f"/proc/{pid}/status")
    except OSError:
        return 0
    return sum(int(lines[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem") if name in lines)


def transferred_bytes(pid):
    """What it had read from and written to storage. Reads count when they go to the disk, buffered writes when a page becomes dirty."""
    counted = named_values(f"/proc/{pid}/io")
    return {"read": int(counted["read_bytes"]), "written": int(counted["write_bytes"])}


def thread_seconds(pid):
    """Processor time of each thread, finer than in ticks: {id: (name, seconds)}. What a thread has used that has ended is nowhere."""
    found = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{thread}/comm", encoding="utf-8") as file:
                name = file.read().strip()
            with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="utf-8") as file:
                found[int(thread)] = (name, int(file.read().split()[0]) / 1e9)
        except OSError:
            pass  # It has ended since.
    return found


def thread_seconds_since(pid, before):
    """What each thread that there is now has used since: (name, seconds), in the order of names."""
    now = thread_seconds(pid).items()
    return sorted((name, seconds - before.get(thread, (name, 0))[1]) for thread, (name, seconds) in now)


def machine_seconds():
    """Of all processors since the start: idle (waiting for the disk is idle, too), stolen (the machine is a virtual one and its host
    did not let it run), and altogether."""
    with open("/proc/stat", encoding="utf-8") as file:
        ticks = [int(field) for field in file.readline().split()[1:9]]  # What guests use is in what users use.
    return {"idle": (ticks[3] + ticks[4]) / TICKS_PER_SECOND, "stolen": ticks[7] / TICKS_PER_SECOND, "all": sum(ticks) / TICKS_PER_SECOND}


def machine_shares(before, after):
    """What part of the time between two `machine_seconds` was idle, and stolen; None where no time has passed."""
    passed = after["all"] - before["all"]
    return {name: (after[name] - before[name]) / passed if passed else None for name in ("idle", "stolen")}


def device_of(path):
    """The block device below a file, as /proc/diskstats calls it; None where there is none, or not one."""
    device = os.stat(path).st_dev
    link = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
    return os.path.basename(os.path.realpath(link)) if os.path.exists(link) else None


def device_written_bytes(device):
    """By whomever; None where there is no such device."""
    with open("/proc/diskstats", encoding="utf-8") as file:
        for line in file:
            columns = line.split()
            if columns[2] == device:
                return int(columns[9]) * SECTOR_BYTES
    return None


def named_values(path):
    """A file of lines `name: value`."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return {name.strip(): value.strip() for name, colon, value in (line.partition(":") for line in file) if colon}
