"""What is counted while a load runs: a thread of this script that looks ten times a second, within a `with`."""

import threading
import time

from comparison import Failure

INTERVAL_S = 0.1


class Watch:
    """`probe` returns counters by name, and is called ten times a second. A load takes a while to begin, so only its end is known: rates are of the last seconds."""

    def __init__(self, probe):
        self.probe, self.samples, self.failure = probe, [], None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended = time.monotonic()
        self.over.set()
        self.thread.join()

    def look(self):
        try:
            while True:
                self.samples.append((time.monotonic(), self.probe()))
                if self.over.wait(INTERVAL_S):
                    return
        except (OSError, KeyError, ValueError, Failure) as failure:
            self.failure = failure

    def rates(self, seconds):
        """By how much each counter grew a second, in the last `seconds` before the end, which must not be fewer than two samples."""
        if self.failure:
            raise Failure(f"could not be watched: {self.failure}")
        within = [sample for sample in self.samples if self.ended - seconds <= sample[0] <= self.ended]
        if len(within) < 2:
            raise Failure(f"looked at only {len(within)} times in {seconds} s: the machine is too busy with something else")
        (began, first), (ended, last) = within[0], within[-1]
        return {name: (last[name] - first[name]) / (ended - began) for name in first}


class Look:
    """Calls `ask` once, some seconds from now; `answer` stays None where the load was over before, or there was none."""

    def __init__(self, delay_s, ask):
        self.ask, self.answer = ask, None
        self.timer = threading.Timer(delay_s, self.look)

    def __enter__(self):
        self.timer.start()
        return self

    def __exit__(self, *_):
        self.timer.cancel()
        self.timer.join()

    def look(self):
        try:
            self.answer = self.ask()
        except Failure:
            pass  # That there is no answer is for who wanted it.
