"""`doctor`: looks whether everything that stocktrade needs is there and well, one line for each check.

Invariant: it only looks. No topic, no folder and no record is made, and what is wrong is a check that failed, never an
error of its own. A check that depends on one that failed is skipped.
"""

import json
import platform
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from typing import Final, NamedTuple, TextIO

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from stocktrade import __version__, tables
from stocktrade.domain.messages import JournalRecord, SnapshotManifest
from stocktrade.domain.values import group_indian, visible
from stocktrade.errors import ExitCode, LogDamaged, StocktradeError, Unavailable
from stocktrade.lag import COUNTED, Backlog, backlogs, last_entries, newest, records_of
from stocktrade.settings import log_target
from stocktrade.shard.history import rules_of
from stocktrade.shard.snapshot import Snapshots
from stocktrade.transport import connect, topics
from stocktrade.transport.base import Log, Record, TopicPartition
from stocktrade.transport.database import sqlite_version
from stocktrade.transport.premises import folder_of, holds_log, look_at

OLDEST_PYTHON: Final = (3, 11)
PACKAGES: Final = ("typer", "rich", "pydantic", "kafka-python")

LITTLE_SPACE_BYTES: Final = 1024**3
"""Below so much free space on the disk of an embedded log it is time to make some."""

REQUEST_MS: Final = 5_000
"""How long a broker may take for an answer, unless the user has set it: a doctor is in a hurry."""

LOOKS_APART_S: Final = 1.0
"""Between the two looks at a lag: an exchange that is well takes what was there at the first one."""

_DAY_MS: Final = 24 * 60 * 60 * 1000
_MADE_BY: Final = "the first `nse`, `buy` or `sell` makes it, or\nstocktrade topics create"
_MADE_BY_THEM: Final = "the first `nse`, `buy` or `sell` makes them, or\nstocktrade topics create"
_SLOW_EXCHANGE: Final = "the exchange says on its terminal what it waits for"
_AN_EXCHANGE: Final = "orders are safe on the log; an exchange takes them:\nstocktrade nse"


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """What a check found, and where it is not well what to do: a sentence, then commands, each on a line.

    `stops`: what depends on this check cannot be looked at, although nothing failed.
    """

    state: State
    found: str
    hint: str = ""
    stops: bool = False


class Flags(NamedTuple):
    """The flags that name a log; see `settings.log_target`."""

    bootstrap_server: str | None = None
    command_config: str | None = None
    command_property: Sequence[str] = ()


def _connect(url: str, options: Mapping[str, str], client: str) -> Log:
    return connect(url, settings=options, client=client)


@dataclass
class Case:
    """What the checks are told, and what each leaves for those after it.

    Attributes:
        flags: those of the command.
        environ: the environment.
        now_ms: the wall clock.
        pause: waits between two looks.
        opened: closes at the end what was opened.
        connect: opens a log by its URL and Kafka's own options.
        url: the log's name, once the settings are read; `options` and `client` are those of its connection.
        owners: who owns which shard.
        entries: the last entry of each journal that has one.
    """

    flags: Flags
    environ: Mapping[str, str]
    now_ms: Callable[[], int]
    pause: Callable[[], None]
    opened: ExitStack
    connect: Callable[[str, Mapping[str, str], str], Log] = _connect
    url: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    client: str = ""
    owners: Mapping[int, str | None] = field(default_factory=dict)
    entries: Mapping[int, JournalRecord] = field(default_factory=dict)
    _log: Log | None = None

    @property
    def log(self) -> Log:
        """The log, once it is open."""
        assert self._log is not None
        return self._log

    def open_log(self) -> None:
        """Open the log.

        Raises:
            StocktradeError: it cannot be opened.
        """
        self._log = self.opened.enter_context(self.connect(self.url, self.options, self.client))

    @property
    def shards(self) -> range:
        """The numbers of the shards."""
        return range(self.log.partitions())


class Check(NamedTuple):
    """How a check looks, and which others it needs."""

    look: Callable[[Case], Finding]
    needs: tuple[str, ...] = ()


