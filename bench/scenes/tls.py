"""GET and PUT over TLS beside nginx: the same certificate, version and cipher."""

import os

from comparison import load, system
from comparison.markdown import NONE, ms, number, percent, ratio, row, table
from comparison.servers import Tls

from .run import OVERHEAD_BYTES
from .series import Series, in_turns, progress
from .wrk import Wrk

NAME = "tls"
TITLE = "TLS"
TOOLS = ("nginx", "wrk", "openssl")
OPTIONS = ("rounds", "seconds", "connections", "workers")
ROOM_OPTION = "--seconds"
SIZES = (4096, 524_288)
SERVERS = ("ours", "nginx")
WARM_UP_S = 1
PUTS_PER_SECOND_MAX = {4096: 80_000, 524_288: 2_500}  # more than one thread of wrk can send; for the room that is needed


def add_options(_):
    """It has none of its own."""


def put_bytes(options, size):
    return PUTS_PER_SECOND_MAX[size] * size * (options.seconds + WARM_UP_S)


def room_bytes(options):
    """Twice, so that files of nginx stay for a while: see `system.make_room`."""
    return 2 * max(put_bytes(options, size) for size in SIZES) + 2 * OVERHEAD_BYTES


def measure(run):
    wrk = Wrk(run)
    tls = Tls(run.path("certificate.pem"), run.path("key.pem"))
    wrk.make_certificate(tls.certificate, tls.key)
    agreed = {}
    for name in SERVERS:
        for size in SIZES:
            with server_of(run, name, "get", size, tls) as server:
                agreed[name] = wrk.agreed(server)
                run.generator.store_blocks(server, size, run.path(f"{name}-{size}.names"))
    measurements = []
    for number_of_round in range(1, run.options.rounds + 1):
        for size in SIZES:
            for operation in ("PUT", "GET"):
                for name in in_turns(SERVERS, number_of_round):
                    measured = measure_one(run, wrk, tls, operation, size, name, f"put-{len(measurements)}")
                    measurements.append({"round": number_of_round, "operation": operation, "size": size, "server": name, **measured})
                    run.say(progress(measurements[-1], "operation", "size", "server"))
    return {"measurements": measurements, "agreed": agreed, "connections": run.options.connections}


def server_of(run, name, purpose, size, tls):
    return run.ours(purpose, tls=tls) if name == "ours" else run.nginx(purpose, size, tls=tls)


def measure_one(run, wrk, tls, operation, size, name, purpose):
    """PUT goes into a new store; what is stored stays as long as there is room, see `system.make_room`."""
    names = run.path(f"{name}-{size}.names") if operation == "GET" else None
    if operation == "PUT":
        files = PUTS_PER_SECOND_MAX[size] * (run.options.seconds + WARM_UP_S) if name == "nginx" else 0
        for note in system.make_room(run.directory, put_bytes(run.options, size) + OVERHEAD_BYTES, files):
            run.note(note)
    os.sync()
    with server_of(run, name, "get" if operation == "GET" else purpose, size, tls) as server:
        def measure():
            wrk.measure(server, operation, size, WARM_UP_S, names)
            return wrk.measure(server, operation, size, run.options.seconds, names)

        return load.unless_lost(server, measure)


def section(result):
    series = Series(result["measurements"])
    agreed = " and ".join(sorted(set(result["agreed"].values())))
    text = (f"{result['connections']} connections, by wrk (one thread, unique bodies made by a script), after a second of warm-up, the "
            f"same certificate (ECDSA, P-256), {agreed} for both, no kernel TLS. GET of blocks that were read before. nginx does not "
            "flush, ours does, and hashes.")
    lines = table("block", "request", "ours /s", "nginx /s", "ours : nginx", "p50 / p99 ms: ours", "nginx", "CPU µs: ours", "nginx",
                  "MiB: ours", "nginx", "client CPU µs, busy: ours", "nginx")
    for size in SIZES:
        for operation in ("PUT", "GET"):
            kinds = [{"operation": operation, "size": size, "server": name} for name in SERVERS]
            ours, nginx = (series.middle("requests_per_second", **kind) for kind in kinds)
            latencies = [[ms(series.middle("latency_us", part, **kind)) for part in ("p50", "p99")] for kind in kinds]
            memory = [series.most("memory_bytes", **kind) for kind in kinds]
            lines.append(row(number(size), operation, number(ours), number(nginx), ratio(ours, nginx),
                             *(NONE if NONE in each else " / ".join(each) for each in latencies),
                             *(number(series.middle("cpu_us_per_request", **kind), 1) for kind in kinds),
                             *(number(each and each / (1 << 20), 1) for each in memory),
                             *(f"{number(series.middle('client_cpu_us_per_request', **kind), 1)}, "
                               f"{percent(series.middle('client_busy', **kind))}" for kind in kinds)))
    return "\n\n".join([text, "\n".join(lines)]), series.notes("operation", "size", "server")
