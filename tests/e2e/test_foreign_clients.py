"""Clients that know the seed's fields and nothing of us trade through kcat, whatever they send.

kcat is built on librdkafka, which is no relative of the client that the exchange uses: it partitions by CRC32, it
sends what it is told to, and it reads committed records. Every test ends with an audit of the whole log.
"""

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

import kafka
import pytest

from auditor import audit
from kcat import kcat, need_kcat
from stocktrade.domain.values import canonical_symbol
from stocktrade.shard.node import Node
from stocktrade.transport import CLIENTS, KAFKA_PYTHON, topics
from stocktrade.transport.base import Record
from stocktrade.transport.codec import MAX_MESSAGE_BYTES, key_of_symbol
from stocktrade.transport.kafka import DEFAULT_PARTITIONS, KafkaLog
from stocktrade.transport.partitioner import partition_for
from test_docs import ROOT, blocks

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PATIENCE_S: Final = 60.0
NEARLY_A_BROKERS_LIMIT: Final = 1_048_400
"""Of 1,048,588 bytes, the largest batch that a broker takes unless it is told otherwise."""


def home_of(symbol: str) -> int:
    return partition_for(key_of_symbol(canonical_symbol(symbol) or ""), DEFAULT_PARTITIONS)


SBI_HOME: Final = home_of("SBI")


def bid(order_id: str, symbol: str = "SBI", quantity: Any = 1, **changes: Any) -> bytes:
    """The seed's order, with its five fields alone unless they are changed."""
    fields = {
        "order_id": order_id,
        "buyer": "HDFC",
        "stock_symbol": symbol,
        "quantity": quantity,
        "price_per_unit": 885.0,
    }
    return json.dumps(fields | changes).encode()


def offer(offer_id: str, symbol: str = "SBI", quantity: Any = 1, **changes: Any) -> bytes:
    """The seed's offer, with its four fields alone unless they are changed."""
    fields = {"offer_id": offer_id, "seller": "SELLER", "stock_symbol": symbol, "quantity": quantity}
    return json.dumps(fields | changes).encode()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Market:
    """An exchange in a thread of its own, and kcat at its topics."""

    def __init__(self, servers: str, client: str) -> None:
        self.servers = servers
        self._client = client
        self.prefix = f"{uuid4().hex[:8]}-"
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None
        self.log = KafkaLog(servers, prefix=self.prefix)  # of the test's thread
        self.log.ensure_topics(topics.SPECS)

    def open(self) -> None:
        """Begin to trade."""
        self._thread = threading.Thread(target=self._trade)
        self._thread.start()

    def _trade(self) -> None:
        with KafkaLog(self.servers, prefix=self.prefix, client=self._client) as log:
            node = Node(log, name="test", now_ms=now_ms)
            try:
                while not self._stop.is_set():
                    node.step(0.1)
                node.close()
            except Exception as error:  # noqa: BLE001 - raised again where somebody looks
                self._error = error
                node.abandon()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)
        self.log.close()

    def produce(self, topic: str, values: Iterable[bytes], *options: str) -> None:
        """Have kcat send a message for each line, in their order."""
        lines = b"".join(value + b"\n" for value in values)
        # kcat refuses what librdkafka's own limit of 1,000,000 bytes forbids.
        large = ("-X", "message.max.bytes=2000000")
        kcat(self.servers, "-P", "-t", self.prefix + topic, *large, *options, stdin=lines)

    def consume(self, topic: str) -> bytes:
        """What kcat reads of a topic, a message a line."""
        return kcat(self.servers, "-C", "-t", self.prefix + topic, "-e", "-q")

    def read(self, topic: str) -> list[Record]:
        """What stands on a topic, all partitions."""
        found: list[Record] = []
        with closing(self.log.reader({(topic, p): 0 for p in range(self.log.partitions())})) as reader:
            ends = reader.ends()
            while not reader.caught_up(ends):
                found += reader.poll(1.0)
        return found

    def messages(self, topic: str) -> list[dict[str, Any]]:
        return [json.loads(record.value or b"") for record in self.read(topic)]

    def wait(self, **counts: int) -> None:
        """Wait until there are so many records on the topics, whose names are written with `_`."""
        deadline = time.monotonic() + PATIENCE_S
        waiting = {name.replace("_", "-"): count for name, count in counts.items()}
        starts = {(topic, p): 0 for topic in waiting for p in range(self.log.partitions())}
        found: Counter[str] = Counter()
        with closing(self.log.reader(starts)) as reader:
            while any(found[topic] < count for topic, count in waiting.items()):
                found.update(record.topic for record in reader.poll(0.2, 10_000))
                assert self._error is None, repr(self._error)
                assert time.monotonic() < deadline, f"{found} instead of {waiting}"


