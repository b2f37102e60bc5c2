"""Requests that a network loses, repeats or delivers late tear no transaction apart; without the cure, one does.

Between the log and a real broker stands a proxy that understands Kafka's requests. Whatever happens to one of them,
an owner does what owners do: after an error it throws its writer away, claims anew and looks at the log.
"""

import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from decimal import Decimal
from typing import Final, NamedTuple

import pytest

from kafka_proxy import ANSWER_LOST, LOST, PASS, Api, At, Fault, KafkaProxy, Request, delayed, doubled

pytest.register_assert_rewrite("contract")

from contract import make_topic, read_to_end, unique  # noqa: E402 - its assertions are rewritten first

from auditor import Finding, examine  # noqa: E402
from stocktrade.domain.messages import BuyOrder, SellOffer  # noqa: E402
from stocktrade.errors import Fenced, StocktradeError, Unavailable, Unknown  # noqa: E402
from stocktrade.shard.node import Node  # noqa: E402
from stocktrade.transport import KAFKA_PYTHON, LIBRDKAFKA, topics  # noqa: E402
from stocktrade.transport.base import Log, NewRecord, Position, TopicPartition, Writer  # noqa: E402
from stocktrade.transport.codec import encode_order  # noqa: E402
from stocktrade.transport.kafka import KafkaLog  # noqa: E402

pytestmark = pytest.mark.kafka

QUICK: Final = {
    "request.timeout.ms": "2000",
    "delivery.timeout.ms": "2500",
    "transaction.timeout.ms": "4000",
}
"""Times for clients that get no answer."""

PATIENCE_S: Final = 60.0
STORM_PATIENCE_S: Final = 90.0

NO_ERROR: Final = 0
FENCED: Final = 90
"""Kafka's code for an epoch that is over."""

# One writer, one fault


COMMITS: Final = 6
STRUCK: Final = 2
"""The commit that meets the fault."""

PADDING: Final = 150 * 1024
"""So large that a commit needs two Produce requests: the library packs 256 KiB of a partition into one."""


class Place(NamedTuple):
    """A record of the test: the `part`-th of transaction `number` on a topic."""

    number: int
    part: int


def transaction(journal: str, large: str, small: str, number: int) -> list[NewRecord]:
    """Five records over three topics, no two the same. As in a shard, the one that says how far we are comes first."""

    def record(topic: str, part: int, size: int) -> NewRecord:
        return NewRecord(topic, None, f"{number} {part} ".encode().ljust(size, b"x"), 0)

    return [
        record(journal, 0, 0),
        record(large, 1, PADDING),
        record(small, 2, 0),
        record(large, 3, PADDING),
        record(small, 4, 0),
    ]


def place_of(value: bytes | None) -> Place:
    number, part, _ = (value or b"").split(b" ", 2)
    return Place(int(number), int(part))


def once(api: Api, fault: Fault) -> Callable[[Request], Fault]:
    """The fault for the next request of a kind, and for none after it."""
    left = [fault]

    def faults(request: Request) -> Fault:
        return left.pop() if left and request.api == api and request.transactional_id else PASS

    return faults


class Outcome(NamedTuple):
    """What the owner was told: the places of the commits that returned, and the errors."""

    done: dict[int, list[Position]]
    errors: list[StocktradeError]


def write_all(
    log: Log, names: tuple[str, str, str], proxy: KafkaProxy, faults: Callable[[Request], Fault], api: Api
) -> Outcome:
    """Commit all transactions in order, as an owner does; the faults begin with commit STRUCK, or with its claim."""
    outcome = Outcome({}, [])
    writer: Writer | None = None
    number = 0
    deadline = time.monotonic() + PATIENCE_S
    struck = False
    while number < COMMITS:
        assert time.monotonic() < deadline, outcome.errors
        try:
            if number == STRUCK and not struck:
                struck = True
                if writer is not None and api == Api.INIT_PRODUCER_ID:
                    writer.close()
                    writer = None
                proxy.faults = faults
            if writer is None:
                writer = log.claim(0)
                with closing(log.reader({(names[0], 0): 0})) as reader:
                    number = max((place_of(record.value).number + 1 for record in read_to_end(reader)), default=0)
                continue
            outcome.done[number] = writer.commit(transaction(*names, number))
            number += 1
        except (Unavailable, Fenced) as error:
            outcome.errors.append(error)
            if writer is not None:
                writer.close()
                writer = None
    assert writer is not None
    writer.close()
    return outcome


