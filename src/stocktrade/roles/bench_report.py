"""What `bench` found, as a document, as lines, and as a table.

Invariant: every figure comes with what it was measured on and how; lines and table say what the document says.
"""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from stocktrade import __version__, tables
from stocktrade.audit.findings import Report
from stocktrade.bench.measure import CORE_ROUNDS, WARM_UP_S, Core, Latency, Results, Settings
from stocktrade.bench.percentiles import Percentiles
from stocktrade.domain.values import group_indian, visible
from stocktrade.roles.bench_baseline import FIGURES, value_at
from stocktrade.settings import Target

_SLICES_FROM_S: Final = 120.0
"""So long runs are drawn slice by slice, too."""


# --- the document ----------------------------------------------------------------------------------------------


def kind_of(target: Target | None) -> str:
    """What is measured; None stands for the core alone."""
    return "core" if target is None else target.url.partition(":")[0].replace("sqlite", "embedded")


def document_of(
    target: Target | None, settings: Settings, results: Results | None, core: Core | None
) -> dict[str, Any]:
    """What was found, as `documents.BenchDocument` describes it, without a comparison."""
    document: dict[str, Any] = {
        "machine": _machine(),
        "versions": {
            "stocktrade": __version__,
            "python": platform.python_version(),
            "log": None if results is None else results.about,
        },
        "kind": kind_of(target),
        "log": None if target is None else target.url,
        "shards": None if results is None else results.shards,
        "client": None if results is None else results.client or None,
        "settings": settings_document(settings),
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


def settings_document(settings: Settings) -> dict[str, Any]:
    """What was asked for; only results of the same settings are compared."""
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


def rows_of(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
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


def draw(document: Mapping[str, Any], console: Console) -> None:
    """Draw it for people."""
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
            console.print(Text(f"not the same: {said}", tables.FAINT))
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
        snapshot = "a snapshot and " if recovery["from_snapshot"] else ""
        notes["recovery.owns_s"] = f"after a kill, {snapshot}{group_indian(recovery['inputs_replayed'])} replayed"
        notes["recovery.first_commit_s"] = "both from the start of the process"
    if (latency := document["latency"]) is not None:
        notes["latency.p50_ms"] = "from when it was meant to be sent"
        notes["latency.p90_ms"] = "until both of its legs were seen"
        notes["latency.p99_ms"] = f"of {tables.many(latency['samples'], 'order')} that traded at once"
    if document["core"] is not None:
        notes["core.inputs_per_s"] = "instructions to facts"
        notes["core.with_json_inputs_per_s"] = "JSON to the JSON of all events"
    return notes


def _draw_latency(latency: Mapping[str, Any], settings: Mapping[str, Any], console: Console) -> None:
    sender, warm_up = latency["sender"], latency["warm_up"]
    behind = f"{_grouped(sender['behind_p99_ms'])} ms (p99), {_grouped(sender['behind_max_ms'])} ms (max)"
    lines = [f"sender: {sender['rate_reached']:g} of {settings['rate']:g} orders/s, behind by {behind}"]
    if warm_up["samples"]:
        lines.append(
            f"warm-up: {settings['warm_up_s']:g} s before, p50 {_grouped(warm_up['p50_ms'])} ms, "
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
