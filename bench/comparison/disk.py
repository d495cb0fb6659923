"""The disk by itself: direct writes of fio to a file whose blocks have all been written before, so that the file system has
nothing to add; and direct reads of a file that somebody else has written."""

import json
import os

from . import Failure, process

FILE_BYTES = 1 << 30
DEPTH = 32
ENGINES = ("io_uring", "libaio")  # the first that works
# What is measured: name, bytes, pattern, depth. The last is one write at a time, each flushed.
TESTS = (
    ("4 KiB random, depth 32", 4096, "randwrite", DEPTH),
    ("4 KiB sequential, depth 32", 4096, "write", DEPTH),
    ("512 KiB random, depth 32", 524_288, "randwrite", DEPTH),
    ("512 KiB sequential, depth 32", 524_288, "write", DEPTH),
    ("4 KiB synchronous, depth 1", 4096, "randwrite", 1),
)


class Disk:
    def __init__(self, fio, path):
        self.fio, self.path, self.engine, self.problem = fio, path, None, None
        chunk = os.urandom(1 << 20)
        with open(path, "wb") as file:
            for _ in range(FILE_BYTES // len(chunk)):
                file.write(chunk)
            os.fsync(file.fileno())
        for engine in ENGINES:
            try:
                self.write(engine, "write", 4096, DEPTH, "--io_size=4096")
                self.engine = engine
                break
            except Failure as failure:
                self.problem = str(failure)

    def measure(self, name, block, pattern, depth, seconds):
        """Writes a second, and how long the middle one took. Without a queue each write is made durable (O_DSYNC)."""
        engine, more = (self.engine, []) if depth > 1 else ("psync", ["--sync=dsync"])
        result = self.write(engine, pattern, block, depth, "--time_based", f"--runtime={seconds}", *more)
        return {"test": name, "iops": result["iops"], "bytes_per_second": result["bw_bytes"],
                "p50_us": result["clat_ns"]["percentile"]["50.000000"] / 1000}

    def write(self, engine, pattern, block, depth, *more):
        arguments = (f"--filename={self.path}", f"--size={FILE_BYTES}", f"--ioengine={engine}", f"--iodepth={depth}", f"--rw={pattern}",
                     f"--bs={block}", "--fallocate=none", *more)
        return run(self.fio, *arguments)["write"]


def random_reads(fio, path, size, depth, seconds):
    """Direct reads of 4 KiB a second from anywhere in the first `size` bytes of a file that is there, which stays as it is."""
    problem = None
    for engine in ENGINES:
        try:
            result = run(fio, f"--filename={path}", f"--size={size}", "--readonly", f"--ioengine={engine}", f"--iodepth={depth}",
                         "--rw=randread", "--bs=4096", "--time_based", f"--runtime={seconds}", "--ramp_time=1")
        except Failure as failure:
            problem = problem or failure
            continue
        cpu = (result["usr_cpu"] + result["sys_cpu"]) / 100  # of one core
        read = result["read"]
        return {"requests": read["total_ios"], "requests_per_second": read["iops"], "cpu_us_per_request": cpu * 1e6 / read["iops"],
                "latency_us": {"p50": read["clat_ns"]["percentile"]["50.000000"] / 1000}, "errors": {}}
    raise problem


def run(fio, *arguments):
    output = process.run([fio, "--name=disk", "--direct=1", "--thread", "--output-format=json", *arguments])
    report, _ = json.JSONDecoder().raw_decode(output[output.index("{"):])  # after and before it there may be warnings
    return report["jobs"][0]
