"""The charts, in SVG: requests a second and CPU a request, bars of medians with the range of all rounds."""

import os

from .figures import REUSING, SERVERS

COLOURS = {"ours": "#1b6ca8", "nginx": "#9a9a9a", "redis": "#c9573c"}
LABELS = {"ours": "Buddy Blocks, durable", "nginx": "nginx, not flushed", "redis": "Redis, durable"}
CHARTS = (
    ("requests.svg", "requests_per_second", "requests a second (more is better)"),
    ("cpu.svg", "cpu_us_per_request", "server CPU a request, µs (less is better)"),
)


def write(figures, directory):
    """Writes the charts, and returns their file names and titles."""
    import matplotlib
    matplotlib.use("svg")
    # The same figures make the same file.
    matplotlib.rcParams.update({"svg.hashsalt": "buddy-blocks", "svg.fonttype": "none", "font.size": 9})
    os.makedirs(directory, exist_ok=True)
    for name, figure, title in CHARTS:
        draw(figures, figure, title, os.path.join(directory, name))
    return [(name, title) for name, _, title in CHARTS]


def draw(figures, name, title, path):
    from matplotlib import pyplot
    kinds = [kind for kind in figures.kinds() if kind[2] != 1 and kind[0] != REUSING]
    chart, axes = pyplot.subplots(1, len(kinds), figsize=(max(5, 1.7 * len(kinds)), 2.8), squeeze=False)
    for axis, (operation, size, connections) in zip(axes[0], kinds):
        for server in SERVERS:
            values = figures.values(operation, size, server, connections, name=name)
            if values:
                middle = figures.middle(operation, size, server, connections, name=name)
                axis.bar(server, middle, color=COLOURS[server], label=LABELS[server],
                         yerr=[[middle - min(values)], [max(values) - middle]], capsize=3, ecolor="#444444")
        axis.set_title(f"{operation} {size >> 10} KiB" if size % 1024 == 0 else f"{operation} {size} B")
        axis.set_xticks([])
        axis.yaxis.set_major_formatter("{x:,.0f}")
        axis.spines[["top", "right"]].set_visible(False)
    chart.suptitle(title)
    handles = {label: handle for axis in axes[0] for handle, label in zip(*axis.get_legend_handles_labels())}
    chart.legend(handles.values(), handles.keys(), loc="lower center", ncols=3, frameon=False)
    chart.tight_layout(rect=(0, 0.08, 1, 1))
    chart.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(chart)
    # Lines that end in blanks are noise to who keeps the file.
    with open(path, encoding="utf-8") as file:
        lines = [line.rstrip() for line in file]
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
