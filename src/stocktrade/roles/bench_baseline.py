"""`bench --baseline`: a result beside a former one.

Invariant: only what was measured in the same way is compared; what may differ all the same (machine, versions, client)
is said.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from stocktrade.domain.values import visible
from stocktrade.errors import UsageError
from stocktrade.settings import read_bytes

SCHEMA: Final = "stocktrade.bench/1"

_BEYOND: Final = 5
"""So many samples at least lie beyond a percentile that is judged: what hangs on one or two says little."""

_LARGEST: Final = 1e12

_TOLERANCE: Final = re.compile(r"(\d{1,4}(?:\.\d{1,3})?)\s?%?", re.ASCII)


class Figure(NamedTuple):
    """A figure of a result: where it stands, what it is for a person, its unit, and which way is better.

    `samples_needed`: with fewer it is not judged; None: never.
    """

    path: str
    label: str
    unit: str
    higher_is_better: bool = False
    samples_needed: int | None = 0


FIGURES: Final = (
    Figure("burst.orders_per_s", "burst", "orders/s", higher_is_better=True),
    Figure("recovery.owns_s", "recovery, owns", "s"),
    Figure("recovery.first_commit_s", "recovery, commits", "s"),
    Figure("latency.p50_ms", "latency p50", "ms", samples_needed=2 * _BEYOND),
    Figure("latency.p90_ms", "latency p90", "ms", samples_needed=10 * _BEYOND),
    Figure("latency.p99_ms", "latency p99", "ms", samples_needed=100 * _BEYOND),
    Figure("latency.p99_9_ms", "latency p99.9", "ms", samples_needed=1000 * _BEYOND),
    Figure("latency.max_ms", "latency max", "ms", samples_needed=None),
    Figure("core.inputs_per_s", "core", "inputs/s", higher_is_better=True),
    Figure("core.with_json_inputs_per_s", "core with JSON", "inputs/s", higher_is_better=True),
)

_MAY_DIFFER: Final = (
    "client",
    "machine.cpu",
    "machine.cores",
    "machine.system",
    "versions.stocktrade",
    "versions.python",
)


def tolerance_from(text: str) -> float:
    """A share as it is typed, in percent: 20%, 20, 7.5%.

    Raises:
        UsageError: it is something else.
    """
    match = _TOLERANCE.fullmatch(text)
    if match is None:
        raise UsageError(f"--tolerance cannot be {visible(text, 40)!r}", hint="give a share, for example 20%")
    return float(match[1])


class Baseline:
    """A former result, of which as much is known as is compared.

    Raises:
        UsageError: the file cannot be read, or is no result of `bench`.
    """

    def __init__(self, path: str) -> None:
        self._name = f"--baseline {visible(path, 200)}"
        data, _ = read_bytes("--baseline", path)
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._foreign("it is not JSON") from error
        if not isinstance(document, dict):
            raise self._foreign("it is no JSON object")
        if document.get("schema") != SCHEMA:
            found = document.get("schema")
            if not isinstance(found, str):
                raise self._foreign("it has no schema")
            raise self._foreign(f"its schema is {visible(found, 80)}, not {SCHEMA}")
        if not isinstance(document.get("kind"), str) or not isinstance(document.get("settings"), dict):
            raise self._foreign("kind or settings are missing")
        self._document: dict[str, Any] = document
        for figure in FIGURES:
            self._figure(figure.path)

    def _foreign(self, cause: str) -> UsageError:
        return UsageError(
            f"{self._name} is no result of bench", cause=cause, hint="make one: stocktrade bench --json > baseline.json"
        )

    def _figure(self, path: str) -> float | None:
        found = value_at(self._document, path)
        if found is None:
            return None
        # Not a bool, not NaN, not what no float holds.
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= _LARGEST:
            raise self._foreign(f"{path} is no number")
        return float(found)

    def check(self, kind: str, settings: Mapping[str, Any]) -> None:
        """Check that what is to be measured is what was measured then.

        Raises:
            UsageError: it is not; what differs is named.
        """
        then = self._document["settings"]
        differences = [] if self._document["kind"] == kind else [("log", self._document["kind"], kind)]
        differences += [(name, then.get(name), now) for name, now in settings.items() if then.get(name) != now]
        if differences:
            raise UsageError(
                f"{self._name} measured something else",
                cause="; ".join(
                    f"{name} {_word(before)} there, {_word(now)} here" for name, before, now in differences
                ),
                hint="give the same log and the same options, or leave --baseline out",
            )

    def comparison(self, document: Mapping[str, Any], tolerance_percent: float) -> dict[str, Any]:
        """The field `comparison` of a result."""
        figures = [
            change for figure in FIGURES if (change := self._change(figure, document, tolerance_percent)) is not None
        ]
        pairs = [(path, value_at(self._document, path), value_at(document, path)) for path in _MAY_DIFFER]
        return {
            "tolerance_percent": tolerance_percent,
            "worse": any(figure["worse"] for figure in figures),
            "differs": [f"{path}: {_word(then)}, now {_word(now)}" for path, then, now in pairs if then != now],
            "figures": figures,
        }

    def _change(self, figure: Figure, document: Mapping[str, Any], tolerance_percent: float) -> dict[str, Any] | None:
        before, now = self._figure(figure.path), value_at(document, figure.path)
        if before is None and now is None:
            return None
        percent = round((now - before) / before * 100, 1) if before and now is not None else None
        judged = percent is not None and self._says_enough(figure, document)
        loss = 0.0 if percent is None else -percent if figure.higher_is_better else percent
        return {
            "figure": figure.path,
            "before": before,
            "now": now,
            "change_percent": percent,
            "judged": judged,
            "worse": judged and loss > tolerance_percent,
        }

    def _says_enough(self, figure: Figure, document: Mapping[str, Any]) -> bool:
        if not figure.samples_needed:
            return figure.samples_needed is not None
        counts = (value_at(each, "latency.samples") for each in (self._document, document))
        return all(isinstance(count, int) and count >= figure.samples_needed for count in counts)


def value_at(document: Mapping[str, Any], path: str) -> Any:
    """What stands at a path of names with dots between them; None if nothing does."""
    value: Any = document
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def worse_figures(comparison: Mapping[str, Any]) -> list[str]:
    """The figures that are worse than they may be, a sentence each."""
    allowed = f"the baseline allows {comparison['tolerance_percent']:g} %"
    return [
        f"{each['figure']} is worse: {each['change_percent']:+.1f} %, {allowed}"
        for each in comparison["figures"]
        if each["worse"]
    ]


def _word(value: Any) -> str:
    return "none" if value is None else visible(f"{value:g}" if isinstance(value, float) else str(value), 80)
