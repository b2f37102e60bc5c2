"""What a watcher knows is right whatever comes, in whatever order, and stays bounded."""

import json
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stocktrade import flow
from stocktrade.core.exchange import Exchange
from stocktrade.domain.facts import Fact, Instruction, Match, Outcome, Reason, Status
from stocktrade.domain.values import Paise
from stocktrade.flow import Flow, Quote
from stocktrade.transport import topics
from stocktrade.transport.base import Record
from stocktrade.transport.codec import decode_input, encode_facts

T0 = 1_795_405_500_000  # 2026-11-23 09:15:00 in India
DAY = 86_400_000


def a_trade(seq: int = 2, *, symbol: str = "SBIN", price: int = 88_500, buyer: str = "HDFC") -> Match:
    sent = "SBI" if symbol == "SBIN" else symbol
    return Match(seq, 1, symbol, 100, Paise(price), "BUY", f"B{seq}", buyer, sent, f"S{seq}", "SELLER", sent)


def records_of(*facts: Fact, time_ms: int = T0) -> list[Record]:
    made = encode_facts(facts, 0, "buy-orders@0:0", time_ms)
    return [Record(r.topic, 0, i, i, time_ms, r.key, r.value, r.headers) for i, r in enumerate(made)]


def settled(match: Match, *, time_ms: int = T0) -> list[Record]:
    """The trade and its four legs: buyer's shares and money, seller's shares and money."""
    return records_of(match, time_ms=time_ms)


def changed(record: Record, **fields: Any) -> Record:
    return record._replace(value=json.dumps({**json.loads(record.value or b""), **fields}).encode())


def fed(records: Sequence[Record], *, now_ms: int = T0 + 18, live: bool = True) -> Flow:
    known = Flow()
    for record in records:
        known.feed(record, now_ms=now_ms, live=live)
    return known


def outcome(status: Status, reason: Reason | None = None) -> Outcome:
    return Outcome(3, "BUY", "B3", "HDFC", "SBI", status, reason, "why", 100, Paise(88_500), 0, 0)


def test_a_trade_is_settled_by_its_fourth_leg() -> None:
    """Shares and funds arrive leg by leg; the last leg settles the row, and its latency is the observer's."""
    known = Flow()
    seen = []
    for i, record in enumerate(settled(a_trade())):
        row = known.feed(record, now_ms=T0 + 10 * i, live=True)
        (only,) = known.recent(5)
        seen.append((only.shares, only.funds, only.settled, row is only))
    assert seen == [
        (0, 0, False, False),
        (1, 0, False, False),
        (1, 1, False, False),
        (2, 1, False, False),
        (2, 2, True, True),
    ]
    assert (only.settled_ms, only.amount, only.price, only.quantity) == (40, 8_850_000, 88_500, 100)
    assert known.pending == 0


def test_the_symbol_is_canonical_until_the_buyers_leg_is_here() -> None:
    """A row shows the symbol as its buyer sent it, which only the buyer's demat leg tells."""
    trade, shares, *_ = settled(a_trade())
    known = fed([trade])
    assert known.recent(1)[0].shown == "SBIN"
    known.feed(shares, now_ms=T0, live=True)
    assert (known.recent(1)[0].shown, known.recent(1)[0].symbol) == ("SBI", "SBIN")


def test_any_order_of_the_topics_gives_the_same_row() -> None:
    """Topics have no order between them: legs before their trade count as legs after it."""
    for order in permutations(settled(a_trade())):
        known = Flow()
        rows = [known.feed(record, now_ms=T0 + 18, live=True) for record in order]
        (row,) = known.recent(5)
        assert rows == [None] * 4 + [row]
        assert (row.settled, row.settled_ms, row.shown) == (True, 18, "SBI")
        assert (known.repeated, known.unreadable, known.pending) == (0, 0, 0)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=15))
def test_a_redelivered_id_counts_once(order: list[int]) -> None:
    """Whatever comes again, before or after the settlement, moves no row and settles nothing twice."""
    records = settled(a_trade())
    sequence = [*order, *range(5), *order]
    known = Flow()
    rows = [known.feed(records[i], now_ms=T0, live=True) for i in sequence]
    assert len([row for row in rows if row is not None]) == 1
    assert len(known.recent(99)) == 1
    assert known.repeated == len(sequence) - 5


