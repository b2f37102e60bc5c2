"""`bench`: how fast the exchange is on the chosen log of this machine.

Owns what can be asked for, and what it ends with; what measures is in the package `bench`. Invariant: what cannot be
measured or compared is refused before anything is made.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple, TextIO

from rich.console import Console

from stocktrade import tables
from stocktrade.bench.load import trading_at_once
from stocktrade.bench.measure import Core, Results, Settings, measure, measure_core
from stocktrade.bench.process import Crew
from stocktrade.bench.scratch import scratch
from stocktrade.domain.values import group_indian, visible
from stocktrade.errors import ExitCode, UsageError
from stocktrade.listing import json_line
from stocktrade.progress import bar
from stocktrade.roles.bench_baseline import SCHEMA, Baseline, tolerance_from, value_at, worse_figures
from stocktrade.roles.bench_report import document_of, draw, kind_of, rows_of, settings_document
from stocktrade.settings import Target
from stocktrade.signals import Stop

RATE: Final = 200.0
SECONDS: Final = 10.0
ORDERS: Final = 20_000
CORE_ORDERS: Final = 100_000
MAX_ORDERS: Final = 10_000_000
"""Of the burst, and of the latency: what a machine can hold, and a number for each in memory."""


class Plan(NamedTuple):
    """What is asked for.

    `target` is the log, None for the core alone; `folder` and `topic_prefix` say where beside it.
    """

    target: Target | None
    settings: Settings
    folder: str | None
    topic_prefix: str | None
    audit: bool
    baseline: Baseline | None
    tolerance_percent: float


def settings_from(
    *, rate: float | None, seconds: float | None, orders: int | None, symbols: int, seed: int, core: bool
) -> Settings:
    """What is measured, from what was typed; an odd number of orders gets one more, for they are pairs.

    Raises:
        UsageError: too much, nothing, or nothing of this kind.
    """
    if core:
        if rate is not None or seconds is not None:
            raise UsageError(
                f"--{'seconds' if rate is None else 'rate'} is for a log",
                cause="--core measures how fast the core is by itself, without any latency",
            )
        settings = Settings(0.0, 0.0, CORE_ORDERS if orders is None else orders, symbols, seed)
        if not settings.orders:
            raise UsageError("there is nothing to measure", hint="give --orders more than 0")
        return settings
    count = ORDERS if orders is None else orders + orders % 2
    settings = Settings(RATE if rate is None else rate, SECONDS if seconds is None else seconds, count, symbols, seed)
    if settings.total > MAX_ORDERS:
        raise UsageError(
            f"--rate {settings.rate:g} for --seconds {settings.seconds:g} is too much",
            cause=f"{group_indian(settings.total)} orders; the limit is {group_indian(MAX_ORDERS)}",
            hint="give a lower rate or less time",
        )
    if not settings.orders and not settings.seconds:
        raise UsageError("there is nothing to measure", hint="give --orders or --seconds more than 0")
    if settings.seconds and trading_at_once(settings.total) <= trading_at_once(settings.warm_up):
        raise UsageError(
            f"--rate {settings.rate:g} for --seconds {settings.seconds:g} gives no latency",
            cause="not one of so few orders would trade at once",
            hint="give a higher rate or more time",
        )
    return settings


def plan_from(
    target: Target | None,
    settings: Settings,
    *,
    folder: str | None,
    topic_prefix: str | None,
    audit: bool,
    baseline: str | None,
    tolerance: str | None,
) -> Plan:
    """A plan, checked as far as it can be before anything is done.

    Raises:
        UsageError: it cannot be done, or not be compared.
    """
    if tolerance is not None and baseline is None:
        raise UsageError("--tolerance needs --baseline", cause="there is nothing to compare with")
    plan = Plan(
        target,
        settings,
        folder,
        topic_prefix,
        audit,
        None if baseline is None else Baseline(baseline),
        tolerance_from("20%" if tolerance is None else tolerance),
    )
    if target is None and (folder, topic_prefix, audit) != (None, None, False):
        raise UsageError("--folder, --topic-prefix and --audit are for a log", cause="--core has none")
    if plan.baseline is not None:
        plan.baseline.check(kind_of(target), settings_document(settings))
    return plan


def run(
    plan: Plan, *, as_json: bool, console: Console, progress: Console, out: TextIO, err: TextIO, stop: Stop
) -> ExitCode:
    """Measure, and say what came of it.

    Args:
        plan: what is asked for.
        as_json: one JSON document instead of lines.
        console: where a table for people goes, if it is a terminal.
        progress: where the progress is shown, if it is a terminal and it takes longer than a second.
        out: where anything else goes.
        err: where it is said what is written to, and what is not well.
        stop: whether it shall end.

    Returns:
        OK, or NO when a figure is worse than it may be, orders were not settled, or the audit is not clean.

    Raises:
        KeyboardInterrupt: `stop`; what was made is removed.
        UsageError: the log is somebody's.
        StocktradeError: the log or a process failed.
    """

    def part(what: str, unit: str) -> AbstractContextManager[Callable[[int, int | None], None]]:
        return bar(progress, what, unit)

    def tell(results: Results | None, core: Core | None) -> ExitCode:
        document = document_of(plan.target, plan.settings, results, core)
        if plan.baseline is not None:
            document["comparison"] = plan.baseline.comparison(document, plan.tolerance_percent)
        if as_json:
            out.write(json_line(SCHEMA, document))
        elif console.is_terminal:
            draw(document, console)
        else:
            out.writelines(tables.tsv(cells) + "\n" for cells in rows_of(document))
        troubles = _troubles(document)
        err.writelines(f"✗ {trouble}\n" for trouble in troubles)
        return ExitCode.NO if troubles else ExitCode.OK

    if plan.target is None:
        return tell(None, measure_core(plan.settings, stop=stop, bar=part))
    place = scratch(
        plan.target,
        folder=plan.folder,
        prefix=plan.topic_prefix,
        orders=plan.settings.orders + plan.settings.total,
        warn=lambda said: _warn(err, said),
    )
    with place as site, Crew() as crew:

        def at_once() -> None:
            crew.kill()
            _warn(err, f"what it made is still there: {site.shown}")

        stop.at_once = at_once
        err.write(f"log: {site.shown}, removed at the end\n")
        results = measure(site, plan.settings, crew, audited=plan.audit, stop=stop, bar=part)
        # Before the removal, which may fail: what was measured counts all the same.
        return tell(results, None)


def _warn(err: TextIO, said: str) -> None:
    err.write(f"warning: {visible(said, 1_000)}\n")


def _troubles(document: Mapping[str, Any]) -> list[str]:
    troubles = []
    if unsettled := value_at(document, "latency.unsettled"):
        troubles.append(
            f"{tables.many(unsettled, 'order')} had not been settled when they were given up; "
            "they count with what they had waited"
        )
    if value_at(document, "audit.clean") is False:
        troubles.append(f"the audit is not clean: {', '.join(document['audit']['broken'])}")
    comparison = document["comparison"]
    return troubles + ([] if comparison is None else worse_figures(comparison))
