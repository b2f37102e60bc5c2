"""The results of `growth.py` as a picture and as tables in a page.

Invariant: of a page only what stands between the two marks is changed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

SCHEMA: Final = "stocktrade.benchmark.growth/1"
BEGIN: Final = "<!-- growth: begin. Written by `make growth`, not by hand. -->"
END: Final = "<!-- growth: end -->"

CLIENTS: Final = ("kafka-python", "librdkafka")


class Panel(NamedTuple):
    """A dimension in the picture and in the page.

    `curves` are (line of the results, figure). `columns` are the same, with a title and how the figure is written.
    """

    axis: str
    curves: tuple[tuple[str, str], ...]
    columns: tuple[tuple[str, str, str, Callable[[float], str]], ...]


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _ms(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _s(value: float) -> str:
    return f"{value:,.2f}"


def _mib(value: float) -> str:
    return f"{value / 2**20:,.0f}"


_BOTH: Final = (("core", "orders_per_s"), ("embedded", "orders_per_s"), ("embedded", "p50_ms"))
_BOTH_COLUMNS: Final = (
    ("core", "orders_per_s", "core, orders/s", _count),
    ("core", "capture_ms", "capture, ms", _ms),
    ("embedded", "orders_per_s", "embedded, orders/s", _count),
    ("embedded", "cpu_us_per_order", "its processor time, µs/order", _count),
    ("embedded", "p50_ms", "order → legs p50, ms", _ms),
    ("embedded", "p99_ms", "p99, ms", _ms),
    ("embedded", "longest_step_ms", "longest step, ms", _count),
    ("embedded", "start_s", "start, s", _s),
    ("embedded", "peak_mib", "memory, MiB", _count),
)

PANELS: Final = {
    "resting": Panel("resting orders", _BOTH, _BOTH_COLUMNS),
    "symbols": Panel("symbols", _BOTH, _BOTH_COLUMNS),
    "participants": Panel("participants", _BOTH, _BOTH_COLUMNS),
    "shards": Panel(
        "shards of one process (Kafka)",
        tuple((client, figure) for figure in ("orders_per_s", "p50_ms") for client in CLIENTS),
        tuple(
            (client, *column)
            for client in CLIENTS
            for column in (
                ("orders_per_s", f"{client}, orders/s", _count),
                ("cpu_us_per_order", "its processor time, µs/order", _count),
                ("p50_ms", "order → legs p50, ms", _ms),
                ("p99_ms", "p99, ms", _ms),
                ("start_s", "start, s", _s),
                ("peak_mib", "memory, MiB", _count),
            )
        ),
    ),
    "processes": Panel(
        "processes that share eight shards (Kafka)",
        tuple((client, "orders_per_s") for client in CLIENTS),
        tuple((client, "orders_per_s", f"{client}, orders/s", _count) for client in CLIENTS),
    ),
    "length": Panel(
        "records on the embedded log",
        (("embedded", "orders_per_s"), ("embedded", "p50_ms"), ("embedded", "start_s")),
        (
            ("embedded", "orders", "orders by then", _count),
            ("embedded", "orders_per_s", "orders/s", _count),
            ("embedded", "cpu_us_per_order", "processor time, µs/order", _count),
            ("embedded", "p50_ms", "order → legs p50, ms", _ms),
            ("embedded", "p99_ms", "p99, ms", _ms),
            ("embedded", "longest_step_ms", "longest step, ms", _count),
            ("embedded", "start_s", "start, s", _s),
            ("embedded", "start_killed_s", "start after a kill, s", _s),
            ("embedded", "bytes", "on disk, MiB", _mib),
            ("embedded", "peak_mib", "memory, MiB", _count),
        ),
    ),
}

_WHAT: Final = {"orders_per_s": "time per order", "p50_ms": "order → legs, p50", "start_s": "start"}


def _label(figure: str, value: float) -> str:
    if figure == "orders_per_s":
        return f"{value / 1000:,.0f}k/s" if value >= 10_000 else f"{value / 1000:,.1f}k/s"
    return f"{value:.2g} s" if figure == "start_s" else f"{value:.3g} ms"


def _short(x: float) -> str:
    return f"{x / 1e6:g}M" if x >= 1e6 else f"{x / 1e3:g}k" if x >= 1e3 else f"{x:g}"


def draw(results: dict[str, Any], picture: Path) -> None:
    """Draw a panel for each dimension: what an order costs, relative to the smallest point; a flat line is good."""
    import matplotlib as mpl  # noqa: PLC0415 - whoever only writes tables need not wait for it

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "stocktrade", "font.size": 8})
    from matplotlib import pyplot as plt  # noqa: PLC0415

    found = {name: panel for name, panel in PANELS.items() if name in results["dimensions"]}
    rows = (len(found) + 1) // 2
    figure, grid = plt.subplots(rows, 2, figsize=(11, 3.4 * rows), squeeze=False)
    for axes in grid.flat[len(found) :]:
        axes.set_axis_off()
    for axes, (name, panel) in zip(grid.flat, found.items(), strict=False):
        _panel(axes, panel, results["dimensions"][name]["lines"])
    figure.suptitle(f"What an order costs as one thing grows; the smallest is 1. {results['machine']}")
    figure.tight_layout()
    figure.savefig(picture, metadata={"Date": None})
    plt.close(figure)


def _panel(axes: Any, panel: Panel, lines: dict[str, list[dict[str, float]]]) -> None:
    highest = 1.0
    for number, (line, figure) in enumerate(panel.curves):
        points = lines.get(line, [])
        if not points:
            continue
        first = points[0][figure]
        costs = [first / p[figure] if figure == "orders_per_s" else p[figure] / first for p in points]
        highest = max(highest, *costs)
        style = "-" if figure == "orders_per_s" else "--"
        drawn = axes.plot([p["x"] for p in points], costs, style, marker="o", ms=3, label=f"{line}: {_WHAT[figure]}")
        # The ends alone: in between the words of several lines would cover each other, and the tables have them.
        for point, cost in ((points[0], costs[0]), (points[-1], costs[-1])):
            axes.annotate(
                _label(figure, point[figure]),
                (point["x"], cost),
                xytext=(0, (5, -10, 14, -19)[number]),
                textcoords="offset points",
                ha="center",
                fontsize=6,
                color=drawn[0].get_color(),
            )
    xs = sorted({p["x"] for points in lines.values() for p in points})
    axes.set_xscale("log")
    axes.set_xticks(xs, [_short(x) for x in xs])
    axes.minorticks_off()
    axes.set_xlabel(panel.axis)
    if highest > 4:
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        axes.set_ylim(0, max(2.0, highest * 1.15))
    axes.margins(x=0.08)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=6, loc="best")


def tables(results: dict[str, Any]) -> str:
    """The results in Markdown: how they were made, a table for each dimension, and what takes how many bytes."""
    seconds = sum(found["seconds"] for found in results["dimensions"].values())
    parts = [f"{results['machine']}; {results['versions']}; measured in {seconds / 60:.0f} minutes."]
    parts.append("![What an order costs as one thing grows](growth.svg)")
    for name, panel in PANELS.items():
        if name in results["dimensions"]:
            parts.append(_table(panel, results["dimensions"][name]["lines"]))
    parts.append("\n".join(_bytes(results["dimensions"])))
    return "\n\n".join(part for part in parts if part)


def _table(panel: Panel, lines: dict[str, list[dict[str, float]]]) -> str:
    columns = [column for column in panel.columns if lines.get(column[0])]
    xs = sorted({point["x"] for points in lines.values() for point in points})
    rows = [[panel.axis, *(title for _, _, title, _ in columns)], ["---:"] * (1 + len(columns))]
    for x in xs:
        cells = [_count(x)]
        for line, figure, _, written in columns:
            value = next((point.get(figure) for point in lines[line] if point["x"] == x), None)
            cells.append("" if value is None else written(value))
        rows.append(cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _bytes(dimensions: dict[str, Any]) -> list[str]:
    """What a plan for memory and disk needs."""
    said = []
    for name, what in (("resting", "resting order"), ("symbols", "symbol"), ("participants", "participant")):
        points = dimensions.get(name, {"lines": {}})["lines"].get("core", [])
        if len(points) > 1:
            more = points[-1]["kept_bytes"] - points[0]["kept_bytes"]
            said.append(f"* memory of a {what}: {more / (points[-1]['x'] - points[0]['x']):,.0f} bytes")
    resting = dimensions.get("resting", {"lines": {}})["lines"].get("embedded", [])
    if resting:
        said.append(f"* embedded log, an order that rests: {resting[-1]['fill_bytes'] / resting[-1]['x']:,.0f} bytes")
    length = dimensions.get("length", {"lines": {}})["lines"].get("embedded", [])
    if length:
        said.append(f"* embedded log, an order that trades: {length[-1]['bytes_per_order']:,.0f} bytes")
    for client, points in dimensions.get("shards", {"lines": {}})["lines"].items():
        if points:
            each = points[0]["bytes_per_order"]
            said.append(f"* Kafka, one copy, an order that trades, by {client}: {each:,.0f} bytes")
    return said


def write(results: dict[str, Any], page: Path) -> None:
    """Put the tables between the marks of a page.

    Raises:
        SystemExit: the page has no such marks, or not one of each.
    """
    text = page.read_bytes().decode()  # as it is, its ends of lines too
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise SystemExit(f"{page} has no place for the tables between {BEGIN} and {END}")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_bytes(f"{before}{BEGIN}\n\n{tables(results)}\n\n{END}{after}".encode())
