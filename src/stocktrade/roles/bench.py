"""`bench`: how fast the exchange is on the chosen log of this machine.

Owns the order of its parts and what is said of them; what measures is `bench`'s. Invariant: every figure comes with what
it was measured on and how.
"""

import json
import os
import platform
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

from rich.console import Console
from rich.text import Text

from stocktrade import __version__, tables
from stocktrade.audit.findings import Report
from stocktrade.bench.load import trading_at_once
from stocktrade.bench.measure import CORE_ROUNDS, WARM_UP_S, Core, Latency, Results, Settings, measure, measure_core
from stocktrade.bench.percentiles import Percentiles
from stocktrade.bench.scratch import scratch
from stocktrade.domain.values import group_indian, visible
from stocktrade.errors import ExitCode, UsageError
from stocktrade.listing import json_line
from stocktrade.progress import bar
from stocktrade.roles.bench_baseline import FIGURES, SCHEMA, Baseline, tolerance_from, value_at, worse_figures
from stocktrade.settings import Target
from stocktrade.signals import Stop

RATE: Final = 200.0
SECONDS: Final = 10.0
ORDERS: Final = 20_000
CORE_ORDERS: Final = 100_000
MAX_ORDERS: Final = 10_000_000
"""Of the burst, and of the latency: what a machine can hold, and a number for each in memory."""

_SLICES_FROM_S: Final = 120.0
"""So long runs are drawn slice by slice, too."""


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

    @property
    def kind(self) -> str:
        """What is measured, as the document says it."""
        return "core" if self.target is None else self.target.url.partition(":")[0].replace("sqlite", "embedded")


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
        plan.baseline.check(plan.kind, _settings_document(settings))
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

    if plan.target is None:
        document = _document(plan, None, measure_core(plan.settings, stop=stop, bar=part))
    else:
        with scratch(
            plan.target,
            folder=plan.folder,
            prefix=plan.topic_prefix,
            orders=plan.settings.orders + plan.settings.total,
            warn=lambda said: _warn(err, said),
        ) as site:
            err.write(f"log: {site.shown}, removed at the end\n")
            document = _document(plan, measure(site, plan.settings, audited=plan.audit, stop=stop, bar=part), None)
    if plan.baseline is not None:
        document["comparison"] = plan.baseline.comparison(document, plan.tolerance_percent)
    if as_json:
        out.write(json_line(SCHEMA, document))
    elif console.is_terminal:
        _draw(document, console)
    else:
        out.writelines(tables.tsv(cells) + "\n" for cells in _rows(document))
    troubles = _troubles(document)
    for trouble in troubles:
        err.write(f"✗ {trouble}\n")
    return ExitCode.NO if troubles else ExitCode.OK


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
    if comparison is not None and comparison["worse"]:
        figures = ", ".join(worse_figures(comparison))
        troubles.append(f"worse than the baseline by more than {comparison['tolerance_percent']:g} %: {figures}")
    return troubles


# --- the document ----------------------------------------------------------------------------------------------


def _document(plan: Plan, results: Results | None, core: Core | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "machine": _machine(),
        "versions": {
            "stocktrade": __version__,
            "python": platform.python_version(),
            "log": None if results is None else results.about,
        },
        "kind": plan.kind,
        "log": None if plan.target is None else plan.target.url,
        "shards": None if results is None else results.shards,
        "client": None if results is None else results.client or None,
        "settings": _settings_document(plan.settings),
        "burst": None,
        "recovery": None,
        "latency": None,
        "core": None,
        "audit": None,
        "comparison": None,
    }
    if core is not None:
        document["core"] = {
            "inputs": core.inputs,
            "rounds": CORE_ROUNDS,
            "inputs_per_s": round(core.inputs_per_s, 1),
            "with_json_inputs_per_s": round(core.with_json_inputs_per_s, 1),
        }
    if results is None:
        return document
    if (burst := results.burst) is not None:
        document["burst"] = {
            "orders": burst.orders,
            "seconds": round(burst.seconds, 4),
            "orders_per_s": round(burst.orders / burst.seconds, 1),
        }
    if (recovery := results.recovery) is not None:
        document["recovery"] = recovery._asdict() | {
            "owns_s": round(recovery.owns_s, 4),
            "first_commit_s": round(recovery.first_commit_s, 4),
        }
    if results.latency is not None:
        document["latency"] = _latency_document(results.latency)
    if results.audit is not None:
        document["audit"] = _audit_document(results.audit)
    return document


