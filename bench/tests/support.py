"""What the tests have in common: the modules and commands of bench/, and measurements that nobody made."""

import importlib.machinery
import importlib.util
import os
import signal
import sys

BENCH = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True  # The source tree stays as it is.
sys.path.insert(0, BENCH)


def command(name):
    """One of the commands, as a module."""
    loader = importlib.machinery.SourceFileLoader(name, os.path.join(BENCH, name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


def interrupt_once(function):
    """The same function, but for a SIGINT that comes when it is called for the first time."""
    came = []

    def interrupted(*arguments, **named):
        if not came:
            came.append(True)
            signal.raise_signal(signal.SIGINT)
        return function(*arguments, **named)

    return interrupted


def measurement(**changed):
    """A round in which all went well."""
    return {"round": 1, "operation": "PUT", "size": 4096, "server": "ours", "connections": 64, "requests": 100,
            "requests_per_second": 50.0, "latency_us": {"p50": 1.0, "p99": 2.0, "p99.9": 3.0, "max": 4.0}, "cpu_us_per_request": 5.0,
            "memory_bytes": 1 << 20, "client_cpu_us_per_request": 1.0, "client_busy": 0.5, "idle": 0.1, "stolen": 0.0, "errors": {},
            **changed}


def result(**changed):
    """What `buddy-blocks bench --json` prints, as far as it is read."""
    return {"requests": 100, "requests_per_second": 50.0, "bytes_per_second": 204_800.0, "seconds": 2.0,
            "latency_us": {"p50": 1.0, "p99": 2.0, "p99.9": 3.0, "max": 4.0}, "operations": {}, "failed": 0,
            "errors": {"status": {}, "kinds": {}, "first": None}, "generator": {"cpu_us_per_request": 1.0, "busy": 0.5},
            "server": {"cpu_us_per_request": 5.0, "busy": 0.5, "memory_bytes": 1 << 20}, "stored": 100, **changed}


LOST = {"cpu_us_per_request": None, "busy": None, "memory_bytes": 0}
