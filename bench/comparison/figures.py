"""Medians of rounds. Rounds with errors are left out."""

from statistics import median

from .load import failed

SERVERS = ("ours", "nginx", "redis")
# PUT lets the file grow; of ours it is measured in space, too, that deleted blocks have left.
PUT, REUSING, GET = "PUT", "PUT into free space", "GET"
OPERATIONS = (PUT, REUSING, GET)
UNSTEADY = 1.5  # between the slowest and the fastest round: more than that is worth a warning


class Figures:
    def __init__(self, measurements, disk):
        self.measurements, self.disk = measurements, disk

    def rounds(self, operation, size, server, connections):
        """One kind of measurement, of every round that counts."""
        wanted = (operation, size, server, connections)
        return [each for each in self.measurements if not failed(each)
                and (each["operation"], each["size"], each["server"], each["connections"]) == wanted]

    def values(self, *kind, name, part=None):
        return [each[name][part] if part else each[name] for each in self.rounds(*kind)]

    def middle(self, *kind, name, part=None):
        values = self.values(*kind, name=name, part=part)
        return median(values) if values else None

    def disk_values(self, test, name):
        return [each[name] for each in self.disk if test and each["test"] == test.name]

    def disk_middle(self, test, name):
        """None where there is no such test."""
        values = self.disk_values(test, name)
        return median(values) if values else None

    def kinds(self):
        """(operation, size, connections), as they are reported: by size, then as in OPERATIONS."""
        found = {(each["operation"], each["size"], each["connections"]) for each in self.measurements}
        return sorted(found, key=lambda kind: (kind[2] == 1, kind[1], OPERATIONS.index(kind[0])))
