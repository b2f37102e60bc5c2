"""`topics create`: what is missing is made, what is there stays, what differs is refused."""

import base64
import io
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from rich.console import Console

from stocktrade import cli
from stocktrade.errors import ExitCode, UsageError
from stocktrade.ranges import Point
from stocktrade.roles.topics import create, partitions_of, tail
from stocktrade.transport import connect, topics
from stocktrade.transport.base import Log, NewRecord

NAMES = [spec.name for spec in topics.SPECS]


def rows(count: int, state: str) -> str:
    return "".join(f"{name}\t{count}\t{state}\n" for name in NAMES)


def test_an_embedded_log_gets_the_partitions_asked_for(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder is made, the second time nothing is, and an exchange runs on as many shards."""
    assert cli.run(["topics", "create", "--partitions=3"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == (rows(3, "made"), f"log: sqlite:{home}\n")
    for again in ([], ["--partitions=3"]):
        assert cli.run(["topics", "create", *again]) == 0
        assert capsys.readouterr().out == rows(3, "there")
    assert cli.run(["nse", "--once"]) == 0
    assert {json.loads(line).get("shard") for line in capsys.readouterr().out.splitlines()} >= {0, 1, 2}


def test_another_number_of_partitions_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The difference is named, and the log stays as it is."""
    assert cli.run(["topics", "create", "--partitions=2"]) == 0
    capsys.readouterr()
    assert cli.run(["topics", "create", "--partitions=3"]) == 2
    said = capsys.readouterr()
    assert f"error: sqlite:{home} has 2 partitions, not 3\n" in said.err
    assert said.out == ""
    with connect(f"sqlite:{home}") as log:
        assert log.partitions() == 2


def test_json_is_one_document(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["topics", "create", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "schema": "stocktrade.topics/1",
        "log": f"sqlite:{home}",
        "topics": [{"topic": name, "partitions": 1, "state": "made"} for name in NAMES],
    }


# --- on Kafka --------------------------------------------------------------------------------------------------


@pytest.fixture
def log(kafka_servers: str) -> Iterator[Log]:
    from stocktrade.transport.kafka import KafkaLog

    with KafkaLog(kafka_servers, partitions=2, prefix=f"{uuid4().hex[:8]}-") as log:
        yield log


def said_by(log: Log, partitions: int | None = None, *, terminal: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, color_system=None, width=80)
    assert create(log, partitions=partitions, as_json=False, console=console, out=out) is ExitCode.OK
    return out.getvalue()


@pytest.mark.kafka
def test_missing_topics_are_made_and_the_others_stay(log: Log) -> None:
    """Each topic is told with its state; a topic that is there is not made again."""
    log.ensure_topics([spec for spec in topics.SPECS if spec.name in (topics.TRADES, topics.JOURNAL)])
    assert [line.split("\t") for line in said_by(log, 2).splitlines()] == [
        [name, "2", "there" if name in (topics.TRADES, topics.JOURNAL) else "made"] for name in NAMES
    ]
    lines = said_by(log, terminal=True).splitlines()
    assert [line.split() for line in lines] == [["✓", "there", name, "2", "partitions"] for name in NAMES]


@pytest.mark.kafka
def test_a_topic_that_differs_is_refused_and_nothing_is_made(log: Log, kafka_servers: str) -> None:
    """One topic of another number of partitions: it is named, with the command that mends it."""
    from stocktrade.transport.kafka import KafkaLog

    prefix = log._prefix  # type: ignore[attr-defined]  # only KafkaLog has one
    with KafkaLog(kafka_servers, partitions=1, prefix=prefix) as other:
        other.ensure_topics([spec for spec in topics.SPECS if spec.name == topics.TRADES])
    with pytest.raises(UsageError) as raised:
        said_by(log, 2)
    assert f"{topics.TRADES} has 1 partitions, not 2" in raised.value.cause
    assert f"--topic {prefix}{topics.TRADES} --alter --partitions 2" in raised.value.hint
    with pytest.raises(UsageError, match="no topic"):
        log.reader({(topics.BUY_ORDERS, 0): 0})


def test_the_list_says_what_waits(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each partition with its records; what no exchange has taken is the lag of its input, and gone once one has."""
    assert cli.run(["topics"]) == 3
    assert cli.run(["topics", "create", "--partitions=2"]) == 0
    for number in range(3):
        assert cli.run(["buy", "SBI", "1", "885", f"--id=B-{number}", "-q"]) == 0
    capsys.readouterr()

    def lags() -> dict[tuple[str, int], tuple[int, int | None]]:
        assert cli.run(["topics", "list", "--json"]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(rows) == 2 * len(NAMES)
        return {(row["topic"], row["partition"]): (row["offsets"], row["lag"]) for row in rows}

    before = lags()
    assert sorted(said for (topic, _), said in before.items() if topic == "buy-orders") == [(0, 0), (3, 3)]
    assert before["trades", 0] == (0, None)
    assert cli.run(["nse", "--once"]) == 0
    capsys.readouterr()
    assert sorted(said for (topic, _), said in lags().items() if topic == "buy-orders") == [(0, 0), (3, 0)]


def test_a_topic_is_printed_as_it_is(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last records of each partition, a range of them, or none; JSON as `watch` writes it."""
    for number in range(4):
        assert cli.run(["buy", "SBI", "1", "885", f"--id=B-{number}", "-q"]) == 0
    capsys.readouterr()

    def offsets(*options: str) -> list[int]:
        assert cli.run(["topics", "tail", "buy-orders", "--json", *options]) == 0
        return [json.loads(line)["offset"] for line in capsys.readouterr().out.splitlines()]

    assert offsets() == [0, 1, 2, 3]
    assert offsets("-n", "2", "--no-follow") == [2, 3]
    assert offsets("-n", "0") == []
    assert offsets("--from", "1", "--until", "3") == [1, 2]
    assert offsets("--from", "-1") == [3]
    assert offsets("--until", "@2000-01-01") == []
    assert offsets("--until", "2", "-n", "1") == [1]
    assert offsets("--from", "-3", "--until", "-1") == [1, 2]
    assert offsets("--from", "-99") == [0, 1, 2, 3]
    assert cli.run(["topics", "tail", "buy-orders", "-n", "1"]) == 0
    assert "buy-orders@0:3" in capsys.readouterr().out
    assert cli.run(["topics", "tail", "buy-orders", "--json", "--watch"]) == 2


def test_an_unused_topic_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is no error, nothing comes out, and no topic is made."""
    connect(f"sqlite:{home}").close()
    assert cli.run(["topics", "tail", "trades"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "no topic trades yet: the first `nse`, `buy` or `sell` makes it\n")
    with connect(f"sqlite:{home}") as log:
        assert len(log.missing_topics(topics.SPECS)) == len(NAMES)


def test_a_count_from_the_end_counts_records(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where later records have replaced others, offsets have gaps; the last two are two for all that."""
    with connect(f"sqlite:{home}") as log:
        log.ensure_topics(topics.SPECS)
        log.append([NewRecord(topics.SNAPSHOTS, b"b" if n == 1 else b"a", b"{}", 0) for n in range(50)])

    def offsets(*options: str) -> list[int]:
        assert cli.run(["topics", "tail", "exchange-snapshots", "--json", *options]) == 0
        return [json.loads(line)["offset"] for line in capsys.readouterr().out.splitlines()]

    assert offsets() == offsets("--from", "-2") == offsets("-n", "2") == [1, 49]
    assert offsets("--from", "-1") == offsets("-n", "1") == [49]
    assert offsets("--from", "-3") == [1, 49]


def test_a_range_of_times_is_exact(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A clock that was set back brings no record of another time in."""
    with connect(f"sqlite:{home}") as log:
        log.ensure_topics(topics.SPECS)
        log.append([NewRecord(topics.TRADES, b"SBIN", b"{}", 0, s * 1_000) for s in (1, 20, 50, 30, 25, 2, 40)])
    options = ("--from", "@1970-01-01T00:00:15Z", "--until", "@1970-01-01T00:00:35Z")
    assert cli.run(["topics", "tail", "trades", "--json", *options]) == 0
    assert [json.loads(line)["time"][17:19] for line in capsys.readouterr().out.splitlines()] == ["20", "30", "25"]


def test_following_goes_on_from_the_last(home: Path) -> None:
    """What is there, as far as asked for, then what comes, until it is stopped."""
    with connect(f"sqlite:{home}") as log:
        log.ensure_topics(topics.SPECS)
        log.append([NewRecord(topics.TRADES, b"SBIN", b"%d" % n, 0) for n in range(3)])
        out, stops = io.StringIO(), iter([False, False, True])

        def stop() -> bool:
            log.append([NewRecord(topics.TRADES, b"SBIN", b"more", 0)])
            return next(stops)

        tail(log, "trades", start=None, until=None, last=1, follow=True, as_json=False, out=out, stop=stop)
    assert [line.split("\t")[1] for line in out.getvalue().splitlines()] == ["trades@0:2", "trades@0:3", "trades@0:4"]


@pytest.mark.kafka
def test_the_end_of_a_transaction_is_no_record(log: Log) -> None:
    """Every commit of an exchange has one, with an offset of its own; the last two records are two."""
    log.ensure_topics(topics.SPECS)
    with closing(log.claim(0)) as writer:
        for number in range(30):
            writer.commit([NewRecord(topics.TRADES, b"SBIN", b"%d" % number, 0)])
    for start, last, count in ((None, 2, 2), (None, 20, 20), (None, 99, 30), (Point("before_end", 1), None, 1)):
        out = io.StringIO()
        tail(log, "trades", start=start, until=None, last=last, follow=False, as_json=True, out=out, stop=lambda: False)
        values = [json.loads(line)["value"]["base64"] for line in out.getvalue().splitlines()]
        assert [int(base64.b64decode(value)) for value in values] == [*range(30 - count, 30)]
    rows = {(row.topic, row.partition): row for row in partitions_of(log, 0)}
    assert rows["trades", 0].offsets == 60
    assert rows["buy-orders", 0].lag == rows["sell-offers", 1].lag == 0
