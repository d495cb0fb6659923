"""GET of blocks that were stored and never read, beside nginx.

Our writes go past the page cache: the first GET of a block reads the disk. What nginx wrote is still in the page cache. Ours forgets what a
round has read before the next; the generator draws with replacement, and the kernel's count says how much did come from the disk."""

import os

from comparison import command, system
from comparison.markdown import NONE, ms, number, percent, ratio, row, table

from . import reads
from .run import INDEX_BYTES_A_NAME, OVERHEAD_BYTES, RESERVE_BYTES
from .series import Series, in_turns, progress

NAME = "get-after-put"
TITLE = "GET after PUT"
TOOLS = ("nginx",)
OPTIONS = ("fresh_sizes", "fresh_gib", "fresh_seconds", "rounds", "connections", "workers")
ROOM_OPTION = "--fresh-gib"
SERVERS = ("ours", "nginx")
BLOCKS_MAX = 200_000  # a file each in nginx
MEMORY_SHARE = 4  # nginx's files must stay in the page cache: they take at most one part in this many of the memory


def add_options(add):
    add("--fresh-sizes", type=command.numbers(16, 524_288), default=[4096, 65536, 524288],
        help="get-after-put: of blocks, in bytes [4096,65536,524288]")
    add("--fresh-gib", type=command.number(1, 1024), default=4, help="get-after-put: GiB stored of each size in each server, at most [4]")
    add("--fresh-seconds", type=command.number(1, 60), default=1, help="get-after-put: length of a measurement: the longer, the more "
        "blocks are drawn again [1]")


def blocks_of(options, size):
    room = min(options.fresh_gib << 30, system.memory_bytes() // MEMORY_SHARE)
    return min(room // on_disk_bytes(size), BLOCKS_MAX)


def on_disk_bytes(size):
    """What it takes at most in either server."""
    return max(4096, 1 << (size - 1).bit_length())


def room_bytes(options):
    return max(room_of(options, size) for size in options.fresh_sizes)


def room_of(options, size):
    return 2 * blocks_of(options, size) * (on_disk_bytes(size) + INDEX_BYTES_A_NAME) + OVERHEAD_BYTES


def measure(run):
    measurements = []
    for size in run.options.fresh_sizes:
        blocks, purpose = blocks_of(run.options, size), f"fresh-{size}"
        # What earlier sizes have stored stays if there is room: nginx is slow at new files for minutes after others were deleted.
        if system.free_bytes(run.directory) < room_of(run.options, size) + RESERVE_BYTES:
            for earlier in run.options.fresh_sizes:
                run.remove(f"fresh-{earlier}")
        for name in SERVERS:
            run.say(f"storing {blocks:,} blocks of {size:,} bytes in {name}")
            with server_of(run, name, purpose, size) as server:
                run.generator.fill(server, size, blocks, run.path(f"{name}.names"))
        for number_of_round in range(1, run.options.rounds + 1):
            for name in in_turns(SERVERS, number_of_round):
                measured = measure_get(run, name, size, purpose)
                measurements.append({"round": number_of_round, "size": size, "server": name, "blocks": blocks, **measured})
                run.say(progress(measurements[-1], "size", "server"))
    return {"measurements": measurements, "connections": run.options.connections}


def server_of(run, name, purpose, size):
    return run.ours(purpose) if name == "ours" else run.nginx(purpose, size)


def measure_get(run, name, size, purpose):
    os.sync()
    with server_of(run, name, purpose, size) as server:
        if name == "ours":
            reads.drop_cache(run.data_file(purpose))
        return reads.measure(run, server, size, run.path(f"{name}.names"), run.options.fresh_seconds, warm_up=0)


def section(result):
    series = Series(result["measurements"])
    text = (f"GET over {result['connections']} connections of blocks that were stored and not read since. From the disk: bytes that the "
            "server had read (`read_bytes` of `/proc/PID/io`) by bytes that it sent.")
    lines = table("block", "blocks", "ours /s", "nginx /s", "ours : nginx", "p50 / p99 ms: ours", "nginx", "CPU µs: ours", "nginx",
                  "from the disk: ours", "nginx", "client CPU µs, busy: ours", "nginx")
    for size, blocks in series.kinds("size", "blocks"):
        kinds = [{"size": size, "server": name} for name in SERVERS]
        ours, nginx = (series.middle("requests_per_second", **kind) for kind in kinds)
        latencies = [[ms(series.middle("latency_us", part, **kind)) for part in ("p50", "p99")] for kind in kinds]
        lines.append(row(number(size), number(blocks), number(ours), number(nginx), ratio(ours, nginx),
                         *(NONE if NONE in each else " / ".join(each) for each in latencies),
                         *(number(series.middle("cpu_us_per_request", **kind), 1) for kind in kinds),
                         *(percent(series.middle("cold", **kind)) for kind in kinds),
                         *(f"{number(series.middle('client_cpu_us_per_request', **kind), 1)}, "
                           f"{percent(series.middle('client_busy', **kind))}" for kind in kinds)))
    return "\n\n".join([text, "\n".join(lines)]), series.notes("size", "server")
