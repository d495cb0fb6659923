"""What a scenario works with: servers over data in a directory that is removed at the end, a generator, notes for the report."""

import os
import shutil
import sys

from comparison import load, servers, system

# What is left on the disk for everybody else. A store of ours is not allowed to grow into it, whatever was computed.
RESERVE_BYTES = 2 << 30
# What a store of ours takes beside its blocks, at most: a name in the index, and what does not depend on the names.
INDEX_BYTES_A_NAME = 200
OVERHEAD_BYTES = 1 << 30


class Run:
    def __init__(self, options, tools, binary, directory, congestion_control):
        self.options, self.tools, self.binary, self.directory = options, tools, binary, directory
        self.congestion_control = congestion_control
        self.generator = load.Generator(binary, options.connections)
        self.notes = []

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    def remove(self, purpose):
        """The data of a purpose."""
        shutil.rmtree(self.path(purpose), ignore_errors=True)

    def ours(self, purpose, *more, workers=None, tls=None):
        """Our server over the data of this purpose, which it creates where there is none. `more`: further options."""
        home = self.path(purpose, "ours")
        os.makedirs(home, exist_ok=True)
        data = os.path.join(home, "data", "data")
        present = os.path.getsize(data) if os.path.exists(data) else 0
        if "--capacity" not in more:
            more = ("--capacity", max(present + system.free_bytes(self.directory) - RESERVE_BYTES, 1 << 20), *more)
        return servers.ours(self.binary, home, workers or self.options.workers, self.congestion_control, *more, tls=tls)

    def nginx(self, purpose, size, tls=None):
        """nginx over the data of this purpose, for blocks of one size."""
        home = self.path(purpose, "nginx")
        os.makedirs(home, exist_ok=True)
        return servers.nginx(self.tools["nginx"], home, self.options.workers, self.options.connections, size, tls=tls)

    def data_file(self, purpose):
        return self.path(purpose, "ours", "data", "data")

    def say(self, text):
        print(text, file=sys.stderr)

    def note(self, text):
        if text not in self.notes:
            self.notes.append(text)
            self.say(text)