@pytest.fixture
def client(request: pytest.FixtureRequest) -> str:
    """What carries the exchange's records."""
    return str(getattr(request, "param", KAFKA_PYTHON))


on_both = pytest.mark.parametrize("client", CLIENTS, indirect=True)
"""For what is sent as it is, or cannot be."""


@pytest.fixture
def market(kafka_servers: str, client: str) -> Iterator[Market]:
    need_kcat()
    market = Market(kafka_servers, client)
    yield market
    market.close()


# --- what is matched -------------------------------------------------------------------------------------------

SYMBOLS: Final = ("SBI", "INFY", "TCS", "ITC", "RELIANCE", "WIPRO", "M&M", "HDFCBANK")
WAYS: Final[dict[str, tuple[Callable[[str], str] | None, tuple[str, ...]]]] = {
    "murmur2": (lambda symbol: canonical_symbol(symbol) or "", ("-X", "topic.partitioner=murmur2_random")),
    "crc32": (lambda symbol: symbol, ()),  # librdkafka's own
    "fnv1a": (lambda symbol: symbol, ("-X", "topic.partitioner=fnv1a_random")),
    "one-key": (lambda _: "HDFC", ()),
    "no-key": (None, ()),
}
"""What the key of a symbol is, and the options that tell kcat how to partition."""

QUANTITIES: Final = (1, 20, 300)


def test_orders_with_any_key_or_none_are_matched_once_in_one_book_per_symbol(market: Market) -> None:
    """The seed's messages, most of them in a partition that is not their symbol's."""
    market.open()
    sent = []
    for way, (key_of, options) in WAYS.items():
        for topic, make in ((topics.BUY_ORDERS, bid), (topics.SELL_OFFERS, offer)):
            lines = []
            for symbol in SYMBOLS:
                for quantity in QUANTITIES:
                    order_id = f"{way}:{topic}:{symbol}:{quantity}"
                    sent.append((order_id, symbol))
                    line = make(order_id, symbol, quantity)
                    lines.append(line if key_of is None else key_of(symbol).encode() + b"\t" + line)
            market.produce(topic, lines, *(() if key_of is None else ("-K", "\t")), *options)
    market.wait(order_events=len(sent))

    events = market.messages(topics.ORDER_EVENTS)
    assert Counter(event["order_id"] for event in events) == Counter(order_id for order_id, _ in sent)
    assert {event["status"] for event in events} == {"ACCEPTED"}
    shards = defaultdict(set)
    for event in events:
        shards[event["stock_symbol"]].add(event["shard"])
    assert shards == {symbol: {home_of(symbol)} for symbol in SYMBOLS}
    traded: Counter[str] = Counter()
    for trade in market.messages(topics.TRADES):
        traded[trade["stock_symbol"]] += trade["quantity"]
    wanted = len(WAYS) * sum(QUANTITIES)
    assert traded == {canonical_symbol(symbol): wanted for symbol in SYMBOLS}
    forwarded = [
        record for record in market.read(topics.BUY_ORDERS) if "stocktrade.forwarded-from" in dict(record.headers)
    ]
    assert len(forwarded) > len(sent) / 4, "hardly any was in a wrong partition"
    market.close()
    assert audit_of(market) == []


