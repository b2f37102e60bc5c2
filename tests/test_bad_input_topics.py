"""Bad input on the topics: each case of the table is answered or becomes a dead letter, and never blocks a shard.

Every case goes through a real embedded log and a real `Node`: the bad record, then a good one behind it, which must
be taken at once. The ids are those of the catalogue of bad inputs.
"""

import json
import random
import time
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from stocktrade.core.instruments import parse_instruments
from stocktrade.errors import UsageError
from stocktrade.shard.node import Node
from stocktrade.transport import connect, topics
from stocktrade.transport.base import Log, NewRecord, Record
from stocktrade.transport.codec import MAX_MESSAGE_BYTES, Dead, decode_input
from stocktrade.transport.topics import BUY_ORDERS, DEAD_LETTERS, ORDER_EVENTS, SELL_OFFERS

SEED: Final[dict[str, Any]] = {
    "order_id": "BAD",
    "buyer": "HDFC",
    "stock_symbol": "SBI",
    "quantity": 100,
    "price_per_unit": 885.0,
}
OFFER: Final[dict[str, Any]] = {"offer_id": "BAD", "seller": "SELLER", "stock_symbol": "SBI", "quantity": 100}

INSTRUCTION_FIELDS: Final = ("action", "time_in_force", "self_trade_prevention", "target_order_id", "valid_until")

GOOD: Final = b'{"offer_id":"GOOD","seller":"SELLER","stock_symbol":"SBI","quantity":1}'


class Raw(str):
    """JSON text that stands for itself: numbers that `json.dumps` would not write."""

    __slots__ = ()


def order(**changes: Any) -> bytes:
    """The seed's order with some fields changed; None leaves a field out."""
    return _encoded(SEED | changes)


def offer(**changes: Any) -> bytes:
    """The seed's offer with some fields changed; None leaves a field out."""
    return _encoded(OFFER | changes)


def cancel(**changes: Any) -> bytes:
    """A cancel of an order that is not there, with some fields changed; None leaves a field out."""
    nameless = {"quantity": None, "price_per_unit": None}
    return order(**(nameless | {"action": "cancel", "target_order_id": "NOBODYS"} | changes))


def replace(**changes: Any) -> bytes:
    """A replace of an order that is not there; None leaves a field out."""
    return cancel(**({"action": "replace"} | changes))


def _encoded(fields: dict[str, Any]) -> bytes:
    parts = [
        f"{json.dumps(name)}:{value if isinstance(value, Raw) else json.dumps(value)}"
        for name, value in fields.items()
        if value is not None
    ]
    return ("{" + ",".join(parts) + "}").encode()


class Case(NamedTuple):
    """A value on a topic and its outcome: ACCEPTED, REJECTED with a reason, or DEAD with one."""

    name: str
    value: bytes | None
    outcome: str
    reason: str = ""
    topic: str = BUY_ORDERS


DEAD, REJECTED, ACCEPTED = "DEAD", "REJECTED", "ACCEPTED"
QTY, PRICE, SYMBOL, TICK = "INVALID_QUANTITY", "INVALID_PRICE", "INVALID_SYMBOL", "PRICE_OFF_TICK"

HOSTILE_NAMES: Final = {
    "BI-25 NUL": "A\0B",
    "BI-25 TAB": "A\tB",
    "BI-25 CR": "A\rB",
    "BI-25 LF": "A\nB",
    "BI-25 DEL": "A\x7fB",
    "BI-25 trailing newline": "HDFC\n",
    "BI-25 leading space": " HDFC",
    "BI-27 closing markup": "[/foo]",
    "BI-27 hiding markup": "[conceal]HDFC[/conceal]",
    "BI-27 linking markup": "[link=http://evil]HDFC[/link]",
    "BI-28 clears the screen": "\x1b[2J",
    "BI-28 sets the clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "BI-28 links": "\x1b]8;;http://evil\x1b\\HDFC\x1b]8;;\x1b\\",
    "BI-28 C1": "\x9b2J",
    "BI-28 right to left": "HDFC\u202eCFDH",
    "BI-32 65 characters": "A" * 65,
    "BI-32 empty": "",
    "BI-32 parent folder": "..",
    "BI-32 path": "../../etc/passwd",
    "BI-32 device": "CON",
    "BI-32 SQL": "'; DROP TABLE records",
    "not ASCII": "ＨＤＦＣ",
    "half a character": "\ud800",
}

