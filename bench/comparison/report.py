"""The report of the comparison."""

from statistics import median

from . import markdown as text
from .disk import ALONE_4K, DEPTH, TESTS
from .figures import GET, PUT, SERVERS, UNSTEADY
from .load import failed
from .markdown import NONE, mebibytes, ms, number, percent, ratio, row, table

UNSTEADY_SHOWN = 3


def markdown(figures, notes, machine, charts):
    """`charts` are (path, title)."""
    parts = [machine_line(machine)]
    parts += [f"![{title}]({path})" for path, title in charts]
    kinds = figures.kinds()
    connections = max((kind[2] for kind in kinds), default=0)
    parts.append(f"Over {connections} connections:\n\n" + rates_table(figures, [kind for kind in kinds if kind[2] != 1]))
    parts.append(usage_table(figures, [kind for kind in kinds if kind[2] != 1]))
    if figures.disk:
        parts.append("The disk by itself, in the same rounds (fio, direct writes):\n\n" + disk_table(figures))
    parts.append("Over one connection:\n\n" + single_table(figures, [kind for kind in kinds if kind[2] == 1]))
    notes = notes + unsteady_notes(figures) + [error_note(each) for each in figures.measurements if failed(each)]
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts)


def rates_table(figures, kinds):
    lines = table("block", "request", "ours /s", "nginx /s", "Redis /s", "ours : nginx", "ours : Redis", "ours : disk",
                  "ours : disk, like for like")
    for operation, size, connections in kinds:
        ours, nginx, redis = (figures.middle(operation, size, server, connections, name="requests_per_second")
                              for server in SERVERS)
        lines.append(row(f"{size:,}", operation, number(ours), number(nginx), number(redis), ratio(ours, nginx), ratio(ours, redis),
                         *(ratio(ours, figures.disk_middle(test, "iops")) for test in disk_tests(operation, size))))
    return "\n".join(lines)


def disk_tests(operation, size):
    """What to hold beside a PUT: random writes that nobody flushes, and such as ours has to make, each durable, where the file grows into
    new space. None where there is no such test."""
    def first(**wanted):
        return next((test for test in TESTS if operation != GET and test.block == size and test.depth == DEPTH
                     and all(getattr(test, name) == value for name, value in wanted.items())), None)

    alike = first(durable=True, new=True) if operation == PUT else first(durable=True, new=False)
    return first(durable=False, pattern="randwrite"), alike


def usage_table(figures, kinds):
    lines = table("block", "request", "p50 / p99 ms: ours", "nginx", "Redis", "CPU µs: ours", "nginx", "Redis", "MiB: ours", "nginx",
                  "Redis", "client CPU µs, busy", "machine idle, stolen", "checkpoints")
    for operation, size, connections in kinds:
        kind = (operation, size)
        latency, cpu, memory = [], [], []
        for server in SERVERS:
            def middle(name, part=None):
                return figures.middle(*kind, server, connections, name=name, part=part)
            latency.append(f"{ms(middle('latency_us', 'p50'))} / {ms(middle('latency_us', 'p99'))}")
            cpu.append(number(middle("cpu_us_per_request"), 1))
            memory.append(mebibytes(middle("memory_bytes")))
        busy, client, idle, stolen = (figures.middle(*kind, "ours", connections, name=name)
                                      for name in ("client_busy", "client_cpu_us_per_request", "idle", "stolen"))
        lines.append(row(f"{size:,}", operation, *(NONE if each == f"{NONE} / {NONE}" else each for each in latency), *cpu, *memory,
                         f"{number(client, 1)}, {percent(busy)}", f"{percent(idle)}, {percent(stolen)}",
                         number(checkpoints(figures, (*kind, "ours", connections)))))
    return "\n".join(lines)


def checkpoints(figures, kind):
    """Of ours, in the middle round; None of reads, and in a file of an earlier version."""
    counted = [each["checkpoints"] for each in figures.rounds(*kind) if each.get("checkpoints") is not None]
    return median(counted) if counted else None


def disk_table(figures):
    lines = table("test", "writes /s", "MB/s", "p50 µs")
    for test in TESTS:
        rate = figures.disk_middle(test, "bytes_per_second")
        lines.append(row(test.name, number(figures.disk_middle(test, "iops")), number(rate and rate / 1e6),
                         number(figures.disk_middle(test, "p50_us"))))
    return "\n".join(lines)


def single_table(figures, kinds):
    """Latencies: a durable PUT beside a durable write of the disk, a GET beside nginx's."""
    lines = table("block", "request", "p50 µs: ours", "nginx", "ours : nginx", "one durable direct write", "ours : write")
    for operation, size, connections in kinds:
        ours, nginx = (figures.middle(operation, size, server, connections, name="latency_us", part="p50")
                       for server in ("ours", "nginx"))
        write = figures.disk_middle(ALONE_4K, "p50_us") if (operation, size) == (PUT, ALONE_4K.block) else None
        lines.append(row(f"{size:,}", operation, number(ours), number(nginx), ratio(ours, nginx), number(write), ratio(ours, write)))
    return "\n".join(lines)


def unsteady_notes(figures):
    """Where the rounds differ so much that their median says little: something else ran, or the disk was busy with something else."""
    series = [(f"the disk, {test.name}", figures.disk_values(test, "iops")) for test in TESTS]
    for operation, size, connections in figures.kinds():
        for server in SERVERS:
            name = f"{operation} of {size:,}, {server}, {connections} connection{'' if connections == 1 else 's'}"
            series.append((name, figures.values(operation, size, server, connections, name="requests_per_second")))
    found = [(max(rates) / min(rates), f"{name} ({min(rates):,.0f} to {max(rates):,.0f}/s)")
             for name, rates in series if rates and max(rates) > UNSTEADY * min(rates)]
    if not found:
        return []
    worst = [text for _, text in sorted(found, reverse=True)[:UNSTEADY_SHOWN]]
    return [f"**Unsteady**: {len(found)} of {len(series)} figures differ between rounds by more than a factor of {UNSTEADY}, so their "
            f"medians say little: something else used the processors or the disk. The worst: {'; '.join(worst)}"]


def error_note(measurement):
    errors = ", ".join(f"{name} {count}" for name, count in measurement["errors"].items() if count) or "no answer at all"
    return ("**errors**, not in the figures: {operation} of {size} bytes, {server}, {connections} connections, round {round}: "
            .format(**measurement) + f"{errors}, of {measurement['requests']} answers")


def machine_line(machine):
    return ("{line} Medians of {rounds} round{plural} of {seconds} s; `{command}`."
            ).format(line=text.machine_line(machine), plural="" if machine["rounds"] == 1 else "s", **machine)


def progress(measurement):
    line = ("round {round}: {operation} of {size}, {server}, {connections} connections: {requests_per_second:.0f}/s, p50 {p50:.0f} µs, "
            "{cpu} µs CPU").format(p50=measurement["latency_us"]["p50"], cpu=number(measurement["cpu_us_per_request"], 1), **measurement)
    return line + (f", ERRORS {measurement['errors']}" if failed(measurement) else "")
