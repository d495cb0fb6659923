// Node's `fetch`, as programs use it: `fetch.mjs URL`

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";

const url = process.argv[2];

function name(block) {
    return createHash("sha256").update(block).digest("hex");
}

async function roundTrip(size) {
    const block = randomBytes(size);
    const stored = await fetch(`${url}/`, { method: "PUT", body: block });
    assert.equal(stored.status, 200);
    assert.equal(await stored.text(), name(block));
    const read = await fetch(`${url}/${name(block)}`);
    assert.equal(read.headers.get("etag"), `"${name(block)}"`);
    assert.deepEqual(Buffer.from(await read.arrayBuffer()), block);
    if (size > 10) {
        const part = await fetch(`${url}/${name(block)}`, { headers: { Range: "bytes=5-9" } });
        assert.equal(part.status, 206);
        assert.deepEqual(Buffer.from(await part.arrayBuffer()), block.subarray(5, 10));
    }
    return name(block);
}

const names = [];
for (const size of [0, 1, 4096, 100_000, 524_288]) {
    names.push(await roundTrip(size));
}
names.push(...(await Promise.all(Array.from({ length: 64 }, (_, number) => roundTrip(5_000 + number)))));

// A stream, whose length nobody knows before.
const stream = new ReadableStream({
    start(controller) {
        controller.enqueue(Buffer.from("in "));
        controller.enqueue(Buffer.from("pieces"));
        controller.close();
    },
});
const posted = await fetch(`${url}/`, { method: "POST", body: stream, duplex: "half" });
assert.equal(posted.status, 201);
assert.equal(await posted.text(), name("in pieces"));

const large = await fetch(`${url}/`, { method: "PUT", body: Buffer.alloc(524_289) }).catch((error) => error);
assert.ok(large instanceof Error || large.status === 413);
const absent = await fetch(`${url}/${"0".repeat(64)}`);
assert.equal(absent.status, 404);
assert.equal((await absent.json()).status, 404);
for (const name of new Set(names)) {
    assert.equal((await fetch(`${url}/${name}`, { method: "DELETE" })).status, 204);
}