CASES: Final = [
    Case("BI-01 empty value", b"", DEAD, "EMPTY"),
    Case("BI-02 tombstone", None, DEAD, "EMPTY"),
    Case("BI-03 random bytes", random.Random(3).randbytes(32), DEAD, "NOT_UTF8"),
    Case("BI-03 UTF-16 mark", b"\xff\xfe\x00", DEAD, "NOT_UTF8"),
    Case("BI-03 UTF-16 order", order().decode().encode("utf-16"), DEAD, "NOT_UTF8"),
    Case("BI-03 UTF-8 mark", b"\xef\xbb\xbf" + order(), DEAD, "NOT_JSON"),
    Case("BI-05 a megabyte", order(order_id="A" * 2**20), DEAD, "TOO_LARGE"),
    Case("BI-06 one byte over", order().ljust(MAX_MESSAGE_BYTES + 1), DEAD, "TOO_LARGE"),
    Case("BI-06 exactly at it", order().ljust(MAX_MESSAGE_BYTES), ACCEPTED),
    *(Case(f"BI-07 {text}", text.encode(), DEAD, "NOT_AN_OBJECT") for text in ("[]", '"x"', "1", "true", "null")),
    Case("BI-07 an order in a list", b"[" + order() + b"]", DEAD, "NOT_AN_OBJECT"),
    Case("duplicate key", order()[:-1] + b',"buyer":"ICICI"}', DEAD, "DUPLICATE_KEY"),
    Case("two orders", order() + order(), DEAD, "NOT_JSON"),
    Case("BI-11 extra field", order(admin=True), ACCEPTED),
    Case("BI-11 extra object", order(meta={"a": [1, {"b": None}]}), ACCEPTED),
    Case("BI-12 1,900 deep", order(x=Raw("[" * 1_900 + "]" * 1_900)), DEAD, "TOO_DEEP"),
    Case("BI-12 1,900 deep, unclosed", b'{"x":' + b"[" * 1_900, DEAD, "TOO_DEEP"),
    Case("BI-12 100,000 deep", b"[" * 100_000 + b"]" * 100_000, DEAD, "TOO_LARGE"),
    Case("BI-13 300,000 keys", order(**{f"k{n}": n for n in range(300_000)}), DEAD, "TOO_LARGE"),
    Case("BI-14 5,000 digits", order(quantity=Raw("9" * 5_000)), REJECTED, QTY),
    Case("BI-14 10^30", order(quantity=10**30), REJECTED, QTY),
    Case("BI-14 above the limit", order(quantity=1_000_000_001), REJECTED, QTY),
    *(Case(f"BI-16 {n}", order(quantity=Raw(n)), REJECTED, QTY) for n in ("0", "-1", "-0")),
    *(
        Case(f"BI-17 {n}", order(quantity=Raw(n)), REJECTED, QTY)
        for n in ("1.0", "1e3", '"5"', "true", "null", "NaN", "[1]")
    ),
    Case("BI-17 no quantity", order(quantity=None), REJECTED, QTY),
    *(
        Case(f"BI-19 {n}", order(price_per_unit=Raw(n)), REJECTED, PRICE)
        for n in ('"1e999999999"', "1e999999999", "1e-999999999", "NaN", "Infinity", "-Infinity", "9" * 5_000)
    ),
    *(
        Case(f"BI-20 {n}", order(price_per_unit=Raw(n)), REJECTED, PRICE)
        for n in ("2.6750000000000001", "885.001", '"1_000"', '" 1 "', '"885"', '"٨٨٥"', "true", "[885]")
    ),
    Case("no price: a market order", order(price_per_unit=None), ACCEPTED),
    Case("a null price: a market order", order(price_per_unit=Raw("null")), ACCEPTED),
    Case("BI-21 off the tick", order(price_per_unit=885.01), REJECTED, TICK),
    Case("BI-21 on the tick", order(price_per_unit=885.05), ACCEPTED),
    Case("BI-21 offer off the tick", offer(price_per_unit=885.01), REJECTED, TICK, SELL_OFFERS),
    *(Case(f"BI-21 {n}", order(price_per_unit=Raw(n)), REJECTED, PRICE) for n in ("0", "0.0", "-885", "1e12")),
    Case("BI-21 the smallest part too small", order(price_per_unit=0.001), REJECTED, PRICE),
    Case("885 without decimals", order(price_per_unit=885), ACCEPTED),
    Case("885 with an exponent", order(price_per_unit=Raw("8.85e2")), ACCEPTED),
    Case("BI-22 unknown symbol", order(stock_symbol="NOSUCH"), ACCEPTED),
    *(
        Case(f"BI-22 symbol {text!r}", order(stock_symbol=text), REJECTED, SYMBOL)
        for text in ("", "SBI\n", " SBI", "S" * 21, "BSE:SBI", "[red]SBI", "\x1b[2J", "SBI\0", "ＳＢＩ", "-SBI")
    ),
    Case("BI-22 symbol of another type", order(stock_symbol=1), DEAD, "NO_SYMBOL"),
    Case("BI-22 no symbol", order(stock_symbol=None), DEAD, "NO_SYMBOL"),
    *(Case(f"id: {n}", order(order_id=text), DEAD, "INVALID_ID") for n, text in HOSTILE_NAMES.items()),
    *(Case(f"buyer: {n}", order(buyer=text), DEAD, "INVALID_PARTICIPANT") for n, text in HOSTILE_NAMES.items()),
    *(
        Case(f"seller: {n}", offer(seller=text), DEAD, "INVALID_PARTICIPANT", SELL_OFFERS)
        for n, text in HOSTILE_NAMES.items()
    ),
    *(Case(f"BI-17 id {n}", order(order_id=Raw(n)), DEAD, "INVALID_ID") for n in ("1", "true", "null", "{}")),
    Case("the clearing house buys", order(buyer="nse"), DEAD, "INVALID_PARTICIPANT"),
    Case("no id", order(order_id=None), DEAD, "INVALID_ID"),
    Case("an offer among the orders", offer(), DEAD, "INVALID_ID"),
    Case("an order among the offers", order(), DEAD, "INVALID_ID", SELL_OFFERS),
    Case("two wrongs, one reason", order(stock_symbol="?", quantity=0, price_per_unit=0), REJECTED, SYMBOL),
    Case("quantity before price", order(quantity=0, price_per_unit=0), REJECTED, QTY),
    *(
        Case(f"{name}={value!r}", order(**{name: value}), REJECTED, "NOT_SUPPORTED")
        for name, value in (
            ("action", 1),
            ("action", ""),
            ("action", "CANCEL"),
            ("action", ["cancel"]),
            ("action", {"cancel": True}),
            ("time_in_force", ""),
            ("time_in_force", "GTC"),
            ("time_in_force", "ioc"),
            ("time_in_force", "IOC,FOK"),
            ("time_in_force", ["IOC", "FOK"]),
            ("time_in_force", True),
            ("self_trade_prevention", "cancel_newest"),
            ("self_trade_prevention", "decrement"),
            ("self_trade_prevention", False),
            ("valid_until", 1_790_000_000_000),
        )
    ),
    Case("reserved on an offer", offer(valid_until=1), REJECTED, "NOT_SUPPORTED", SELL_OFFERS),
    Case("not supported before a contradiction", order(target_order_id="X", valid_until=1), REJECTED, "NOT_SUPPORTED"),
    Case("the defaults", order(action="new", time_in_force="DAY", self_trade_prevention="off"), ACCEPTED),
    Case("null is absent", order(**dict.fromkeys(INSTRUCTION_FIELDS, Raw("null"))), ACCEPTED),
    *(
        Case(f"contradiction: {name}", value, REJECTED, "CONTRADICTION", topic)
        for name, value, topic in (
            ("a target without an action", order(target_order_id="BID"), BUY_ORDERS),
            ("a target of a new order", order(action="new", target_order_id="BID"), BUY_ORDERS),
            ("a cancel without a target", cancel(target_order_id=None), BUY_ORDERS),
            ("a cancel with a null target", cancel(target_order_id=Raw("null")), BUY_ORDERS),
            ("a cancel with a price", cancel(price_per_unit=885), BUY_ORDERS),
            ("a cancel with a quantity", cancel(quantity=100), BUY_ORDERS),
            ("a cancel with a wrong quantity", cancel(quantity="many"), BUY_ORDERS),
            ("an IOC cancel", cancel(time_in_force="IOC"), BUY_ORDERS),
            ("a cancel that prevents", cancel(self_trade_prevention="cancel-active"), BUY_ORDERS),
            ("a replace without a target", cancel(action="replace", target_order_id=None, quantity=1), BUY_ORDERS),
            ("a replace of nothing", cancel(action="replace"), BUY_ORDERS),
            ("an IOC replace", cancel(action="replace", quantity=1, time_in_force="IOC"), BUY_ORDERS),
            ("a FOK replace", cancel(action="replace", quantity=1, time_in_force="FOK"), BUY_ORDERS),
            ("before a wrong target", cancel(target_order_id=5, quantity=1), BUY_ORDERS),
            ("before a wrong symbol", cancel(stock_symbol="?", quantity=1), BUY_ORDERS),
            ("an offer with a target", offer(target_order_id="X"), SELL_OFFERS),
        )
    ),
    *(
        Case(f"target {text!r}", cancel(target_order_id=text), REJECTED, "INVALID_TARGET")
        for text in (5, True, ["BID"], "", "..", "A" * 65, "[/BID]", "BID\n", "\x1b[2J")
    ),
    Case("target before symbol", cancel(target_order_id="..", stock_symbol="?"), REJECTED, "INVALID_TARGET"),
    Case("a cancel of a wrong symbol", cancel(stock_symbol="?"), REJECTED, SYMBOL),
    Case("a cancel without a symbol", cancel(stock_symbol=None), DEAD, "NO_SYMBOL"),
    Case("a cancel without an id", cancel(order_id=None), DEAD, "INVALID_ID"),
    Case("a cancel of nobody's order", cancel(), REJECTED, "ORDER_NOT_FOUND"),
    Case("a cancel of somebody else's order", cancel(target_order_id="BID"), REJECTED, "ORDER_NOT_FOUND"),
    Case("a replace of somebody else's", replace(target_order_id="BID", quantity=1), REJECTED, "ORDER_NOT_FOUND"),
    *(Case(f"replace: quantity {n}", replace(quantity=Raw(n)), REJECTED, QTY) for n in ("0", "-1", "1.0", '"5"')),
    *(Case(f"replace: price {n}", replace(price_per_unit=Raw(n)), REJECTED, PRICE) for n in ("0", "885.001", '"885"')),
    Case("IOC", order(time_in_force="IOC"), ACCEPTED),
    Case("FOK that finds nobody", order(time_in_force="FOK"), REJECTED, "FOK_NOT_FILLABLE"),
    Case("FOK at the market", order(time_in_force="FOK", price_per_unit=None), REJECTED, "FOK_NOT_FILLABLE"),
    Case("cancel-passive", order(self_trade_prevention="cancel-passive"), ACCEPTED),
    Case("off the tick before FOK", order(time_in_force="FOK", price_per_unit=885.01), REJECTED, TICK),
    Case("the seed's order alone", order(), ACCEPTED),
    Case("the seed's offer alone", offer(), ACCEPTED, "", SELL_OFFERS),
    Case("an offer with a null price", offer(price_per_unit=Raw("null")), ACCEPTED, "", SELL_OFFERS),
]


