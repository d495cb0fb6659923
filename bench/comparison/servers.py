"""The servers, and what the kernel says that they use. Ours and nginx have the same number of workers."""

import http.client
import json
import os
import pwd
import socket
import time

from . import Failure, counters, process

READY_TIMEOUT_S = 60
READY_INTERVAL_S = 0.005
SETTLE_TIMEOUT_S = 15
SETTLE_INTERVAL_S = 0.5
# nginx with `tcp_nopush` sends head and file together: of 4 KiB it answers a third more GETs, of 64 KiB as many, of 512 KiB half as many.
NOPUSH_BYTES_MAX = 64 << 10
OVERHEAD_BYTES = 512 << 20  # journal, index and blank extents of a new store, at most

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
    tcp_nopush {nopush};
    keepalive_requests 1000000000;
    client_body_buffer_size 1m;
    client_max_body_size 1m;
    client_body_temp_path "{home}/body";
    proxy_temp_path "{home}/unused";
    fastcgi_temp_path "{home}/unused";
    scgi_temp_path "{home}/unused";
    uwsgi_temp_path "{home}/unused";
    server {{
        listen 127.0.0.1:{port} reuseport;{listen_tls}
        root "{home}/root";
        dav_methods PUT DELETE;
        create_full_put_path off;
    }}
}}
"""

NGINX_LISTEN_TLS = """
        listen 127.0.0.1:{port} ssl reuseport;
        ssl_certificate "{certificate}";
        ssl_certificate_key "{key}";
        ssl_protocols TLSv1.3;"""


class Tls:
    """A certificate and its key, in files, for the servers that are to listen on a second port, with TLS."""

    def __init__(self, certificate, key):
        self.certificate, self.key = certificate, key


def ours(binary, home, workers, congestion_control, *more, tls=None):
    """`more`: further options."""
    port, tls_port = free_port(), free_port() if tls else None
    command = [binary, "serve", "--data", os.path.join(home, "data"), "--listen", f"127.0.0.1:{port}",
               "--workers", str(workers), "--congestion-control", congestion_control, "--log-level", "warn", *map(str, more)]
    if tls:
        command += ["--listen-tls", f"127.0.0.1:{tls_port}", "--tls-certificate", tls.certificate, "--tls-key", tls.key]
    return HttpServer("ours", command, home, port, "/-/ready", children=0, tls_port=tls_port)


def nginx(program, home, workers, connections, size, tls=None):
    """Set up for blocks of one size. It has no setting for the congestion control: it uses the system's, which ours is told to use, too."""
    port, tls_port = free_port(), free_port() if tls else None
    listen_tls = NGINX_LISTEN_TLS.format(port=tls_port, certificate=tls.certificate, key=tls.key) if tls else ""
    for number in range(256):
        os.makedirs(os.path.join(home, "root", f"{number:02x}"), exist_ok=True)
    # Started by root, the workers would be another user, who may not write here. Others cannot choose, and are warned.
    user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
    configuration = os.path.join(home, "nginx.conf")
    with open(configuration, "w", encoding="utf-8") as file:
        file.write(NGINX_CONFIGURATION.format(user=user, workers=workers, home=home, port=port, listen_tls=listen_tls,
                                                nopush="on" if size <= NOPUSH_BYTES_MAX else "off",
                                                files=2 * connections + 512))
    return HttpServer("nginx", [program, "-c", configuration, "-p", home], home, port, "/", children=workers, tls_port=tls_port)


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
        began = time.monotonic()
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = process.start(self.command, log)
        try:
            self.wait_until_ready()
            self.opening_seconds = time.monotonic() - began
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
            time.sleep(READY_INTERVAL_S)

    def processes(self):
        """The process and its children."""
        found = [self.process.pid]
        if self.children:
            for entry in filter(str.isdecimal, os.listdir("/proc")):
                try:
                    if int(counters.stat_fields(entry)[1]) == self.process.pid:
                        found.append(int(entry))
                except OSError:
                    pass  # It has ended since.
        return found


class HttpServer(Server):
    """Ours, or nginx. What it uses, the generator looks at."""

    def __init__(self, name, command, home, port, ready_path, children, tls_port=None):
        super().__init__(name, command, home, port)
        self.ready_path, self.children, self.tls_port = ready_path, children, tls_port

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
            return self.stats()["blocks"]
        return sum(len(files) for _, _, files in os.walk(os.path.join(self.home, "root")))

    def stats(self):
        """What ours says about itself."""
        try:
            return json.loads(self.get("/-/stats")[1])
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Failure(f"/-/stats: {error}") from error

    def settle(self):
        """Waits until what was deleted is free and no checkpoint is under way. Returns what ours says then."""
        before, deadline = None, time.monotonic() + SETTLE_TIMEOUT_S
        while True:
            stats = self.stats()
            now = [stats[name] for name in ("blocks", "bytes_free", "bytes_held", "names_sealed", "checkpoints", "file_bytes")]
            if now == before and stats["names_sealed"] == 0:
                return stats
            if time.monotonic() > deadline:
                raise Failure(f"the store does not come to rest within {SETTLE_TIMEOUT_S} s: {stats}")
            before = now
            time.sleep(SETTLE_INTERVAL_S)

    def kill(self):
        process.kill(self.process)


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
