"""Files of names, as `buddy-blocks bench` writes them: 64 hex digits and a line's end, so that any can be found by its number."""

import os
import random

from comparison import Failure

LINE_BYTES = 65


def count(path):
    size = os.path.getsize(path)
    if size % LINE_BYTES:
        raise Failure(f"{path} is not a file of names")
    return size // LINE_BYTES


def sample(path, number, target, generator=random):
    """Writes so many names, drawn by chance from all of a file, to another."""
    chosen = sorted(generator.sample(range(count(path)), number))
    with open(path, "rb") as source, open(target, "wb") as file:
        for index in chosen:
            source.seek(index * LINE_BYTES)
            file.write(source.read(LINE_BYTES))


def split(path, number, taken, rest, generator=random):
    """Writes so many names, drawn by chance, to the file `taken` and the others to `rest`."""
    chosen = set(generator.sample(range(count(path)), number))
    with open(path, "rb") as source, open(taken, "wb") as file_of_taken, open(rest, "wb") as file_of_rest:
        for index, line in enumerate(source):
            (file_of_taken if index in chosen else file_of_rest).write(line)


def append(path, target):
    """Adds the names of a file to those of another."""
    with open(path, "rb") as source, open(target, "ab") as file:
        while chunk := source.read(1 << 20):
            file.write(chunk)
