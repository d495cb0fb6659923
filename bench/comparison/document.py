"""The place of a report in a document."""

import os

from . import Failure


class Document:
    """A file in which a report stands between two comments that bear its name; everything around them stays as it is."""

    def __init__(self, path, name):
        self.path = path
        self.begin, self.end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        self.before, self.after = self.read()

    def read(self):
        try:
            with open(self.path, encoding="utf-8") as file:
                text = file.read()
        except OSError as error:
            raise Failure(f"--report: {error}") from error
        if text.count(self.begin) != 1 or text.count(self.end) != 1 or text.index(self.begin) > text.index(self.end):
            raise Failure(f"--report: {self.path} needs a line \"{self.begin}\" and behind it a line \"{self.end}\", once each")
        return text[:text.index(self.begin)], text[text.index(self.end):]

    def charts(self):
        """The directory of the charts, beside the document and named like it."""
        return os.path.splitext(self.path)[0]

    def write(self, report):
        self.before, self.after = self.read()  # It may have been edited meanwhile.
        partial = self.path + ".partial"
        with open(partial, "w", encoding="utf-8") as file:
            file.write(f"{self.before}{self.begin}\n\n{report}\n\n{self.after}")
        os.replace(partial, self.path)
