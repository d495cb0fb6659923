"""What the commands have in common: options, interruption, exit status."""

import argparse
import os
import signal
import sys
import threading

from . import Failure, system

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CONNECTIONS_MAX = 10_000


def run(name, work):
    """Does `work`; returns the exit status: its own, 2 where it could not measure, 130 where it was interrupted."""
    for each in SIGNALS:
        # What is ignored stays so: nohup means it.
        if signal.getsignal(each) != signal.SIG_IGN:
            signal.signal(each, interrupted)
    try:
        return work()
    except KeyboardInterrupt:
        print("interrupted; everything that was started is stopped", file=sys.stderr)
        return 130
    except (Failure, OSError) as failure:
        print(f"{name}: {failure}", file=sys.stderr)
        return 2


def interrupted(_number, _frame):
    """Leaves by the way of every `finally`; a second signal must not cut that short."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    if Whole.depth:
        Whole.is_interrupted = True
    else:
        raise KeyboardInterrupt


class Whole:
    """A `with` at whose end an interruption comes that came within it. Interrupted is the main thread; others do not notice."""

    depth, is_interrupted = 0, False

    def __init__(self):
        self.counts = threading.current_thread() is threading.main_thread()

    def __enter__(self):
        Whole.depth += self.counts

    def __exit__(self, *_):
        Whole.depth -= self.counts
        if self.counts and Whole.is_interrupted and Whole.depth == 0:
            Whole.is_interrupted = False
            raise KeyboardInterrupt


def finish(work):
    """Does to its end what must not be left half done, and can be done again. Only the first signal interrupts: see `interrupted`."""
    try:
        work()
    except KeyboardInterrupt:
        work()
        raise


def parser(name, description, rounds, seconds):
    """With the options that all have."""
    made = argparse.ArgumentParser(prog=name, description=description)
    add = made.add_argument
    add("--rounds", type=number(1, 1000), default=rounds, help=f"how often all is measured; medians are reported [{rounds}]")
    add("--seconds", type=number(1, 3600), default=seconds, help=f"length of a measurement [{seconds}]")
    add("--connections", type=number(1, CONNECTIONS_MAX), default=64, help="of the load generators [64]")
    add("--workers", type=number(1, 1024), default=2, help="of each server [2]")
    add("--directory", default=".", metavar="DIR", help="where the data lies, in a temporary directory of its own [.]")
    add("--binary", metavar="PATH", help="the buddy-blocks to measure [built by cargo build --release]")
    add("--report", metavar="FILE", default=os.path.join(system.REPOSITORY, "docs", "performance.md"),
        help="put the report between two comments in this file; -: only print it [docs/performance.md]")
    add("--from", dest="earlier", metavar="FILE", help="measure nothing: write the report of an earlier run from its --json")
    add("--json", metavar="FILE", help="write every single measurement here")
    add("--keep", action="store_true", help="leave the data and logs where they are")
    return made


def parse(made, arguments):
    """Parses, and refuses what cannot work."""
    options = made.parse_args(arguments)
    if not os.path.isdir(options.directory):
        made.error(f"--directory: {options.directory} is not a directory")
    if set(os.path.realpath(options.directory)) & set('"$\\\n'):
        made.error("--directory: nginx cannot take a path with a quote, a dollar sign or a backslash")
    if options.binary and not os.access(options.binary, os.X_OK):
        made.error(f"--binary: {options.binary} is not an executable file")
    if options.json and not os.path.isdir(os.path.dirname(os.path.realpath(options.json))):
        made.error(f"--json: there is no directory for {options.json}")
    return options


def given_binary(options):
    """How a command line says that another program was measured than the source's: whose name says nothing elsewhere."""
    return ["--binary", "PATH"] if options.binary else []


def number(smallest, largest):
    """The type of an option that is a whole number."""
    def parse_number(text):
        if not text.isdecimal() or not smallest <= int(text) <= largest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {smallest} to {largest}")
        return int(text)

    return parse_number


def numbers(smallest, largest):
    """The same, several with commas between them, each once, ascending."""
    def parse_numbers(text):
        return sorted({number(smallest, largest)(part) for part in text.split(",")})

    return parse_numbers