def audit_of(market: Market) -> list[Any]:
    with KafkaLog(market.servers, prefix=market.prefix) as log:
        return list(audit(log))


def test_the_consumer_of_the_documents_reads_our_advices_through_kcat(market: Market, tmp_path: Path) -> None:
    """The script in docs/kafka.md knows the seed's fields only."""
    (script,) = [b.text for b in blocks(ROOT / "docs" / "kafka.md") if b.comment == "file received.py"]
    (tmp_path / "received.py").write_text(script)
    market.open()
    market.produce(topics.BUY_ORDERS, [bid("B-1", quantity=100), bid("B-2", "INFY", 7, price_per_unit=1500.1)])
    market.produce(topics.SELL_OFFERS, [offer("S-1", quantity=60), offer("S-2", quantity=40), offer("S-3", "INFY", 7)])
    market.wait(demat_transfers=6, cash_movements=6)
    read = market.consume(topics.DEMAT_TRANSFERS) + market.consume(topics.CASH_MOVEMENTS)

    def received(name: str) -> list[str]:
        command = [sys.executable, "received.py", name]
        done = subprocess.run(command, cwd=tmp_path, input=read, capture_output=True, timeout=30, check=True)
        return done.stdout.decode().splitlines()

    assert received("HDFC") == ["7 INFY", "100 SBI", "₹99,000.70 paid"]
    market.close()
    assert audit_of(market) == []


# --- what is refused -------------------------------------------------------------------------------------------


class Bad(NamedTuple):
    """What is sent, and what becomes of it: the reason of its rejection, or of its dead letter."""

    value: bytes
    reason: str


REJECTED: Final = [
    Bad(bid("quantity-is-text", quantity="100"), "INVALID_QUANTITY"),
    Bad(bid("quantity-is-true", quantity=True), "INVALID_QUANTITY"),
    Bad(bid("price-is-text", price_per_unit="885"), "INVALID_PRICE"),
    Bad(bid("price-is-a-list", price_per_unit=[885]), "INVALID_PRICE"),
    Bad(bid("off-tick", price_per_unit=885.01), "PRICE_OFF_TICK"),
    Bad(bid("no-such-symbol", "S B I"), "INVALID_SYMBOL"),
    Bad(bid("until-tomorrow", valid_until=1_790_000_000_000), "NOT_SUPPORTED"),
]
DEAD: Final = [
    # A line feed would be two messages: kcat is told by lines.
    Bad(random.Random(885).randbytes(64).replace(b"\n", b"\r"), "NOT_UTF8"),
    Bad(b"hello", "NOT_JSON"),
    Bad(b"[1, 2, 3]", "NOT_AN_OBJECT"),
    Bad(b"[" * 100 + b"]" * 100, "TOO_DEEP"),
    Bad(bid("twice")[:-1] + b', "buyer": "ICICI"}', "DUPLICATE_KEY"),
    Bad(bid("x").replace(b'"x"', b"1"), "INVALID_ID"),
    Bad(bid("no-buyer", buyer=None), "INVALID_PARTICIPANT"),
    Bad(bid("no-symbol", symbol=1), "NO_SYMBOL"),  # type: ignore[arg-type]  # a wrong type, on purpose
    Bad(bid("one-over").ljust(MAX_MESSAGE_BYTES + 1), "TOO_LARGE"),
    Bad(bid("large").ljust(100_000), "TOO_LARGE"),
    Bad(b"\xff" * 500_000, "TOO_LARGE"),
    Bad(bid("as-large-as-can-be").ljust(NEARLY_A_BROKERS_LIMIT), "TOO_LARGE"),
]
LARGEST: Final = [bid(f"largest-{n}", note='"' * 8_000).ljust(MAX_MESSAGE_BYTES) for n in range(60)]
"""Good orders, as large as they may be, and twice that in the journal, where their text is quoted."""