def _settings_document(settings: Settings) -> dict[str, Any]:
    warm_up_s = WARM_UP_S if settings.seconds else 0.0
    return {**settings._asdict(), "warm_up_s": warm_up_s}


def _latency_document(latency: Latency) -> dict[str, Any]:
    sender = latency.sender
    return {
        **_percentiles_document(latency.all),
        "unsettled": latency.unsettled,
        "warm_up": _percentiles_document(latency.warm_up),
        "sender": {
            "orders": sender["sent"],
            "calls": sender["calls"],
            "rate_reached": round(sender["rate_reached"], 2),
            **{name: _ms(sender[name]) for name in ("behind_p50_ms", "behind_p99_ms", "behind_max_ms")},
        },
        "slice_s": latency.slice_s,
        "slices": [
            {
                "from_s": each.from_s,
                "samples": each.latency.samples,
                "p50_ms": _ms(each.latency.p50),
                "p99_ms": _ms(each.latency.p99),
                "max_ms": _ms(each.latency.max),
                "exchange_rss_mib": None if (rss := each.exchange_rss_bytes) is None else round(rss / 2**20, 1),
            }
            for each in latency.slices
        ],
    }


def _percentiles_document(found: Percentiles) -> dict[str, Any]:
    return {
        "samples": found.samples,
        "p50_ms": _ms(found.p50),
        "p90_ms": _ms(found.p90),
        "p99_ms": _ms(found.p99),
        "p99_9_ms": _ms(found.p99_9),
        "max_ms": _ms(found.max),
    }


