"""Where the processor's time goes: `perf` looks at every thread of the machine while one kind of request is answered, and what it sees is
sorted by who ran and what for."""

import collections
import os
import re
import threading

from comparison import Failure, load, process, system
from comparison.markdown import NONE, number, row, table

from .run import OVERHEAD_BYTES
from .series import Series, progress

NAME = "stages"
TITLE = "Where the processor's time goes"
TOOLS = ("perf",)
OPTIONS = ("seconds", "connections", "workers")
ROOM_OPTION = "--seconds"
REQUESTS = (("PUT", 4096), ("GET", 4096), ("PUT", 524_288), ("GET", 524_288))
SAMPLES_PER_SECOND = 1999  # of each processor; no divisor of the kernel's own ticks
PUT_BYTES_PER_SECOND_MAX = 2 << 30  # a guess, for the room that is needed

# Whose time it is: the first that matches the name of the thread.
OWNERS = (
    ("the generator", re.compile(r"load-|buddy-bench")),
    ("workers", re.compile(r"worker-\d")),
    ("controller", re.compile(r"controller")),
    ("checkpointer", re.compile(r"checkpointer")),
    ("kernel's threads", re.compile(r"kworker|iou-wrk|ksoftirqd|swapper")),
)
OTHERS = "others"
# What for: the first of which a function is on the stack. What is sent over loopback is received on the same stack.
STAGES = (
    ("SHA-256", re.compile(r"sha2::|sha256|hash::(hasher|pair|lanes|together)")),
    ("sockets: send", re.compile(r"^(tcp_sendmsg|io_send|io_sendmsg)")),
    ("sockets: receive", re.compile(r"^(tcp_recvmsg|io_recv)")),
    ("page cache", re.compile(r"^(filemap_|splice_|do_splice|page_cache_|__x64_sys_(sendfile64|cachestat|preadv2?))")),
    ("disk", re.compile(r"^(ext4_|xfs_|iomap_|blk_|blkdev_|bio_|submit_bio|virtblk|virtio|vring|nvme|scsi_|dd_|sync_|io_write|io_read)")),
    ("wake and sleep", re.compile(r"schedule|try_to_wake_up|__wake_up|futex|io_cqring_wait|hrtimer")),
    ("sockets: wait", re.compile(r"^(net_rx_action|process_backlog|tcp_|io_poll|io_arm_poll|io_apoll|sock_)")),
    ("io_uring", re.compile(r"^(io_|__do_sys_io_uring|__io_)")),
)
INDEX, PROGRAM, KERNEL = "index (libmdbx)", "the program itself", "kernel, other"
HALTED = re.compile(r"safe_halt|default_idle|intel_idle|acpi_idle|cpuidle")


def add_options(_):
    """It has none of its own."""


def room_bytes(options):
    return PUT_BYTES_PER_SECOND_MAX * (options.seconds + load.WARM_UP_SECONDS) + OVERHEAD_BYTES


def measure(run):
    measurements = []
    for operation, size in REQUESTS:
        names = run.path(f"{size}.names")
        if operation == "GET":
            with run.ours(f"get-{size}") as server:
                run.generator.store_blocks(server, size, names)
        measurements.append({"round": 1, "operation": operation, "size": size, **measure_one(run, operation, size, names)})
        run.say(progress(measurements[-1], "operation", "size"))
    return {"measurements": measurements, "connections": run.options.connections}


def measure_one(run, operation, size, names):
    """Samples from the middle of a load: after its warm-up, and half a second before its end."""
    os.sync()
    purpose, samples = f"{operation.lower()}-{size}", run.path("samples")
    seconds = run.options.seconds - 0.5
    recorder = Recorder(run.tools["perf"], samples, load.WARM_UP_SECONDS + 0.25, seconds)
    with run.ours(purpose) as server, recorder:
        result = run.generator.measure(server, operation, size, run.options.seconds, names if operation == "GET" else None)
    if operation == "PUT":
        run.remove(purpose)
    requests = result["requests_per_second"] * seconds
    if load.failed(result):
        return {**result, "us": {}}
    spent = sorted_samples(run.tools["perf"], samples, os.path.basename(run.binary))
    us = {owner: {stage: count * 1e6 / SAMPLES_PER_SECOND / requests for stage, count in stages.items()} for owner, stages in spent.items()}
    return {**result, "us": us}


