"""The machine: the programs needed, what the report says about it, and how much may be written to its disk."""

import datetime
import importlib.util
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
from typing import NamedTuple

from . import Failure

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PACKAGES = {"nginx": "nginx-light", "redis-server": "redis-server", "redis-benchmark": "redis-tools", "fio": "fio", "wrk": "wrk",
            "openssl": "openssl", "perf": "linux-perf"}
VERSION_OPTIONS = {"nginx": "-v", "redis-server": "--version", "fio": "--version", "wrk": "-v", "openssl": "version", "perf": "--version"}
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])

# What PUT may write at most, far more than one thread can send. Not measured: a bound to keep the disk from filling up.
PUT_REQUESTS_PER_SECOND_MAX = 200_000
PUT_BYTES_PER_SECOND_MAX = 4 << 30
LARGE_PUT_BYTES_MAX = 16 << 30  # in one measurement, without --large-puts

FILES_DELETED = ("Files of nginx had to be deleted between measurements, after which some file systems are slow at new ones: what it stored "
                 "a second from then on says little. A larger disk gives steadier figures")


def find_tools(names, modules=()):
    """The paths of programs, some of PACKAGES, which root gets installed; and modules of Python, by their packages."""
    missing = missing_packages(names, modules)
    if missing and os.geteuid() == 0 and find("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
            if subprocess.run([find("apt-get"), *command], env=environment, stdout=2).returncode != 0:
                raise Failure(f"apt-get {' '.join(command)} failed")
        importlib.invalidate_caches()
        missing = missing_packages(names, modules)
    if missing:
        # Debian's packages are for Debian's Python.
        interpreter = f" (looked for by {sys.executable}: Debian's is /usr/bin/python3)" if modules else ""
        raise Failure(f"needs what is not installed: apt-get install --no-install-recommends {' '.join(missing)}{interpreter}")
    tools = {name: find(name) for name in names}
    if "nginx" in tools and "http_dav_module" not in printed(tools["nginx"], "-V"):
        raise Failure(f"{tools['nginx']} was built without ngx_http_dav_module: install nginx-light of Debian")
    return tools


def missing_packages(names, modules):
    programs = [PACKAGES[name] for name in names if find(name) is None]
    return programs + [f"python3-{module}" for module in modules if importlib.util.find_spec(module) is None]


def find(name):
    return shutil.which(name, path=SEARCH_PATH)


class Program(NamedTuple):
    """The server that is measured, which is the generator, too."""

    path: str
    commit: str  # what it was built of


GIVEN = "given binary, unknown commit"


def program(path):
    """The one that was given; else that of the source, built now."""
    if path:
        return Program(os.path.realpath(path), GIVEN)
    built_from = commit()  # Before: what is committed from now on may not be in it.
    return Program(build(), built_from)


def build():
    """Builds the server; returns its path."""
    if find("cargo") is None:
        raise Failure("needs cargo to build buddy-blocks (https://rustup.rs), or --binary")
    if subprocess.run([find("cargo"), "build", "--release"], cwd=REPOSITORY, stdout=2).returncode != 0:
        raise Failure("cargo build --release failed")
    target = os.environ.get("CARGO_TARGET_DIR", "target")
    return os.path.join(REPOSITORY, target, "release", "buddy-blocks")


def allow_many_files(connections, for_each=2):
    """Raises the limit of open files, for this process and those it starts, where that is needed. nginx has two a connection."""
    needed = for_each * connections + 1024
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise Failure(f"{connections} connections need {needed} open files; the limit (ulimit -Hn) is {hard}")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def put_seconds(directory, size, reserve, seconds, large):
    """How long PUTs of this size may last until they could fill half of what is free, and if not that long, why."""
    free = free_bytes(directory)
    if free < 2 * reserve:
        raise Failure(f"{directory} needs at least {2 * reserve >> 20} MiB of free space")
    room = (free - reserve) // 2
    reason = f"{room >> 30} GiB of room on the disk"
    if size > 4096 and not large and room > LARGE_PUT_BYTES_MAX:
        room, reason = LARGE_PUT_BYTES_MAX, "longer with --large-puts"
    allowed = room // put_bytes(size, 1)
    files = free_files(directory)
    if files // 2 // PUT_REQUESTS_PER_SECOND_MAX < allowed:
        allowed, reason = files // 2 // PUT_REQUESTS_PER_SECOND_MAX, f"{files} free inodes for nginx"
    return min(seconds, allowed), reason


def put_bytes(size, seconds):
    """What PUTs may take on the disk at most."""
    return seconds * min(PUT_REQUESTS_PER_SECOND_MAX * max(size, 4096), PUT_BYTES_PER_SECOND_MAX)


def make_room(directory, needed, files=0):
    """Removes what earlier PUTs stored, in put-*/SERVER, one after the other until there is room for so many bytes and files; returns
    notes about it. A file system goes on working at a deletion after it has returned, and some are slow at new files for minutes: ext4
    without a journal, where nginx, with a file for each block, is ten times slower. So what it stored stays as long as possible."""
    stored = [os.path.join(directory, name) for name in sorted(os.listdir(directory)) if name.startswith("put-")]
    of_nginx = [path for path in stored if os.path.isdir(os.path.join(path, "nginx"))]
    notes = []
    for path in [path for path in stored if path not in of_nginx] + of_nginx:
        if free_bytes(directory) >= needed and free_files(directory) >= files:
            break
        shutil.rmtree(path)
        notes = [FILES_DELETED] if path in of_nginx else notes
    return notes


def free_bytes(directory):
    file_system = os.statvfs(directory)
    return file_system.f_bavail * file_system.f_frsize


def free_files(directory):
    """How many more there may be."""
    file_system = os.statvfs(directory)
    return file_system.f_favail if file_system.f_files else sys.maxsize


def describe(tools, program, directory, command_line):
    """What the figures depend on."""
    return {
        "processor": first_match("/proc/cpuinfo", r"^model name\s*:\s*(.*)$") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": memory_bytes(),
        "kernel": platform.release().split("-")[0],
        "congestion_control": congestion_control(),
        "file_system": file_system(directory),
        "buddy_blocks": version(program.path, "--version"),
        "commit": program.commit,
        **{name.removesuffix("-server"): version(tools[name], option) for name, option in VERSION_OPTIONS.items() if name in tools},
        "date": datetime.date.today().isoformat(),
        "command": command_line.strip(),
    }


def memory_bytes():
    """Of the machine."""
    return int(first_match("/proc/meminfo", r"^MemTotal:\s*(\d+)")) * 1024


def commit():
    """Which one the source is at, where it is under git."""
    git = find("git")
    if git is None:
        return "unknown commit"
    described = printed(git, "-C", REPOSITORY, "describe", "--always", "--dirty", "--abbrev=12").strip()
    return described if re.fullmatch(r"[\w.-]+", described) else "unknown commit"


def congestion_control():
    """The system's, for TCP: what connections have unless they are told otherwise."""
    return first_match("/proc/sys/net/ipv4/tcp_congestion_control", r"^(\S+)$") or "unknown"


def file_system(directory):
    """Its type. Without a journal ext4 flushes more cheaply, and is slow at new files for minutes after others were deleted."""
    kind = printed("df", "--output=fstype", directory).split()[-1]
    device = os.stat(directory).st_dev
    block_device = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
    if kind == "ext4" and os.path.exists(block_device):
        journals = os.listdir("/proc/fs/jbd2") if os.path.isdir("/proc/fs/jbd2") else []
        if not any(journal.startswith(os.path.basename(os.path.realpath(block_device)) + "-") for journal in journals):
            return "ext4 without a journal"
    return kind


def first_match(path, pattern):
    with open(path, encoding="utf-8", errors="replace") as file:
        found = re.search(pattern, file.read(), re.MULTILINE)
    return found.group(1) if found else None


def version(program, option):
    found = re.search(r"\d+\.\d[^\s]*", printed(program, option))
    return found.group(0) if found else "unknown"


def printed(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout
