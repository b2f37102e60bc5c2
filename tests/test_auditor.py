"""The auditor itself: it passes a sound log, and finds each kind of damage that a log can have.

A damage is done behind the exchange's back, in the file of the embedded log; each is small and leaves everything
else as it was.
"""

import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from auditor import Answer, Told, audit, examine, read
from stocktrade.domain.messages import BuyOrder, SellOffer
from stocktrade.shard.node import Node
from stocktrade.transport import connect
from stocktrade.transport.base import NewRecord, Position
from stocktrade.transport.codec import encode_order

Damage = Callable[[sqlite3.Connection], object]

NOON_MS = 1_790_000_000_000


def orders(seed: int, count: int) -> Iterator[NewRecord]:
    """A little of everything: both sides, priced and not, repeats, bytes that are no message, a stray partition."""
    chance = random.Random(seed)
    for number in range(count):
        symbol = chance.choice(["SBI", "sbin", "INFY", "M&M", "ITC"])
        quantity, price = chance.randrange(1, 30), Decimal(chance.randrange(880, 890))
        name = f"id-{number - chance.choice([0, 0, 0, 0, 1])}"
        partition = chance.choice([None, None, None, 0])
        if chance.random() < 0.05:
            yield NewRecord("buy-orders", None, b"no message", partition)
        elif chance.random() < 0.5:
            order = BuyOrder(order_id=name, buyer="HDFC", stock_symbol=symbol, quantity=quantity, price_per_unit=price)
            yield NewRecord("buy-orders", symbol.encode(), encode_order(order), partition)
        else:
            offer = SellOffer(
                offer_id=name,
                seller="SELLER",
                stock_symbol=symbol,
                quantity=quantity,
                price_per_unit=chance.choice([None, price]),
            )
            yield NewRecord("sell-offers", symbol.encode(), encode_order(offer), partition)


def trade_it(folder: Path, *, partitions: int = 1, count: int = 200) -> None:
    """A log in the folder on which a node has taken `count` orders."""
    with connect(f"sqlite:{folder}", partitions=partitions) as log:
        node = Node(log, name="test", now_ms=lambda: NOON_MS)
        log.append(list(orders(885, count)))
        for _ in range(100):  # forwards are inputs again
            node.step(0.0)
            if node.has_taken(node.backlog_ends()):
                break
        assert node.has_taken(node.backlog_ends())
        node.close()


@pytest.mark.parametrize("partitions", [1, 4])
def test_a_sound_log_has_no_findings(tmp_path: Path, partitions: int) -> None:
    """The auditor passes a log with trades, refusals, dead letters and forwards, and has looked at all of them."""
    trade_it(tmp_path / "log", partitions=partitions)
    with connect(f"sqlite:{tmp_path / 'log'}") as log:
        assert audit(log) == []
        books = read(log, [])
    assert len(books.of("buy-orders", "sell-offers")) >= 200
    assert len(books.of("trades")) > 20
    assert len(books.of("dead-letters")) > 2
    statuses = {json.loads(record.value or b"")["status"] for record in books.of("order-events")}
    assert statuses == {"ACCEPTED", "REJECTED"}
    if partitions > 1:
        forwarded = [record for record in books.of("buy-orders", "sell-offers") if record.headers]
        assert len(forwarded) > 2


_OF_TOPIC = "topic = (SELECT id FROM topics WHERE name = ?)"


def drop(topic: str, which: int = 3) -> Damage:
    """Remove one record of a topic."""
    return lambda db: db.execute(f"DELETE FROM records WHERE {_OF_TOPIC} AND offset = ?", (topic, which))


def drop_last(topic: str) -> Damage:
    """Remove the last record of a topic, which leaves no gap."""
    return lambda db: db.execute(
        f"DELETE FROM records WHERE arrival = (SELECT max(arrival) FROM records WHERE {_OF_TOPIC})", (topic,)
    )


def change(topic: str, field: str, to: object, which: int = 3) -> Damage:
    """Give a field of one record of a topic another value."""

    def damage(db: sqlite3.Connection) -> None:
        (value,) = db.execute(f"SELECT value FROM records WHERE {_OF_TOPIC} AND offset = ?", (topic, which)).fetchone()
        fields = json.loads(value)
        assert fields[field] != to
        fields[field] = to
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
        db.execute(f"UPDATE records SET value = ? WHERE {_OF_TOPIC} AND offset = ?", (text, topic, which))

    return damage


