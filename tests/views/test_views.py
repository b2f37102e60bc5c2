"""The views say of accounts, orders and trades what an exchange says that takes the same orders."""

import json
import multiprocessing
import os
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from stocktrade.core.exchange import Exchange
from stocktrade.core.ledger import CASH
from stocktrade.domain.facts import Action, Cancellation, Instruction, Match, Outcome, Status
from stocktrade.domain.values import CLEARING_HOUSE, canonical_symbol
from stocktrade.ranges import NOW, Moment, Point
from stocktrade.shard import owner as protocol
from stocktrade.shard.history import to_the_end
from stocktrade.shard.node import Node
from stocktrade.transport import connect, topics
from stocktrade.transport.base import Log, NewRecord, Record
from stocktrade.transport.codec import decode_input
from stocktrade.transport.kafka import KafkaLog
from stocktrade.views import follow
from stocktrade.views.accounts import Accounts
from stocktrade.views.follow import last_not_after, ready
from stocktrade.views.history import History, OrderRow, Within
from stocktrade.views.messages import Traded, traded
from stocktrade.views.store import Store
from stocktrade.views.trace import position_of, trace
from test_auditor import orders

Said = tuple[set[tuple[str, str, int]], dict[tuple[str, str], tuple[Any, ...]], list[tuple[Any, ...]]]


class Oracle:
    """What the exchange itself says: its ledger, its books, and the facts it gave."""

    def __init__(self) -> None:
        self.exchange = Exchange()
        self.asked: dict[tuple[str, str], list[Any]] = {}
        self.trades: list[tuple[Any, ...]] = []

    def take(self, order: Instruction) -> None:
        for fact in self.exchange.apply(order):
            if isinstance(fact, Match):
                self.trades.append(
                    (fact.seq, fact.number, fact.symbol, fact.quantity, fact.price, fact.buyer, fact.seller)
                )
                for name in ((fact.buy_order_id, fact.buyer), (fact.sell_order_id, fact.seller)):
                    self.asked[name][1] += fact.quantity
            elif isinstance(fact, Cancellation):
                self.asked[fact.order_id, fact.participant][2] += fact.quantity
            elif fact.status is not Status.DUPLICATE:
                self._answered(fact)

    def _answered(self, fact: Outcome) -> None:
        if fact.terms is None or fact.terms.action is Action.NEW:
            self.asked.setdefault((fact.order_id, fact.participant), [str(fact.status), 0, 0])[2] += fact.cancelled
        elif fact.status is Status.ACCEPTED:
            self.asked[fact.terms.target, fact.participant][2] += fact.cancelled

    def says(self) -> Said:
        waiting = {
            (each.order_id, each.participant): (each.leaves, each.price)
            for symbol in ("SBIN", "INFY", "M&M", "ITC")
            for each in self.exchange.resting(symbol)
        }
        balances = {
            (owner, asset, amount)
            for asset, owner, amount in self.exchange.ledger.balances()
            if owner != CLEARING_HOUSE
        }
        known = {name: (*said, waiting.get(name, (0, None))[0]) for name, said in self.asked.items()}
        return balances, known, self.trades


def said(accounts: Accounts, history: History) -> Said:
    rows = history.orders()
    every = {(row.order_id, row.participant): (row.status, row.filled, row.cancelled, row.leaves) for row in rows}
    assert len(every) == len(rows)
    trades = [(t.seq, t.number, t.symbol, t.quantity, t.price, t.buyer, t.seller) for t in history.trades()]
    return {tuple(balance) for balance in accounts.balances()}, every, trades  # type: ignore[misc]


def viewed(log: Log, folder: Path | None, moment: Moment = NOW) -> Said:
    with ready(Accounts, log, folder, moment) as accounts, ready(History, log, folder, moment) as history:
        return said(accounts, history)


def journalled(log: Log) -> list[tuple[Instruction, int]]:
    """The orders of shard 0 in the order of the exchange sequence, each with its time."""
    with closing(log.reader({(topics.JOURNAL, 0): 0})) as reader:
        entries = [json.loads(record.value or b"") for record in to_the_end(reader)]
    lines = [line for entry in entries for line in entry.get("inputs", ()) if line["kind"] == "order"]
    found = []
    for line in lines:
        order = decode_input(line["topic"], line["text"].encode())
        assert isinstance(order, Instruction)
        found.append((order, line["time_ms"]))
    return found


