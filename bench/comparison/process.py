"""Processes of ours: started in a group of their own, so that Ctrl-C reaches this script alone, and ended by their ids."""

import os
import signal
import subprocess
import time

from . import Failure, command

STOP_TIMEOUT_S = 60
KILLED_TIMEOUT_S = 10  # until what was killed is gone
KILLED_INTERVAL_S = 0.01


def start(command_line, output, variables=None):
    """Starts `command_line`, with further environment variables. Those that would change the server's options are not handed on."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BUDDY_")} | (variables or {})
    process = None
    try:
        with command.Whole():
            process = subprocess.Popen(command_line, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment,
                                       start_new_session=True, text=True)
    except KeyboardInterrupt:
        if process:
            end(process)
        raise
    return process


def stop(process):
    """Ends `process`, and what it started if that does not end by itself, or has outlived it."""
    command.finish(lambda: end(process))


def end(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass
    deadline = time.monotonic() + KILLED_TIMEOUT_S
    try:
        while time.monotonic() < deadline:
            os.killpg(process.pid, signal.SIGKILL)
            process.poll()
            time.sleep(KILLED_INTERVAL_S)
    except ProcessLookupError:
        pass  # The group is empty.


def kill(process):
    """Ends it without a warning, as a crash would."""
    process.kill()
    process.wait()


def run(command_line, every_second=lambda: None, accepted=(0,), variables=None):
    """Runs `command_line` to its end and returns what it printed. Its exit status must be one of `accepted`."""
    process = start(command_line, subprocess.PIPE, variables)
    try:
        while True:
            try:
                output, _ = process.communicate(timeout=1)
                break
            except subprocess.TimeoutExpired:
                every_second()
    finally:
        stop(process)
    if process.returncode not in accepted:
        raise Failure(f"{command_line[0]} ended with {process.returncode}: {' '.join(output.split())[:500]}")
    return output