def again(topic: str, which: int = 3, **changes: object) -> Damage:
    """Append a copy of one record of a topic, with some fields changed."""

    def damage(db: sqlite3.Connection) -> None:
        at = (topic, which)
        place, time_ms, key, value, headers = db.execute(
            f"SELECT topic, time_ms, key, value, headers FROM records WHERE {_OF_TOPIC} AND offset = ?", at
        ).fetchone()
        text = json.dumps(json.loads(value) | changes, ensure_ascii=False, separators=(",", ":")).encode()
        db.execute("UPDATE clock SET arrival = arrival + 1")
        db.execute(
            "INSERT INTO records SELECT clock.arrival, topic, partition, next_offset, ?, ?, ?, ? FROM heads, clock"
            " WHERE topic = ?",
            (time_ms, key, text, headers, place),
        )
        db.execute("UPDATE heads SET next_offset = next_offset + 1 WHERE topic = ?", (place,))

    return damage


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        pytest.param(drop("demat-transfers"), "legs", id="a securities leg is missing"),
        pytest.param(drop_last("cash-movements"), "whole", id="the last funds leg is missing"),
        pytest.param(drop("cash-movements"), "sums", id="money is gone"),
        pytest.param(again("demat-transfers"), "legs", id="a leg is there twice"),
        pytest.param(again("demat-transfers", transfer_id="new"), "legs", id="a leg is there again under another id"),
        pytest.param(again("cash-movements", movement_id="new"), "sums", id="money from nowhere"),
        pytest.param(change("demat-transfers", "quantity", 999), "legs", id="a leg moves other shares"),
        pytest.param(change("demat-transfers", "to_entity", "ICICI"), "legs", id="a leg goes to another"),
        pytest.param(change("cash-movements", "description", "Gift"), "legs", id="a leg says something else"),
        pytest.param(change("cash-movements", "amount", 1.0), "sums", id="a leg moves other money"),
        pytest.param(change("cash-movements", "order_id", "id-0"), "outputs", id="a leg names another order"),
        pytest.param(drop("order-events"), "one event", id="an order has no event"),
        pytest.param(again("order-events"), "one event", id="an order has two events"),
        pytest.param(change("order-events", "status", "REJECTED", 0), "outputs", id="an answer was changed"),
        pytest.param(drop("trades"), "legs", id="legs without a trade"),
        pytest.param(again("trades"), "trade ids", id="a trade is there twice"),
        pytest.param(again("trades", trade_id="T0-9-7"), "trade ids", id="a trade is there again under another id"),
        pytest.param(change("trades", "quantity", 999), "fills", id="an order is over-filled"),
        pytest.param(change("trades", "price_per_unit", 1.0), "trades", id="a trade at a price nobody allowed"),
        pytest.param(change("trades", "buyer", "ICICI"), "trades", id="a trade of a stranger"),
        pytest.param(drop("exchange-journal", 0), "chain", id="the journal has lost its beginning"),
        pytest.param(drop_last("exchange-journal"), "inputs once", id="the journal has lost its end"),
        pytest.param(again("exchange-journal", 1, prev="f" * 64), "chain", id="a stranger writes to the journal"),
        pytest.param(change("exchange-journal", "first_seq", 7, 1), "seq", id="the sequence has a gap"),
        pytest.param(change("exchange-journal", "rules", "mine", 1), "replay", id="an entry was changed"),
        pytest.param(change("buy-orders", "quantity", 999), "inputs once", id="an input was changed"),
        pytest.param(drop("sell-offers"), "inputs once", id="an input was removed"),
        pytest.param(again("buy-orders", order_id="late"), "inputs once", id="an input was never taken"),
        pytest.param(drop("dead-letters", 0), "dead and forwarded", id="a dead letter is missing"),
    ],
)
def test_each_damage_is_found(tmp_path: Path, damage: Damage, rule: str) -> None:
    """The auditor finds the damage, by the rule that it breaks."""
    trade_it(tmp_path / "log")
    with closing(sqlite3.connect(tmp_path / "log" / "log.db", isolation_level=None)) as db:
        damage(db)
    with connect(f"sqlite:{tmp_path / 'log'}") as log:
        assert rule in {finding.rule for finding in audit(log)}