@contextmanager
def traded_log(folder: Path, count: int = 200, seed: int = 7, partitions: int = 1) -> Iterator[Log]:
    with connect(f"sqlite:{folder}", partitions=partitions) as log:
        trade(log, count, seed)
        yield log


def trade(log: Log, count: int, seed: int) -> None:
    node = Node(log, name="test", now_ms=lambda: 0)
    for record in orders(seed, count):
        log.append([record])
        node.step(0.0)
    while not node.has_taken(node.backlog_ends()):
        node.step(0.0)
    node.close()


@pytest.mark.parametrize("snapshot_every", [40, 1_000_000])
def test_as_of_every_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot_every: int) -> None:
    """Accounts, orders and trades as of any sequence are those of an exchange that stopped there; now, of the last."""
    monkeypatch.setattr(protocol, "SNAPSHOT_EVERY_INPUTS", snapshot_every)
    oracle = Oracle()
    with traded_log(tmp_path / "log") as log:
        lines = journalled(log)
        assert len(lines) > 150
        for seq, (order, time_ms) in enumerate(lines, 1):
            oracle.take(order)
            if seq % 7 == 0:
                assert viewed(log, None, Moment(seq=seq)) == oracle.says()
                if seq < len(lines) and lines[seq][1] > time_ms:
                    assert viewed(log, None, Moment(time_ms=time_ms)) == oracle.says()
        assert viewed(log, tmp_path / "views") == oracle.says()
        assert viewed(log, tmp_path / "views") == oracle.says()
    assert sum(1 for name in oracle.asked.values() if name[2]) > 10
    assert len(oracle.trades) > 30


def test_a_view_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each commit of a growing log a kept view says what a new one says, and reads what is new only."""
    monkeypatch.setattr(protocol, "SNAPSHOT_EVERY_INPUTS", 30)
    read: list[int] = []
    take = Accounts.take

    def counted(view: Accounts, records: list[Record]) -> Any:
        read.append(len(records))
        return take(view, records)

    monkeypatch.setattr(Accounts, "take", counted)
    with connect(f"sqlite:{tmp_path / 'log'}", partitions=2) as log:
        node = Node(log, name="test", now_ms=lambda: 0)
        for record in orders(3, 120):
            log.append([record])
            node.step(0.0)
            kept = viewed(log, tmp_path / "views")
            assert kept == viewed(log, None)
        node.close()
        kept = viewed(log, tmp_path / "views")
        read.clear()
        assert viewed(log, tmp_path / "views") == kept
        assert sum(read) == 0


def test_accounts_begin_with_a_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one, the trades before it are not read; a snapshot that the journal does not know is not used."""
    monkeypatch.setattr(protocol, "SNAPSHOT_EVERY_INPUTS", 50)
    with traded_log(tmp_path / "log") as log:
        with ready(History, log, None) as history:
            trades = history.trades()
        read: list[Record] = []
        take = Accounts.take

        def noted(view: Accounts, records: list[Record]) -> Any:
            read.extend(records)
            return take(view, records)

        monkeypatch.setattr(Accounts, "take", noted)
        right = viewed(log, None)
        assert len(read) < len(trades) / 2
        monkeypatch.setattr("stocktrade.views.accounts.fits", lambda *_: False)
        read.clear()
        assert viewed(log, None) == right
        assert len(read) == len(trades)