def test_only_what_is_seen_live_has_a_latency() -> None:
    """A trade read from the past settles without a number, also when one of its records was from the past."""
    records = settled(a_trade())
    assert fed(records, live=False).recent(1)[0].settled_ms is None
    for old in range(5):
        known = Flow()
        for i, record in enumerate(records):
            known.feed(record, now_ms=T0, live=i != old)
        assert known.recent(1)[0].settled
        assert known.recent(1)[0].settled_ms is None


def test_an_observer_whose_clock_is_behind_sees_no_negative_latency() -> None:
    """Clocks of two machines differ; a settlement does not come before its order."""
    assert fed(settled(a_trade()), now_ms=T0 - 5000).recent(1)[0].settled_ms == 0


def test_last_price_and_the_days_range() -> None:
    """The range is that of the day in India of the last trade, by the trades' times, not by the observer's."""
    known = Flow()

    def trade(seq: int, price: int, time_ms: int) -> Quote:
        known.feed(settled(a_trade(seq, price=price), time_ms=time_ms)[0], now_ms=T0, live=False)
        return known.quotes["SBIN"]

    day = (T0 + 19_800_000) // DAY
    assert trade(1, 880_00, T0) == (day, 880_00, 880_00, 880_00)
    assert trade(2, 890_00, T0 + 1) == (day, 890_00, 880_00, 890_00)
    assert trade(3, 885_00, T0 + 2) == (day, 885_00, 880_00, 890_00)
    assert trade(4, 900_00, T0 + DAY) == (day + 1, 900_00, 900_00, 900_00)
    assert trade(5, 100_00, T0) == (day + 1, 900_00, 900_00, 900_00)  # late news of yesterday


def test_earlier_trades_widen_the_range_of_their_day() -> None:
    """They never change a last price that is known, and tell one that is not; another day's say nothing."""
    day = 86_400_000
    known = fed(settled(a_trade(9, price=88_500)))
    for symbol, price, time_ms in (
        ("SBIN", 10_000, T0 - day),
        ("SBIN", 90_000, T0 - 5),
        ("SBIN", 88_000, T0 - 4),
        ("TCS", 200, T0 - 3),
        ("TCS", 300, T0 - 2),
    ):
        known.look_back(symbol, Paise(price), time_ms)
    version = known.version
    assert known.quotes["SBIN"][1:] == (88_500, 88_500, 88_500)
    known.looked_back()
    assert known.version > version
    assert known.quotes["SBIN"][1:] == (88_500, 88_000, 90_000)
    assert known.quotes["TCS"][1:] == (300, 200, 300)
    late = fed(settled(a_trade(9, price=88_500), time_ms=T0 + day))
    late.look_back("SBIN", Paise(1), T0)
    late.looked_back()
    assert late.quotes["SBIN"][1:] == (88_500, 88_500, 88_500)
    one = Flow(symbols={"SBIN"})
    one.look_back("TCS", Paise(1), T0)
    one.looked_back()
    assert one.quotes == {}


def test_counts_and_rates() -> None:
    """A rate is the mean of the last ten seconds, falls to nothing, and leaves out what is read from the past."""
    known = Flow()
    for i in range(30):
        known.feed(settled(a_trade(i))[0], now_ms=T0 + 100 * i, live=True)
    stats = known.topics[topics.TRADES]
    assert (stats.count, stats.rate(T0 + 3000)) == (30, 3.0)
    assert known.is_lively(T0 + 3000)
    assert stats.rate(T0 + 11_500) == 1.0
    assert stats.rate(T0 + 13_000) == 0.0
    assert not known.is_lively(T0 + 13_000)
    assert fed(settled(a_trade()), live=False).topics[topics.TRADES].rate(T0 + 18) == 0.0


