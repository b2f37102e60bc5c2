"""Results as a reader meets them: the section of docs/performance.md that is written by a program, and its picture.

Invariant: a pure function of the results. The same results give the same bytes, and nothing else is said.
"""

from collections.abc import Sequence
from statistics import median
from typing import Any, Final
from xml.sax.saxutils import escape

from side_by_side.judge import Verdict
from side_by_side.programs import PROGRAMS

BEGIN: Final = (
    "<!-- performance: begin. Written by `make performance`; change benchmarks/side_by_side/page.py instead. -->"
)
END: Final = "<!-- performance: end -->"

_YARDSTICK: Final = "quix-exactly-once"
_RATIOS: Final = (
    ("nse-librdkafka", "quix-exactly-once"),
    ("nse-librdkafka", "quix-state"),
    ("nse-kafka-python", "quix-exactly-once"),
    ("nse-librdkafka", "bare-librdkafka"),
    ("nse-kafka-python", "bare-kafka-python"),
    ("nse-librdkafka", "faststream"),
    ("nse-librdkafka", "seed"),
)
_TEXT: Final = 'font-family="Helvetica, Arial, DejaVu Sans, sans-serif" font-size="13" fill="#1f2328"'
_OURS, _PEERS, _LOOPS = "#0b63c5", "#b35900", "#7a828c"


def _speeds(results: dict[str, Any]) -> dict[str, list[float]]:
    """Orders a second by name, fastest first."""
    measured = {name: each["orders_per_s"] for name, each in results["programs"].items() if each["orders_per_s"]}
    return dict(sorted(measured.items(), key=lambda item: -median(item[1])))


def _rounded(value: float) -> str:
    """To three digits: the fourth is noise."""
    digits = max(0, len(str(int(value))) - 3)
    return f"{round(value, -digits):,.0f}"


def _spread(values: Sequence[float]) -> str:
    return f"{_rounded(min(values))} to {_rounded(max(values))}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _results_of(verdicts: Sequence[dict[str, Any]]) -> str:
    said = sorted({str(Verdict(**verdict)) for verdict in verdicts})
    return "; ".join(said)


def _programs(results: dict[str, Any]) -> list[str]:
    speeds = _speeds(results)
    yardstick = median(speeds[_YARDSTICK]) if _YARDSTICK in speeds else 0.0
    rows = []
    for name, values in speeds.items():
        program, found = PROGRAMS[name], results["programs"][name]
        share = f"{median(values) / yardstick:.2f}" if yardstick else ""
        told = _results_of(found["verdicts"])
        if not program.writes_all:
            told += ", two records a trade"
        rows.append((program.title, program.promises, _rounded(median(values)), _spread(values), share, told))
    head = ("program", "promises", "orders/s", "slowest to fastest", "to Quix, exactly once", "results")
    failed = [
        f"* {PROGRAMS[name].title} did not run: {each['failed']}"
        for name, each in results["programs"].items()
        if each.get("failed")
    ]
    return [*_table(head, rows), *([""] if failed else []), *failed]


def _ratios(results: dict[str, Any]) -> list[str]:
    speeds = _speeds(results)
    rows = []
    for one, other in _RATIOS:
        if one in speeds and other in speeds:
            # Runs of one round stand beside each other in time: what disturbed one disturbed the other.
            pairs = [a / b for a, b in zip(speeds[one], speeds[other], strict=False)]
            rows.append(
                (
                    PROGRAMS[one].title,
                    PROGRAMS[other].title,
                    f"{median(speeds[one]) / median(speeds[other]):.2f}",
                    f"{min(pairs):.2f} to {max(pairs):.2f}",
                )
            )
    return _table(("this", "to this", "ratio of the medians", "round by round"), rows)


def _killed(results: dict[str, Any]) -> list[str]:
    rows = []
    for name, found in results["killed"].items():
        program = PROGRAMS[name]
        if found.get("failed"):
            rows.append((program.title, program.promises, "", "", "", f"did not run: {found['failed']}"))
            continue
        verdict = Verdict(**found["verdict"])
        when = f"{found['written_at_kill'] / found['rupees_due']:.0%}"
        counts = (f"{verdict.orders:,}", when, f"{verdict.lost:,}", f"{verdict.doubled:,}")
        rows.append((program.title, program.promises, *counts))
    return _table(
        ("program", "promises", "orders", "written when killed, committed or not", "orders lost", "settled twice"), rows
    )


