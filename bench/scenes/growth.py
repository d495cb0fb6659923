"""The same requests to a store of few names and to one of many: what grows with the names.

Rounds take turns between the two. PUT is measured while the data file grows, and, after those blocks were deleted, into the space that
they leave. Of the large store GET reads as many blocks as there are in the small one, drawn by chance from all names: what differs is the
index, not how much of the blocks the caches hold."""

import os
import time

from comparison import Failure, command, counters, process
from comparison.figures import GET, REUSING
from comparison.markdown import NONE, mebibytes, ms, number, percent, ratio, row, table

from . import names as files_of_names
from . import reads
from .run import INDEX_BYTES_A_NAME, OVERHEAD_BYTES
from .series import Series, in_turns, progress

NAME = "growth"
TITLE = "Stores that grow"
TOOLS = ()
OPTIONS = ("names", "small_names", "rounds", "seconds", "connections", "workers")
ROOM_OPTION = "--names"
SIZE = 4096
PUTS_PER_SECOND_MAX = 60_000  # a guess, for the room that is needed; the store is not let grow beyond what is free, whatever comes
REUSE_SHARE = 0.6  # PUT into free space lasts that much shorter than the one whose blocks have left it, so that it does not fill it up
OPENINGS = 3
KILLED_AFTER_S = 2
GROWING = "PUT, the file grows"
STOPPED, UNCACHED, KILLED = "orderly stop", "orderly stop, nothing cached", "SIGKILL while PUTs came"


def add_options(add):
    add("--names", type=command.number(1000, 10**9), default=10_000_000, help="growth: names in the large store [10000000]")
    add("--small-names", type=command.number(1000, 10**7), default=100_000, help="growth: names in the small store [100000]")


def room_bytes(options):
    added = PUTS_PER_SECOND_MAX * (options.seconds + 1)
    killed = OPENINGS * KILLED_AFTER_S * PUTS_PER_SECOND_MAX
    large = options.names + options.rounds * added + killed
    small = 2 * options.small_names + added + killed
    return (large + small) * (SIZE + INDEX_BYTES_A_NAME + files_of_names.LINE_BYTES) + 2 * OVERHEAD_BYTES


def measure(run):
    options = run.options
    stores = [fill(run, "small", options.small_names), fill(run, "large", options.names)]
    for store in stores:
        files_of_names.sample(run.path(f"{store['store']}.names"), options.small_names, run.path(f"{store['store']}.sample"))
        # Large files of names are no longer needed; the space is.
        os.remove(run.path(f"{store['store']}.names"))
        warm(run, store["store"])
    measurements = []
    for number_of_round in range(1, options.rounds + 1):
        for store in in_turns(("small", "large"), number_of_round):
            for measured in (measure_get(run, store), *measure_puts(run, store)):
                measurements.append({"round": number_of_round, "store": store, **measured})
                run.say(progress(measurements[-1], "store", "request"))
    openings = [{"store": store, "after": after, "seconds": seconds}
                for store in ("small", "large") for after, seconds in measure_openings(run, store)]
    return {"stores": stores, "measurements": measurements, "openings": openings, "connections": options.connections}


def fill(run, store, blocks):
    """A new store; how long it took, what it needed, and what its index holds after an orderly stop."""
    run.say(f"storing {blocks:,} blocks in the {store} store")
    memory, began = [], time.monotonic()
    with run.ours(store) as server:
        run.generator.fill(server, SIZE, blocks, run.path(f"{store}.names"),
                           every_second=lambda: memory.append(counters.memory_bytes(server.processes())))
        seconds = time.monotonic() - began
        memory.append(counters.memory_bytes(server.processes()))
    with run.ours(store) as server:
        stats = server.stats()
    if stats["blocks"] != blocks:
        raise Failure(f"{blocks:,} blocks were stored, {stats['blocks']:,} are there")
    return {"store": store, "names": blocks, "seconds": seconds, "memory_bytes": max(memory), "index_bytes": stats["index_bytes"],
            "index_used_bytes": stats["index_used_bytes"]}


def warm(run, store):
    with run.ours(store) as server:
        run.generator.measure(server, "GET", SIZE, run.options.seconds, run.path(f"{store}.sample"))


def measure_get(run, store):
    os.sync()
    with run.ours(store) as server:
        names = server.stats()["blocks"]
        return {"request": GET, "names": names, **reads.measure(run, server, SIZE, run.path(f"{store}.sample"), run.options.seconds)}


def measure_puts(run, store):
    """The large store keeps what was put, and its free space is filled up again, so that it grows in the next round, too. The small one is
    a new store each time."""
    purpose = store if store == "large" else "fresh"
    saved, seconds = run.path("put.names"), run.options.seconds
    with run.ours(purpose) as server:
        if purpose == "fresh":
            run.generator.fill(server, SIZE, run.options.small_names, run.path("fresh.names"))
        growing = measure_put(run, server, GROWING, seconds, saved)
        run.generator.delete(server, saved)
        server.settle()
        reusing = measure_put(run, server, REUSING, max(1, seconds * REUSE_SHARE), saved)
        free = server.settle()["bytes_free"] // SIZE
        if purpose == "large" and free:
            run.generator.fill(server, SIZE, free, saved)
    if purpose == "fresh":
        run.remove("fresh")
    return growing, reusing


