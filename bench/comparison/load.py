"""What is done to the servers: `buddy-blocks bench` for HTTP, `redis-benchmark` for Redis."""

import contextlib
import csv
import io
import json
import os
import time

from . import Failure, counters, process

WARM_UP_SECONDS = 1
LOST = "lost process"  # the error of a round in which the server has ended
KEYS_OF_REDIS_MAX = 1_000_000
CALIBRATION_REQUESTS = 20_000
DELETING_SECONDS_MAX = 3600
NGINX_PATH = "/{shard:2}/{name}"


def blocks_to_read(size):
    """10,000 of 4 KiB, 2,000 of 64 KiB, 500 of 512 KiB."""
    return max(500, min(10_000, 131_072_000 // size))


class Generator:
    """`buddy-blocks bench`. What it stores or reads, and how the paths look, depends on the server alone."""

    def __init__(self, binary, connections):
        self.binary, self.connections = binary, connections

    def run(self, server, *arguments, every_second=lambda: None):
        output = process.run(self.command(server, *arguments), every_second, accepted=(0, 1))
        report, said = report_and_rest(output)
        if report is None or said:
            # It could not measure, or not write the names, and says why.
            raise Failure(f"{server.name}: {(said or 'the generator said nothing').splitlines()[0]}")
        return report

    def command(self, server, *arguments):
        command = [self.binary, "bench", "--target", f"http://127.0.0.1:{server.port}", "--json", *map(str, arguments)]
        if server.name == "nginx":
            command += ["--path", NGINX_PATH]
        for pid in server.processes():
            command += ["--pid", str(pid)]
        return command

    def store_blocks(self, server, size, names):
        """Stores what is to be read, writes the names to a file, and reads for a while with every byte compared."""
        store = ("--op", "get", "--size", size, "--blocks", blocks_to_read(size), "--save-names", names)
        result = self.run(server, *store, "--verify", "--connections", 16, "--warm-up", 0, "--seconds", 1)
        if result["failed"]:
            raise Failure(f"{server.name}: {result['errors']['first']}")

    def fill(self, server, size, blocks, names, every_second=lambda: None):
        """Stores so many blocks, of one size or a mix, and writes their names to a file. Hardly any of them is read."""
        result = self.run(server, "--op", "get", "--size", size, "--blocks", blocks, "--save-names", names,
                          "--connections", self.connections, "--warm-up", 0, "--seconds", 0.001, every_second=every_second)
        if result["failed"]:
            raise Failure(f"{server.name}: {result['errors']['first']}")

    def delete(self, server, names, all_there=True):
        """Deletes all blocks whose names are in a file. Not `all_there`: some may not have been stored."""
        result = self.run(server, "--op", "delete", "--names", names, "--connections", self.connections, "--warm-up", 0,
                          "--seconds", DELETING_SECONDS_MAX)
        absent = 0 if all_there else result["errors"]["status"].get("404", 0)
        if result["failed"] > absent:
            raise Failure(f"{server.name}: {result['errors']['first']}")

    def measure(self, server, operation, size, seconds, names=None, connections=None, warm_up=WARM_UP_SECONDS, more=(), stored_before=0):
        """`more`: further arguments. `stored_before`: how many blocks there were; a PUT that adds less than was answered is an error."""
        arguments = ["--op", operation.lower(), "--size", size, "--connections", connections or self.connections,
                     "--warm-up", warm_up, "--seconds", seconds, *more]
        if names:
            arguments += ["--names", names]
        before = counters.machine_seconds()
        with counted_checkpoints(server, operation) as checkpoints:
            result = self.run(server, *arguments)
        machine = counters.machine_shares(before, counters.machine_seconds())
        used = result["server"]
        return {**figures(result), **machine, **checkpoints, "errors": errors(result, used, server, operation, size, stored_before)}


def report_and_rest(output):
    """The report in what `buddy-blocks bench --json` prints, None where there is none; and what else it says."""
    at = output.find("{")
    try:
        report, end = json.JSONDecoder().raw_decode(output[at:])
    except ValueError:
        return None, output.strip()
    return report, (output[:at] + output[at + end:]).strip()


@contextlib.contextmanager
def counted_checkpoints(server, operation):
    """How many ours makes within the `with`, where blocks are stored: {"checkpoints": number}, which is filled in at its end."""
    counted = {}
    if server.name != "ours" or operation != "PUT":
        yield counted
        return
    before = server.stats()["checkpoints"]
    yield counted
    try:
        counted["checkpoints"] = server.stats()["checkpoints"] - before
    except Failure:
        counted["checkpoints"] = None  # The server is gone, as the round says by itself.


def figures(result):
    """What is of use of a report of `buddy-blocks bench`."""
    used = result["server"]
    return {"requests": result["requests"],
            "requests_per_second": result["requests_per_second"],
            "latency_us": result["latency_us"],
            "cpu_us_per_request": used["cpu_us_per_request"],
            "memory_bytes": used["memory_bytes"],
            "client_cpu_us_per_request": result["generator"]["cpu_us_per_request"],
            "client_busy": result["generator"]["busy"]}


def said_errors(result, used):
    """Counts by kind, of what was answered otherwise than with a success, and of what was not answered."""
    found = {**{f"status {status}": count for status, count in result["errors"]["status"].items()}, **result["errors"]["kinds"]}
    if used["busy"] is None:
        found[LOST] = 1
    return found


def errors(result, used, server, operation, size, stored_before):
    """The same, and answers that promise what is not there, whatever their status."""
    found = said_errors(result, used)
    if operation == "PUT":
        promised = result["stored"]  # What the warm-up has stored is there, too.
        try:
            there = server.stored() - stored_before
        except Failure:
            return {**found, LOST: 1}
    else:
        promised, there = result["requests"], round(result["bytes_per_second"] * result["seconds"] / size)
    if there < promised:
        found["missing"] = promised - there
    return found


def measure_redis(program, server, size, seconds, connections, keys):
    """SET of random keys: as many as take about `seconds`, which a short run before tells."""
    def run(requests):
        command = [program, "-h", "127.0.0.1", "-p", str(server.port), "-c", str(connections), "-n", str(requests),
                   "-d", str(size), "-r", str(keys), "-t", "set", "--csv"]
        output = process.run(command, lambda: memory.append(counters.memory_bytes([server.process.pid])))
        row = next(csv.DictReader(io.StringIO(output[output.index('"test"'):])))
        return {name: float(value) for name, value in row.items() if name != "test"}

    memory = []
    requests = max(CALIBRATION_REQUESTS, round(run(CALIBRATION_REQUESTS)["rps"] * seconds))
    before, began = counters.cpu_seconds([server.process.pid]), time.monotonic()
    client_before, machine_before, appended_before = children_cpu_seconds(), counters.machine_seconds(), server.appended_bytes()
    row = run(requests)
    machine = counters.machine_shares(machine_before, counters.machine_seconds())
    memory.append(counters.memory_bytes([server.process.pid]))
    client = children_cpu_seconds() - client_before
    missing = {} if server.appended_bytes() - appended_before >= requests * size else {"missing": requests}
    return {"requests": requests,
            "requests_per_second": row["rps"],
            "latency_us": {name: row[f"{name}_latency_ms"] * 1000 for name in ("p50", "p99", "max")},
            "cpu_us_per_request": (counters.cpu_seconds([server.process.pid]) - before) * 1e6 / requests,
            "memory_bytes": max(memory),
            "client_cpu_us_per_request": client * 1e6 / requests,
            "client_busy": client / (time.monotonic() - began),
            **machine,
            "errors": missing}


def children_cpu_seconds():
    """Of children that have ended: what it grows by while a client is the only one that ends is the client's."""
    times = os.times()
    return times.children_user + times.children_system


def unless_lost(server, measure):
    """What `measure` finds. Where it comes to nothing because the server has ended: a round that has failed."""
    try:
        return measure()
    except (Failure, OSError):
        if server.process.poll() is None:
            raise
        return {"requests": 0, "requests_per_second": 0.0, "latency_us": {"p50": 0.0}, "cpu_us_per_request": None, "errors": {LOST: 1}}


def failed(measurement):
    return measurement["requests"] == 0 or any(measurement["errors"].values())
