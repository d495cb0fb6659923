"""Python's own HTTP client, over one connection: `http_client.py URL`"""

import hashlib
import http.client
import os
import sys
from urllib.parse import urlsplit


def main(url):
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)

    def ask(method, path, body=None, headers=None, **more):
        connection.request(method, path, body, headers or {}, **more)
        reply = connection.getresponse()
        return reply, reply.read()

    block = os.urandom(200_000)
    name = hashlib.sha256(block).hexdigest()
    reply, body = ask("PUT", "/", block)
    assert (reply.status, body.decode()) == (200, name)
    connection_used = connection.sock

    pieces = (block[at : at + 7000] for at in range(0, len(block), 7000))
    reply, body = ask("POST", "/", pieces, encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    assert (reply.status, body.decode(), reply.getheader("Location")) == (200, name, "/" + name)

    reply, body = ask("GET", "/" + name)
    assert (reply.status, body) == (200, block)
    assert reply.getheader("ETag") == f'"{name}"'
    reply, body = ask("GET", "/" + name, headers={"Range": "bytes=-100"})
    assert (reply.status, body) == (206, block[-100:])
    reply, body = ask("GET", "/" + name, headers={"If-None-Match": f'"{name}"'})
    assert (reply.status, body) == (304, b"")
    reply, body = ask("HEAD", "/" + name)
    assert (reply.status, body, reply.getheader("Content-Length")) == (200, b"", "200000")
    reply, body = ask("PUT", "/" + name, b"something else")
    assert reply.status == 422 and b"nothing was stored" in body
    absent = hashlib.sha256(b"absent").digest()
    raw = {"Content-Type": "application/octet-stream"}
    reply, body = ask("POST", "/-/missing", bytes.fromhex(name) + absent, raw)
    assert (reply.status, body) == (200, absent)
    reply, body = ask("DELETE", "/" + name)
    assert (reply.status, body) == (204, b"")
    reply, body = ask("GET", "/" + name)
    assert reply.status == 404
    assert connection.sock is connection_used, "all over one connection"


main(sys.argv[1])
