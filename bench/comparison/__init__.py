"""What bench/compare and bench/scenarios share: `command` (options, exit status), `system` (tools, machine, room on the disk),
`process`, `counters` (what the kernel counts), `servers`, `load` (requests), `disk` (fio), `markdown`, `document` (a report's place).
And of bench/compare alone: `figures` (medians), `report`, `charts` (SVG)."""


class Failure(Exception):
    """Why there is nothing to report, in one line for the user."""