def _books(results: dict[str, Any]) -> list[str]:
    rows = []
    for name, found in sorted(results["books"].items(), key=lambda item: -median(item[1].get("inputs_per_s", [0]))):
        if "unusable" in found:
            rows.append((f"{name}", "", "", "", f"cannot be used: {found['unusable']}"))
            continue
        speed = found["inputs_per_s"]
        told = found["differs"] or "as ours"
        title = name if name.startswith("stocktrade") else f"{name} {found['version']}"
        rows.append((title, f"{found['orders']:,}", _rounded(median(speed)), _spread(speed), told))
    return _table(("library", "orders", "inputs/s", "slowest to fastest", "trades"), rows)


def versions(results: dict[str, Any]) -> str:
    """Every library that was measured, with its version; one that is another for the peers is there twice."""
    found: dict[str, dict[str, str]] = {}
    for program, each in results["programs"].items():
        for name, number in each.get("versions", {}).items():
            found.setdefault(name, {}).setdefault(number, " (peers)" if PROGRAMS[program].peer else "")
    return ", ".join(
        f"{name} {number}{whose if len(numbers) > 1 else ''}"
        for name, numbers in sorted(found.items())
        for number, whose in sorted(numbers.items())
    )


def section(results: dict[str, Any]) -> str:
    """What stands between the markers."""
    lines = [
        BEGIN,
        "",
        f"{results['machine']}; Python {results['python']}; {results['broker']}; {versions(results)}.",
        f"Medians of {results['rounds']} rounds; `{results['command']}`.",
        "",
        "![Orders a second of each program, with the slowest and the fastest round](performance.svg)",
        "",
        *_programs(results),
        "",
        "What one program reaches of another:",
        "",
        *_ratios(results),
    ]
    if results.get("killed"):
        lines += ["", "After `kill -9` in the middle and a restart:", "", *_killed(results)]
    if results.get("books"):
        lines += ["", "Matching alone, without a log, on the same orders of one symbol:", "", *_books(results)]
    return "\n".join([*lines, "", END])


def written_into(page: str, results: dict[str, Any]) -> str:
    """The page with its section replaced.

    Raises:
        ValueError: the page has no markers.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"no section between {BEGIN!r} and {END!r}")
    return before + section(results) + after


def picture(results: dict[str, Any]) -> str:
    """The programs as bars, fastest first, with a line from the slowest round to the fastest: an SVG document."""
    speeds = _speeds(results)
    left, width, row, top = 330, 400, 30, 66
    height = top + row * len(speeds) + 34
    most = max(max(values) for values in speeds.values())
    step = next(s for s in (1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 10**9) if most / s <= 6)

    def at(value: float) -> str:
        return f"{left + width * value / most:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="840" height="{height}" viewBox="0 0 840 {height}" {_TEXT}>',
        "<title>Orders a second, the same work for each program</title>",
        f'<rect width="840" height="{height}" fill="#ffffff"/>',
        '<text x="16" y="26" font-size="16" font-weight="bold">Orders a second, the same work for each program</text>',
    ]
    x = 16
    for color, words in ((_OURS, "stocktrade"), (_PEERS, "peers"), (_LOOPS, "plain loops")):
        parts.append(f'<rect x="{x}" y="38" width="12" height="12" fill="{color}"/>')
        parts.append(f'<text x="{x + 18}" y="49">{words}</text>')
        x += 34 + 7 * len(words)
    parts.append('<text x="824" y="49" text-anchor="end" fill="#57606a">line: slowest to fastest round</text>')
    bottom = top + row * len(speeds)
    for tick in range(0, int(most) + 1, step):
        parts.append(f'<line x1="{at(tick)}" x2="{at(tick)}" y1="{top}" y2="{bottom}" stroke="#d8dee4"/>')
        parts.append(f'<text x="{at(tick)}" y="{bottom + 18}" text-anchor="middle" fill="#57606a">{tick:,}</text>')
    for number, (name, values) in enumerate(speeds.items()):
        program, y, middle = PROGRAMS[name], top + row * number, median(values)
        color = _OURS if name.startswith("nse-") else _PEERS if program.peer else _LOOPS
        line = y + row / 2
        title = escape(program.title.replace("`", ""))
        low, high = at(min(values)), at(max(values))
        ends = f"M{low} {line - 4:g}v8M{high} {line - 4:g}v8M{low} {line:g}H{high}"
        parts += [
            f'<text x="{left - 8}" y="{line + 4.5:g}" text-anchor="end">{title}</text>',
            f'<rect x="{left}" y="{y + 5}" width="{width * middle / most:.1f}" height="{row - 10}" fill="{color}"/>',
            f'<path d="{ends}" stroke="#1f2328" stroke-width="1.5" fill="none"/>',
            f'<text x="{float(high) + 8:.1f}" y="{line + 4.5:g}">{_rounded(middle)}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def printed(results: dict[str, Any]) -> str:
    """The section as it is read on a terminal."""
    return section(results).removeprefix(BEGIN).removesuffix(END).strip()
