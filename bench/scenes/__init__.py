from . import cold_reads, growth, mixed, idle_connections, few_connections
SCENARIOS = {each.NAME: each for each in (cold_reads,growth, mixed, idle_connections, few_connections)}
