"""`audit`: what the rules of the exchange say of the log, one line each.

Invariant: it reads only; the exit code says whether a rule is broken.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Final, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stocktrade import tables
from stocktrade.audit.auditor import ExpectedHead, audit
from stocktrade.audit.findings import MEANING, Report, Rule, Tally
from stocktrade.domain.values import group_indian, visible
from stocktrade.errors import ExitCode, UsageError
from stocktrade.progress import bar
from stocktrade.transport.base import Log

_HEAD: Final = re.compile(r"(?:(\d{1,4}):)?(\d{1,18}):([0-9a-fA-F]{8,64})", re.ASCII)


def heads_from(texts: Sequence[str]) -> list[ExpectedHead]:
    """Heads as `audit` prints them: SHARD:SEQ:DIGEST, of shard 0 also SEQ:DIGEST; at least 8 digits of the digest.

    Raises:
        UsageError: one is something else.
    """
    heads = []
    for text in texts:
        match = _HEAD.fullmatch(text)
        if match is None:
            raise UsageError(
                f"--expect-head is no head of a journal: {visible(text, 80)!r}",
                cause="a head is SEQ:DIGEST, or SHARD:SEQ:DIGEST",
                hint="copy a line that begins with `head` from an earlier `stocktrade audit`",
            )
        heads.append(ExpectedHead(int(match[1] or 0), int(match[2]), match[3].lower()))
    return heads


def run(
    log: Log,
    *,
    expected: Sequence[ExpectedHead],
    as_json: bool,
    console: Console,
    progress: Console,
    out: TextIO,
) -> ExitCode:
    """Audit the log and say what came of it.

    Args:
        log: the log.
        expected: heads that the journals must hold.
        as_json: one JSON document instead of lines.
        console: where a table for people goes, if it is a terminal.
        progress: where the progress is shown, if it is a terminal and it takes longer than a second.
        out: where anything else goes.

    Returns:
        OK, or NO when a rule is broken.

    Raises:
        UsageError: a head is of a shard that the log does not have.
        StocktradeError: the log cannot be read.
    """
    shards = log.partitions()
    for head in expected:
        if head.shard >= shards:
            raise UsageError(
                f"--expect-head names shard {head.shard}", cause=f"{log.url} has {tables.many(shards, 'shard')}"
            )
    report = _audited(log, expected, progress)
    if as_json:
        out.write(json.dumps(_document(log, report), ensure_ascii=False) + "\n")
    elif console.is_terminal:
        _draw(log, report, console)
    else:
        out.writelines(tables.tsv(cells) + "\n" for cells in _rows(report))
    return ExitCode.OK if report.clean else ExitCode.NO


def _audited(log: Log, expected: Iterable[ExpectedHead], console: Console) -> Report:
    with bar(console, "audit", "inputs") as show:
        return audit(log, expected=expected, on_progress=show)


def _state(tally: Tally) -> str:
    if tally.broken:
        return "broken"
    return "unchecked" if tally.unchecked else "ok"


def _rows(report: Report) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for rule, tally in report.tallies.items():
        first = tally.findings[0] if tally.findings else None
        where, what = (first.where, first.what) if first else ("", tally.why_unchecked)
        rows.append((rule, _state(tally), str(tally.checked), str(tally.broken), str(tally.unchecked), where, what))
    rows += [("head", f"{shard}:{head.entry}:{head.digest}") for shard, head in report.heads.items()]
    return rows


def _document(log: Log, report: Report) -> dict[str, object]:
    return {
        "schema": "stocktrade.audit/1",
        "log": log.url,
        "clean": report.clean,
        "inputs": report.inputs,
        "trades": report.trades,
        "waiting": report.waiting,
        "ignored_entries": report.ignored,
        "redelivered": report.redelivered,
        "heads": [
            {"shard": shard, "entry": head.entry, "digest": head.digest, "seq": head.seq}
            for shard, head in report.heads.items()
        ],
        "rules": [
            {
                "rule": rule,
                "meaning": MEANING[rule],
                "state": _state(tally),
                "checked": tally.checked,
                "broken": tally.broken,
                "unchecked": tally.unchecked,
                **({"why_unchecked": tally.why_unchecked} if tally.unchecked else {}),
                "findings": [{"where": found.where, "what": found.what} for found in tally.findings],
            }
            for rule, tally in report.tallies.items()
        ],
    }


def _draw(log: Log, report: Report, console: Console) -> None:
    table = Table(box=None, pad_edge=False, title=Text(f"Audit of {visible(log.url)}"), title_justify="left")
    table.add_column("")
    table.add_column("rule", no_wrap=True)
    table.add_column("checked", justify="right", no_wrap=True)
    table.add_column("broken", justify="right", no_wrap=True)
    table.add_column("what it says", ratio=1)
    marks = {"ok": Text("✓", tables.GOOD), "broken": Text("✗", tables.BAD), "unchecked": Text("?", tables.WAITING)}
    for rule, tally in report.tallies.items():
        broken = Text(group_indian(tally.broken), tables.BAD if tally.broken else tables.FAINT)
        table.add_row(marks[_state(tally)], Text(rule), group_indian(tally.checked), broken, Text(MEANING[rule]))
    console.print(table)
    for rule, tally in report.tallies.items():
        _draw_first(rule, tally, console)
    counts = [tables.many(report.inputs, "input"), tables.many(report.trades, "trade")]
    if report.waiting:
        counts.append(f"{tables.many(report.waiting, 'input')} not taken yet")
    if report.ignored:
        counts.append(f"{group_indian(report.ignored)} journal entries that do not count")
    if report.redelivered:
        counts.append(f"{tables.many(report.redelivered, 'record')} there once more")
    console.print()
    console.print(Text(" · ".join(counts)))
    for shard, head in report.heads.items():
        console.print(Text(f"head {shard}:{head.entry}:{head.digest}", tables.FAINT), soft_wrap=True)
    broken_rules = sum(1 for tally in report.tallies.values() if tally.broken)
    if broken_rules:
        console.print(Text(f"✗ {tables.many(broken_rules, 'rule')} broken", tables.BAD))
    else:
        console.print(Text("✓ clean", tables.GOOD))


def _draw_first(rule: Rule, tally: Tally, console: Console) -> None:
    if tally.findings:
        first = tally.findings[0]
        console.print()
        console.print(Text.assemble((f"✗ {rule}", tables.BAD), f"  {visible(first.where)}"), soft_wrap=True)
        console.print(Text(f"  {visible(first.what)}"))
    elif tally.unchecked:
        console.print()
        console.print(Text.assemble((f"? {rule}", tables.WAITING), f"  not checked: {visible(tally.why_unchecked)}"))
