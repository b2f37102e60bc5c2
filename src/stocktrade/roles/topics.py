"""`topics`: what is on the exchange's topics, their records as they are, and the topics made before anybody needs them.

Invariant: a topic that exists is never changed; one that differs from what is asked is refused by the log. Only
`create` writes.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import takewhile
from typing import Final, NamedTuple, TextIO

from rich.console import Console
from rich.text import Text

from stocktrade import tables
from stocktrade.domain.values import group_indian, visible
from stocktrade.errors import ExitCode, UsageError
from stocktrade.lag import backlogs, last_entries, newest, records_of
from stocktrade.listing import Column, Form, Listing, number, time_of, write
from stocktrade.ranges import Point, rfc3339
from stocktrade.records import json_line, row_of
from stocktrade.spans import Span, span_of
from stocktrade.tables import record_line
from stocktrade.transport import topics
from stocktrade.transport.base import Log, Record


def create(log: Log, *, partitions: int | None, as_json: bool, console: Console, out: TextIO) -> ExitCode:
    """Make the topics that are missing, and say which were made and which were there, as they should be.

    Args:
        log: the log, opened for that many partitions.
        partitions: how many partitions each topic shall have; None leaves that to the log.
        as_json: one JSON document instead of lines.
        console: where lines for people go, if it is a terminal.
        out: where anything else goes.

    Raises:
        UsageError: a topic is there with other settings, or the log has another number of partitions.
        Unavailable: the log cannot be reached.
    """
    if partitions is not None and partitions != log.partitions():
        raise UsageError(
            f"{log.url} has {tables.many(log.partitions(), 'partition')}, not {partitions}",
            cause="symbols belong to partitions, so their number stays what it was when the log was made",
            hint="leave --partitions out, or make a new log in another folder",
        )
    missing = log.missing_topics(topics.SPECS)
    log.ensure_topics(topics.SPECS)
    states = {spec.name: "made" if spec.name in missing else "there" for spec in topics.SPECS}
    count = log.partitions()
    if as_json:
        document = {
            "schema": "stocktrade.topics/1",
            "log": log.url,
            "topics": [{"topic": name, "partitions": count, "state": state} for name, state in states.items()],
        }
        out.write(json.dumps(document, ensure_ascii=False) + "\n")
    elif console.is_terminal:
        width = max(map(len, states))
        for name, state in states.items():
            mark = ("✓ made ", tables.GOOD) if state == "made" else ("✓ there", tables.FAINT)
            console.print(Text.assemble(mark, f"  {name:{width}}  {tables.many(count, 'partition')}"))
    else:
        for name, state in states.items():
            out.write(tables.tsv((name, str(count), state)) + "\n")
    return ExitCode.OK


class Partition(NamedTuple):
    """One partition as it is now.

    `offsets`: how many it keeps: those of its records, on Kafka also of the ends of transactions, in a compacted topic
    also of what was replaced. `last_ms`: the time of the last record. Of an input topic `lag` is how many of its
    records no journal entry has, and `waiting_ms` how long the oldest one of its shard has been waiting. `owner` is the
    shard's.
    """

    topic: str
    partition: int
    offsets: int
    last_ms: int | None
    lag: int | None
    waiting_ms: int | None
    owner: str | None


def _age(ms: int | None) -> str:
    return "" if ms is None else tables.duration(max(0, ms))


PARTITIONS: Final = Listing[Partition](
    schema="stocktrade.partition/1",
    columns=(
        Column("topic", "topic", lambda row: row.topic),
        number("partition", "shard", lambda row: row.partition),
        number("offsets", "offsets", lambda row: row.offsets),
        time_of("last", "last", lambda row: row.last_ms, rank=2),
        Column("lag", "lag", lambda row: "" if row.lag is None else str(row.lag), right=True),
        Column(
            "waiting_ms",
            "waiting",
            lambda row: "" if row.waiting_ms is None else str(row.waiting_ms),
            lambda row: Text(_age(row.waiting_ms), tables.WAITING),
            right=True,
            rank=1,
        ),
        Column(
            "owner", "owner", lambda row: row.owner or "", lambda row: tables.shown(row.owner or ""), folds=True, rank=3
        ),
    ),
    document=lambda row: {
        "topic": row.topic,
        "partition": row.partition,
        "offsets": row.offsets,
        "last": None if row.last_ms is None else rfc3339(row.last_ms),
        "lag": row.lag,
        "waiting_ms": row.waiting_ms,
        "owner": row.owner,
    },
    empty="no topics yet: the first `nse`, `buy` or `sell` makes them",
)


def show(log: Log, *, form: Form, console: Console, out: TextIO, now_ms: int) -> ExitCode:
    """List every partition of every topic, and how far the exchange is behind.

    Raises:
        UsageError: a topic is there with other settings.
        Unavailable: the log cannot be reached.
    """
    write(PARTITIONS, partitions_of(log, now_ms), form, console=console, out=out)
    return ExitCode.OK


def partitions_of(log: Log, now_ms: int) -> list[Partition]:
    """Every partition of the topics that are there."""
    missing = set(log.missing_topics(topics.SPECS))
    names = [spec.name for spec in topics.SPECS if spec.name not in missing]
    if not names:
        return []
    shards = range(log.partitions())
    places = [(name, shard) for name in names for shard in shards]
    with closing(log.reader(dict.fromkeys(places, 0))) as reader:
        starts, ends = reader.starts(), reader.ends()
    last = {name: newest(log, name, shards, lambda tail: tail[-1].time_ms if tail else None) for name in names}
    behind = {} if missing else backlogs(log, last_entries(log, shards), shards)
    owners = log.owners()
    found = []
    for topic, shard in places:
        lag = waiting_ms = None
        backlog = behind.get(shard)
        if topic in topics.INPUTS and not missing:
            lag = 0 if backlog is None else backlog.counts[topic, shard]
            waiting_ms = now_ms - backlog.oldest_ms if lag and backlog and backlog.oldest_ms is not None else None
        count = ends[topic, shard] - starts.get((topic, shard), 0)
        found.append(Partition(topic, shard, count, last[topic].get(shard), lag, waiting_ms, owners.get(shard)))
    return found


def checked_topic(name: str) -> str:
    """A topic of the exchange.

    Raises:
        UsageError: it is none.
    """
    names = [spec.name for spec in topics.SPECS]
    if name not in names:
        raise UsageError(
            f"no topic of the exchange is called {visible(name, 64)!r}", cause=f"there are {', '.join(names)}"
        )
    return name


TAIL: Final = 10
"""How many records of each partition are shown where nothing is said."""

_PART_SHOWN: Final = 80
POLL_S: Final = 0.25


def tail(
    log: Log,
    topic: str,
    *,
    start: Point | None,
    until: Point | None,
    last: int | None,
    follow: bool,
    as_json: bool,
    out: TextIO,
    stop: Callable[[], bool],
) -> ExitCode:
    """Print the records of a topic as they are, a line each, and then those that come.

    Args:
        log: the log.
        topic: one of the exchange's.
        start: where to begin in each partition; None: with what is kept.
        until: where to end; None: at the present end, or, with `follow`, never.
        last: of what is there now no more than so many of each partition, the last ones.
        follow: wait for what comes.
        as_json: as `watch --json` writes them.
        out: where lines go.
        stop: whether a clean stop was asked for.

    Raises:
        Unavailable: the log cannot be read.
    """
    if topic in log.missing_topics(topics.SPECS):
        sys.stderr.write(f"no topic {topic} yet: the first `nse`, `buy` or `sell` makes it\n")
        return ExitCode.OK
    span = span_of(log, topic, start=start, until=until, last=last)
    if follow:
        span = span._replace(stops={})
        records = _endless(log, span, out, stop)
    else:
        records = takewhile(lambda _: not stop(), records_of(log, span.starts, stops=span.stops))
    with suppress(BrokenPipeError):
        for record in records:
            if span.holds(record):
                out.write((json_line(record) if as_json else _line(record)) + "\n")
        out.flush()
    return ExitCode.OK


def _endless(log: Log, span: Span, out: TextIO, stop: Callable[[], bool]) -> Iterator[Record]:
    with closing(log.reader(span.starts)) as reader:
        while not stop():
            yield from reader.poll(POLL_S)
            out.flush()


def _line(record: Record) -> str:
    if record.topic == topics.SNAPSHOTS and len(record.value or b"") > _PART_SHOWN:
        part = f"{group_indian(len(record.value or b''))} bytes of a snapshot"
        return record_line(row_of(record._replace(value=part.encode())))
    return record_line(row_of(record))
