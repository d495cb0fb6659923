"""The parts of bench/compare: `system` (tools, machine, room on the disk), `process`, `servers`, `load` (requests), `disk`
(fio), `figures` (medians), `report` (Markdown), `charts` (SVG)."""


class Failure(Exception):
    """Why there is nothing to report, in one line for the user."""
