"""Measurements of several rounds: medians, and what to say of rounds that differ or failed. One with errors does not count."""

from statistics import median

from comparison.figures import UNSTEADY
from comparison.load import failed


class Series:
    def __init__(self, measurements):
        self.measurements = measurements

    def rounds(self, **kind):
        """Those that count, of one kind: `operation="GET", server="ours"`."""
        return [each for each in self.measurements if not failed(each) and all(each[name] == value for name, value in kind.items())]

    def middle(self, name, part=None, **kind):
        """The median of a figure; None where no round has it."""
        values = [each[name][part] if part else each[name] for each in self.rounds(**kind)]
        values = [value for value in values if value is not None]
        return median(values) if values else None

    def most(self, name, part=None, **kind):
        values = [each[name][part] if part else each[name] for each in self.rounds(**kind)]
        return max((value for value in values if value is not None), default=None)

    def kinds(self, *names):
        """The different values of these, in the order in which they were measured."""
        return list(dict.fromkeys(tuple(each[name] for name in names) for each in self.measurements))

    def notes(self, *names):
        """`names` are what tells one kind of measurement from another."""
        found = []
        for kind in self.kinds(*names):
            rates = [each["requests_per_second"] for each in self.rounds(**dict(zip(names, kind)))]
            if rates and max(rates) > UNSTEADY * min(rates):
                found.append(f"**Unsteady**: {described(zip(names, kind))}: {min(rates):,.0f} to {max(rates):,.0f}/s")
        return found + [error_note(each, names) for each in self.measurements if failed(each)]


def error_note(measurement, names):
    errors = ", ".join(f"{name} {count}" for name, count in measurement["errors"].items() if count) or "no answer at all"
    kind = described((name, measurement[name]) for name in names)
    return f"**errors**, not in the figures: {kind}, round {measurement['round']}: {errors}, of {measurement['requests']} answers"


def described(kind):
    """`kind` are names and values; a number says little without its name."""
    return ", ".join(f"{name} {value:,}" if isinstance(value, int) else value for name, value in kind)


def in_turns(things, number_of_round):
    """Who comes later finds the machine as the others left it: they take turns at that."""
    turn = number_of_round % len(things)
    return things[turn:] + things[:turn]


def progress(measurement, *names):
    """A line about it, for who waits."""
    line = (f"round {measurement['round']}: {described((name, measurement[name]) for name in names)}: "
            f"{measurement['requests_per_second']:,.0f}/s")
    if measurement.get("cpu_us_per_request") is not None:
        line += f", {measurement['cpu_us_per_request']:.1f} µs CPU"
    return line + (f", ERRORS {measurement['errors']}" if failed(measurement) else "")
