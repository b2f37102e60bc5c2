"""`book`: the book as of every sequence and time is the one that an exchange fed so far has."""

import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stocktrade import cli, screen, settings, window
from stocktrade.core.exchange import Exchange
from stocktrade.domain.facts import Instruction
from stocktrade.errors import ExitCode, Unavailable
from stocktrade.listing import Form
from stocktrade.ranges import Moment, rfc3339
from stocktrade.roles import book
from stocktrade.shard import owner as protocol
from stocktrade.shard.node import Node
from stocktrade.transport import connect, topics
from stocktrade.transport.base import Log, NewRecord, Record
from stocktrade.transport.codec import decode_input
from test_auditor import orders
from typist import Typist


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


class Market:
    """Drives a market from within `watch`: each time it asks whether to stop, the next order is sent and taken."""

    def __init__(self, log: Log, out: io.StringIO) -> None:
        self.node = Node(log, name="test", now_ms=lambda: 0)
        self.log = log
        self.orders = list(orders(5, 60))
        self.out = out

    def stop(self) -> bool:
        if not self.orders:
            # Until what was sent last has come out.
            return self.out.getvalue().count("\n") > 0 and self.quiet()
        self.log.append([self.orders.pop(0)])
        while not self.node.has_taken(self.node.backlog_ends()):
            self.node.step(0.0)
        return False

    def quiet(self) -> bool:
        (owner,) = self.node.owners.values()
        depth = owner.exchange.depth("SBIN", 5)
        last = json.loads(self.out.getvalue().splitlines()[-1])
        return depth == ([[*level.values()] for level in last["bids"]], [[*level.values()] for level in last["asks"]])


class Flaky:
    """A log whose readers break now and then, as when a broker goes away."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def reader(self, starts: Any) -> Any:
        reader = self._log.reader(starts)
        poll = reader.poll

        def breaking(*arguments: Any) -> Any:
            self.reads += 1
            if self.reads % 17 == 16:
                raise Unavailable("the broker went away")
            return poll(*arguments)

        reader.poll = breaking  # type: ignore[method-assign, assignment]
        return reader


@pytest.mark.parametrize("flaky", [False, True])
def test_the_book_as_it_changes(flaky: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each state is one that the exchange had, in its order, the last one included; a break is told and survived."""
    monkeypatch.setattr(window, "POLL_S", 0.01)
    with connect(f"sqlite:{tmp_path}") as log:
        log.ensure_topics(topics.SPECS)
        out, err = io.StringIO(), io.StringIO()
        market = Market(log, out)
        watched: Any = Flaky(log) if flaky else log
        console = Console(file=out)
        assert (
            book.watch(
                watched,
                "SBI",
                levels=5,
                form=Form.JSON,
                console=console,
                out=out,
                err=err,
                stop=market.stop,
                pause=lambda _: None,
            )
            == ExitCode.OK
        )
        market.node.close()
        lines = [json.loads(line) for line in out.getvalue().splitlines()]
        assert len(lines) > 10
        assert [line["seq"] for line in lines] == sorted({line["seq"] for line in lines})
        for line in lines:
            exchange = book.replica_at(log, 0, Moment(seq=line["seq"])).exchange
            levels = [[[*level.values()] for level in line[side]] for side in ("bids", "asks")]
            assert levels == [*exchange.depth("SBIN", 5)]
            assert line["last_price_paise"] == book.last_price(log, 0, "SBIN", line["seq"])
    said = err.getvalue()
    assert ("the broker went away; trying again" in said, "the log is back" in said) == (flaky, flaky)


class Screen(io.StringIO):
    """A terminal that remembers what is drawn on it."""

    def isatty(self) -> bool:
        return True

    def frames(self) -> list[str]:
        return re.sub(r"\x1b\[[0-9;]*m", "", self.getvalue()).split("\x1b[H")


