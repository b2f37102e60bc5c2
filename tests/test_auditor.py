"""The auditor itself: it passes a sound log, and finds each kind of damage that a log can have.

A damage is done behind the exchange's back, in the file of the embedded log; each is small and leaves everything
else as it was.
"""

import json
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from auditor import Answer, Told, audit, examine, records_of
from stocktrade.audit import auditor
from stocktrade.shard.node import Node
from stocktrade.transport import connect, topics
from stocktrade.transport.base import NewRecord, Position

Damage = Callable[[sqlite3.Connection], object]

NOON_MS = 1_790_000_000_000


def orders(seed: int, count: int) -> Iterator[NewRecord]:
    """A little of everything: both sides, every instruction, repeats, bytes that are no message, a stray partition."""
    chance = random.Random(seed)
    sent: list[tuple[str, str, str, bool]] = [("id-0", "HDFC", "SBI", True)]
    for number in range(count):
        name = f"id-{number - chance.choice([0, 0, 0, 0, 1])}"
        buys = chance.random() < 0.5
        participant = chance.choice(["HDFC", "ICICI", "BOTH"] if buys else ["SELLER", "SELLER", "BOTH"])
        symbol = chance.choice(["SBI", "sbin", "INFY", "M&M", "ITC"])
        said: dict[str, object] = {}
        price = chance.randrange(880, 890)
        kind = chance.random()
        if kind < 0.25:
            target, participant, symbol, buys = chance.choice(sent[-8:])
            said = {"action": "cancel" if kind < 0.08 else "replace", "target_order_id": target}
            if kind >= 0.08:
                said |= chance.choice([{"quantity": 5}, {"quantity": 50}, {"price_per_unit": price}])
        else:
            said["quantity"] = chance.randrange(1, 30)
            if chance.random() < 0.8:
                said["price_per_unit"] = price
            if chance.random() < 0.2:
                said["time_in_force"] = chance.choice(["IOC", "FOK", "DAY"])
            if chance.random() < 0.2:
                said["self_trade_prevention"] = chance.choice(["cancel-passive", "cancel-active"])
            sent.append((name, participant, symbol, buys))
        fields = {
            "order_id" if buys else "offer_id": name,
            "buyer" if buys else "seller": participant,
            "stock_symbol": symbol,
            **said,
        }
        topic = "buy-orders" if buys else "sell-offers"
        value = b"no message %d" % number if chance.random() < 0.05 else json.dumps(fields).encode()
        yield NewRecord(topic, symbol.encode(), value, chance.choice([None, None, None, 0]))


def trade_it(folder: Path, *, partitions: int = 1, count: int = 300) -> None:
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
        report = auditor.audit(log)
        records = {topic: records_of(log, topic) for topic in topics.INPUTS + topics.OUTPUTS + (topics.DEAD_LETTERS,)}
    assert report.inputs == sum(len(records[topic]) for topic in topics.INPUTS) >= 200
    assert report.trades == len(records["trades"]) > 20
    assert len(records["dead-letters"]) > 2
    said = [json.loads(record.value or b"") for record in records["order-events"]]
    assert {event["status"] for event in said} == {"ACCEPTED", "REJECTED", "CANCELLED"}
    assert {event.get("action") for event in said if event["status"] == "ACCEPTED"} == {None, "cancel", "replace"}
    assert all(tally.checked for tally in report.tallies.values())
    assert not any(tally.unchecked for tally in report.tallies.values())
    if partitions > 1:
        forwarded = [record for topic in topics.INPUTS for record in records[topic] if record.headers]
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
        pytest.param(drop_last("cash-movements"), "outputs", id="the last funds leg is missing"),
        pytest.param(drop("cash-movements"), "sums", id="money is gone"),
        pytest.param(again("demat-transfers"), "legs", id="a leg is there twice"),
        pytest.param(again("demat-transfers", transfer_id="new"), "legs", id="a leg is there again under another id"),
        pytest.param(again("cash-movements", movement_id="new"), "sums", id="money from nowhere"),
        pytest.param(change("demat-transfers", "quantity", 999), "legs", id="a leg moves other shares"),
        pytest.param(change("demat-transfers", "to_entity", "ICICI"), "legs", id="a leg goes to another"),
        pytest.param(change("cash-movements", "description", "Gift"), "legs", id="a leg says something else"),
        pytest.param(change("cash-movements", "amount", 1.0), "sums", id="a leg moves other money"),
        pytest.param(change("cash-movements", "order_id", "id-0"), "outputs", id="a leg names another order"),
        pytest.param(drop("order-events"), "answers", id="an order has no event"),
        pytest.param(again("order-events"), "answers", id="an order has two events"),
        pytest.param(change("order-events", "leaves_quantity", 99, 0), "outputs", id="an answer was changed"),
        pytest.param(drop("trades"), "legs", id="legs without a trade"),
        pytest.param(again("trades"), "trades", id="a trade is there twice"),
        pytest.param(again("trades", trade_id="T0-9-7"), "trades", id="a trade is there again under another id"),
        pytest.param(change("trades", "quantity", 999), "fills", id="an order is over-filled"),
        pytest.param(change("trades", "price_per_unit", 1.0), "priority", id="a trade at a price nobody allowed"),
        pytest.param(change("trades", "buyer", "NOBODY"), "legs", id="a trade of a stranger"),
        pytest.param(drop("exchange-journal", 0), "journal", id="the journal has lost its beginning"),
        pytest.param(drop_last("exchange-journal"), "head", id="the journal has lost its end"),
        pytest.param(again("exchange-journal", 1, prev="f" * 64), "journal", id="a stranger writes to the journal"),
        pytest.param(change("exchange-journal", "first_seq", 7, 1), "journal", id="the sequence has a gap"),
        pytest.param(change("exchange-journal", "rules", "mine", 1), "replay", id="an entry was changed"),
        pytest.param(change("buy-orders", "stock_symbol", "TCS"), "inputs", id="an input was changed"),
        pytest.param(drop("sell-offers"), "inputs", id="an input was removed"),
        pytest.param(again("buy-orders", order_id="late"), "taken", id="an input was never taken"),
        pytest.param(drop("dead-letters", 0), "answers", id="a dead letter is missing"),
    ],
)
def test_each_damage_is_found(tmp_path: Path, damage: Damage, rule: str) -> None:
    """The auditor finds the damage, by the rule that it breaks."""
    trade_it(tmp_path / "log")
    with closing(sqlite3.connect(tmp_path / "log" / "log.db", isolation_level=None)) as db:
        damage(db)
    with connect(f"sqlite:{tmp_path / 'log'}") as log:
        assert rule in {finding.rule for finding in audit(log)}


