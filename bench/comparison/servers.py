"""The servers, and what the kernel says that they use. Ours and nginx have the same number of workers."""

import http.client
import json
import os
import pwd
import socket
import time

from . import Failure, process

READY_TIMEOUT_S = 60
OVERHEAD_BYTES = 512 << 20  # journal, index and blank extents of a new store, at most
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

NGINX_CONFIGURATION = """
{user}
worker_processes {workers};
daemon off;
pid "{home}/pid";
error_log "{home}/error.log" warn;
worker_rlimit_nofile {files};
events {{ worker_connections {files}; }}
http {{
    access_log off;
    sendfile on;
    keepalive_requests 1000000000;
    client_body_buffer_size 1m;
    client_max_body_size 1m;
    client_body_temp_path "{home}/body";
    proxy_temp_path "{home}/unused";
    fastcgi_temp_path "{home}/unused";
    scgi_temp_path "{home}/unused";
    uwsgi_temp_path "{home}/unused";
    server {{
        listen 127.0.0.1:{port} reuseport;
        root "{home}/root";
        dav_methods PUT DELETE;
        create_full_put_path off;
    }}
}}
"""


def ours(binary, home, workers, congestion_control):
    port = free_port()
    command = [binary, "serve", "--data", os.path.join(home, "data"), "--listen", f"127.0.0.1:{port}",
               "--workers", str(workers), "--congestion-control", congestion_control, "--log-level", "warn"]
    return HttpServer("ours", command, home, port, "/-/ready", children=0)


def nginx(program, home, workers, connections):
    """It has no setting for the congestion control: it uses the system's, which ours is told to use, too."""
    port = free_port()
    for number in range(256):
        os.makedirs(os.path.join(home, "root", f"{number:02x}"), exist_ok=True)
    # Started by root, the workers would be another user, who may not write here. Others cannot choose, and are warned.
    user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
    configuration = os.path.join(home, "nginx.conf")
    with open(configuration, "w", encoding="utf-8") as file:
        file.write(NGINX_CONFIGURATION.format(user=user, workers=workers, home=home, port=port, files=2 * connections + 512))
    return HttpServer("nginx", [program, "-c", configuration, "-p", home], home, port, "/", children=workers)


def redis(program, home):
    """Every SET is flushed before it is answered. Its log is not rewritten meanwhile, which would cost it a lot."""
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", home, "--save", "", "--appendonly", "yes",
               "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0", "--loglevel", "warning"]
    return Redis("redis", command, home, port)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A running server, within a `with`."""

    children = 0

    def __init__(self, name, command, home, port):
        self.name, self.command, self.home, self.port = name, command, home, port
        self.log = os.path.join(home, "log")

    def __enter__(self):
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = process.start(self.command, log)
        try:
            self.wait_until_ready()
        except BaseException:
            process.stop(self.process)
            raise
        return self

    def __exit__(self, *_):
        process.stop(self.process)

    def wait_until_ready(self):
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not (self.answers() and len(self.processes()) == 1 + self.children):
            if self.process.poll() is not None or time.monotonic() > deadline:
                with open(self.log, encoding="utf-8") as log:
                    raise Failure(f"{os.path.basename(self.command[0])} does not serve: {log.read()[-1000:].strip()}")
            time.sleep(0.05)

    def processes(self):
        """The process and its children."""
        found = [self.process.pid]
        if self.children:
            for entry in filter(str.isdecimal, os.listdir("/proc")):
                try:
                    if int(stat_fields(entry)[1]) == self.process.pid:
                        found.append(int(entry))
                except OSError:
                    pass  # It has ended since.
        return found


class HttpServer(Server):
    """Ours, or nginx. What it uses, the generator looks at."""

    def __init__(self, name, command, home, port, ready_path, children):
        super().__init__(name, command, home, port)
        self.ready_path, self.children = ready_path, children

    def answers(self):
        try:
            return self.get(self.ready_path)[0] < 500
        except (OSError, http.client.HTTPException):
            return False

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def stored(self):
        """How many blocks there are."""
        if self.name == "ours":
            return json.loads(self.get("/-/stats")[1])["blocks"]
        return sum(len(files) for _, _, files in os.walk(os.path.join(self.home, "root")))


class Redis(Server):
    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def appended_bytes(self):
        """What its log of writes holds."""
        directory = os.path.join(self.home, "appendonlydir")
        return sum(os.path.getsize(os.path.join(directory, name)) for name in os.listdir(directory))

    def cpu_seconds(self):
        """Of all threads, in user mode and in the kernel on their behalf, since the start."""
        if self.process.poll() is not None:
            raise Failure("redis-server has ended while it was measured")
        fields = stat_fields(self.process.pid)
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def memory_bytes(self):
        """Of its own: not what the page cache holds, and not what is mapped from files."""
        try:
            with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as file:
                lines = dict(line.split(":", 1) for line in file)
        except OSError:
            return 0
        return sum(int(lines[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem") if name in lines)


def stat_fields(pid):
    """/proc/PID/stat from its third field on: state, parent …"""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()