@pytest.mark.parametrize("seed", range(20))
def test_topics_may_run_ahead_of_each_other(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Kafka the records of one commit become visible one partition after the other: nothing is lost or counted
    twice, whatever part of each topic a view has seen at a time.
    """
    chance = random.Random(seed)
    with traded_log(tmp_path / "log", 120, seed) as log:
        right = viewed(log, None)
        ends = dict.fromkeys(History.topics, 0)
        real = follow._read

        def cut(view: Any, reader: Any, places: Any, on_progress: Any) -> bool:
            """As if the topic ended somewhere."""
            ((at, end),) = reader.ends().items()
            ends[at[0]] = min(end, chance.randrange(ends[at[0]], end + 1) if chance.random() < 0.9 else end)
            monkeypatch.setattr(type(reader), "ends", lambda _: {at: ends[at[0]]})
            try:
                return real(view, reader, places, on_progress)
            finally:
                monkeypatch.undo()
                monkeypatch.setattr(follow, "_read", cut)

        monkeypatch.setattr(follow, "_read", cut)
        for _ in range(12):
            with ready(History, log, tmp_path / "views") as history:
                for row in history.orders():
                    assert min(row.filled, row.cancelled, row.leaves) >= 0
        monkeypatch.undo()
        assert viewed(log, tmp_path / "views") == right


def test_what_comes_again_counts_once(tmp_path: Path) -> None:
    """After a torn commit a new owner writes records again; strangers write what is none: neither changes an answer."""
    with traded_log(tmp_path / "log") as log:
        right = viewed(log, None)
        again = []
        for topic in History.topics:
            with closing(log.reader({(topic, 0): 0})) as reader:
                again += [NewRecord(r.topic, r.key, r.value, 0, r.time_ms) for r in to_the_end(reader)][-30:]
        log.append(again)
        strange = [b"", b"no JSON", b"[]", b"{}", b'{"seq": 1e400}', b"[" * 50_000, b'{"trade_id":"T0-1-1"}']
        (genuine, *_) = [record for record in again if record.topic == topics.TRADES]
        fields = json.loads(genuine.value or b"")
        changes: list[dict[str, Any]] = [
            {"quantity": -5}, {"quantity": 2**70}, {"quantity": "5"}, {"quantity": True}, {"price_per_unit": 1e300},
            {"price_per_unit": "1"}, {"seq": 0}, {"seq": 2**80}, {"seq": 5.5}, {"buyer": "x\x00y"}, {"buyer": "NSE"},
            {"trade_id": "T0-²-1"}, {"trade_id": "T9-9-9"}, {"trade_id": 5}, {"stock_symbol": "sbi"},
            {"seller": "\ud800"}, {"buy_order_id": None},
        ]  # fmt: skip
        strange += [json.dumps({**fields, **change}).encode() for change in changes]
        log.append([NewRecord(topic, b"k", value, 0) for value in strange for topic in History.topics])
        log.append([NewRecord(topic, None, None, 0) for topic in History.topics])
        assert viewed(log, None) == right
        with ready(Accounts, log, None) as accounts:
            assert accounts.store.passed_over("accounts") == len(strange) + 1


def test_another_log_in_the_same_place_is_read_anew(tmp_path: Path) -> None:
    """Shorter, longer or as long: what was read is compared with what stands there."""
    for seed, count in ((1, 100), (2, 100), (3, 40), (4, 160)):
        with traded_log(tmp_path / f"log-{seed}", count, seed) as log:
            log.url = "the same"
            assert viewed(log, tmp_path / "views") == viewed(log, None)


@pytest.mark.parametrize("damage", ["none of ours", "another format", "bytes", "cut", "hole", "folder", "no folder"])
def test_a_lost_or_damaged_file_costs_time_only(tmp_path: Path, damage: str) -> None:
    """The answer is the same, and a file that can be mended is."""
    folder = tmp_path / "views"
    with traded_log(tmp_path / "log") as log:
        right = viewed(log, folder)
        (file,) = folder.glob("*.db")
        if damage == "none of ours":
            file.unlink()
            with closing(sqlite3.connect(file)) as db:
                db.execute("CREATE TABLE mine (x)")
        elif damage == "another format":
            with closing(sqlite3.connect(file)) as db:
                db.execute("PRAGMA user_version = 99")
        elif damage == "bytes":
            file.write_bytes(os.urandom(20_000))
        elif damage == "cut":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        elif damage == "hole":
            content = bytearray(file.read_bytes())
            content[8192:] = bytes(len(content) - 8192)
            file.write_bytes(content)
        elif damage == "folder":
            file.unlink()
            file.mkdir()
        else:
            for each in folder.iterdir():
                each.unlink()
            folder.rmdir()
            folder.write_text("a file")
        assert viewed(log, folder) == right
        if damage not in ("folder", "no folder"):
            with closing(Store(folder, log.url)) as store:
                assert store.places("accounts")


def test_what_was_read_before_ctrl_c_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next command goes on from there, and has every record once."""
    monkeypatch.setattr(follow, "BATCH", 20)

    def interrupt(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with traded_log(tmp_path / "log") as log:
        with pytest.raises(KeyboardInterrupt), ready(History, log, tmp_path / "views", on_progress=interrupt):
            pass
        with closing(Store(tmp_path / "views", log.url)) as store:
            assert store.places("history")[topics.ORDER_EVENTS, 0].next > 50
        assert viewed(log, tmp_path / "views") == viewed(log, None)


def _view(folder: Path, answers: Any) -> None:
    with connect(f"sqlite:{folder / 'log'}") as log:
        answers.put(viewed(log, folder / "views"))


def test_two_commands_at_once_agree(tmp_path: Path) -> None:
    """One waits for the other; both have the answer."""
    with traded_log(tmp_path / "log") as log:
        right = viewed(log, None)
    spawn = multiprocessing.get_context("spawn")
    answers: Any = spawn.Queue()
    both = [spawn.Process(target=_view, args=(tmp_path, answers)) for _ in range(2)]
    for process in both:
        process.start()
    assert [answers.get(timeout=60) for _ in both] == [right, right]
    for process in both:
        process.join(60)


def test_a_balance_may_be_larger_than_any_integer_of_a_database(tmp_path: Path) -> None:
    """Ten trades of the largest amount are more than 64 bits hold; the sum is exact."""
    with connect(f"sqlite:{tmp_path / 'log'}") as log:
        log.ensure_topics(topics.SPECS)
        fields = {
            "stock_symbol": "SBIN", "quantity": 1_000_000_000, "price_per_unit": 10_000_000.0, "buyer": "HDFC",
            "amount": 1e16, "buy_order_id": "B", "seller": "LIC", "sell_order_id": "S", "maker": "BUY", "shard": 0,
        }  # fmt: skip
        trades = [{**fields, "trade_id": f"T0-{seq}-1", "seq": seq} for seq in range(1, 11)]
        for trade in trades:
            log.append([NewRecord(topics.TRADES, b"SBIN", json.dumps(trade).encode(), 0)])
            with ready(Accounts, log, tmp_path / "views") as accounts:
                balances = {(each.owner, each.asset): each.amount for each in accounts.balances()}
        assert balances["LIC", CASH] == 10 * 10**18 == -balances["HDFC", CASH]


def test_rows_within_points(tmp_path: Path) -> None:
    """Offsets, times and counts from the end choose the same rows as a filter over all of them."""
    with traded_log(tmp_path / "log") as log, ready(History, log, None) as history:
        every = history.trades()
        middle = every[len(every) // 2]

        def within(start: Point | None = None, until: Point | None = None, last: int | None = None) -> list[Traded]:
            return history.trades(within=Within(start, until, last))

        assert within(Point("offset", 5)) == [t for t in every if t.offset >= 5]
        assert within(None, Point("offset", 5)) == [t for t in every if t.offset < 5]
        assert within(Point("after_start", 3), Point("offset", 9)) == [t for t in every if 3 <= t.offset < 9]
        assert within(Point("before_end", 4)) == every[-4:]
        assert within(None, Point("before_end", 4)) == every[:-4]
        assert within(Point("time", middle.time_ms)) == [t for t in every if t.time_ms >= middle.time_ms]
        assert within(None, Point("time", middle.time_ms)) == [t for t in every if t.time_ms < middle.time_ms]
        assert within(last=3) == every[-3:]
        mine = history.trades(participant="BOTH", symbols=["SBIN"])
        assert mine == [t for t in every if "BOTH" in (t.buyer, t.seller) and t.symbol == "SBIN"]
        rows = history.orders()
        assert history.orders(only_open=True) == [row for row in rows if row.leaves and row.status == "ACCEPTED"]


def test_a_sequence_is_found_where_it_stands(tmp_path: Path) -> None:
    """The search gives what a walk from the beginning gives, strangers' records in between."""
    with traded_log(tmp_path / "log", 60) as log:
        with closing(log.reader({(topics.TRADES, 0): 0})) as reader:
            genuine = list(to_the_end(reader))
        strangers = [NewRecord(topics.TRADES, None, b"?", 0)] * 5
        log.append([*strangers, *(NewRecord(topics.TRADES, r.key, r.value, 0) for r in genuine[-1:]), *strangers])
        with closing(log.reader({(topics.TRADES, 0): 0})) as reader:
            records = list(to_the_end(reader))

        def seq_of(record: Record) -> int | None:
            trade = traded(record)
            return None if trade is None else trade.seq

        for seq in range((seq_of(genuine[-1]) or 0) + 2):
            wanted = [record for record in records if (found := seq_of(record)) is not None and found <= seq]
            assert last_not_after(log, (topics.TRADES, 0), seq, seq_of) == (wanted[-1] if wanted else None)


def check_trace(log: Log, history: History, row: OrderRow) -> set[str]:
    """Every step of an order names a record that tells of it; what moved adds up to what was filled."""
    steps = trace(log, history, row)
    assert steps[0].what == "sent"
    assert str(steps[0].position) == row.source
    assert [step.time_ms for step in steps if step.what == "taken"] == sorted(
        step.time_ms or 0 for step in steps if step.what == "taken"
    )
    for step in steps:
        with closing(log.reader({(step.position.topic, step.position.partition): step.position.offset})) as reader:
            record = next(to_the_end(reader, at_most=1))
        assert record.position == step.position
        text = (record.value or b"").decode()
        if step.what == "taken":
            continue
        if step.what == "met":
            assert canonical_symbol(json.loads(text)["stock_symbol"]) == row.symbol
        else:
            assert row.order_id in text
    filled = sum(t.quantity for t in history.trades_of(row))
    shares = [step.text.split(" ")[0] for step in steps if step.what == "shares"]
    assert filled == row.filled
    assert abs(sum(int(text.replace(",", "")) for text in shares)) == filled
    assert len(shares) == sum(1 for step in steps if step.what == "funds") == len(list(history.trades_of(row)))
    return {step.what for step in steps}


def test_the_trace_of_every_order(tmp_path: Path) -> None:
    """Each record that it names is there and tells of the order, each trade has its two legs."""
    with traded_log(tmp_path / "log") as log, ready(History, log, None) as history:
        seen = {what for row in history.orders() for what in check_trace(log, history, row)}
    assert seen >= {"sent", "taken", "accepted", "met", "traded", "shares", "funds", "asked", "replaced", "cancelled"}


@pytest.mark.kafka
def test_on_kafka(kafka_servers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a real broker with four shards the views say what new ones say, after every commit, and orders have traces."""
    monkeypatch.setattr(protocol, "SNAPSHOT_EVERY_INPUTS", 20)
    prefix = f"views-{tmp_path.name}-{time.time_ns()}-"
    with KafkaLog(kafka_servers, prefix=prefix, partitions=4) as log:
        node = Node(log, name="test", now_ms=lambda: 0)
        for number, record in enumerate(orders(5, 60)):
            log.append([record._replace(partition=None)])
            ends = node.backlog_ends()
            while not node.has_taken(ends):
                node.step(0.05)
            if number % 20 == 19:
                assert viewed(log, tmp_path / "views") == viewed(log, None)
        node.close()
        with ready(History, log, tmp_path / "views") as history:
            rows = history.orders()
            assert len(rows) > 30
            for row in rows[:6]:
                check_trace(log, history, row)


def test_positions_are_read_as_they_are_written() -> None:
    """And what is none is None."""
    for text in ("", "x", "x@", "x@1", "x@1:", "x@-1:5", "x@1:5.5"):
        assert position_of(text) is None
    position = position_of("buy-orders@3:17")
    assert str(position) == "buy-orders@3:17"
