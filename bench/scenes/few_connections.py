"""One to eight connections on one worker and on two: whether a second worker helps where there are few connections to share.

On few cores the generator takes from the workers what it needs itself, so a second one only shows with a request that costs the server much
and the generator little: GET of a large block that the server hashes before it sends it."""

import os

from comparison import Failure, command, counters, load
from comparison.markdown import NONE, number, percent, ratio, row, table

from .run import OVERHEAD_BYTES
from .series import Series, in_turns, progress
from .watch import Look

NAME = "few-connections"
TITLE = "Few connections"
TOOLS = ()
OPTIONS = ("few", "rounds", "seconds")
ROOM_OPTION = "--seconds"
SIZE, LARGE_SIZE = 4096, 524_288
REQUESTS = {  # operation, size of blocks, further options of the server
    "GET 4 KiB": ("GET", SIZE, ()),
    "PUT 4 KiB": ("PUT", SIZE, ()),
    "GET 512 KiB, verified": ("GET", LARGE_SIZE, ("--verify-reads", "all")),
}
WORKERS = (1, 2)
PUTS_PER_SECOND_MAX = 50_000  # a guess, for the room that is needed


def add_options(add):
    add("--few", type=command.numbers(1, 64), default=[1, 2, 4, 8], help="few-connections: how many [1,2,4,8]")


def room_bytes(options):
    stored = PUTS_PER_SECOND_MAX * (options.seconds + load.WARM_UP_SECONDS) * SIZE
    return stored + load.blocks_to_read(LARGE_SIZE) * LARGE_SIZE + 2 * OVERHEAD_BYTES


def measure(run):
    measurements = []
    with run.ours("get") as server:
        for operation, size, _ in REQUESTS.values():
            if operation == "GET":
                run.generator.store_blocks(server, size, names_of(run, size))
    for number_of_round in range(1, run.options.rounds + 1):
        for request in REQUESTS:
            for connections in run.options.few:
                for workers in in_turns(WORKERS, number_of_round):
                    measurements.append({"round": number_of_round, "request": request, "connections": connections, "workers": workers,
                                         **measure_load(run, request, connections, workers)})
                    run.say(progress(measurements[-1], "request", "connections", "workers"))
    return {"measurements": measurements}


def names_of(run, size):
    return run.path(f"names-{size}")


def measure_load(run, request, connections, workers):
    """In the middle the server is asked which worker has how many connections: one more than there are, with the one that asks."""
    os.sync()
    operation, size, more = REQUESTS[request]
    purpose, names = ("get", names_of(run, size)) if operation == "GET" else ("put", None)
    with run.ours(purpose, *more, workers=workers) as server:
        before = counters.thread_seconds(server.process.pid)
        with Look(load.WARM_UP_SECONDS + run.options.seconds / 2, server.stats) as look:
            result = load.unless_lost(server, lambda: run.generator.measure(server, operation, size, run.options.seconds, names,
                                                                            connections=connections))
        is_lost = load.LOST in result["errors"]
        threads = [] if is_lost else counters.thread_seconds_since(server.process.pid, before)
        used = [seconds for name, seconds in threads if name.startswith("worker-")]
    if purpose == "put":
        run.remove("put")
    if is_lost:
        return result
    if len(used) != workers:
        raise Failure(f"{workers} workers, but {len(used)} threads worker-…")
    busiest = max(used) / sum(used) if sum(used) else None
    shared = sorted(look.answer["worker_connections"], reverse=True) if look.answer else None
    return {**result, "busiest_worker": busiest, "worker_connections": shared}


def section(result):
    series = Series(result["measurements"])
    text = ("The busiest worker: its part of the processor time of all workers. Connections by worker: in each round, the busiest first, with "
            "the one that asked. Where the client is near 100 % of a core, it is the limit; and what it needs the workers do not have, where "
            "there is no core left for it. Verified: with `--verify-reads all` the server hashes the block before it sends it, and the client "
            "only throws it away. That request shows what a second worker adds; with 4 KiB and few cores hardly a core is left for one.")
    lines = table("request", "connections", "1 worker /s", "2 workers /s", "2 : 1", "p50 µs: 1", "2", "CPU µs: 1", "2", "busiest of 2",
                  "connections by worker", "client CPU µs", "client busy: 1", "2")
    for request, connections in series.kinds("request", "connections"):
        one, two = ({"request": request, "connections": connections, "workers": workers} for workers in WORKERS)
        both = [series.middle("requests_per_second", **kind) for kind in (one, two)]
        lines.append(row(request, number(connections), *map(number, both), ratio(both[1], both[0]),
                         *(number(series.middle("latency_us", "p50", **kind)) for kind in (one, two)),
                         *(number(series.middle("cpu_us_per_request", **kind), 1) for kind in (one, two)),
                         percent(series.middle("busiest_worker", **two)), shares(series.rounds(**two)),
                         number(series.middle("client_cpu_us_per_request", **two), 1),
                         *(percent(series.middle("client_busy", **kind)) for kind in (one, two))))
    return "\n\n".join([text, "\n".join(lines)]), series.notes("request", "connections", "workers")


def shares(rounds):
    found = ["+".join(map(str, each["worker_connections"])) for each in rounds if each["worker_connections"]]
    return ", ".join(dict.fromkeys(found)) or NONE
