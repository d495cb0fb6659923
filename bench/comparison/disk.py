"""The disk by itself: direct writes of fio to a file whose blocks have all been written before, so that the file system has
nothing to add; to space that was only set aside; and direct reads of a file that somebody else has written."""

import contextlib
import json
import os
from typing import NamedTuple

from . import Failure, process

FILE_BYTES = 1 << 30
NEW_FILE_BYTES = 8 << 30
DEPTH = 32
ENGINES = ("io_uring", "libaio")  # the first that works


class Test(NamedTuple):
    name: str
    block: int  # bytes
    pattern: str
    depth: int = DEPTH
    durable: bool = False  # each write is flushed (O_DSYNC)
    new: bool = False  # into space that the file system has set aside (fallocate) and nobody has written


RANDOM_4K = Test("4 KiB random, depth 32", 4096, "randwrite")
DURABLE_4K = Test("4 KiB random, depth 32, each durable", 4096, "randwrite", durable=True)
RANDOM_512K = Test("512 KiB random, depth 32", 524_288, "randwrite")
DURABLE_512K = Test("512 KiB random, depth 32, each durable", 524_288, "randwrite", durable=True)
NEW_512K = Test("512 KiB sequential, depth 32, each durable, into new space", 524_288, "write", durable=True, new=True)
ALONE_4K = Test("4 KiB random, one at a time, each durable", 4096, "randwrite", depth=1, durable=True)
TESTS = (RANDOM_4K, Test("4 KiB sequential, depth 32", 4096, "write"), DURABLE_4K, ALONE_4K,
         RANDOM_512K, Test("512 KiB sequential, depth 32", 524_288, "write"), DURABLE_512K, NEW_512K)


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
                self.write(engine, RANDOM_4K, "--io_size=4096")
                self.engine = engine
                break
            except Failure as failure:
                self.problem = str(failure)

    def measure(self, test, seconds):
        """Writes a second, and how long the middle one took."""
        # New space is written once; else it goes on in the same blocks.
        more = [f"--runtime={seconds}"] + ([] if test.new else ["--time_based"]) + (["--sync=dsync"] if test.durable else [])
        result = self.write(self.engine if test.depth > 1 else "psync", test, *more)
        return {"test": test.name, "iops": result["iops"], "bytes_per_second": result["bw_bytes"],
                "p50_us": result["clat_ns"]["percentile"]["50.000000"] / 1000}

    def write(self, engine, test, *more):
        arguments = [f"--ioengine={engine}", f"--iodepth={test.depth}", f"--rw={test.pattern}", f"--bs={test.block}", *more]
        if not test.new:
            return run(self.fio, f"--filename={self.path}", f"--size={FILE_BYTES}", "--fallocate=none", *arguments)["write"]
        path = f"{self.path}.new"
        try:
            return run(self.fio, f"--filename={path}", f"--size={NEW_FILE_BYTES}", "--fallocate=native", *arguments)["write"]
        finally:
            # Where fio came to nothing there may be none.
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)


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
    # Else each round would have the same places as the one before, which the host of a virtual disk may have in its memory.
    output = process.run([fio, "--name=disk", "--direct=1", "--thread", "--randrepeat=0", "--output-format=json", *arguments])
    report, _ = json.JSONDecoder().raw_decode(output[output.index("{"):])  # after and before it there may be warnings
    return report["jobs"][0]