def _mutations(db: sqlite3.Connection, seed: int) -> str:
    """Do one random damage to one random record, and say which."""
    chance = random.Random(seed)
    kind = chance.choice(["flip", "drop", "swap", "double", "insert"])
    topic = chance.choice([*topics.OUTPUTS, topics.JOURNAL, topics.DEAD_LETTERS, *topics.INPUTS, topics.SNAPSHOTS])
    rows = db.execute(
        f"SELECT arrival, offset, value FROM records WHERE {_OF_TOPIC} ORDER BY offset", (topic,)
    ).fetchall()
    arrival, offset, value = chance.choice(rows)
    if kind == "flip":
        place = chance.randrange(len(value))
        changed = value[:place] + bytes([value[place] ^ (1 << chance.randrange(8))]) + value[place + 1 :]
        db.execute("UPDATE records SET value = ? WHERE arrival = ?", (changed, arrival))
    elif kind == "drop" and topic == topics.SNAPSHOTS:
        return ""  # so does compaction, and a part without a manifest is what a crash leaves
    elif kind == "drop":
        db.execute("DELETE FROM records WHERE arrival = ?", (arrival,))
    elif kind == "swap":
        other, _, others = chance.choice([row for row in rows if row[2] != value] or rows)
        db.execute("UPDATE records SET value = ? WHERE arrival = ?", (others, arrival))
        db.execute("UPDATE records SET value = ? WHERE arrival = ?", (value, other))
    elif topic == topics.SNAPSHOTS:
        return ""  # compacted: a second one with the same key is the same snapshot
    else:
        db.execute("UPDATE clock SET arrival = arrival + 1")
        forged = value if kind == "double" else value.replace(b'"', b"'", 2)
        db.execute(
            "INSERT INTO records SELECT clock.arrival, r.topic, r.partition, next_offset, r.time_ms, key, ?, headers"
            " FROM heads JOIN records AS r USING (topic, partition), clock WHERE r.arrival = ?",
            (forged, arrival),
        )
        db.execute(
            "UPDATE heads SET next_offset = next_offset + 1 WHERE topic = (SELECT id FROM topics WHERE name = ?)",
            (topic,),
        )
    return f"{kind} {topic}@0:{offset}"


@pytest.mark.slow
def test_as_many_damages_as_are_done_are_found(tmp_path: Path) -> None:
    """Bits flipped, records dropped, swapped, doubled and forged, one at a time in a random place: each is found."""
    trade_it(tmp_path / "sound")
    done, found = [], []
    for seed in range(200):
        folder = tmp_path / f"log-{seed}"
        shutil.copytree(tmp_path / "sound", folder)
        with closing(sqlite3.connect(folder / "log.db", isolation_level=None)) as db:
            damage = _mutations(db, seed)
        if not damage:
            continue
        done.append(damage)
        with connect(f"sqlite:{folder}") as log:
            if audit(log):
                found.append(damage)
    assert found == done
    assert len(done) > 150


def test_an_entry_without_an_order_is_replayed_too(tmp_path: Path) -> None:
    """A batch of nothing but dead letters has a digest, which is checked like any other."""
    with connect(f"sqlite:{tmp_path / 'log'}") as log:
        node = Node(log, name="test", now_ms=lambda: NOON_MS)
        log.append([NewRecord("buy-orders", None, b"no message")])
        while not node.has_taken(node.backlog_ends()):
            node.step(0.0)
        node.abandon()
    with closing(sqlite3.connect(tmp_path / "log" / "log.db", isolation_level=None)) as db:
        change("exchange-journal", "digest", "f" * 64, 1)(db)
    with connect(f"sqlite:{tmp_path / 'log'}") as log:
        assert {finding.rule for finding in audit(log)} == {"replay", "head"}


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
        pytest.param(zombie(again("trades", quantity=999)), {"outputs", "trades"}, 1, 0, id="another content"),
        pytest.param(zombie(again("trades", trade_id="T0-9-7")), {"outputs", "trades"}, 1, 0, id="a trade of its own"),
        pytest.param(again("trades"), set(), 0, 1, id="a trade twice, and no such entry"),
        pytest.param(again("exchange-journal", 1, entry=99), {"journal"}, 1, 0, id="a gap"),
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