def findings(log: Log, names: Sequence[str], done: dict[int, list[Position]]) -> list[str]:
    """What is wrong for a reader of committed records: torn, missing, doubled, out of order, at another place."""
    with closing(log.reader({(name, 0): 0 for name in names})) as reader:
        at = {record.position: place_of(record.value) for record in read_to_end(reader)}
    found: list[str] = []
    for name in names:
        places = [place for position, place in at.items() if position.topic == name]
        if places != sorted(places):
            found.append(f"out of order: {places}")
    seen = Counter(at.values())
    for number in range(COMMITS):
        parts = [seen[Place(number, part)] for part in range(5)]
        if parts != [1] * 5:
            found.append(f"transaction {number}: its records are there {parts} times")
    for number, positions in done.items():
        if [at.get(position) for position in positions] != [Place(number, part) for part in range(5)]:
            found.append(f"transaction {number} is not where commit said")
    return found


class Case(NamedTuple):
    """A fault; what the broker answers to a late EndTxn; what the owner is told, if the client does not get over it."""

    api: Api
    fault: Fault
    late_error: int | None = None
    told: type[StocktradeError] | None = None


NEXT_BEGAN: Final = At(Api.PRODUCE)
HALF_WRITTEN: Final = At(Api.PRODUCE, answer=True)
NEXT_ENDS: Final = At(Api.END_TXN, skip=1)
"""The end of the next transaction: the first one is that of the client that tries again."""

CASES: Final = {
    "end-delayed-until-the-next-began": Case(Api.END_TXN, delayed(NEXT_BEGAN), FENCED),
    "end-delayed-until-the-next-is-half-written": Case(Api.END_TXN, delayed(HALF_WRITTEN), FENCED),
    "end-delayed-until-the-next-ends": Case(Api.END_TXN, delayed(NEXT_ENDS), FENCED),
    "end-delayed-in-silence": Case(Api.END_TXN, delayed(HALF_WRITTEN)._replace(silent=True), FENCED, Unknown),
    "end-lost": Case(Api.END_TXN, LOST),
    "end-doubled-at-once": Case(Api.END_TXN, doubled(At(Api.END_TXN, answer=True))),
    "end-doubled-in-the-next": Case(Api.END_TXN, doubled(HALF_WRITTEN), FENCED),
    "end-answer-lost": Case(Api.END_TXN, ANSWER_LOST),
    "end-answer-lost-in-silence": Case(Api.END_TXN, ANSWER_LOST._replace(silent=True), told=Unknown),
    "produce-answer-lost": Case(Api.PRODUCE, ANSWER_LOST),
    "produce-delayed-into-the-next": Case(Api.PRODUCE, delayed(At(Api.PRODUCE, answer=True, skip=2))),
    "add-partitions-answer-lost": Case(Api.ADD_PARTITIONS_TO_TXN, ANSWER_LOST),
    "add-partitions-delayed-between-two": Case(
        Api.ADD_PARTITIONS_TO_TXN, delayed(At(Api.ADD_PARTITIONS_TO_TXN, skip=1))
    ),
    "claim-answer-lost": Case(Api.INIT_PRODUCER_ID, ANSWER_LOST),
    "claim-doubled-in-a-transaction": Case(Api.INIT_PRODUCER_ID, doubled(HALF_WRITTEN), told=Fenced),
}


UNCONNECTED: Final = "end-doubled-in-the-next"
"""A copy although no connection broke: TCP makes none, and on librdkafka nothing would tell it from the real one."""

TRIES: Final = 8
"""librdkafka sends the next transaction's requests at once, so a late one does not always come between them."""


@contextmanager
def written(
    servers: str, case: Case, *, cured: bool, client: str = KAFKA_PYTHON
) -> Iterator[tuple[KafkaProxy, Outcome, list[str]]]:
    """All transactions written through a proxy with the fault; what a reader who is not behind it then finds."""
    prefix = f"{unique()}-"
    settings = QUICK if case.fault.silent else {}
    with KafkaProxy(servers) as proxy:
        with KafkaLog(proxy.servers, settings=settings, prefix=prefix, partitions=1, client=client, cured=cured) as log:
            names = (make_topic(log), make_topic(log), make_topic(log))
            outcome = write_all(log, names, proxy, once(case.api, case.fault), case.api)
        with KafkaLog(servers, prefix=prefix, partitions=1) as log:
            yield proxy, outcome, findings(log, names, outcome.done)


