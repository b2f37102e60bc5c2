"""`book`: the book as of every sequence and time is the one that an exchange fed so far has."""

import json
from pathlib import Path
from typing import Any

import pytest

from stocktrade import cli, settings
from stocktrade.core.exchange import Exchange
from stocktrade.domain.facts import Instruction
from stocktrade.ranges import rfc3339
from stocktrade.shard import owner as protocol
from stocktrade.shard.node import Node
from stocktrade.transport import connect, topics
from stocktrade.transport.base import Log, Record
from stocktrade.transport.codec import decode_input
from test_auditor import orders


def journalled(log: Log) -> list[Any]:
    """The orders of shard 0 in the order of the exchange sequence."""
    reader = log.reader({(topics.JOURNAL, 0): 0})
    entries: list[Record] = []
    while records := reader.poll(0.0):
        entries += records
    lines = [line for record in entries for line in json.loads(record.value or b"").get("inputs", ())]
    return [line for line in lines if line["kind"] == "order"]


@pytest.mark.parametrize("snapshot_every", [40, 1_000_000])
def test_the_book_as_of_every_sequence(
    snapshot_every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At every sequence, in the middle of an entry too, with snapshots before and after, and at every time."""
    monkeypatch.setattr(protocol, "SNAPSHOT_EVERY_INPUTS", snapshot_every)
    monkeypatch.setattr(protocol, "MAX_BATCH_INPUTS", 7)
    monkeypatch.setenv(settings.HOME, str(tmp_path / "home"))
    monkeypatch.delenv(settings.BOOTSTRAP_SERVERS, raising=False)
    with connect(f"sqlite:{tmp_path / 'home'}") as log:
        node = Node(log, name="test", now_ms=lambda: 0)
        for record in orders(7, 150):
            log.append([record])
            node.step(0.0)
        for _ in range(40):
            node.step(0.0)
        node.close()
        lines = journalled(log)
    assert len(lines) > 120

    def shown(*options: str) -> Any:
        assert cli.run(["book", "SBI", "--json", "--levels", "99", *options]) == 0
        return json.loads(capsys.readouterr().out)

    exchange = Exchange()
    for seq, line in enumerate(lines, 1):
        decoded = decode_input(line["topic"], line["text"].encode())
        assert isinstance(decoded, Instruction)
        exchange.apply(decoded)
        if seq % 3 and seq != len(lines):
            continue
        bids, asks = exchange.depth("SBIN", 99)
        said = shown("--at", str(seq))
        assert said["seq"] == seq
        assert [[[*level.values()] for level in said[side]] for side in ("bids", "asks")] == [bids, asks]
        if seq < len(lines) and lines[seq]["time_ms"] > line["time_ms"]:
            assert shown("--at", f"@{rfc3339(line['time_ms'])}") == said
    assert shown() == shown("--at", str(len(lines)))
    assert cli.run(["book", "SBI", "--at", str(len(lines) + 1)]) == 2
    assert f"is {len(lines)}" in capsys.readouterr().err
    assert shown("--at", "@2999-01-01") == shown()
    assert shown("--at", "@1999-01-01")["seq"] == 0


def test_a_symbol_that_nobody_trades_has_an_empty_book(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is no error, and neither is a log that no exchange has begun."""
    monkeypatch.setenv(settings.HOME, str(tmp_path / "home"))
    monkeypatch.delenv(settings.BOOTSTRAP_SERVERS, raising=False)
    assert cli.run(["buy", "SBI", "1", "885", "-q"]) == 0
    assert cli.run(["book", "TCS", "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["seq"], said["bids"], said["asks"]) == (0, [], [])


def test_every_waiting_order_in_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --orders, the one that is served first comes first."""
    monkeypatch.setenv(settings.HOME, str(tmp_path / "home"))
    monkeypatch.delenv(settings.BOOTSTRAP_SERVERS, raising=False)
    for name, price in (("b1", "885"), ("b2", "886"), ("b3", "885")):
        cli.run(["buy", "SBI", "5", price, "--id", name, "-q"])
    cli.run(["nse", "--once", "--json"])
    capsys.readouterr()
    assert cli.run(["book", "SBI", "--orders"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [(row[4], row[1]) for row in rows] == [("b2", "886.0"), ("b1", "885.0"), ("b3", "885.0")]
