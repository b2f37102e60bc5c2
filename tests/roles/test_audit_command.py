"""`audit` as a command: its exit code, its rows, its document, and the heads that it can be asked for."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.structs import TopicPartition

from stocktrade import cli, settings
from stocktrade.audit.auditor import audit
from stocktrade.audit.findings import Rule
from stocktrade.errors import JournalBroken
from stocktrade.shard.history import snapshots_of, to_the_end
from stocktrade.shard.node import Node
from stocktrade.transport import topics
from stocktrade.transport.base import NewRecord
from stocktrade.transport.kafka import KafkaLog
from test_auditor import orders, trade_it


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log on which three hundred messages were taken."""
    monkeypatch.setenv(settings.HOME, str(tmp_path / "home"))
    monkeypatch.delenv(settings.BOOTSTRAP_SERVERS, raising=False)
    trade_it(tmp_path / "home")
    return tmp_path / "home"


def said(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
    code = cli.run(["audit", "--json", *options])
    return code, json.loads(capsys.readouterr().out)


def test_a_sound_log_ends_with_0(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every rule is there once, has checked something, and is not broken; in a pipe the same as rows."""
    code, document = said(capsys)
    assert (code, document["schema"], document["clean"], document["waiting"]) == (0, "stocktrade.audit/1", True, 0)
    assert [rule["rule"] for rule in document["rules"]] == list(Rule)
    assert all(rule["checked"] and not rule["broken"] and rule["state"] == "ok" for rule in document["rules"])
    assert cli.run(["audit"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[:3] for row in rows[: len(Rule)]] == [
        [rule["rule"], "ok", str(rule["checked"])] for rule in document["rules"]
    ]
    (head,) = document["heads"]
    assert rows[len(Rule) :] == [["head", f"0:{head['entry']}:{head['digest']}"]]


def test_a_broken_rule_ends_with_1_and_names_the_first_record(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By topic, partition and offset."""
    with closing(sqlite3.connect(home / "log.db", isolation_level=None)) as db:
        for offset, before, after in ((4, b'"DEBIT"', b'"CREDIT"'), (5, b'"CREDIT"', b'"DEBIT"')):
            place = "offset = ? AND topic = (SELECT id FROM topics WHERE name = 'cash-movements')"
            (value,) = db.execute(f"SELECT value FROM records WHERE {place}", (offset,)).fetchone()
            assert before in value
            db.execute(f"UPDATE records SET value = ? WHERE {place}", (value.replace(before, after), offset))
    code, document = said(capsys)
    assert (code, document["clean"]) == (1, False)
    found = {rule["rule"]: rule["findings"] for rule in document["rules"] if rule["broken"]}
    assert found.keys() == {"legs", "outputs"}  # the sums are right: the two make up for each other
    assert found["legs"][0]["where"] == "cash-movements@0:4"


def test_a_head_from_before_is_still_there(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An earlier head is found in a journal that went on; another digest, and an entry that is not there, are not."""
    (head,) = said(capsys)[1]["heads"]
    digest = head["digest"]
    cli.run(["buy", "SBI", "1", "1", "-q"])
    cli.run(["nse", "--once", "--json"])
    capsys.readouterr()
    for text in (f"{head['entry']}:{digest}", f"0:{head['entry']}:{digest[:8].upper()}"):
        assert said(capsys, "--expect-head", text)[0] == 0
    for text in (f"{head['entry']}:{digest[::-1]}", f"999:{digest}"):
        code, document = said(capsys, "--expect-head", text)
        assert (code, [rule["rule"] for rule in document["rules"] if rule["broken"]]) == (1, ["head"])
    assert cli.run(["audit", "--expect-head", f"7:0:{digest}"]) == 2
    assert "names shard 7" in capsys.readouterr().err


def test_inputs_that_nobody_took_yet_break_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are counted."""
    cli.run(["buy", "SBI", "1", "1", "-q"])
    capsys.readouterr()
    code, document = said(capsys)
    assert (code, document["clean"], document["waiting"]) == (0, True, 1)


@contextmanager
def on_kafka(servers: str, partitions: int) -> Iterator[tuple[KafkaLog, Callable[[str, int, int], None]]]:
    """A log on a real cluster, each input taken by itself, and what cuts off the beginning of a partition."""
    prefix = f"trimmed-{time.time_ns()}-"
    with KafkaLog(servers, prefix=prefix, partitions=partitions) as log:
        node = Node(log, name="test", now_ms=lambda: 0)
        for record in orders(885, 60):
            log.append([record])
            ends = node.backlog_ends()
            while not node.has_taken(ends):
                node.step(0.05)
        ends = node.backlog_ends()  # what was forwarded is an input again
        while not node.has_taken(ends):
            node.step(0.05)
        node.close()
        admin = KafkaAdminClient(bootstrap_servers=servers.split(","))

        def cut(topic: str, partition: int, offset: int) -> None:
            admin.delete_records({TopicPartition(prefix + topic, partition): offset})

        yield log, cut
        admin.close()


@pytest.mark.kafka
def test_inputs_that_are_not_kept_are_not_checked_and_break_nothing(kafka_servers: str) -> None:
    """Retention on the inputs of a real cluster: what is gone is said, and everything else still holds."""
    with on_kafka(kafka_servers, 1) as (log, cut):
        assert audit(log).clean
        cut(topics.BUY_ORDERS, 0, 5)
        report = audit(log)
    assert report.clean
    unchecked = {rule: tally.why_unchecked for rule, tally in report.tallies.items() if tally.unchecked}
    assert unchecked == {"inputs": "buy-orders@0 is kept from offset 5 on"}


@pytest.mark.kafka
@pytest.mark.parametrize("partitions", [1, 2])
def test_a_journal_whose_beginning_is_not_kept_breaks_nothing(kafka_servers: str, partitions: int) -> None:
    """What only the whole journal can tell is not checked, and said; a damage behind the cut is still found."""
    with on_kafka(kafka_servers, partitions) as (log, cut):
        with closing(log.reader({(topics.JOURNAL, 0): 0})) as reader:
            entries = list(to_the_end(reader))
        cut(topics.JOURNAL, 0, entries[len(entries) // 2].offset)
        report = audit(log)
        assert {rule: tally.findings[:2] for rule, tally in report.tallies.items() if tally.broken} == {}
        assert {rule for rule, tally in report.tallies.items() if tally.unchecked} >= {
            "replay", "outputs", "fills", "priority", "ids", "trades", "legs",
        }  # fmt: skip
        assert report.waiting == 0
        log.append([NewRecord(topics.TRADES, b"k", b'{"seq": 999, "trade_id": "T0-999-1"}', 0)])
        assert not audit(log).clean


@pytest.mark.kafka
def test_a_journal_is_kept_from_the_newest_snapshot_on_or_not_traded_on(kafka_servers: str) -> None:
    """What may be thrown away, as docs/kafka.md says: an exchange goes on from the snapshot, or refuses to begin."""
    with on_kafka(kafka_servers, 1) as (log, cut):
        for record in orders(885, 2):
            log.append([record])
        node = Node(log, name="test", now_ms=lambda: 0)
        ends = node.backlog_ends()
        while not node.has_taken(ends):
            node.step(0.05)
        node.close()  # a second snapshot
        newest, earlier = snapshots_of(log, 0).manifests()[:2]
        cut(topics.JOURNAL, 0, newest.journal_offset)
        report = audit(log)
        assert earlier.entry < newest.entry
        assert {rule: tally.findings[:2] for rule, tally in report.tallies.items() if tally.broken} == {}
        assert report.tallies[Rule.SNAPSHOTS].unchecked
        node = Node(log, name="test", now_ms=lambda: 0)
        while not node.owners:
            node.step(0.05)
        assert node.owners[0].recovered.from_snapshot
        node.close()

        cut(topics.JOURNAL, 0, -1)
        assert not audit(log).clean
        node = Node(log, name="test", now_ms=lambda: 0)

        def own() -> None:
            while not node.owners:
                node.step(0.05)

        with pytest.raises(JournalBroken, match="is not kept, and no snapshot stands for it"):
            own()
        node.abandon()
