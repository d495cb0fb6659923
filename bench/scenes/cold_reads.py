"""GET of blocks that are not in the page cache, beside direct reads of the same data file.

Once more over twice the connections: where that is hardly faster, it is not waiting that limits the rate.

The cache forgets the file before each measurement. The generator draws with replacement, so a few blocks are drawn for the third time
and come from the cache: the kernel's count of what the server had read from the disk says how many, and only the others are compared with the disk's."""

import os
from statistics import median

from comparison import command, disk
from comparison.markdown import ms, number, percent, ratio, row, table

from . import reads
from .names import LINE_BYTES
from .run import INDEX_BYTES_A_NAME, OVERHEAD_BYTES
from .series import Series, in_turns, progress

NAME = "cold-reads"
TITLE = "Cold reads"
TOOLS = ("fio",)
ROOM_OPTION = "--gib"
OPTIONS = ("gib", "rounds", "seconds", "connections", "workers")
SIZE = 4096
DEPTH = 64
FIO = "fio"


def add_options(add):
    add("--gib", type=command.number(1, 4096), default=8, help="cold-reads: GiB of blocks of 4 KiB that are stored [8]")


def room_bytes(options):
    names = (options.gib << 30) // SIZE
    return (options.gib << 30) + names * (INDEX_BYTES_A_NAME + LINE_BYTES) + OVERHEAD_BYTES


def measure(run):
    options = run.options
    names, blocks = run.path("names"), (options.gib << 30) // SIZE
    run.say(f"storing {blocks:,} blocks")
    with run.ours("cold") as server:
        run.generator.fill(server, SIZE, blocks, names)
        stored_bytes = server.stats()["bytes_allocated"]
    measurements, of_disk = [], []
    for number_of_round in range(1, options.rounds + 1):
        for connections in in_turns((options.connections, 2 * options.connections, FIO), number_of_round):
            os.sync()
            if connections == FIO:
                measured = disk.random_reads(run.tools["fio"], run.data_file("cold"), stored_bytes, DEPTH, options.seconds)
                of_disk.append({"round": number_of_round, "server": FIO, **measured})
                run.say(progress(of_disk[-1], "server"))
            else:
                measured = measure_ours(run, names, connections)
                measurements.append({"round": number_of_round, "connections": connections, **measured})
                run.say(progress(measurements[-1], "connections"))
    return {"blocks": blocks, "measurements": measurements, "disk": of_disk}


def measure_ours(run, names, connections):
    with run.ours("cold") as server:
        reads.drop_cache(run.data_file("cold"))
        return reads.measure(run, server, SIZE, names, run.options.seconds, warm_up=0, connections=connections)


def section(result):
    series, fio = Series(result["measurements"]), Series(result["disk"])
    of_disk = fio.middle("requests_per_second")
    lines = table("connections", "GET /s", "of them from the disk", f"fio, depth {DEPTH}, /s", "from the disk : fio", "p50 / p99 ms",
                  "server CPU µs", "client CPU µs, busy", "machine idle", "stolen", "fio CPU µs")
    for (connections,) in sorted(series.kinds("connections")):
        lines.append(connections_row(series, connections, of_disk, fio.middle("cpu_us_per_request")))
    text = (f"GET of random ones of {result['blocks']:,} blocks of 4 KiB, the page cache of the data file dropped before each round "
            "(`posix_fadvise`, `DONTNEED`); fio: random direct reads of 4 KiB of the same file while no server runs. What is drawn for the "
            "third time comes from the page cache and does not count as from the disk (`read_bytes` of `/proc/PID/io`). Stolen: the part of "
            "the time in which the host of a virtual machine kept it from running.")
    return "\n\n".join([text, "\n".join(lines)]), series.notes("connections") + fio.notes("server")


def connections_row(series, connections, of_disk, fio_cpu_us):
    def middle(*name):
        return series.middle(*name, connections=connections)

    from_disk = [each["requests_per_second"] * each["cold"] for each in series.rounds(connections=connections)]
    return row(number(connections), number(middle("requests_per_second")), percent(middle("cold")), number(of_disk),
               ratio(median(from_disk) if from_disk else None, of_disk), f"{ms(middle('latency_us', 'p50'))} / {ms(middle('latency_us', 'p99'))}",
               number(middle("cpu_us_per_request"), 1),
               f"{number(middle('client_cpu_us_per_request'), 1)}, {percent(middle('client_busy'))}",
               percent(middle("idle")), percent(middle("stolen")), number(fio_cpu_us, 1))
