"""The scenarios of bench/scenarios, a module each, and what they have in common: `run` (servers, data, notes), `series` (medians of
rounds, errors), `watch` (what the kernel counts meanwhile), `names` (files of names), `wrk` (requests over TLS).

A scenario has a NAME; TITLE, the heading of its section; TOOLS, the programs that it needs; OPTIONS, those of the command that change
it; `add_options`; `room_bytes`, what it takes on the disk at most; `measure`, whose result can be written as JSON; and `section`,
which makes Markdown of that result."""

from . import cold_reads, few_connections, get_after_put, growth, idle_connections, mixed, stages, tls

# In the order in which they are measured: tls before what else stores in nginx.
SCENARIOS = {each.NAME: each for each in (cold_reads, growth, mixed, idle_connections, few_connections, stages, tls, get_after_put)}