def _ms(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _audit_document(report: Report) -> dict[str, Any]:
    return {
        "clean": report.clean,
        "inputs": report.inputs,
        "trades": report.trades,
        "broken": [rule for rule, tally in report.tallies.items() if tally.broken],
    }


def _machine() -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    except (ValueError, OSError):
        memory = None
    return {
        "cpu": visible(_cpu(), 100),
        "cores": cores,
        "memory_mib": memory,
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
    }


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not on Linux
    return platform.processor() or "unknown"


# --- for people, and for a pipe --------------------------------------------------------------------------------


def _rows(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Each figure by its path in the document: its value, its unit, and with a baseline that of it and the change."""
    about = [(name, text, "") for name, text in _about(document)]
    changes = _changes(document)
    figures = [
        (figure.path, _plain(value_at(document, figure.path)), figure.unit, *_changed(changes.get(figure.path)))
        for figure in FIGURES
        if figure.path in changes or value_at(document, figure.path) is not None
    ]
    audit = [("audit", "clean" if document["audit"]["clean"] else "broken", "")] if document["audit"] else []
    return [*about, *figures, *audit]


def _about(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    machine, versions, settings = (document[name] for name in ("machine", "versions", "settings"))
    memory = f", {machine['memory_mib'] / 1024:.1f} GiB" if machine["memory_mib"] else ""
    load = [f"{settings['symbols']} symbols", f"seed {settings['seed']}", f"{settings['orders']} orders"]
    if settings["seconds"]:
        load.append(f"then {settings['rate']:g} orders/s for {settings['seconds']:g} s")
    log = f"{document['log']}, {versions['log']}, {tables.many(document['shards'] or 0, 'shard')}"
    return [
        ("machine", f"{machine['cpu']}, {tables.many(machine['cores'], 'core')}{memory}"),
        ("system", f"{machine['system']} {machine['architecture']}, Python {versions['python']}"),
        ("stocktrade", versions["stocktrade"]),
        ("log", "none, the core alone" if document["log"] is None else visible(log, 300)),
        ("load", ", ".join(load)),
    ]


def _changes(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    comparison = document["comparison"]
    return {} if comparison is None else {each["figure"]: each for each in comparison["figures"]}


def _changed(change: Mapping[str, Any] | None) -> tuple[str, ...]:
    if change is None:
        return ()
    percent = "" if change["change_percent"] is None else f"{change['change_percent']:+.1f}%"
    return _plain(change["before"]), percent, "worse" if change["worse"] else "" if change["judged"] else "not judged"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def _grouped(value: float | None) -> str:
    if value is None:
        return ""
    return group_indian(round(value)) if value >= 1_000 else f"{value:.2f}"


def _draw(document: Mapping[str, Any], console: Console) -> None:
    width = max(len(name) for name, _ in _about(document)) + 2
    for name, text in _about(document):
        console.print(Text.assemble((name.ljust(width), tables.FAINT), text), soft_wrap=True)
    console.print()
    changes, notes = _changes(document), _notes(document)
    shown = [each for each in FIGURES if each.path in changes or value_at(document, each.path) is not None]
    columns = [
        tables.TableColumn("figure", [Text(figure.label) for figure in shown]),
        tables.TableColumn("now", [Text(_grouped(value_at(document, each.path))) for each in shown], right=True),
        tables.TableColumn("unit", [Text(figure.unit) for figure in shown]),
    ]
    if document["comparison"] is not None:
        found = [changes.get(figure.path, {}) for figure in shown]
        columns += [
            tables.TableColumn("before", [Text(_grouped(each.get("before"))) for each in found], right=True),
            tables.TableColumn("change", [_change_cell(each) for each in found], right=True),
        ]
    columns.append(tables.TableColumn("", [Text(notes.get(each.path, ""), tables.FAINT) for each in shown], rank=1))
    console.print(tables.columns_table(columns, console.width))
    if document["latency"] is not None:
        _draw_latency(document["latency"], document["settings"], console)
    if document["comparison"] is not None:
        for said in document["comparison"]["differs"]:
            console.print(Text(f"not the same: {said}", tables.FAINT), soft_wrap=True)
    if (audit := document["audit"]) is not None and audit["clean"]:
        counts = f"{tables.many(audit['inputs'], 'input')}, {tables.many(audit['trades'], 'trade')}"
        console.print(Text(f"✓ the audit of {counts} is clean", tables.GOOD))


def _change_cell(change: Mapping[str, Any]) -> Text:
    percent = change.get("change_percent")
    if percent is None:
        return Text("")
    return Text(f"{percent:+.1f}%", tables.BAD if change["worse"] else "" if change["judged"] else tables.FAINT)


def _notes(document: Mapping[str, Any]) -> dict[str, str]:
    notes = {}
    if (burst := document["burst"]) is not None:
        notes["burst.orders_per_s"] = f"{tables.many(burst['orders'], 'order')} that waited on the log"
    if (recovery := document["recovery"]) is not None:
        source = "with a snapshot" if recovery["from_snapshot"] else "from the journal"
        notes["recovery.owns_s"] = f"after a kill, {source}, {group_indian(recovery['inputs_replayed'])} replayed"
        notes["recovery.first_commit_s"] = "both with the start of the process"
    if (latency := document["latency"]) is not None:
        notes["latency.p50_ms"] = "from when it was meant to be sent"
        notes["latency.p90_ms"] = "until both legs were seen"
        notes["latency.p99_ms"] = f"{tables.many(latency['samples'], 'order')} that traded at once"
    if document["core"] is not None:
        notes["core.inputs_per_s"] = "instructions to facts"
        notes["core.with_json_inputs_per_s"] = "JSON to the JSON of all events"
    return notes


def _draw_latency(latency: Mapping[str, Any], settings: Mapping[str, Any], console: Console) -> None:
    sender, warm_up = latency["sender"], latency["warm_up"]
    lines = [
        f"sender  {sender['rate_reached']:g} of {settings['rate']:g} orders/s, "
        f"behind by {_grouped(sender['behind_p99_ms'])} ms (p99), {_grouped(sender['behind_max_ms'])} ms (max)",
    ]
    if warm_up["samples"]:
        lines.append(
            f"warm-up {settings['warm_up_s']:g} s before: p50 {_grouped(warm_up['p50_ms'])} ms, "
            f"max {_grouped(warm_up['max_ms'])} ms"
        )
    console.print()
    for line in lines:
        console.print(Text(line, tables.FAINT), soft_wrap=True)
    if settings["seconds"] < _SLICES_FROM_S:
        return
    slices = latency["slices"]

    def cells(name: str) -> list[Text]:
        return [Text(_grouped(each[name])) for each in slices]

    console.print()
    console.print(
        tables.columns_table(
            [
                tables.TableColumn("from s", [Text(f"{each['from_s']:g}") for each in slices], right=True),
                tables.TableColumn("p50 ms", cells("p50_ms"), right=True),
                tables.TableColumn("p99 ms", cells("p99_ms"), right=True),
                tables.TableColumn("max ms", cells("max_ms"), right=True),
                tables.TableColumn("exchange MiB", cells("exchange_rss_mib"), right=True),
            ],
            console.width,
        )
    )