def test_answers_worth_a_look() -> None:
    """Rejections, repeats and dead letters are kept with their reason; an acceptance is only counted."""
    dead = Record(
        topics.DEAD_LETTERS,
        0,
        0,
        0,
        T0,
        b"k",
        b"x",
        (
            ("__dlq.errors.topic", b"buy-orders"),
            ("__dlq.errors.partition", b"0"),
            ("__dlq.errors.offset", b"7"),
            ("__dlq.errors.message", b"NOT_JSON: not JSON"),
        ),
    )
    repeat = outcome(Status.DUPLICATE)._replace(first_seq=2, first_status=Status.ACCEPTED)
    events = records_of(outcome(Status.ACCEPTED), outcome(Status.REJECTED, Reason.PRICE_OFF_TICK), repeat)
    known = fed([*events, dead])
    assert [(r.status, r.who, r.what, r.why) for r in known.answers] == [
        ("REJECTED", "HDFC", "buy 100 SBI (B3)", "PRICE_OFF_TICK: why"),
        ("DUPLICATE", "HDFC", "buy 100 SBI (B3)", "answered before: ACCEPTED, sequence 2"),
        ("DEAD LETTER", "", "buy-orders@0:7", "NOT_JSON: not JSON"),
    ]
    assert known.statuses == {Status.ACCEPTED: 1, Status.REJECTED: 1, Status.DUPLICATE: 1}


def test_cancels_and_replaces_are_no_refusals() -> None:
    """What was taken off an order and what it became is kept under words of its own; what was refused, as a refusal."""
    known = Flow()
    exchange = Exchange()
    sent: list[tuple[str, dict[str, Any]]] = [
        (topics.BUY_ORDERS, {"order_id": "B-1", "buyer": "HDFC", "quantity": 100, "price_per_unit": 885}),
        (
            topics.BUY_ORDERS,
            {
                "order_id": "R-1",
                "buyer": "HDFC",
                "action": "replace",
                "target_order_id": "B-1",
                "quantity": 50,
                "price_per_unit": 884.5,
            },
        ),
        (
            topics.SELL_OFFERS,
            {"offer_id": "S-1", "seller": "LIC", "quantity": 60, "price_per_unit": 884.5, "time_in_force": "IOC"},
        ),
        (topics.BUY_ORDERS, {"order_id": "B-2", "buyer": "HDFC", "quantity": 20, "price_per_unit": 880}),
        (
            topics.SELL_OFFERS,
            {
                "offer_id": "S-2",
                "seller": "HDFC",
                "quantity": 5,
                "price_per_unit": 880,
                "self_trade_prevention": "cancel-passive",
            },
        ),
        (
            topics.SELL_OFFERS,
            {"offer_id": "R-2", "seller": "HDFC", "action": "replace", "target_order_id": "S-2", "quantity": 4},
        ),
        (topics.SELL_OFFERS, {"offer_id": "C-1", "seller": "HDFC", "action": "cancel", "target_order_id": "S-2"}),
        (topics.SELL_OFFERS, {"offer_id": "C-2", "seller": "HDFC", "action": "cancel", "target_order_id": "S-2"}),
        (topics.SELL_OFFERS, {"offer_id": "C-1", "seller": "HDFC", "action": "cancel", "target_order_id": "S-2"}),
    ]
    for place, (topic, fields) in enumerate(sent):
        value = json.dumps({**fields, "stock_symbol": "SBI"}).encode()
        order = decode_input(topic, value)
        assert isinstance(order, Instruction)
        known.feed(Record(topic, 0, place, place, T0, None, value, ()), now_ms=T0, live=True)
        for record in records_of(*exchange.apply(order)):
            known.feed(record, now_ms=T0, live=True)
    assert [tuple(answer)[1:] for answer in known.answers] == [
        ("REPLACED", "HDFC", "buy 50 SBI at ₹884.50 (B-1)", ""),
        ("CANCELLED", "LIC", "sell 10 SBI (S-1)", "could not trade at once"),
        ("CANCELLED", "HDFC", "buy 20 SBI (B-2)", "self-trade prevention"),
        ("REPLACED", "HDFC", "sell 4 SBI at ₹880.00 (S-2)", ""),
        ("CANCELLED", "HDFC", "sell 4 SBI (S-2)", ""),
        ("REJECTED", "HDFC", "cancel S-2, SBI (C-2)",
         "ORDER_NOT_FOUND: no order of yours with this id rests in the book of this symbol"),
        ("DUPLICATE", "HDFC", "cancel S-2, SBI (C-1)", "answered before: ACCEPTED, sequence 7"),
    ]  # fmt: skip
    assert known.statuses == {Status.ACCEPTED: 7, Status.CANCELLED: 1, Status.REJECTED: 1, Status.DUPLICATE: 1}
    assert (known.unreadable, known.participants) == (0, {"HDFC": "SELL", "LIC": "SELL"})