@on_both
def test_orders_are_taken_however_their_sender_compresses_them(market: Market) -> None:
    """A batch that the exchange could not unpack would stop its shard for ever."""
    market.open()
    ways = ("none", "gzip", "snappy", "lz4", "zstd")
    for number, way in enumerate(ways):
        orders = [bid(f"{way}-{each}") for each in range(20)]  # a batch that is worth compressing
        market.produce(topics.BUY_ORDERS, orders, "-k", "SBIN", "-z", way)
        market.wait(order_events=20 * (number + 1))
    assert {event["status"] for event in market.messages(topics.ORDER_EVENTS)} == {"ACCEPTED"}


@on_both
def test_whatever_kcat_sends_is_answered_and_what_follows_is_traded(market: Market) -> None:
    """Garbage, empty values, tombstones, wrong types and far too large ones, then good orders in the same partition."""
    market.open()
    there = ("-p", str(SBI_HOME))
    for bad in (*REJECTED, *DEAD):
        market.produce(topics.BUY_ORDERS, [bad.value], *there)
    market.produce(topics.BUY_ORDERS, [b"SBIN\t"], "-K", "\t", *there)  # an empty value
    market.produce(topics.BUY_ORDERS, [b"SBIN\t"], "-Z", "-K", "\t", *there)  # a tombstone
    market.produce(topics.BUY_ORDERS, [b"\t"], "-Z", "-K", "\t", *there)  # neither key nor value
    market.produce(topics.BUY_ORDERS, LARGEST, *there)
    market.produce(topics.BUY_ORDERS, [bid("GOOD", price_per_unit=900)], *there)
    market.produce(topics.SELL_OFFERS, [offer("GOOD")], *there)
    market.wait(order_events=len(REJECTED) + len(LARGEST) + 2, dead_letters=len(DEAD) + 3, trades=1)

    events = market.messages(topics.ORDER_EVENTS)
    rejected = [(event["order_id"], event["reason"]) for event in events if event["status"] == "REJECTED"]
    assert rejected == [(json.loads(bad.value)["order_id"], bad.reason) for bad in REJECTED]
    (trade,) = market.messages(topics.TRADES)
    assert (trade["buy_order_id"], trade["sell_order_id"]) == ("GOOD", "GOOD")

    letters = market.read(topics.DEAD_LETTERS)
    sent = [*DEAD, *[Bad(b"", "EMPTY")] * 3]
    first = len(REJECTED)
    for number, (bad, letter) in enumerate(zip(sent, letters, strict=True)):
        headers = {name: text.decode() for name, text in letter.headers}
        place = [headers[f"__dlq.errors.{part}"] for part in ("topic", "partition", "offset", "message")]
        assert place[:3] == [topics.BUY_ORDERS, str(SBI_HOME), str(first + number)]
        assert place[3].partition(": ")[0] == bad.reason
        if bad.reason == "TOO_LARGE":
            assert letter.value == bad.value[:1024]
            assert headers["stocktrade.sha256"] == sha256(bad.value).hexdigest()
            assert headers["stocktrade.bytes"] == str(len(bad.value))
        else:
            assert (letter.value or b"") == bad.value
    assert [(letter.key, letter.value) for letter in letters[-3:]] == [(b"SBIN", b""), (b"SBIN", None), (None, None)]
    market.close()
    assert audit_of(market) == []