# --- a log that may let a fenced owner's entry in ------------------------------------------------------------------


def zombie(*damages: Damage) -> Damage:
    """An entry that does not continue the chain, and what else came with it."""

    def damage(db: sqlite3.Connection) -> None:
        for each in (again("exchange-journal", 1, prev="f" * 64), *damages):
            each(db)

    return damage


ALL_OUTPUTS = tuple(again(topic) for topic in ("order-events", "trades", "demat-transfers", "cash-movements"))


@pytest.mark.parametrize(
    ("damage", "rules", "ignored", "redelivered"),
    [
        pytest.param(zombie(), set(), 1, 0, id="an entry alone"),
        pytest.param(zombie(*ALL_OUTPUTS), set(), 1, 4, id="its outputs are there already"),
        pytest.param(
            zombie(again("trades", quantity=999)), {"redelivery", "trade ids", "outputs"}, 1, 0, id="another content"
        ),
        pytest.param(
            zombie(again("trades", trade_id="T0-9-7")), {"outputs", "trade ids"}, 1, 0, id="a trade of its own"
        ),
        pytest.param(again("trades"), {"outputs", "trade ids"}, 0, 0, id="a trade twice, and no such entry"),
        pytest.param(again("exchange-journal", 1, entry=99), {"chain"}, 1, 0, id="a gap"),
    ],
)
def test_an_entry_that_does_not_count_is_judged_by_its_outputs(
    tmp_path: Path, damage: Damage, rules: set[str], ignored: int, redelivered: int
) -> None:
    """It is counted, not found; its outputs must be there already, with the same content. Nothing else is allowed."""
    trade_it(tmp_path / "log")
    with closing(sqlite3.connect(tmp_path / "log" / "log.db", isolation_level=None)) as db:
        damage(db)
    with connect(f"sqlite:{tmp_path / 'log'}") as log:
        report = examine(log, chain_decides=True)
    assert {finding.rule for finding in report.findings} >= rules
    assert bool(report.findings) == bool(rules)
    assert (report.ignored > 0, report.redelivered) == (ignored > 0, redelivered)


# --- what clients were told -----------------------------------------------------------------------------------------


def test_what_clients_were_told_is_compared_with_the_log(tmp_path: Path) -> None:
    """True answers pass; each untrue one is found, and so is a message that nobody sent."""
    # A client gives each order an id of its own.
    sent = list({told(record, "failed", None)[:3]: record for record in orders(885, 30)}.values())
    with connect(f"sqlite:{tmp_path / 'log'}") as log:
        node = Node(log, name="test", now_ms=lambda: NOON_MS)
        places = log.append(sent)
        while not node.has_taken(node.backlog_ends()):
            node.step(0.0)
        node.close()
        true = [told(record, "acknowledged", place) for record, place in zip(sent, places, strict=True)]
        never = told(next(iter(orders(1, 1))), "unknown", None)
        failed = never._replace(answer="failed")
        for history in (true, [*true, never], [*true, failed], [*true[1:], true[0]._replace(answer="unknown")]):
            assert examine(log, history).findings == []
        elsewhere = true[0]._replace(where=true[1].where)
        for history in (
            true[1:],  # somebody else wrote
            [elsewhere, *true[1:]],
            [true[0]._replace(answer="failed", where=None), *true[1:]],
            [*true, never._replace(answer="acknowledged", where=Position("buy-orders", 0, 999))],
            [*true, true[0]],  # acknowledged twice, there once
        ):
            assert {finding.rule for finding in examine(log, history).findings} == {"told"}


def told(record: NewRecord, answer: Answer, where: Position | None) -> Told:
    """What a client notes."""
    try:
        fields = json.loads(record.value or b"")
    except ValueError:
        fields = {}
    participant, name = (
        fields.get("buyer") or fields.get("seller", ""),
        fields.get("order_id") or fields.get("offer_id"),
    )
    return Told(record.topic, participant, name or "", record.value or b"", answer, where)
