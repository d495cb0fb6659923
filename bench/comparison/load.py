"""What is done to the servers and to the disk: blocks stored to be read, requests of wrk, direct writes of fio."""

import concurrent.futures
import hashlib
import http.client
import json
import os
import resource
import threading

from . import Failure, process

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "load.lua")
REQUEST_TIMEOUT_S = 10  # wrk counts what takes longer as an error
STORING_THREADS = 16
DISK_FILE_BYTES = 1 << 30
DISK_DEPTH = 32


def blocks_to_read(size):
    """10,000 of 4 KiB, 2,000 of 64 KiB, 500 of 512 KiB."""
    return max(500, min(10_000, 131_072_000 // size))


def store_blocks(size, ours_port, nginx_port):
    """Stores the same blocks in both servers, reads them back, and returns their names."""
    stopping = threading.Event()

    def store_part(first):
        ours, nginx = (http.client.HTTPConnection("127.0.0.1", port, timeout=60) for port in (ours_port, nginx_port))
        names = []
        for _ in range(first, blocks_to_read(size), STORING_THREADS):
            if stopping.is_set():
                break
            body = os.urandom(size)
            name = hashlib.sha256(body).hexdigest()
            file = f"/{name[:2]}/{name}"
            if ask(ours, "PUT", "/", body) != name.encode():
                raise Failure("buddy-blocks gave a block another name than its SHA-256")
            ask(nginx, "PUT", file, body)
            if ask(ours, "GET", f"/{name}") != body or ask(nginx, "GET", file) != body:
                raise Failure(f"{name} was read back with other bytes")
            names.append(name)
        return names

    with concurrent.futures.ThreadPoolExecutor(STORING_THREADS) as pool:
        try:
            parts = pool.map(store_part, range(STORING_THREADS))
            return [name for part in parts for name in part]
        finally:
            stopping.set()


def ask(connection, method, path, body=None):
    connection.request(method, path, body)
    response = connection.getresponse()
    content = response.read()
    if not 200 <= response.status < 300:
        raise Failure(f"{method} {path} was answered with {response.status}: {content[:200]!r}")
    return content


def measure(wrk, server, connections, seconds, arguments):
    """Lets wrk send requests for some seconds; see load.lua for the arguments."""
    memory = server.memory_bytes()

    def sample_memory():
        nonlocal memory
        memory = max(memory, server.memory_bytes())

    command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", f"{REQUEST_TIMEOUT_S}s", "--latency",
               "-s", SCRIPT, f"http://127.0.0.1:{server.port}", "--", *map(str, arguments)]
    server_cpu, client_cpu = server.cpu_seconds(), children_cpu_seconds()
    output = process.run(command, sample_memory)
    server_cpu, client_cpu = server.cpu_seconds() - server_cpu, children_cpu_seconds() - client_cpu
    sample_memory()
    line = next((line for line in output.splitlines() if line.startswith('{"requests"')), None)
    if line is None:
        raise Failure(f"wrk gave no result: {' '.join(output.split())[-500:]}")
    result = json.loads(line)
    requests = result["requests"]
    duration_s = result["duration_us"] / 1e6
    return {**result,
            "requests_per_second": requests / duration_s,
            "cpu_us_per_request": server_cpu * 1e6 / requests if requests else 0,
            "memory_bytes": memory,
            "client_busy": client_cpu / duration_s}


def children_cpu_seconds():
    """Of children that have ended: what it grows by while wrk is the only one that ends is wrk's."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def missing(server, operation, size, result):
    """Answers that were not what they should be, whatever their status: nothing was stored, or no whole block was sent."""
    successes = result["requests"] - result["errors"]["status"]
    there = server.stored() if operation == "PUT" else result["bytes"] // size
    return max(0, successes - there)


def failed(measurement):
    return measurement["requests"] == 0 or any(measurement["errors"].values())


def disk_block(size):
    """What a direct write of this many bytes takes: whole pages."""
    return -(-size // 4096) * 4096


class Disk:
    """Direct writes to a file whose blocks have all been written before, so that the file system has nothing to add."""

    def __init__(self, fio, path):
        self.fio, self.path, self.engine, self.problem = fio, path, None, None
        chunk = os.urandom(1 << 20)
        with open(path, "wb") as file:
            for _ in range(DISK_FILE_BYTES // len(chunk)):
                file.write(chunk)
            os.fsync(file.fileno())
        for engine in ("io_uring", "libaio"):
            try:
                self.write(engine, "write", 4096, "--io_size=4096")
                self.engine = engine
                break
            except Failure as failure:
                self.problem = str(failure)

    def measure(self, pattern, block, seconds):
        """Writes a second."""
        return self.write(self.engine, pattern, block, "--time_based", f"--runtime={seconds}")

    def write(self, engine, pattern, block, *limit):
        output = process.run([self.fio, "--name=disk", f"--filename={self.path}", f"--size={DISK_FILE_BYTES}", "--direct=1",
                              f"--ioengine={engine}", f"--iodepth={DISK_DEPTH}", f"--rw={pattern}", f"--bs={block}",
                              "--fallocate=none", "--thread", "--output-format=json", *limit])
        report, _ = json.JSONDecoder().raw_decode(output[output.index("{"):])  # after and before it there may be warnings
        return report["jobs"][0]["write"]["iops"]