class Market:
    """A node on a log of one shard."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.node = Node(log, name="test", now_ms=lambda: 0)
        self.node.step(0.0)

    def take(self, *records: NewRecord) -> None:
        """Put records on the log; one step must take them all."""
        self.log.append(records)
        self.node.step(0.0)
        assert self.node.has_taken(self.node.backlog_ends())

    def records(self, topic: str) -> list[Record]:
        """What is on a topic."""
        found: list[Record] = []
        with closing(self.log.reader({(topic, 0): 0})) as reader:
            while records := reader.poll(0.0):
                found += records
        return found

    def events(self) -> list[dict[str, Any]]:
        """The answers so far."""
        return [json.loads(record.value or b"") for record in self.records(ORDER_EVENTS)]

    def event(self, source: str) -> dict[str, Any]:
        """The one answer to an input."""
        (event,) = (event for event in self.events() if event["source"] == source)
        return event


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    with connect(f"sqlite:{tmp_path / 'log'}") as log:
        market = Market(log)
        yield market
        market.node.close()


def headers_of(record: Record) -> dict[str, str]:
    return {name: value.decode() for name, value in record.headers}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.encode("unicode_escape").decode())
def test_each_case_has_its_outcome_and_blocks_nothing(market: Market, case: Case) -> None:
    """The value is answered with its reason or becomes a dead letter, and the good order behind it trades at once."""
    bid = order(order_id="BID", price_per_unit=900, quantity=1, buyer="LIC")
    market.take(NewRecord(BUY_ORDERS, None, bid), NewRecord(case.topic, None, case.value))
    market.take(NewRecord(SELL_OFFERS, None, GOOD))

    bad = f"{case.topic}@0:{1 if case.topic == BUY_ORDERS else 0}"
    good = f"sell-offers@0:{0 if case.topic == BUY_ORDERS else 1}"
    letters = market.records(DEAD_LETTERS)
    answers = {event["source"]: event for event in market.events()}
    assert answers[good]["status"] == "ACCEPTED"
    sellers = [json.loads(trade.value or b"")["sell_order_id"] for trade in market.records(topics.TRADES)]
    assert ("GOOD" in sellers) or (case.topic == SELL_OFFERS and sellers == ["BAD"])
    if case.outcome == DEAD:
        assert bad not in answers
        (letter,) = letters
        headers = headers_of(letter)
        assert headers["__dlq.errors.message"].partition(": ")[0] == case.reason
        place = tuple(headers[f"__dlq.errors.{part}"] for part in ("topic", "partition", "offset"))
        assert place == (case.topic, "0", bad.rpartition(":")[2])
        if case.reason == "TOO_LARGE":
            assert case.value is not None
            assert letter.value == case.value[:1024]
            assert headers["stocktrade.sha256"] == sha256(case.value).hexdigest()
            assert headers["stocktrade.bytes"] == str(len(case.value))
        else:
            assert (letter.value or b"") == (case.value or b"")
    else:
        assert letters == []
        assert (answers[bad]["status"], answers[bad].get("reason", "")) == (case.outcome, case.reason)
        if case.outcome == REJECTED:
            assert answers[bad]["detail"]


def test_decoding_takes_milliseconds_whatever_comes() -> None:
    """No case costs more than a few milliseconds of the processor to decode, however deep or long it is."""
    assert max(min(_cost_s(case) for _ in range(3)) for case in CASES) < 0.005


def _cost_s(case: Case) -> float:
    began = time.thread_time()
    decode_input(case.topic, case.value)
    return time.thread_time() - began


def test_what_an_answer_says_is_safe_to_show(market: Market) -> None:
    """A symbol with an ESC sequence is answered with the sequence made visible, not repeated."""
    market.take(NewRecord(BUY_ORDERS, None, order(stock_symbol="\x1b[2JSBI")))
    (record,) = market.records(ORDER_EVENTS)
    assert json.loads(record.value or b"")["stock_symbol"] == "\\x1b[2JSBI"
    assert b"\x1b" not in (record.value or b"")


def test_every_prefix_of_an_order_is_a_dead_letter(market: Market) -> None:
    """An order cut off anywhere is a dead letter and no order, and the whole one behind them is taken."""
    whole = order()
    market.take(*(NewRecord(BUY_ORDERS, None, whole[:length]) for length in range(len(whole))))
    market.take(NewRecord(BUY_ORDERS, None, whole))
    reasons = [headers_of(letter)["__dlq.errors.message"].partition(": ")[0] for letter in market.records(DEAD_LETTERS)]
    assert reasons == ["EMPTY"] + ["NOT_JSON"] * (len(whole) - 1)
    assert [event["status"] for event in market.events()] == ["ACCEPTED"]


def test_2000_random_mutations_are_all_answered(market: Market) -> None:
    """Whatever bytes of an order are changed, it is answered or becomes a dead letter: nothing raises."""
    chance = random.Random(885)
    mutated = []
    for number in range(2_000):
        value = bytearray(order(order_id=f"m{number}"))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(value))
            match chance.randrange(4):
                case 0:
                    value[at] = chance.randrange(256)
                case 1:
                    del value[at]
                case 2:
                    value.insert(at, chance.choice(b'{}[]",:\\019.-eE\x00\xff'))
                case _:
                    value[at:at] = value[: chance.randrange(len(value))]
        mutated.append(bytes(value))
    market.log.append([NewRecord(BUY_ORDERS, None, value) for value in mutated])
    ends = market.node.backlog_ends()
    for _ in range(10):
        market.node.step(0.0)
    assert market.node.has_taken(ends)
    answered, dead = len(market.records(ORDER_EVENTS)), len(market.records(DEAD_LETTERS))
    assert answered + dead == 2_000
    assert answered > 100
    assert dead > 100
    assert dead == sum(isinstance(decode_input(BUY_ORDERS, value), Dead) for value in mutated)


def test_10000_bad_messages_in_a_row_do_not_stop_the_shard(market: Market) -> None:
    """Behind ten thousand bad messages, half refused and half dead, a good order is matched."""
    market.take(NewRecord(BUY_ORDERS, None, order(order_id="BID")))
    bad = [order(order_id=f"b{n}", quantity=0) if n % 2 else b"no message" for n in range(10_000)]
    market.log.append([NewRecord(BUY_ORDERS, None, value) for value in bad])
    market.log.append([NewRecord(SELL_OFFERS, None, GOOD)])
    ends = market.node.backlog_ends()
    for _ in range(30):
        market.node.step(0.0)
    assert market.node.has_taken(ends)
    assert len(market.records(DEAD_LETTERS)) == 5_000
    statuses = [event["status"] for event in market.events()]
    assert statuses == ["ACCEPTED"] + ["REJECTED"] * 5_000 + ["ACCEPTED"]
    assert len(market.records(topics.TRADES)) == 1


# --- ids -------------------------------------------------------------------------------------------------------


def test_the_same_order_twice_is_answered_as_a_duplicate(market: Market) -> None:
    """BI-29: a retry has no effect on the book and is answered with the first outcome and its sequence."""
    market.take(NewRecord(BUY_ORDERS, None, order()))
    market.take(NewRecord(BUY_ORDERS, None, order()))
    first, second = market.event("buy-orders@0:0"), market.event("buy-orders@0:1")
    assert (first["status"], first["seq"]) == ("ACCEPTED", 1)
    assert (second["status"], second["first_status"], second["first_seq"]) == ("DUPLICATE", "ACCEPTED", 1)
    market.take(NewRecord(SELL_OFFERS, None, offer(quantity=1_000)))
    assert [json.loads(trade.value or b"")["quantity"] for trade in market.records(topics.TRADES)] == [100]


def test_a_retry_of_a_refused_order_repeats_the_refusal(market: Market) -> None:
    """BI-29: a refused order sent again is answered as a duplicate of a refusal, with its reason."""
    market.take(*[NewRecord(BUY_ORDERS, None, order(price_per_unit=885.01))] * 2)
    again = market.event("buy-orders@0:1")
    assert (again["status"], again["first_status"], again["first_reason"]) == ("DUPLICATE", "REJECTED", TICK)


@pytest.mark.parametrize(
    "changed",
    [
        {"quantity": 99},
        {"price_per_unit": 884},
        {"price_per_unit": None},
        {"stock_symbol": "INFY"},
        {"quantity": 0},
        {"time_in_force": "IOC"},
        {"self_trade_prevention": "cancel-active"},
        {"action": "cancel"},
        {"action": "cancel", "target_order_id": "BAD", "quantity": None, "price_per_unit": None},
    ],
    ids=str,
)
def test_an_id_with_other_content_is_refused(market: Market, changed: dict[str, Any]) -> None:
    """BI-30: another order under a used id is rejected, and the first one stays as it was."""
    market.take(NewRecord(BUY_ORDERS, None, order()))
    market.take(NewRecord(BUY_ORDERS, None, order(**changed)))
    second = market.event("buy-orders@0:1")
    assert (second["status"], second["reason"]) == ("REJECTED", "ORDER_ID_REUSED")
    market.take(NewRecord(SELL_OFFERS, None, offer()))
    (trade,) = (json.loads(record.value or b"") for record in market.records(topics.TRADES))
    assert (trade["stock_symbol"], trade["quantity"], trade["price_per_unit"]) == ("SBIN", 100, 885.0)


def test_a_repeated_cancel_is_answered_with_its_first_outcome(market: Market) -> None:
    """BI-29: a cancel that was retried is a duplicate, whether it was done or refused."""
    cancels = (cancel(order_id="C-1", target_order_id="BAD"), cancel(order_id="C-2", target_order_id="BAD"))
    for value in (order(), *cancels, *cancels):
        market.take(NewRecord(BUY_ORDERS, None, value))
    _, done, refused, again, refused_again = market.events()
    assert (done["status"], done["target_order_id"], done["cancelled_quantity"]) == ("ACCEPTED", "BAD", 100)
    assert (refused["status"], refused["reason"]) == ("REJECTED", "ORDER_NOT_FOUND")
    assert (again["status"], again["first_status"], again["first_seq"]) == ("DUPLICATE", "ACCEPTED", 2)
    assert (refused_again["first_status"], refused_again["first_reason"]) == ("REJECTED", "ORDER_NOT_FOUND")


def test_instructions_come_through_the_journal(market: Market) -> None:
    """Cancel, replace, IOC and self-trade prevention on the topics: answered, journalled and replayed.

    Both with the snapshot of a clean stop, and from the journal alone.
    """
    bids = {"buyer": "LIC", "quantity": 10}
    market.take(
        NewRecord(BUY_ORDERS, None, order(**bids, order_id="B-1", price_per_unit=884)),
        NewRecord(BUY_ORDERS, None, order(**bids, order_id="B-2", price_per_unit=884)),
        NewRecord(BUY_ORDERS, None, order(**bids, order_id="B-3", price_per_unit=883)),
    )
    market.take(NewRecord(BUY_ORDERS, None, replace(buyer="LIC", order_id="R-1", target_order_id="B-1", quantity=12)))
    market.take(NewRecord(BUY_ORDERS, None, cancel(buyer="LIC", order_id="C-1", target_order_id="B-3")))
    market.take(NewRecord(SELL_OFFERS, None, offer(offer_id="O-1", quantity=4, price_per_unit=880)))
    own = offer(offer_id="O-2", seller="LIC", quantity=20, price_per_unit=884, self_trade_prevention="cancel-passive")
    market.take(NewRecord(SELL_OFFERS, None, own))
    answers = [event for event in market.events() if "source" in event]
    cancelled = [event for event in market.events() if "source" not in event]
    assert [event["status"] for event in answers] == ["ACCEPTED"] * 7
    assert [(e["status"], e["order_id"], e["cancelled_quantity"], e["cause"]) for e in cancelled] == [
        ("CANCELLED", "B-2", 6, "sell-offers@0:1"),
        ("CANCELLED", "B-1", 12, "sell-offers@0:1"),
    ]
    (trade,) = (json.loads(record.value or b"") for record in market.records(topics.TRADES))
    assert (trade["buy_order_id"], trade["sell_order_id"], trade["quantity"]) == ("B-2", "O-1", 4)
    book = market.node.owners[0].exchange.resting("SBIN")
    assert [(order.order_id, order.leaves) for order in book] == [("O-2", 20)]

    market.node.abandon()
    replayed = Node(market.log, name="replays", now_ms=lambda: 0)
    replayed.step(0.0)
    assert replayed.owners[0].recovered.from_snapshot is False
    assert replayed.owners[0].exchange.resting("SBIN") == book
    replayed.close()
    restored = Node(market.log, name="restores", now_ms=lambda: 0)
    restored.step(0.0)
    assert restored.owners[0].recovered.from_snapshot is True
    assert restored.owners[0].exchange.resting("SBIN") == book
    restored.abandon()


def test_a_journal_is_not_continued_under_other_instruments(market: Market) -> None:
    """The name of the rules in each entry tells the instruments: another file, or none, is refused as other rules."""
    market.node.close()
    text = b'version = "{}"\n[defaults]\nlot = 5\n'
    for version in (b"1", b"2"):
        rules = parse_instruments(text.replace(b"{}", version), source="file")
        other = Node(market.log, name="other", now_ms=lambda: 0, rules=rules)
        with pytest.raises(UsageError, match=r"rules '2026\.1'") as refused:
            other.step(0.0)
        other.abandon()
        assert rules.name in refused.value.cause


def test_the_same_id_of_two_participants_is_two_orders(market: Market) -> None:
    """An id belongs to its participant: two of them may choose the same."""
    market.take(*(NewRecord(BUY_ORDERS, None, order(buyer=buyer)) for buyer in ("HDFC", "ICICI")))
    assert [event["status"] for event in market.events()] == ["ACCEPTED", "ACCEPTED"]


@pytest.mark.parametrize("time_ms", [0, -1, 2**63 - 1, 4_102_444_800_000])
def test_a_clients_clock_decides_nothing(market: Market, time_ms: int) -> None:
    """BI-35: whatever time a client gives its record, it queues by its place on the log, under the log's time."""
    market.take(NewRecord(BUY_ORDERS, None, order(order_id="FIRST"), time_ms=4_102_444_800_000))
    market.take(NewRecord(BUY_ORDERS, None, order(order_id="SECOND"), time_ms=time_ms))
    market.take(NewRecord(SELL_OFFERS, None, offer()))
    (trade,) = (json.loads(record.value or b"") for record in market.records(topics.TRADES))
    assert trade["buy_order_id"] == "FIRST"
    times = [record.time_ms for record in market.records(ORDER_EVENTS)]
    assert times == sorted(times)
    assert 0 < times[0] <= times[-1] < 4_102_444_800_000


def test_numbers_are_read_exactly(market: Market) -> None:
    """A price that binary floats cannot hold is traded to the paisa."""
    market.take(NewRecord(BUY_ORDERS, None, order(price_per_unit=Raw("249.37"), quantity=3)))
    market.take(NewRecord(SELL_OFFERS, None, offer(quantity=3)))
    (cash, _) = market.records(topics.CASH_MOVEMENTS)
    assert json.loads(cash.value or b"", parse_float=Decimal)["amount"] == Decimal("748.11")
