"""Requests over TLS, by wrk with one thread: `buddy-blocks bench` speaks plain HTTP only. OpenSSL is told by a configuration file which one
cipher it may offer, so that all servers use the same."""

import json
import os
import random
import re

from comparison import Failure, counters, process
from comparison.load import children_cpu_seconds

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "wrk.lua")
CIPHER = "TLS_AES_128_GCM_SHA256"
TIMEOUT_S = 10
# wrk measures by the time of day. Where that was set meanwhile, or the machine stood still, as virtual ones do, its rates mean nothing.
DURATION_TOLERANCE_S = 1
FORMS = {"ours": "plain", "nginx": "sharded"}
CONFIGURATION = f"""
openssl_conf = all
[all]
ssl_conf = tls
[tls]
system_default = defaults
[defaults]
MinProtocol = TLSv1.3
Ciphersuites = {CIPHER}
"""


class Wrk:
    def __init__(self, run):
        self.wrk, self.openssl, self.connections = run.tools["wrk"], run.tools["openssl"], run.options.connections
        configuration = run.path("openssl.cnf")
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(CONFIGURATION)
        self.variables = {"OPENSSL_CONF": configuration}

    def make_certificate(self, certificate, key):
        """Of its own, for this machine, on the curve that most servers use."""
        process.run([self.openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                     "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate])

    def agreed(self, server):
        """Version and cipher that a server and a client with the same configuration as wrk agree on."""
        # It ends by itself, as its input is at its end. A status of 1 may be all that it says of a server that speaks no TLS.
        said = process.run([self.openssl, "s_client", "-connect", f"127.0.0.1:{server.tls_port}"], accepted=(0, 1),
                           variables=self.variables)
        found = re.search(r"^New, (TLSv[\d.]+), Cipher is (\S+)$", said, re.MULTILINE)
        if not found or found.group(2) != CIPHER:
            raise Failure(f"{server.name} does not speak TLS with {CIPHER}: {' '.join(said.split())[-300:]}")
        return f"{found.group(1)}, {found.group(2)}"

    def measure(self, server, operation, size, seconds, names=None):
        """`names` are what GET draws from."""
        command = [self.wrk, "--threads", "1", "--connections", str(self.connections), "--duration", f"{seconds}s",
                   "--timeout", f"{TIMEOUT_S}s", "--script", SCRIPT, f"https://127.0.0.1:{server.tls_port}",
                   "--", operation.lower(), FORMS[server.name], names or str(size), str(random.getrandbits(31))]
        memory, pids = [], server.processes()
        stored = server.stored() if operation == "PUT" else 0
        before, client = counters.cpu_seconds(pids), children_cpu_seconds()
        output = process.run(command, lambda: memory.append(counters.memory_bytes(pids)), variables=self.variables)
        client, used = children_cpu_seconds() - client, counters.cpu_seconds(pids) - before
        memory.append(counters.memory_bytes(pids))
        found = re.search(r"^RESULT (.*)$", output, re.MULTILINE)
        if not found:
            raise Failure(f"wrk has no result: {' '.join(output.split())[:500]}")
        result = json.loads(found.group(1))
        requests, measured_s = result["requests"], result["microseconds"] / 1e6
        there = server.stored() - stored if operation == "PUT" else result["bytes"] // size
        return {"requests": requests, "requests_per_second": requests / measured_s, "latency_us": result["latency_us"],
                "cpu_us_per_request": used * 1e6 / requests if requests else None, "memory_bytes": max(memory),
                "client_cpu_us_per_request": client * 1e6 / requests if requests else None, "client_busy": client / measured_s,
                "errors": {**result["errors"], "missing": max(0, requests - there),
                           "another duration": int(abs(measured_s - seconds) > DURATION_TOLERANCE_S)}}