def measure_put(run, server, request, seconds, saved):
    device, pid = counters.device_of(run.directory), server.process.pid

    def counted():
        os.sync()
        return {"device": counters.device_written_bytes(device), "process": counters.transferred_bytes(pid)["written"], **server.stats()}

    before = counted()
    result = run.generator.measure(server, "PUT", SIZE, seconds, more=("--save-names", saved), stored_before=before["blocks"])
    after = counted()
    grown = {name: None if before[name] is None else after[name] - before[name]
             for name in ("device", "process", "blocks", "file_bytes", "checkpoints")}
    puts = max(grown["blocks"], 1)  # those of the warm-up, too
    return {"request": request, "names": before["blocks"], **result, "checkpoints": grown["checkpoints"],
            "file_growth_bytes": grown["file_bytes"], "cold": None,
            "device_bytes_per_put": None if grown["device"] is None else grown["device"] / puts,
            "process_bytes_per_put": grown["process"] / puts}


def measure_openings(run, store):
    for after in (STOPPED, UNCACHED, KILLED):
        for _ in range(OPENINGS):
            with run.ours(store) as server:
                if after == KILLED:
                    kill_under_load(run, server)
            if after != KILLED and server.process.returncode != 0:
                raise Failure(f"the server stopped with {server.process.returncode}")
            if after == UNCACHED:
                for name in ("data", "index", "journal"):
                    reads.drop_cache(run.path(store, "ours", "data", name))
            with run.ours(store) as server:
                run.say(f"{store}: opening after {after}: {server.opening_seconds:.3f} s")
                yield after, server.opening_seconds


def kill_under_load(run, server):
    command_line = run.generator.command(server, "--op", "put", "--size", SIZE, "--connections", run.options.connections,
                                         "--warm-up", 0, "--seconds", 10 * KILLED_AFTER_S)
    before = server.stored()
    with open(run.path("killed.log"), "w", encoding="utf-8") as log:
        load = process.start(command_line, log)
    try:
        time.sleep(KILLED_AFTER_S)
        if load.poll() is not None or server.stored() == before:
            raise Failure(f"nothing is stored: see {run.path('killed.log')} (--keep)")
        server.kill()
    finally:
        process.stop(load)


def section(result):
    series = Series(result["measurements"])
    names = {each["store"]: each["names"] for each in result["stores"]}
    text = (f"{result['connections']} connections, blocks of 4 KiB, durable; GET of {names['small']:,} blocks, in the large store drawn by "
            "chance from all, in the page cache. Disk bytes a PUT: what the whole machine wrote to the device, with `sync` before and "
            "after, and what the process wrote (`write_bytes`). Maxima (max ms, MiB) are those of all rounds, everything else medians.")
    parts = [text, requests_table(series), ratios_table(series, names), stores_table(result["stores"]), openings_table(result, names)]
    return "\n\n".join(parts), series.notes("store", "request")


def requests_table(series):
    lines = table("names", "request", "/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "server CPU µs", "MiB", "from the disk",
                  "checkpoints", "file grew MiB", "disk bytes a PUT", "of the process")
    for store in ("small", "large"):
        for request in (GET, GROWING, REUSING):
            kind = {"store": store, "request": request}
            latencies = [series.middle("latency_us", part, **kind) for part in ("p50", "p99", "p99.9")]
            cells = [request, number(series.middle("requests_per_second", **kind)), *map(ms, latencies),
                     ms(series.most("latency_us", "max", **kind)), number(series.middle("cpu_us_per_request", **kind), 1),
                     mebibytes(series.most("memory_bytes", **kind)), percent(series.middle("cold", **kind), 1)]
            if request == GET:
                cells += [NONE] * 4
            else:
                cells += [number(series.middle("checkpoints", **kind)), mebibytes(series.middle("file_growth_bytes", **kind)),
                          number(series.middle("device_bytes_per_put", **kind)), number(series.middle("process_bytes_per_put", **kind))]
            lines.append(row(number(series.middle("names", **kind)), *cells))
    return "\n".join(lines)


def ratios_table(series, names):
    lines = table("request", f"requests a second: {names['large']:,} names : {names['small']:,}")
    for request in (GET, GROWING, REUSING):
        small, large = (series.middle("requests_per_second", store=store, request=request) for store in ("small", "large"))
        lines.append(row(request, ratio(large, small)))
    return "\n".join(lines)


def stores_table(stores):
    lines = table("names", "index bytes a name", "index MiB, allocated", "stored in s", "MiB meanwhile")
    for each in stores:
        lines.append(row(number(each["names"]), number(each["index_used_bytes"] / each["names"], 1), mebibytes(each["index_bytes"]),
                         number(each["seconds"]), mebibytes(each["memory_bytes"])))
    return "\n".join(lines)


def openings_table(result, names):
    lines = table("names", *(f"opening after {after}, s" for after in (STOPPED, UNCACHED, KILLED)))
    for store in ("small", "large"):
        cells = []
        for after in (STOPPED, UNCACHED, KILLED):
            seconds = [each["seconds"] for each in result["openings"] if (each["store"], each["after"]) == (store, after)]
            cells.append(", ".join(f"{each:.2f}" for each in sorted(seconds)))
        lines.append(row(number(names[store]), *cells))
    return "\n".join(lines)