@pytest.mark.parametrize("name", CASES)
def test_a_fault_tears_no_transaction(kafka_servers: str, name: str) -> None:
    """Each transaction is there whole, once, in order, and where its commit said."""
    case = CASES[name]
    with written(kafka_servers, case, cured=True) as (proxy, outcome, found):
        assert [fault for _, fault in proxy.done] == [case.fault], "the fault did not happen"
        assert len(proxy.late) == (case.fault.again is not None), "the late request did not come"
        if case.late_error is not None:
            assert [late.error for late in proxy.late] == [case.late_error]
        assert [type(error) for error in outcome.errors] == ([] if case.told is None else [case.told])
        assert found == []


@pytest.mark.parametrize("name", ["end-delayed-until-the-next-is-half-written", "end-doubled-in-the-next"])
def test_without_the_cure_a_late_end_tears_the_next_transaction(kafka_servers: str, name: str) -> None:
    """The test of the test: the client library's own way, with the broker's consent, leaves half a transaction."""
    with written(kafka_servers, CASES[name], cured=False) as (proxy, _, found):
        assert [late.error for late in proxy.late] == [NO_ERROR]
        # All of what the first Produce request brought, nothing of the second.
        (torn,) = found
        assert re.fullmatch(rf"transaction {STRUCK + 1}: its records are there \[1, ., ., 0, .\] times", torn)


@pytest.mark.parametrize("name", sorted(CASES.keys() - {UNCONNECTED}))
def test_a_fault_tears_no_transaction_of_librdkafka(kafka_servers: str, name: str) -> None:
    """A producer that lost a connection ends, and its owner looks at the log: no epoch has a late end in it."""
    case = CASES[name]
    with written(kafka_servers, case, cured=True, client=LIBRDKAFKA) as (proxy, _, found):
        assert [fault for _, fault in proxy.done] == [case.fault], "the fault did not happen"
        assert len(proxy.late) == (case.fault.again is not None), "the late request did not come"
        assert all(late.error != NO_ERROR for late in proxy.late if case.late_error is not None)
        assert found == []


def test_without_the_cure_a_late_end_tears_a_transaction_of_librdkafka(kafka_servers: str) -> None:
    """A producer that goes on after it lost a connection meets its own late request in the next transaction."""
    case = CASES["end-delayed-until-the-next-is-half-written"]
    for _ in range(TRIES):
        with written(kafka_servers, case, cured=False, client=LIBRDKAFKA) as (proxy, _, found):
            assert [late.error for late in proxy.late] == [NO_ERROR]
        if found:
            break
    assert any(each.startswith(f"transaction {STRUCK + 1}: its records are there ") for each in found)


# An exchange in bad weather


STORMS: Final = int(os.environ.get("STOCKTRADE_TEST_STORMS", "1"))
"""How many runs, each with a seed of its own: one in the suite, many by hand."""

SHARDS: Final = 2
WAVES: Final = {KAFKA_PYTHON: 16, LIBRDKAFKA: 4}
"""librdkafka's producers end with each fault, so that a wave takes twenty times as long."""

SYMBOLS: Final = ("SBIN", "INFY", "ITC", "TCS", "LT")
WAVE_ORDERS: Final = 350
"""With their legs more than one Produce request holds, so that a commit can be torn in the middle."""

STUCK_S: Final = 3.0
"""How long a node may own less than everything: then another process would be started, and here a node is."""