@on_both
@pytest.mark.parametrize("home", [True, False], ids=["of-its-shard", "of-another-shard"])
def test_a_record_whose_key_alone_is_at_the_brokers_limit_stops_nobody(market: Market, home: bool) -> None:
    """With what a dead letter or a forward adds, it would be more than a broker takes."""
    market.open()
    place = SBI_HOME if home else (SBI_HOME + 1) % DEFAULT_PARTITIONS
    there = ("-p", str(place))
    key = b"k" * NEARLY_A_BROKERS_LIMIT
    market.produce(topics.BUY_ORDERS, [key + b"\t"], "-K", "\t", *there)
    good = bid("BIG-KEY")
    market.produce(topics.BUY_ORDERS, [key[: -len(good)] + b"\t" + good], "-K", "\t", *there)
    market.produce(topics.BUY_ORDERS, [bid("GOOD")], *there)
    market.produce(topics.SELL_OFFERS, [offer("GOOD")], *there)
    market.wait(dead_letters=2, trades=1)
    assert {trade["buy_order_id"] for trade in market.messages(topics.TRADES)} == {"GOOD"}
    market.close()
    assert audit_of(market) == []


MANY: Final = 10_000


def test_10000_bad_ones_in_a_row_are_taken_about_as_fast_as_good_ones(market: Market) -> None:
    """Half of them are refused, half are dead letters; an exchange that starts at this backlog keeps its pace."""
    there = ("-p", str(SBI_HOME))
    good = [bid(f"g{n}", price_per_unit=800) for n in range(MANY)]
    bad = [bid(f"b{n}", quantity=0) if n % 2 else b"\xff garbage %d" % n for n in range(MANY)]
    market.produce(topics.BUY_ORDERS, [bid("FIRST", price_per_unit=700)], *there)
    market.open()
    market.wait(order_events=1)  # it trades; what is measured has no start in it

    began = time.monotonic()
    market.produce(topics.BUY_ORDERS, good, *there)
    market.wait(order_events=1 + MANY)
    good_s = time.monotonic() - began

    began = time.monotonic()
    market.produce(topics.BUY_ORDERS, bad, *there)
    market.produce(topics.SELL_OFFERS, [offer("LAST")], *there)
    market.wait(order_events=1 + MANY + MANY // 2 + 1, dead_letters=MANY // 2, trades=1)
    bad_s = time.monotonic() - began

    sys.stdout.write(f"{MANY} good ones in {good_s:.1f} s, {MANY} bad ones in {bad_s:.1f} s\n")
    assert bad_s < 5 * good_s + 5
    statuses = Counter(event["status"] for event in market.messages(topics.ORDER_EVENTS))
    assert statuses == {"ACCEPTED": MANY + 2, "REJECTED": MANY // 2}
    market.close()
    assert audit_of(market) == []


# --- who holds back an input -----------------------------------------------------------------------------------

BROKER_LOOKS_EVERY_S: Final = 1.0  # `KafkaContainer`, and the compose files
OPEN_S: Final = 5.0
"""The timeout of the transactions that are left open below."""


def test_a_participants_open_transaction_holds_back_its_partition_until_its_timeout(market: Market) -> None:
    """What others sent after it waits for the timeout of the transaction and the broker's next look; others do not."""
    market.open()
    market.produce(topics.BUY_ORDERS, [bid("FIRST")], "-p", str(SBI_HOME))
    market.wait(order_events=1)
    participant = kafka.KafkaProducer(
        bootstrap_servers=market.servers, transactional_id=uuid4().hex, transaction_timeout_ms=int(OPEN_S * 1000)
    )
    participant.init_transactions()
    participant.begin_transaction()
    began = time.monotonic()
    topic = market.prefix + topics.BUY_ORDERS
    participant.send(topic, bid("NEVER-COMMITTED"), partition=SBI_HOME).get(10)
    market.produce(topics.BUY_ORDERS, [bid("HELD")], "-p", str(SBI_HOME))
    assert home_of("TCS") != SBI_HOME
    market.produce(topics.BUY_ORDERS, [bid("FREE", "TCS")], "-p", str(home_of("TCS")))
    market.wait(order_events=2)
    free_s = time.monotonic() - began
    market.wait(order_events=3)
    held_s = time.monotonic() - began
    participant.close(timeout=1)
    sys.stdout.write(f"transaction of {OPEN_S:.0f} s: held {held_s:.1f} s, other shards {free_s:.1f} s\n")
    assert [event["order_id"] for event in market.messages(topics.ORDER_EVENTS) if event["shard"] == SBI_HOME] == [
        "FIRST",
        "HELD",
    ]
    assert free_s < OPEN_S
    assert OPEN_S - 0.5 < held_s < OPEN_S + BROKER_LOOKS_EVERY_S + 5
    market.close()
    assert audit_of(market) == []


DIES_IN_A_TRANSACTION: Final = """
import os, signal, sys, time
from stocktrade.shard.node import Node
from stocktrade.transport import kafka_txn
from stocktrade.transport.kafka import KafkaLog

servers, prefix, *settings = sys.argv[1:]
log = KafkaLog(servers, prefix=prefix, settings=dict(each.split("=") for each in settings))
node = Node(log, name="dies", now_ms=lambda: time.time_ns() // 1_000_000)
while len(node.owners) < log.partitions():
    node.step(0.1)

def begin_commit(self):
    os.kill(os.getpid(), signal.SIGKILL)

kafka_txn._Manager.begin_commit = begin_commit
print("ready", flush=True)
while True:
    node.step(0.1)
"""
"""An exchange that dies when its records are written and the end of the transaction is not."""


@pytest.mark.parametrize("successor", [False, True], ids=["nobody-else", "a-second-exchange"])
def test_a_dead_exchange_holds_back_until_somebody_takes_over_or_its_timeout(market: Market, successor: bool) -> None:
    """It died while it forwarded an order, so the other shard's input waits for it."""
    times = ["request.timeout.ms=3000", "delivery.timeout.ms=4000", f"transaction.timeout.ms={int(OPEN_S * 1000)}"]
    command = [sys.executable, "-c", DIES_IN_A_TRANSACTION, market.servers, market.prefix, *times]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as dying:
        assert dying.stdout is not None
        assert dying.stdout.readline() == b"ready\n"
        wrong = (SBI_HOME + 1) % DEFAULT_PARTITIONS
        market.produce(topics.BUY_ORDERS, [bid("FORWARDED")], "-p", str(wrong))
        assert dying.wait(PATIENCE_S) == -9
        began = time.monotonic()
    market.produce(topics.BUY_ORDERS, [bid("HELD")], "-p", str(SBI_HOME))
    assert b"HELD" not in market.consume(topics.BUY_ORDERS), "kcat reads what is behind an open transaction"
    if successor:
        market.open()
    deadline = began + PATIENCE_S
    while b"HELD" not in market.consume(topics.BUY_ORDERS):
        assert time.monotonic() < deadline
    held_s = time.monotonic() - began
    sys.stdout.write(f"dead in a transaction of {OPEN_S:.0f} s: held {held_s:.1f} s\n")
    assert held_s < OPEN_S + BROKER_LOOKS_EVERY_S + 5
    if not successor:
        assert held_s > OPEN_S - 2  # it began a moment before the process died
        market.open()
    market.wait(order_events=2)
    market.close()
    assert audit_of(market) == []


@on_both
def test_an_exchange_knows_that_it_is_at_the_end_behind_a_forwarded_order(market: Market, client: str) -> None:
    """Behind it stands the mark of its transaction's end, which is no record: `nse --once` must not wait for it."""
    market.produce(topics.BUY_ORDERS, [bid("B-1")], "-p", str((SBI_HOME + 1) % DEFAULT_PARTITIONS))
    with KafkaLog(market.servers, prefix=market.prefix, client=client) as log:
        node = Node(log, name="test", now_ms=now_ms)
        deadline = time.monotonic() + PATIENCE_S
        while not market.read(topics.ORDER_EVENTS):
            node.step(0.1)
            assert time.monotonic() < deadline
        ends = node.backlog_ends()
        deadline = time.monotonic() + 10
        while not node.has_taken(ends):
            node.step(0.1)
            assert time.monotonic() < deadline, f"waits for {ends}"
        node.close()
