"""GET, and how much of it comes from the disk. The page cache of a file can be dropped without any rights."""

import os

from comparison import counters, load

from .watch import Watch


def drop_cache(path):
    """Lets the page cache forget a file: what is read next is read from the disk. Does not reach what somebody has mapped."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(run, server, size, names, seconds, **more):
    """Beside what `Generator.measure` says: bytes that the server had read from the disk by bytes that it sent; and how idle the machine
    was, and what part of its time it was kept from running, in these seconds alone."""
    pids = server.processes()

    def probe():
        return {**counters.machine_seconds(), "read": sum(counters.transferred_bytes(pid)["read"] for pid in pids)}

    def watched():
        with Watch(probe) as watch:
            result = run.generator.measure(server, "GET", size, seconds, names, **more)
        rates = watch.rates(seconds)
        sent = result["requests_per_second"] * size
        return {**result, "cold": rates["read"] / sent if sent else None, **{name: rates[name] / rates["all"] for name in ("idle", "stolen")}}

    return load.unless_lost(server, watched)
