"""Markdown: tables, figures as they stand in them, and the line that says on what they were measured."""

NONE = "–"
TEXT_COLUMNS = ("request", "test", "server", "what")  # the others hold numbers
PROGRAMS = {"nginx": "nginx", "redis": "Redis", "fio": "fio", "wrk": "wrk", "openssl": "OpenSSL",
            "perf": "perf"}


def table(*heads):
    return [row(*heads), row(*("---" if head in TEXT_COLUMNS else "---:" for head in heads))]


def row(*cells):
    return "| " + " | ".join(cells) + " |"


def number(value, digits=0):
    return NONE if value is None else f"{value:,.{digits}f}"


def ms(us):
    return NONE if us is None else f"{us / 1000:.2f}"


def mebibytes(value):
    return NONE if value is None else f"{value / (1 << 20):,.1f}"


def percent(value, digits=0):
    return NONE if value is None else f"{value:.{digits}%}"


def ratio(ours, other):
    return f"{ours / other:.2f}" if ours and other else NONE


def machine_line(machine):
    """The machine, and the versions of what was used on it."""
    programs = "".join(f", {label} {machine[name]}" for name, label in PROGRAMS.items() if name in machine)
    return ("{date}, {processor}, {cores} cores, {gib:.0f} GiB; Linux {kernel}, {file_system}, TCP {congestion_control}; buddy-blocks "
            "{buddy_blocks} ({commit}){programs}.").format(gib=machine["memory_bytes"] / (1 << 30), programs=programs, **machine)
