"""GET, PUT and DELETE of all sizes for minutes: whether rate, memory and processor time stay what they were, and what becomes of the space.

The data file is let grow first to what the store may have, and emptied down to what the mix begins with: growth writes zeros, which the
first minute would have to do and the last would not. For the same reason the blocks are read for a while: they were written past the page cache.

The mix stores five blocks for each that it deletes, so any disk would be full in minutes. It is therefore sent in slices: between them so
many blocks, drawn by chance, are deleted that as many are left as at the beginning. A slice lasts until about three quarters of
--mixed-gib would be full, by what the slices before it stored a second; --capacity keeps the store from growing beyond. Time counts only
while the mix is sent."""

import os

from comparison import Failure, command, load
from comparison.markdown import NONE, mebibytes, ms, number, percent, ratio, row, table

from . import names as files_of_names
from .run import OVERHEAD_BYTES
from .series import Series

NAME = "mixed"
TITLE = "A mixed load for minutes"
TOOLS = ()
OPTIONS = ("mixed_seconds", "mixed_gib", "connections", "workers")
ROOM_OPTION = "--mixed-gib"
MIX = "70/25/5"
OPERATIONS = ("get", "put", "delete")
MEAN_EXTENT_BYTES = (1020 << 10) // 8  # 4 KiB, 8 KiB … 512 KiB equally often
CLASSES = tuple(f"{4 << number} KiB" for number in range(8))
FIRST_SLICE_S, SHORTEST_SLICE_S, LONGEST_SLICE_S = 2, 1, 60
FULL_SHARE = 0.75
READ_S = 20  # before the mix begins
GROWN_SHARE = 0.95  # of the store, before the mix begins
FULL = "status 507"  # the store's answer where there is no space
COMPARED_S = 60  # the beginning and the end that are compared


def add_options(add):
    add("--mixed-seconds", type=command.number(10, 7 * 24 * 3600), default=600, help="mixed: length, without what is deleted between [600]")
    add("--mixed-gib", type=command.number(2, 4096), default=16, help="mixed: GiB that the store may grow to [16]")


def room_bytes(options):
    return (options.mixed_gib << 30) + OVERHEAD_BYTES


def measure(run):
    options = run.options
    budget, names = options.mixed_gib << 30, run.path("names")
    blocks = budget // 4 // MEAN_EXTENT_BYTES
    with run.ours("mixed", "--capacity", budget) as server:
        run.say(f"storing {blocks:,} blocks of all sizes")
        run.generator.fill(server, "mix", blocks, names)
        grow(run, server, budget)
        run.generator.run(server, "--op", "get", "--names", names, "--connections", options.connections, "--warm-up", 0, "--seconds", READ_S)
        before, after, slices = server.settle(), None, []
        seconds = FIRST_SLICE_S
        while (left := options.mixed_seconds - sum(each["seconds"] for each in slices)) >= SHORTEST_SLICE_S:
            measured = measure_slice(run, server, names, min(seconds, left), blocks)
            slices.append({"round": len(slices) + 1, "load": "mixed", **measured})
            run.say("{begin_s:.0f} s: {requests_per_second:,.0f}/s for {seconds:.0f} s, {cpu} µs CPU, {mib:.1f} MiB{errors}".format(
                mib=slices[-1]["memory_bytes"] / (1 << 20), cpu=number(slices[-1]["cpu_us_per_request"], 1), **{
                    **slices[-1], "errors": f", {slices[-1]['errors']}" if any(slices[-1]["errors"].values()) else "",
                    "begin_s": options.mixed_seconds - left}))
            if load.LOST in slices[-1]["errors"]:
                break
            # Of what was stored a second, the most there was: a slice that is too long ends in a full store.
            grown = max(each["grown_bytes"] / each["seconds"] for each in slices)
            seconds = room_of(budget, before) / grown if grown > 0 else LONGEST_SLICE_S
            seconds = max(SHORTEST_SLICE_S, min(seconds, LONGEST_SLICE_S))
        else:
            after = server.settle()
    return {"seconds": options.mixed_seconds, "budget_bytes": budget, "blocks": blocks, "connections": options.connections,
            "before": before, "after": after, "measurements": slices}


def grow(run, server, budget):
    surplus = int(GROWN_SHARE * budget - server.settle()["bytes_allocated"]) // MEAN_EXTENT_BYTES
    run.say(f"storing and deleting {surplus:,} more, so that the file grows")
    grown = run.path("grown.names")
    run.generator.fill(server, "mix", surplus, grown)
    run.generator.delete(server, grown)


def room_of(budget, stats):
    return FULL_SHARE * budget - stats["bytes_allocated"]