def test_a_replace_at_an_impossible_price_is_unreadable() -> None:
    """No stranger's event raises."""
    (event,) = records_of(outcome(Status.ACCEPTED))
    for price in (1e300, -1, 0.001):
        known = fed([changed(event, action="replace", target_order_id="B", price_per_unit=price)])
        assert (known.unreadable, len(known.answers)) == (1, 0)


def test_filters() -> None:
    """A watcher of one symbol, or of one participant, keeps nothing of others but counts them."""
    other = a_trade(4, symbol="TCS", buyer="ICICI")
    records = [*settled(other), *settled(a_trade()), *records_of(outcome(Status.REJECTED, Reason.INVALID_PRICE))]
    for known in (Flow(symbols={"SBIN"}), Flow(participant="HDFC"), Flow(symbols={"SBIN"}, participant="HDFC")):
        for record in records:
            known.feed(record, now_ms=T0, live=True)
        assert [row.trade_id for row in known.recent(9)] == ["T0-2-1"]
        assert known.topics[topics.TRADES].count == 2
        assert len(known.answers) == 1
        assert (known.wants("T0-2-1"), known.wants("T0-4-1"), known.wants("T0-9-1")) == (True, False, None)
    assert list(known.quotes) == ["SBIN"]
    nobody = Flow(symbols={"SBIN"}, participant="ICICI")
    for record in records:
        assert nobody.feed(record, now_ms=T0, live=True) is None
    assert (nobody.recent(9), list(nobody.answers)) == ([], [])


def test_strangers_records_are_counted_and_change_nothing() -> None:
    """What is no message of its topic never raises; a leg with another id than its trade's does not settle it."""
    trade, *legs = settled(a_trade())
    strange = [
        trade._replace(value=None),
        trade._replace(value=b"\xff"),
        trade._replace(value=b"[]"),
        trade._replace(value=b"[" * 100_000),
        changed(trade, quantity=0),
        changed(trade, quantity="100"),
        changed(trade, quantity=10**12),
        changed(trade, amount=1.0),
        changed(trade, price_per_unit=float("nan"), amount=float("nan")),
        changed(trade, price_per_unit=1e300),
        changed(trade, trade_id="T" * 65),
        trade._replace(value=(trade.value or b"").replace(b"8850", b"1e999999999")),
        changed(legs[0], transfer_id="00000000-0000-5000-8000-000000000000"),
        changed(legs[0], direction="DEBIT"),
        changed(legs[0], direction=None),
        changed(legs[1], trade_id=None),
        changed(legs[1], trade_id="T" * 65),
        legs[1]._replace(topic=topics.ORDER_EVENTS),
    ]
    known = fed([trade, *strange])
    assert known.unreadable == len(strange)
    assert (known.recent(9)[0].legs, len(known.recent(9))) == (0, 1)


def test_inputs_name_their_participants_and_never_raise() -> None:
    """Before any exchange has answered, who sent orders is known from the orders."""
    known = Flow()
    good = b'{"offer_id":"1","seller":"SELLER","stock_symbol":"SBI","quantity":1}'
    for value in (good, b"", None, b"\x00", b'{"offer_id":"1","seller":"[/]","stock_symbol":"SBI","quantity":1}'):
        known.feed(Record(topics.SELL_OFFERS, 0, 0, 0, T0, None, value, ()), now_ms=T0, live=True)
    assert known.participants == {"SELLER": "SELL"}
    assert known.topics[topics.SELL_OFFERS].count == 5


@settings(max_examples=60)
@given(st.sampled_from(flow.WATCHED), st.binary(max_size=200) | st.none(), st.integers(-(2**63), 2**63 - 1))
def test_no_bytes_raise(topic: str, value: bytes | None, time_ms: int) -> None:
    """A watcher outlives any record on any topic."""
    record = Record(topic, 0, 0, 0, time_ms, value, value, (("__dlq.errors.topic", value or b""),))
    assert fed([record]).topics[topic].count == 1