def run(
    flags: Flags,
    *,
    environ: Mapping[str, str],
    as_json: bool,
    console: Console,
    out: TextIO,
    now_ms: Callable[[], int],
    pause: Callable[[], None] = lambda: time.sleep(LOOKS_APART_S),
) -> ExitCode:
    """Look at everything and say what was found, each finding as soon as it is known.

    Args:
        flags: those of the command.
        environ: the environment.
        as_json: one JSON document at the end instead of lines.
        console: where lines for people go, if it is a terminal.
        out: where anything else goes.
        now_ms: the wall clock.
        pause: waits between two looks.

    Returns:
        OK, or NO when a check failed.
    """
    findings: dict[str, Finding] = {}
    with ExitStack() as opened:
        for name, finding in examine(Case(flags, environ, now_ms, pause, opened)):
            findings[name] = finding
            if as_json:
                continue
            if console.is_terminal:
                _draw(name, finding, console)
            else:
                out.write(tables.tsv((name, finding.state, finding.found, _in_one_line(finding.hint))) + "\n")
                out.flush()
    states = Counter(finding.state for finding in findings.values())
    failed = states[State.FAILED]
    if as_json:
        out.write(_document(findings, healthy=not failed))
    elif console.is_terminal:
        warnings = f", {tables.many(states[State.WARNING], 'warning')}" if states[State.WARNING] else ""
        verdict = (f"✗ {tables.many(failed, 'check')} failed", tables.BAD) if failed else ("✓ healthy", tables.GOOD)
        console.print()
        console.print(Text.assemble(verdict, warnings))
    return ExitCode.NO if failed else ExitCode.OK


def examine(case: Case) -> Iterator[tuple[str, Finding]]:
    """The checks in their order, each with what it found."""
    stopped: dict[str, str] = {}  # each with the check that is to blame
    for name, check in CHECKS.items():
        missing = next((other for other in check.needs if other in stopped), None)
        if missing is not None:
            stopped[name] = stopped[missing]
            yield name, Finding(State.SKIPPED, f"not looked at: see {stopped[missing]}")
            continue
        try:
            finding = check.look(case)
        except StocktradeError as error:
            finding = _failed(error)
            if isinstance(error, Unavailable):
                stopped["log"] = name  # or each check after this one would wait for it again
        if finding.stops or finding.state is State.FAILED:
            stopped[name] = name
        yield name, finding


def _failed(error: StocktradeError) -> Finding:
    return Finding(State.FAILED, ": ".join(filter(None, (error.what, error.cause))), error.hint)


# --- before the log --------------------------------------------------------------------------------------------


def versions(case: Case) -> Finding:
    """What this is and runs on."""
    del case
    parts = [f"stocktrade {__version__}", f"Python {platform.python_version()}"]
    parts += [f"{package} {_version(package)}" for package in PACKAGES]
    parts += [f"SQLite {sqlite_version()}", f"{platform.system()} {platform.release()}"]
    found = " · ".join(parts)
    if sys.version_info[:2] < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        return Finding(State.FAILED, found, f"this Python is too old: stocktrade needs {oldest} or newer")
    return Finding(State.OK, found)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "is missing"


def settings(case: Case) -> Finding:
    """Which log, and who says so."""
    target = log_target(*case.flags, case.environ)
    case.url, case.options, case.client = target.url, target.options, target.client
    found = f"{target.url}, {f'from {target.origin}' if target.origin else 'by default'}"
    if target.options:
        found += f"; set: {', '.join(sorted(target.options))}"
    return Finding(State.OK, found)


def data_folder(case: Case) -> Finding:
    """Where an embedded log is, or would be."""
    folder = folder_of(case.url)
    if folder is None:
        return Finding(State.OK, "none is needed: the log is on Kafka")
    place = look_at(folder)
    if not place.writable:
        return Finding(
            State.FAILED,
            f"this user may not write in {place.nearest}",
            "ask for the right, or set STOCKTRADE_HOME to a folder of yours",
        )
    space = f"{_size(place.free_bytes)} free"
    found = f"{folder}, {'writable' if place.made else 'not made yet'}, {space}"
    if place.free_bytes < LITTLE_SPACE_BYTES:
        return Finding(State.WARNING, found, "free some space on that disk: an order that finds none is refused")
    return Finding(State.OK, found)


def _size(count: int) -> str:
    return f"{count / 1024**3:.1f} GiB" if count >= LITTLE_SPACE_BYTES else f"{count / 1024**2:.0f} MiB"


def log(case: Case) -> Finding:
    """Whether the log can be opened."""
    folder = folder_of(case.url)
    if folder is not None and not holds_log(folder):
        return Finding(State.WARNING, f"there is none in {folder} yet", _MADE_BY, stops=True)
    # A timeout of the user's own is kept.
    case.options = {"request.timeout.ms": str(REQUEST_MS), **case.options} if folder is None else case.options
    case.open_log()
    found = case.log.about()
    if case.log.warnings:
        return Finding(State.WARNING, "; ".join((found, *case.log.warnings)))
    return Finding(State.OK, found)


# --- what is on the log ----------------------------------------------------------------------------------------


