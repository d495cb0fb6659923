from . import cold_reads, growth
SCENARIOS = {each.NAME: each for each in (cold_reads,growth)}