def test_other_topics_are_passed_over() -> None:
    """The journal is not part of the flow."""
    known = fed([Record(topics.JOURNAL, 0, 0, 0, T0, None, b"x", ())])
    assert known.version == 0


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old settled trades go first; pending ones stay until they are too many themselves, and that is counted."""
    for name, most in {"MAX_SETTLED": 5, "MAX_PENDING": 3, "MAX_EARLY": 2, "MAX_SYMBOLS": 2}.items():
        monkeypatch.setattr(flow, name, most)
    known = Flow()
    for record in settled(a_trade(1))[:3]:
        known.feed(record, now_ms=T0, live=True)
    for seq in range(2, 12):
        for record in settled(a_trade(seq, symbol=f"S{seq}")):
            known.feed(record, now_ms=T0, live=True)
    assert [row.trade_id for row in known.recent(99)] == ["T0-1-1", *(f"T0-{n}-1" for n in range(7, 12))]
    for seq in range(20, 24):
        known.feed(settled(a_trade(seq))[0], now_ms=T0, live=True)
    assert (known.pending, known.forgotten) == (3, 2)
    for seq in range(30, 40):
        known.feed(settled(a_trade(seq))[1], now_ms=T0, live=True)
    assert len(known._early) == 2
    assert list(known.quotes) == ["SBIN", "S2"]


def test_long_texts_are_kept_short() -> None:
    """A name of 64 KiB costs 64 characters of memory."""
    trade = changed(settled(a_trade())[0], buyer="A" * 65_536, stock_symbol="B" * 65_536)
    (row,) = fed([trade]).recent(1)
    assert (len(row.buyer), len(row.symbol)) == (flow.MAX_TEXT, flow.MAX_TEXT)


def test_the_newest_rows_are_the_last() -> None:
    """Rows stand in the order in which their trades were seen, settled or not."""
    known = Flow()
    for seq in (1, 2, 3, 4):
        for record in settled(a_trade(seq))[: 5 if seq % 2 else 2]:
            known.feed(record, now_ms=T0, live=True)
    assert [row.trade_id for row in known.recent(3)] == ["T0-2-1", "T0-3-1", "T0-4-1"]
    assert known.recent(0) == []


def test_what_was_not_answered_yet_is_the_lag() -> None:
    """An input that was seen counts until its answer, or that of a later one on its partition, is seen."""
    order = b'{"order_id":"B","buyer":"HDFC","stock_symbol":"SBI","quantity":1}'
    inputs = [Record("buy-orders", shard, i, i, T0, None, order, ()) for shard in (0, 1) for i in range(3)]
    known = fed(inputs)
    assert (known.lag("buy-orders"), known.lag("sell-offers")) == (6, 0)
    for source, left in (("buy-orders@0:0", 5), ("buy-orders@1:2", 2), ("buy-orders@0:2", 0), ("buy-orders@0:1", 0)):
        made = encode_facts([outcome(Status.ACCEPTED)], 0, source, T0)
        for record in made:
            known.feed(Record(record.topic, 0, 9, 9, T0, None, record.value, ()), now_ms=T0, live=True)
        assert known.lag("buy-orders") == left
    headers = (("topic", b"buy-orders"), ("partition", b"1"), ("offset", b"3"))
    known.feed(inputs[-1]._replace(offset=3, value=b"?"), now_ms=T0, live=True)
    assert known.lag("buy-orders") == 1
    letter = Record("dead-letters", 1, 0, 0, T0, None, b"?", tuple((f"__dlq.errors.{n}", v) for n, v in headers))
    known.feed(letter, now_ms=T0, live=True)
    assert known.lag("buy-orders") == 0


@pytest.mark.parametrize(
    "source", ["", "x", "buy-orders", "buy-orders@", "buy-orders@x:1", "buy-orders@0:-1", "trades@0:1"]
)
def test_a_strange_source_says_nothing_of_the_lag(source: str) -> None:
    """An answer whose source is no place on an input topic is passed over."""
    known = fed([Record("buy-orders", 0, 0, 0, T0, None, b"{}", ())])
    made = encode_facts([outcome(Status.ACCEPTED)], 0, source, T0)
    for record in made:
        known.feed(Record(record.topic, 0, 9, 9, T0, None, record.value, ()), now_ms=T0, live=True)
    assert known.lag("buy-orders") == 1


def test_without_the_answers_nobody_knows_the_lag() -> None:
    known = Flow(answers=False)
    known.feed(Record("buy-orders", 0, 0, 0, T0, None, b"{}", ()), now_ms=T0, live=True)
    assert known.lag("buy-orders") == 0