class Recorder:
    """`perf record` of all processors, some seconds from now, within a `with`."""

    def __init__(self, perf, path, delay_s, seconds):
        self.command = [perf, "record", "--quiet", "--all-cpus", "--event", "cpu-clock", "--call-graph", "fp",
                        "--freq", str(SAMPLES_PER_SECOND), "--output", path, "--", "sleep", str(seconds)]
        self.failure, self.is_over = None, threading.Event()
        self.timer = threading.Timer(delay_s, self.record)

    def __enter__(self):
        self.timer.start()
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            self.is_over.set()
            self.timer.cancel()
        self.timer.join()
        if self.failure and kind is None:
            raise Failure(f"{self.failure} (it needs the right to look at all processors: root, or kernel.perf_event_paranoid -1)")

    def record(self):
        try:
            process.run(self.command, self.end_if_over)
        except Failure as failure:
            self.failure = failure

    def end_if_over(self):
        """Looked at every second: nobody waits for the samples any more."""
        if self.is_over.is_set():
            raise Failure("interrupted")


def sorted_samples(perf, path, program):
    """How many samples each owner has in each stage. `program`: the file name of ours."""
    found = collections.defaultdict(collections.Counter)
    text = process.run([perf, "script", "--input", path, "--fields", "comm,ip,sym,dso"])
    for sample in text.split("\n\n"):
        lines = sample.strip("\n").split("\n")
        stack = [frame for frame in map(frame_of, lines[1:]) if frame]
        if stack and not HALTED.search(stack[0][0]):
            found[owner_of(lines[0].strip())][stage_of(stack, program)] += 1
    if not found:
        raise Failure("perf saw nothing")
    return found


def frame_of(line):
    """(function, file) of `address function (file)`."""
    match = re.match(r"\s*[0-9a-f]+ (.*) \((.*)\)$", line)
    return match.groups() if match else None


def owner_of(thread):
    return next((owner for owner, pattern in OWNERS if pattern.match(thread)), OTHERS)


def stage_of(stack, program):
    for stage, pattern in STAGES:
        if any(pattern.search(function) for function, _ in stack):
            return stage
    function, file = stack[0]
    if "kernel" in file:
        return KERNEL
    # Of our program's functions only those of the library in C have names without a path.
    ours = os.path.basename(file) == program
    return INDEX if ours and "::" not in function and function != "[unknown]" else PROGRAM


def section(result):
    series, parts = Series(result["measurements"]), []
    text = (f"CPU µs a request, by sampling all processors {SAMPLES_PER_SECOND:,} times a second while {result['connections']} "
            "connections ask. Sending over loopback includes what the kernel does for the one that receives. Reads and writes of the index's file are in "
            "“disk” and “page cache”.")
    for measurement in series.rounds():
        parts.append(f"{measurement['operation']} of {measurement['size']:,} bytes, {measurement['requests_per_second']:,.0f}/s:")
        parts.append("\n".join(breakdown(measurement["us"])))
    return "\n\n".join([text, *parts]), series.notes("operation", "size")


def breakdown(us):
    owners = [owner for owner in (*(name for name, _ in OWNERS[1:]), OTHERS, OWNERS[0][0]) if sum(us.get(owner, {}).values()) >= 0.05]
    stages = [stage for stage in (*(name for name, _ in STAGES), INDEX, PROGRAM, KERNEL)
              if any(us[owner].get(stage, 0) >= 0.05 for owner in owners)]
    lines = table("what", *owners)
    for stage in stages:
        values = [us[owner].get(stage, 0) for owner in owners]
        lines.append(row(stage, *(number(value, 2) if value >= 0.005 else NONE for value in values)))
    lines.append(row("**all**", *(number(sum(us[owner].values()), 2) for owner in owners)))
    return lines
