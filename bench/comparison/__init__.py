"""The parts of bench/compare: `system` (tools, machine, room on the disk), `process`, `servers`, `load` (wrk, fio), `report`."""


class Failure(Exception):
    """Why there is nothing to report, in one line for the user."""
