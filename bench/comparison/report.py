"""The report in Markdown. A figure is the median of the rounds without errors; rounds with errors are listed below the tables."""

from statistics import median

from .load import disk_block, failed

NONE = "–"


def markdown(measurements, disk, notes, machine):
    keys = sorted({(each["size"], each["operation"]) for each in measurements}, key=lambda key: (key[0], key[1] != "PUT"))
    lines = [
        "| block | request | ours /s | nginx /s | ours : nginx | ours p50 / p99 ms | nginx p50 / p99 ms "
        "| ours CPU µs | nginx CPU µs | ours MiB | nginx MiB | wrk busy, ours / nginx |",
        "| ---: | --- | " + " | ".join(["---:"] * 10) + " |",
    ]
    for size, operation in keys:
        ours, nginx = (of_server(measurements, size, operation, server) for server in ("ours", "nginx"))
        rate, latency = "requests_per_second", "latency_us"
        lines.append(row(
            f"{size:,}", operation, figure(ours, rate), figure(nginx, rate), ratio(middle(ours, rate), middle(nginx, rate)),
            f"{figure(ours, latency, 'p50')} / {figure(ours, latency, 'p99')}",
            f"{figure(nginx, latency, 'p50')} / {figure(nginx, latency, 'p99')}",
            figure(ours, "cpu_us_per_request"), figure(nginx, "cpu_us_per_request"),
            figure(ours, "memory_bytes"), figure(nginx, "memory_bytes"),
            f"{figure(ours, 'client_busy')} / {figure(nginx, 'client_busy')}"))
    if disk:
        lines += disk_table(measurements, disk)
    notes = notes + [error_note(each) for each in measurements if failed(each)]
    if notes:
        lines += [""] + [f"- {note}" for note in notes]
    return "\n".join(lines + ["", machine_line(machine)])


def disk_table(measurements, disk):
    lines = [
        "",
        "| block | fio sequential /s | fio random /s | our PUT : sequential | our PUT : random "
        "| meanwhile 4 KiB sequential /s | 4 KiB random /s |",
        "| " + " | ".join(["---:"] * 7) + " |",
    ]
    for size in sorted({each["size"] for each in disk}):
        of_size, of_4k = ([median(each["iops"] for each in disk if (each["size"], each["block"], each["pattern"]) == key)
                           for key in ((size, block, "write"), (size, block, "randwrite"))] for block in (disk_block(size), 4096))
        ours = middle(of_server(measurements, size, "PUT", "ours"), "requests_per_second")
        lines.append(row(f"{size:,}", *(f"{iops:,.0f}" for iops in of_size), *(ratio(ours, iops) for iops in of_size),
                         *(f"{iops:,.0f}" for iops in of_4k)))
    return lines


def of_server(measurements, size, operation, server):
    return [each for each in measurements
            if (each["size"], each["operation"], each["server"]) == (size, operation, server) and not failed(each)]


def middle(rounds, name, part=None):
    return median(each[name][part] if part else each[name] for each in rounds) if rounds else None


def figure(rounds, name, part=None):
    value = middle(rounds, name, part)
    if value is None:
        return NONE
    return {"requests_per_second": lambda: f"{value:,.0f}",
            "latency_us": lambda: f"{value / 1000:.2f}",
            "cpu_us_per_request": lambda: f"{value:.1f}",
            "memory_bytes": lambda: f"{value / (1 << 20):.1f}",
            "client_busy": lambda: f"{value:.0%}"}[name]()


def ratio(ours, other):
    return f"{ours / other:.2f}" if ours and other else NONE


def row(*cells):
    return "| " + " | ".join(cells) + " |"


def error_note(measurement):
    errors = ", ".join(f"{name} {count}" for name, count in measurement["errors"].items() if count) or "no answer at all"
    return ("**errors**, not in the figures: {operation} of {size} bytes, {server}, round {round}: "
            .format(**measurement) + f"{errors} of {measurement['requests']} answers")


def machine_line(machine):
    return ("{processor}, {cores} cores, {gib:.0f} GiB; Linux {kernel}, {file_system}; buddy-blocks {buddy_blocks}, nginx {nginx}, "
            "wrk {wrk}, fio {fio}; {date}; `{command}`").format(gib=machine["memory_bytes"] / (1 << 30), **machine)


def progress(measurement):
    line = ("{size} round {round}: {operation} {server}: {requests_per_second:.0f}/s, {cpu_us_per_request:.1f} µs CPU, "
            "p99 {p99:.2f} ms").format(p99=measurement["latency_us"]["p99"] / 1000, **measurement)
    return line + (f", ERRORS {measurement['errors']}" if failed(measurement) else "")
