"""Thousands of connections that do nothing beside some that do a lot; and a server that nobody asks anything."""

import os
import time

from comparison import command, counters, load, system
from comparison.markdown import NONE, mebibytes, number, percent, ratio, row, table

from .run import OVERHEAD_BYTES
from .series import Series, in_turns, progress
from .watch import Look

NAME = "idle-connections"
TITLE = "Idle connections, and an idle server"
TOOLS = ()
OPTIONS = ("idle", "idle_seconds", "rounds", "seconds", "connections", "workers")
ROOM_OPTION = "--seconds"
SIZE = 4096
PUTS_PER_SECOND_MAX = 100_000  # a guess, for the room that is needed
LIMIT = "--max-connections"


def add_options(add):
    add("--idle", type=command.number(1, 50_000), default=10_000, help="idle-connections: connections that do nothing [10000]")
    add("--idle-seconds", type=command.number(1, 3600), default=30, help="idle-connections: how long an idle server is looked at [30]")


def room_bytes(options):
    return PUTS_PER_SECOND_MAX * (options.seconds + load.WARM_UP_SECONDS) * SIZE + 2 * OVERHEAD_BYTES


def measure(run):
    options, names = run.options, run.path("names")
    system.allow_many_files(options.idle + options.connections, for_each=1)
    idle = measure_idle(run)
    with run.ours("get") as server:
        run.generator.store_blocks(server, SIZE, names)
    measurements = []
    for number_of_round in range(1, options.rounds + 1):
        for operation in ("GET", "PUT"):
            for idle_connections in in_turns((0, options.idle), number_of_round):
                measured = measure_load(run, operation, names if operation == "GET" else None, idle_connections)
                measurements.append({"round": number_of_round, "operation": operation, "idle_connections": idle_connections, **measured})
                run.say(progress(measurements[-1], "operation", "idle_connections"))
    return {"measurements": measurements, "server": idle, "connections": options.connections, "seconds": options.idle_seconds}


def measure_load(run, operation, names, idle_connections):
    """A server over the blocks that are there, or over a new store. In the middle it is asked how many connections it has."""
    os.sync()
    purpose = "get" if operation == "GET" else "put"
    wanted = idle_connections + run.options.connections
    with run.ours(purpose, LIMIT, wanted + 64) as server:
        with Look(load.WARM_UP_SECONDS + run.options.seconds / 2, server.stats) as look:
            result = run.generator.measure(server, operation, SIZE, run.options.seconds, names, more=("--idle", idle_connections))
    if purpose == "put":
        run.remove("put")
    seen = look.answer["connections"] if look.answer else 0
    if seen < wanted:
        result["errors"]["connections that were not there"] = wanted - seen
    return result


def measure_idle(run):
    """Of a new server; and of the same after a load, when all connections are gone."""
    found, seconds = [], run.options.idle_seconds
    with run.ours("idle") as server:
        for when in ("at the start", "after a load"):
            if when != "at the start":
                run.generator.fill(server, SIZE, load.blocks_to_read(SIZE), run.path("idle.names"))
                time.sleep(1)
            before = counters.thread_seconds(server.process.pid)
            time.sleep(seconds)
            used = counters.thread_seconds_since(server.process.pid, before)
            found.append({"when": when, "cpu_seconds": sum(each for _, each in used), "seconds": seconds,
                          "memory_bytes": counters.memory_bytes(server.processes())})
            run.say("idle {when}: {cpu_seconds:.4f} s CPU in {seconds} s".format(**found[-1]))
    run.remove("idle")
    return found


def section(result):
    series = Series(result["measurements"])
    text = (f"4 KiB over {result['connections']} connections, with and without connections beside them that are open and do nothing (the "
            "server was asked whether they are there); memory is the highest RssAnon + RssShmem.")
    lines = table("request", "idle connections", "/s", "with : without", "p50 ms", "p99 ms", "server CPU µs", "client busy", "MiB")
    for operation in ("GET", "PUT"):
        rates = {}
        for _, idle in sorted(kind for kind in series.kinds("operation", "idle_connections") if kind[0] == operation):
            kind = {"operation": operation, "idle_connections": idle}
            rates[idle] = series.middle("requests_per_second", **kind)
            latency = [series.middle("latency_us", part, **kind) for part in ("p50", "p99")]
            lines.append(row(operation, number(idle), number(rates[idle]), ratio(rates[idle], rates.get(0)) if idle else NONE,
                             *(number(each and each / 1000, 2) for each in latency), number(series.middle("cpu_us_per_request", **kind), 1),
                             percent(series.middle("client_busy", **kind)), mebibytes(series.most("memory_bytes", **kind))))
    idle_lines = table("what", "CPU", "CPU s", "MiB")
    for each in result["server"]:
        idle_lines.append(row(f"no connection, {each['seconds']} s, {each['when']}", percent(each["cpu_seconds"] / each["seconds"], 4),
                              number(each["cpu_seconds"], 4), mebibytes(each["memory_bytes"])))
    return "\n\n".join([text, "\n".join(lines), "\n".join(idle_lines)]), series.notes("operation", "idle_connections")