def measure_slice(run, server, names, seconds, blocks):
    """Sends the mix, and then deletes what is too much. An answer of 507 is counted by itself: where it comes, the slice was too long."""
    allocated = server.stats()["bytes_allocated"]
    left = run.path("left.names")
    result = run.generator.run(server, "--op", "mixed", "--mix", MIX, "--size", "mix", "--names", names, "--save-names", left,
                               "--connections", run.options.connections, "--warm-up", 0, "--seconds", round(seconds, 3))
    errors = load.said_errors(result, result["server"])
    full = errors.pop(FULL, 0)
    measured = {"seconds": result["seconds"], **load.figures(result), "errors": errors, "full": full,
                "operations": {name: {part: figures[part] for part in ("requests", "latency_us")}
                               for name, figures in result["operations"].items()}}
    if load.LOST in errors:
        return measured
    measured["grown_bytes"] = server.stats()["bytes_allocated"] - allocated
    # What became of a request that failed is not known.
    is_known = not any(errors.values())
    trim(run, server, left, names, blocks, is_known)
    stats = server.stats()
    if stats["blocks"] != blocks and is_known:
        raise Failure(f"{blocks:,} blocks should be left, {stats['blocks']:,} are")
    return {**measured, "bytes_free": stats["bytes_free"], "file_bytes": stats["file_bytes"]}


def trim(run, server, left, names, blocks, all_there):
    """Deletes blocks drawn by chance until so many are left; writes their names."""
    surplus = files_of_names.count(left) - blocks
    if surplus <= 0:
        # More was deleted than stored: a slice so short that chance decides.
        os.replace(left, names)
        if surplus < 0:
            added = run.path("added.names")
            run.generator.fill(server, "mix", -surplus, added)
            files_of_names.append(added, names)
        return
    taken = run.path("surplus.names")
    files_of_names.split(left, surplus, taken, names)
    run.generator.delete(server, taken, all_there)


def section(result):
    series = Series(result["measurements"])
    slices = series.rounds()
    requests, full = sum(each["requests"] for each in slices), sum(each["full"] for each in slices)
    text = (f"GET, PUT and DELETE as {MIX}, every size class equally often, {result['connections']} connections, "
            f"{seconds_of(slices):,.0f} s in {len(slices)} slices: {requests:,} requests succeeded, {full:,} PUTs were refused because the "
            f"store was full (507). Between slices blocks drawn by chance were deleted until {result['blocks']:,} were left, as at the "
            f"beginning; the store may have {result['budget_bytes'] >> 30} GiB, to which its file was let grow before, and its blocks were read for {READ_S} s. Times and processor use are of the mix alone.")
    parts = [text, load_table(slices) if slices else "There is no slice without errors.", space_table(result["before"], result["after"])]
    return "\n\n".join(parts), series.notes("load")


def load_table(slices):
    lines = table("what", "requests /s", "server CPU µs", "client CPU µs", "MiB", "GET p99 ms", "PUT p99 ms", "PUT p99.9 ms", "PUT max ms")
    first, last, whole = minute(slices), list(reversed(minute(list(reversed(slices))))), slices
    for title, part in ((f"first {seconds_of(first):.0f} s", first), (f"last {seconds_of(last):.0f} s", last), ("all", whole)):
        requests = sum(each["requests"] for each in part)
        worst = [max((each["operations"][operation]["latency_us"][name] for each in part if operation in each["operations"]), default=None)
                 for operation, name in (("get", "p99"), ("put", "p99"), ("put", "p99.9"), ("put", "max"))]
        lines.append(row(title, number(requests / seconds_of(part)), number(weighted(part, "cpu_us_per_request"), 1),
                         number(weighted(part, "client_cpu_us_per_request"), 1), mebibytes(max(each["memory_bytes"] for each in part)),
                         *map(ms, worst)))
    ratios = [ratio(weighted(last, name), weighted(first, name)) for name in ("requests_per_second", "cpu_us_per_request")]
    return "\n".join(lines) + (f"\n\nLast : first: {ratios[0]} of the requests a second, {ratios[1]} of the CPU a request. Latencies are "
                               "those of the worst slice, MiB the highest.")


def minute(slices):
    """As many of the first slices as make a minute, or half of all where there are not two minutes."""
    wanted, found = min(COMPARED_S, seconds_of(slices) / 2), []
    for each in slices:
        if found and seconds_of(found) + each["seconds"] / 2 > wanted:
            break
        found.append(each)
    return found


def seconds_of(slices):
    return sum(each["seconds"] for each in slices)


def weighted(slices, name):
    """By requests; rates by time."""
    weight = "seconds" if name == "requests_per_second" else "requests"
    known = [each for each in slices if each[name] is not None and each[weight]]
    total = sum(each[weight] for each in known)
    return sum(each[name] * each[weight] for each in known) / total if total else None


def space_table(before, after):
    lines = table("what", "blocks", "stored MiB", "allocated MiB", "free MiB", "data file MiB", "free of the file", "free in 512 KiB",
                  *(f"free of {name}" for name in CLASSES))
    for title, stats in (("before", before), ("after", after)):
        if stats is None:
            continue  # The server has ended.
        largest = stats["free_extents"][-1] * (512 << 10)
        lines.append(row(title, number(stats["blocks"]), *(mebibytes(stats[name]) for name in
                                                           ("bytes_stored", "bytes_allocated", "bytes_free", "file_bytes")),
                         percent(stats["bytes_free"] / stats["file_bytes"]) if stats["file_bytes"] else NONE,
                         percent(largest / stats["bytes_free"]) if stats["bytes_free"] else NONE,
                         *(number(count) for count in stats["free_extents"])))
    return "\n".join(lines) + "\n\nFree of 4 KiB …: extents of that size that are free and have no larger free one around them."