def exchange_topics(case: Case) -> Finding:
    """Whether all topics are there, as they should be."""
    missing = case.log.missing_topics(topics.SPECS)
    if missing:
        return Finding(State.WARNING, f"missing: {', '.join(missing)}", _MADE_BY_THEM, stops=True)
    each = tables.many(case.log.partitions(), "partition")
    return Finding(State.OK, f"all {len(topics.SPECS)} are there, with {each} each")


def exchange(case: Case) -> Finding:
    """Who owns which shard."""
    case.owners = case.log.owners()
    held: dict[str | None, list[int]] = defaultdict(list)
    for shard in case.shards:
        held[case.owners.get(shard)].append(shard)
    found = [f"{owner} owns {_shards(shards)}" for owner, shards in held.items() if owner is not None]
    if None in held:
        return Finding(State.WARNING, "; ".join([*found, f"nobody owns {_shards(held[None])}"]), _AN_EXCHANGE)
    return Finding(State.OK, "; ".join(found))


def _shards(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"shard {numbers[0]}"
    return f"shards {', '.join(map(str, numbers))}"


def journal(case: Case) -> Finding:
    """How far the journals are, under which rules, and how much a recovery would have to replay."""
    # First the anchors: an exchange that trades meanwhile brings the journal further, never back.
    anchors = {shard: case.log.anchor(shard) for shard in case.shards}
    entries = last_entries(case.log, case.shards)
    for shard, anchor in anchors.items():
        _check_anchor(shard, anchor, entries.get(shard))
    for shard in entries:
        rules_of(case.log, shard)  # raises for rules that this version does not know
    case.entries = entries
    if not entries:
        return Finding(State.OK, "empty: no exchange has run on this log yet")
    manifests = newest(case.log, topics.SNAPSHOTS, entries, _last_manifest)
    rules = ", ".join(sorted({entry.rules for entry in entries.values()}))
    each = [_how_far(shard, entries.get(shard), manifests.get(shard)) for shard in case.shards]
    return Finding(State.OK, f"rules {rules}; {'; '.join(each)}")


def _check_anchor(shard: int, anchor: bytes | None, last: JournalRecord | None) -> None:
    anchored = -1 if anchor is None else int(json.loads(anchor)["entry"])
    if anchored > (-1 if last is None else last.entry):
        raise LogDamaged(
            f"the log has lost the end of shard {shard}'s journal",
            cause=f"entry {anchored} was committed, and "
            + ("there is none" if last is None else f"entry {last.entry} is the last one"),
            hint="restore the log from a copy",
        )


def _how_far(shard: int, last: JournalRecord | None, manifest: SnapshotManifest | None) -> str:
    if last is None:
        return f"shard {shard} empty"
    if manifest is None:
        return f"shard {shard} at entry {last.entry}, no snapshot"
    after = max(0, last.entry - manifest.entry)
    return (
        f"shard {shard} at entry {last.entry}, {group_indian(after)} after the snapshot"
        if after
        else f"shard {shard} at entry {last.entry}, its snapshot is up to date"
    )


def lag(case: Case) -> Finding:
    """What waits on the inputs, for how long, and whether it gets less."""
    held = _held_back(case.log, case.shards)
    first = backlogs(case.log, case.entries, case.shards)
    # Looked at again only where somebody should take it.
    second = {}
    if any(case.owners.get(shard) for shard in first):
        case.pause()
        second = backlogs(case.log, last_entries(case.log, case.shards), case.shards)
    found: list[str] = []
    hint, state = "", State.OK
    for shard, backlog in first.items():
        owned = bool(case.owners.get(shard))
        trend = _trend(backlog, second.get(shard)) if owned else "and no exchange takes them"
        age = "" if backlog.oldest_ms is None else _age(case.now_ms() - backlog.oldest_ms)
        found.append(f"shard {shard}: {tables.many(backlog.records, 'record')}{age}, {trend}")
        if not owned or trend in (_GROWS, _STANDS):
            state = State.WARNING
            hint = _SLOW_EXCHANGE if owned else hint or _AN_EXCHANGE
    for topic, partition in held:
        found.append(f"{topic}@{partition} is held back by an open transaction")
    if held:
        state, hint = State.WARNING, _how_to_end(case.url, held)
    return Finding(state, "; ".join(found) or "none: everything on the inputs is in the journal", hint)


def _age(ms: int) -> str:
    return f", the oldest {tables.duration(max(0, ms))} old"


_GROWS: Final = "growing"
_STANDS: Final = "standing still"


def _trend(first: Backlog, second: Backlog | None) -> str:
    if second is None or all(second.taken[at] >= end for at, end in first.ends.items()):
        return "and the exchange takes them"
    if second.records > first.records:
        return _GROWS
    return "shrinking" if second.records < first.records else _STANDS


def _held_back(log: Log, shards: Iterable[int]) -> list[TopicPartition]:
    with closing(log.reader({(topic, shard): 0 for shard in shards for topic in topics.INPUTS})) as reader:
        written = reader.written_ends()
        # It waits for what is being committed just now: what is missing then is in a transaction that stays open.
        ends = reader.ends()
    return [at for at, end in written.items() if ends[at] < end]


def _how_to_end(url: str, held: Iterable[TopicPartition]) -> str:
    server = url.partition(":")[2].partition(",")[0]
    find = [
        f"kafka-transactions.sh --bootstrap-server {server} find-hanging --topic {topic} --partition {partition}"
        for topic, partition in held
    ]
    return "\n".join(["nothing is lost; if the transaction does not end by itself, find it with", *find])


def dead_letters(case: Case) -> Finding:
    """How many inputs were no orders."""
    total = recent = 0
    is_whole = True
    since_ms = case.now_ms() - _DAY_MS
    with closing(case.log.reader({(topics.DEAD_LETTERS, shard): 0 for shard in case.shards})) as reader:
        starts, ends = reader.starts(), reader.ends()
    tails = {at: max(starts.get(at, 0), end - COUNTED) for at, end in ends.items()}
    for at, begin in tails.items():
        total += begin - starts.get(at, 0)
        is_whole = is_whole and begin == starts.get(at, 0)
    for record in records_of(case.log, {at: begin for at, begin in tails.items() if begin < ends[at]}):
        total += 1
        recent += record.time_ms >= since_ms
    if not total:
        return Finding(State.OK, "none")
    found = f"{'' if is_whole else 'about '}{group_indian(total)}, {group_indian(recent)} of the last 24 h"
    return Finding(State.WARNING, found, "somebody sends what is no order; see what it is:\nstocktrade dlq list")


CHECKS: Final = {
    "versions": Check(versions),
    "settings": Check(settings),
    "data folder": Check(data_folder, ("settings",)),
    "log": Check(log, ("settings", "data folder")),
    "topics": Check(exchange_topics, ("log",)),
    "exchange": Check(exchange, ("log",)),
    "journal": Check(journal, ("log", "topics")),
    "lag": Check(lag, ("log", "topics", "journal")),
    "dead letters": Check(dead_letters, ("log", "topics")),
}
"""Every check by its name, in the order in which they are made."""


def _last_manifest(records: Sequence[Record]) -> SnapshotManifest | None:
    stored = Snapshots()
    stored.feed(records)
    return next(iter(stored.manifests()), None)


# --- what is said ----------------------------------------------------------------------------------------------

_MARKS: Final = {
    State.OK: ("✓", tables.GOOD),
    State.WARNING: ("!", tables.WAITING),
    State.FAILED: ("✗", tables.BAD),
    State.SKIPPED: ("-", tables.FAINT),
}
_INDENT: Final = 2 + max(map(len, CHECKS)) + 2
_LONGEST: Final = 3_000


def _draw(name: str, finding: Finding, console: Console) -> None:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, width=_INDENT - 2)
    grid.add_column()
    mark, style = _MARKS[finding.state]
    faint = tables.FAINT if finding.state is State.SKIPPED else ""
    grid.add_row(Text.assemble((mark, style), f" {name}"), Text(visible(finding.found, _LONGEST), faint))
    console.print(grid)
    sentence, *commands = [visible(line, _LONGEST) for line in finding.hint.splitlines()] or [""]
    if sentence:
        console.print(Padding(Text(sentence), (0, 0, 0, _INDENT), expand=False))
    for command in commands:
        # Whole, so that it can be pasted, however narrow the screen is.
        console.print(Text(f"{' ' * (_INDENT + 2)}{command}"), soft_wrap=True)


def _in_one_line(hint: str) -> str:
    sentence, *commands = hint.splitlines() or [""]
    return f"{sentence.removesuffix(':')}: {'; '.join(commands)}" if commands else sentence


def _document(findings: Mapping[str, Finding], *, healthy: bool) -> str:
    document = {
        "schema": "stocktrade.doctor/1",
        "healthy": healthy,
        "checks": [
            {"check": name, "state": finding.state, "found": finding.found, "hint": finding.hint or None}
            for name, finding in findings.items()
        ],
    }
    return tables.printable_json(json.dumps(document, ensure_ascii=False)) + "\n"