class Weather:
    """Faults by chance, of the requests of transactions only: 15 % of the ends come late, and so on."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def __call__(self, request: Request) -> Fault:
        if request.transactional_id is None:
            return PASS
        late, doubles, lost, unanswered = {
            Api.END_TXN: (0.15, 0.04, 0.04, 0.04),
            Api.PRODUCE: (0.02, 0.02, 0.02, 0.02),
            Api.ADD_PARTITIONS_TO_TXN: (0.03, 0.03, 0.03, 0.03),
            Api.INIT_PRODUCER_ID: (0.0, 0.05, 0.03, 0.03),
        }[Api(request.api)]
        (fault,) = self._chance.choices(
            [delayed(self._moment()), doubled(self._moment()), LOST, ANSWER_LOST, PASS],
            [late, doubles, lost, unanswered, 1 - late - doubles - lost - unanswered],
        )
        return fault

    def _moment(self) -> At:
        apis = [Api.PRODUCE, Api.PRODUCE, Api.PRODUCE, Api.END_TXN, Api.ADD_PARTITIONS_TO_TXN, Api.INIT_PRODUCER_ID]
        return At(self._chance.choice(apis), self._chance.random() < 0.7, self._chance.randrange(3))


def wave(seed: int, number: int) -> list[NewRecord]:
    """Many small offers, and one buyer for each symbol who takes nearly all of them."""
    chance = random.Random(seed * 1000 + number)
    records = []
    offered: Counter[str] = Counter()
    for n in range(WAVE_ORDERS):
        symbol, name, quantity = chance.choice(SYMBOLS), f"id-{number}-{n}", chance.randint(1, 3)
        offer = SellOffer(
            offer_id=name, seller="SELLER", stock_symbol=symbol, quantity=quantity, price_per_unit=Decimal(885)
        )
        offered[symbol] += quantity
        records.append(NewRecord(topics.SELL_OFFERS, symbol.encode(), encode_order(offer)))
    for symbol, quantity in offered.items():
        order = BuyOrder(
            order_id=f"id-{number}-{symbol}",
            buyer="HDFC",
            stock_symbol=symbol,
            quantity=quantity - 1,
            price_per_unit=Decimal(885),
        )
        partition = 0 if chance.random() < 0.2 else None  # the wrong one, perhaps
        records.append(NewRecord(topics.BUY_ORDERS, symbol.encode(), encode_order(order), partition))
    records.append(NewRecord(topics.BUY_ORDERS, None, b"no order"))
    return records


class Storm(NamedTuple):
    """What one run brought: what the auditor found, how often what happened, and how many nodes it took."""

    findings: list[Finding]
    faults: Counter[str]
    nodes: int


def storm(servers: str, seed: int, *, cured: bool, client: str = KAFKA_PYTHON) -> Storm:
    """Trade waves of orders while the weather is bad, then audit from outside; a node that fails is replaced."""
    prefix = f"{unique()}-"
    nodes = 0
    with (
        KafkaLog(servers, prefix=prefix, partitions=SHARDS) as direct,
        KafkaProxy(servers, Weather(seed)) as proxy,
        KafkaLog(proxy.servers, settings=QUICK, prefix=prefix, partitions=SHARDS, client=client, cured=cured) as log,
    ):
        deadline = time.monotonic() + STORM_PATIENCE_S
        left = [wave(seed, number) for number in range(WAVES[client])]
        ends: dict[TopicPartition, int] = {}
        over = False
        while not over:
            nodes += 1
            node = Node(log, name="test", now_ms=lambda: time.time_ns() // 1_000_000)
            try:
                take(node, ends, deadline)
                while left:
                    ends |= {(at.topic, at.partition): at.offset + 1 for at in direct.append(left.pop())}
                    take(node, ends, deadline)
                ends = ends_of_inputs(direct)  # with what was forwarded
                take(node, ends, deadline)
                node.close()
                over = True
            except StocktradeError:
                node.abandon()
        proxy.deliver_kept()
        return Storm(
            examine(direct, chain_decides=False).findings,
            Counter(f"{Api(request.api).name} {kind(fault)}" for request, fault in proxy.done),
            nodes,
        )


def take(node: Node, ends: Mapping[TopicPartition, int], deadline: float) -> None:
    """Let the node trade until it has taken the inputs before `ends`, or fails."""
    whole_at = time.monotonic()
    while not node.has_taken(ends):
        assert time.monotonic() < deadline, f"the inputs before {ends} are not taken"
        node.step(0.1)
        if len(node.owners) == SHARDS:
            whole_at = time.monotonic()
        elif time.monotonic() - whole_at > STUCK_S:
            raise Unavailable("a shard has no owner")


def ends_of_inputs(log: Log) -> dict[TopicPartition, int]:
    """The offset after the last record of each input. The ends of transactions after it are nothing to take."""
    starts = {(topic, shard): 0 for topic in topics.INPUTS for shard in range(SHARDS)}
    with closing(log.reader(starts)) as reader:
        return {(record.topic, record.partition): record.offset + 1 for record in read_to_end(reader)}


def kind(fault: Fault) -> str:
    """A fault in a word."""
    if fault.again is not None:
        return "doubled" if fault.arrives else "delayed"
    return "unanswered" if fault.arrives else "lost"


@pytest.mark.parametrize("client", [KAFKA_PYTHON, LIBRDKAFKA])
@pytest.mark.parametrize("seed", range(STORMS))
def test_an_exchange_in_bad_weather_keeps_its_books(kafka_servers: str, seed: int, client: str) -> None:
    """The auditor finds nothing, although many requests were late, doubled, lost or not answered."""
    result = storm(kafka_servers, seed, cured=True, client=client)
    assert result.faults["END_TXN delayed"] > 0
    assert result.findings == []
