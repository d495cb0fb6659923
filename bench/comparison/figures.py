"""Medians of rounds. Rounds with errors are left out."""

from statistics import median

from .load import failed

SERVERS = ("ours", "nginx", "redis")
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

    def disk_middle(self, test, name):
        values = [each[name] for each in self.disk if each["test"] == test]
        return median(values) if values else None

    def kinds(self):
        """(operation, size, connections), as they are reported: by size, PUT first."""
        found = {(each["operation"], each["size"], each["connections"]) for each in self.measurements}
        return sorted(found, key=lambda kind: (kind[2] == 1, kind[1], kind[0] != "PUT"))
