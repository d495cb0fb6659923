"""The `requests` library, as programs use it: `with_requests.py URL`"""

import base64
import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import requests


def round_trip(url, session, size):
    block = os.urandom(size)
    digest = hashlib.sha256(block)
    name = digest.hexdigest()
    wanted = {"Repr-Digest": f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"}
    stored = session.put(url + "/", data=block, headers=wanted)
    assert (stored.status_code, stored.text) == (200, name), stored.text
    assert session.put(f"{url}/{name}", data=iter([block[:1000], block[1000:]])).status_code == 200
    read = session.get(f"{url}/{name}")
    assert (read.status_code, read.content, read.headers["Repr-Digest"]) == (200, block, wanted["Repr-Digest"])
    with session.get(f"{url}/{name}", stream=True) as streamed:
        assert b"".join(streamed.iter_content(5000)) == block
    if size > 100:
        part = session.get(f"{url}/{name}", headers={"Range": "bytes=50-"})
        assert (part.status_code, part.content) == (206, block[50:])
    assert session.head(f"{url}/{name}").headers["Content-Length"] == str(size)
    return name


def main(url):
    session = requests.Session()
    names = [round_trip(url, session, size) for size in (0, 1, 4096, 4097, 100_000, 524_288)]
    with ThreadPoolExecutor(8) as threads:
        names += threads.map(lambda size: round_trip(url, session, size), range(10_000, 10_040))
    refused = session.put(url + "/", data=bytes(524_289))
    assert refused.status_code == 413, refused.status_code
    problem = session.get(url + "/abc")
    assert problem.status_code == 400 and problem.json()["status"] == 400
    listed, after = [], ""
    while True:
        page = session.get(url + "/-/blocks", params={"after": after, "limit": 10})
        page.raise_for_status()
        lines = page.text.splitlines()
        if not lines:
            break
        listed += [line.split()[0] for line in lines]
        after = listed[-1]
    assert listed == sorted(set(names)), "the list is what was stored"
    text = {"Content-Type": "text/plain"}
    missing = session.post(url + "/-/missing", data="\n".join(names + ["0" * 64]), headers=text)
    assert missing.text == "0" * 64 + "\n"
    for name in set(names):
        assert session.delete(f"{url}/{name}").status_code == 204
    assert session.get(url + "/-/stats").json()["blocks"] == 0


main(sys.argv[1])