@pytest.fixture
def drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for."""
    monkeypatch.setattr(window, "POLL_S", 0.01)
    monkeypatch.setattr(screen, "REDRAW_S", 0.0)


def on_a_screen(log: Any, typist: Typist, steps: Iterator[object]) -> list[str]:
    """What is drawn while the steps are taken, one between any two looks at the log; last, what stays."""
    out = Screen()
    console = Console(file=out, width=80, height=20, force_terminal=True, _environ={})
    given: dict[str, Any] = {"levels": 5, "form": Form.TABLE, "out": out, "err": out, "pause": lambda _: None}
    code = book.watch(log, "SBI", console=console, keys=typist, stop=lambda: next(steps, "over") == "over", **given)
    assert code == ExitCode.OK
    drawn, _, stays = out.getvalue().partition("\x1b[?1049l")
    assert drawn.startswith("\x1b[?1049h")
    return [*Screen(drawn).frames()[2:], *Screen(stays).frames()]  # the alternate screen begins with one, too


def test_the_book_on_a_screen(tmp_path: Path, drawn_at_once: None) -> None:
    """It is drawn when it changes, stands still while it is paused, and ends by a key."""
    typist = Typist()
    with connect(f"sqlite:{tmp_path}") as log:
        log.ensure_topics(topics.SPECS)
        node = Node(log, name="test", now_ms=lambda: 0)

        def bid(quantity: int) -> None:
            order = {"order_id": f"B{quantity}", "buyer": "HDFC", "stock_symbol": "SBI", "quantity": quantity}
            value = json.dumps(order | {"price_per_unit": 885}).encode()
            log.append([NewRecord(topics.BUY_ORDERS, b"SBIN", value)])
            while not node.has_taken(node.backlog_ends()):
                node.step(0.0)

        def steps() -> Iterator[object]:
            yield from range(3)
            bid(100)
            yield 0
            yield from range(3)
            typist.typed = "p"
            yield from range(3)
            bid(23)
            yield 0
            yield from range(3)
            typist.typed = "p"
            yield from range(3)
            typist.typed = "q"
            yield from range(3)
            raise AssertionError("it did not end")

        frames = on_a_screen(log, typist, steps())
        node.close()
    told = [re.findall(r"nobody waits|\b(?:100|123)\b|paused, \d new|p goes on", frame) for frame in frames]
    assert told == [
        ["nobody waits"],
        ["100"],
        ["paused, 0 new", "100", "p goes on"],
        ["paused, 1 new", "100", "p goes on"],
        ["123"],
        ["123"],
    ]


def test_a_log_that_is_away_is_told_on_the_screen(tmp_path: Path, drawn_at_once: None) -> None:
    """The book stays, with the trouble below it, until there is other news."""
    with connect(f"sqlite:{tmp_path}") as log:
        log.ensure_topics(topics.SPECS)
        frames = on_a_screen(Flaky(log), Typist(), iter(range(60)))
    told = [re.findall(r"nobody waits|went away|is back", frame) for frame in frames[:3]]
    assert told == [["nobody waits"], ["nobody waits", "went away"], ["nobody waits", "is back"]]


def test_a_reader_of_the_book_that_has_enough_ends_it(tmp_path: Path) -> None:
    """`book --watch | head -1` ends although nothing is traded."""
    reading, writing = os.pipe()
    asked = []

    def stop() -> bool:
        asked.append(1)
        if len(asked) == 2:
            os.close(reading)
        return len(asked) > 10

    with connect(f"sqlite:{tmp_path}") as log, os.fdopen(writing, "w") as out:
        given: dict[str, Any] = {"console": Console(file=out), "out": out, "err": io.StringIO(), "stop": stop}
        assert book.watch(log, "SBI", levels=5, form=Form.TSV, **given) == ExitCode.OK
    assert len(asked) <= 3


def test_the_last_price_is_found_among_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In windows from the newest trade back; not looked for beyond a limit."""
    monkeypatch.setattr(book, "AT_A_TIME", 3)
    with connect(f"sqlite:{tmp_path}") as log:
        log.ensure_topics(topics.SPECS)
        assert book.last_price(log, 0, "SBIN", None) is None
        for seq in range(1, 21):
            fields = {
                "trade_id": f"T0-{seq}-1", "stock_symbol": "SBIN" if seq <= 4 else "INFY", "quantity": 1,
                "price_per_unit": float(seq), "amount": float(seq), "buyer": "A", "buy_order_id": "B", "seller": "S",
                "sell_order_id": "C", "maker": "BUY", "shard": 0, "seq": seq,
            }  # fmt: skip
            log.append([NewRecord(topics.TRADES, b"k", json.dumps(fields).encode(), 0)])
        assert (book.last_price(log, 0, "SBIN", None), book.last_price(log, 0, "INFY", None)) == (400, 2000)
        assert (book.last_price(log, 0, "SBIN", 2), book.last_price(log, 0, "INFY", 4)) == (200, None)
        monkeypatch.setattr(book, "SEARCHED", 10)
        assert book.last_price(log, 0, "SBIN", None) is None
