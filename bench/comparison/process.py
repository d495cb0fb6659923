"""Processes of ours: started in a group of their own, so that Ctrl-C reaches this script alone, and ended by their ids."""

import os
import signal
import subprocess

from . import Failure

STOP_TIMEOUT_S = 60


def start(command, output, variables=None):
    """Starts `command`, with further environment variables. Those that would change the server's options are not handed on."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BUDDY_")} | (variables or {})
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment,
                            start_new_session=True, text=True)


def stop(process):
    """Ends `process`, and what it started if it does not end by itself."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def kill(process):
    """Ends it without a warning, as a crash would."""
    process.kill()
    process.wait()


def run(command, every_second=lambda: None, accepted=(0,), variables=None):
    """Runs `command` to its end and returns what it printed. Its exit status must be one of `accepted`."""
    process = start(command, subprocess.PIPE, variables)
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
        raise Failure(f"{command[0]} ended with {process.returncode}: {' '.join(output.split())[:500]}")
    return output
