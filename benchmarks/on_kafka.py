"""The exchange on Kafka, beside loops that do the same work without being one.

    python benchmarks/on_kafka.py [--bootstrap-server HOST:PORT] [--rounds N] [--json]

Without a server it starts a broker in a container, as the tests do. Four programs take the same orders from the same
broker in turn, several rounds, each in a process of its own:

* `nse`: four shards of the exchange (`shard.node.Node`), one process, on kafka-python;
* `nse-librdkafka`: the same, its records carried by librdkafka;
* `bare`: consume, parse, write as many records of as many bytes in transactions; no rules, no state that survives;
* `seed`: the seed's loop: consume, match, send two messages, flush, order by order; no transactions.

Then: latency from the moment an order is meant to be sent to both legs seen by a reader of committed records, at 100
orders/s; the time from `kill -9` to the first new settlement, by a stand-by and by a restart; two exchanges on eight
shards against one. Bounded: about four minutes.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import kafka

from end_to_end import percentile
from stocktrade import __version__
from stocktrade.core.exchange import Exchange
from stocktrade.shard.node import Node
from stocktrade.transport import KAFKA_PYTHON, LIBRDKAFKA, topics
from stocktrade.transport.base import Log, NewRecord
from stocktrade.transport.codec import Dead, decode_input, encode_facts
from stocktrade.transport.kafka import KafkaLog

ORDERS: Final = 20_000
SEED_ORDERS: Final = 4_000
RATE: Final = 100
SECONDS: Final = 20
WARM_UP_S: Final = 2
"""Told apart: new topics, a new group and a broker that has just begun to compile what it runs."""
SYMBOLS: Final = tuple(f"SYM{n:02}" for n in range(40))
DEADLINE_S: Final = 120.0


def buy(number: int, symbol: str) -> NewRecord:
    """A bid for 10 shares."""
    text = f'{{"order_id":"b{number}","buyer":"HDFC","stock_symbol":"{symbol}","quantity":10,"price_per_unit":885.0}}'
    return NewRecord(topics.BUY_ORDERS, symbol.encode(), text.encode())


def sell(number: int, symbol: str) -> NewRecord:
    """10 shares at any price."""
    text = f'{{"offer_id":"b{number}","seller":"SELLER","stock_symbol":"{symbol}","quantity":10}}'
    return NewRecord(topics.SELL_OFFERS, symbol.encode(), text.encode())


def pair(number: int) -> list[NewRecord]:
    """Two orders that trade with each other."""
    symbol = SYMBOLS[number % len(SYMBOLS)]
    return [buy(number, symbol), sell(number, symbol)]


def fill(log: Log, orders: int) -> None:
    """Put orders on the log."""
    log.ensure_topics(topics.SPECS)
    for first in range(0, orders // 2, 1000):
        numbers = range(first, min(first + 1000, orders // 2))
        log.append([record for number in numbers for record in pair(number)])


# --- the programs, each in a process of its own -----------------------------------------------------------


def run_nse(servers: str, prefix: str, orders: int, client: str = KAFKA_PYTHON) -> float:
    """Seconds in which the exchange took the orders."""
    with KafkaLog(servers, prefix=prefix, client=client) as log:
        node = Node(log, name="bench", now_ms=lambda: time.time_ns() // 1_000_000)
        while len(node.owners) < log.partitions():
            node.step(0.05)
        began, taken = time.monotonic(), 0
        while taken < orders:
            taken += len(node.step(0.2).taken)
        seconds = time.monotonic() - began
        node.abandon()
    return seconds


def _answers() -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """What the exchange says to a buy order, and to the offer that trades with it, by topic."""
    exchange, answers = Exchange(), {}
    for order in pair(0):
        decoded = decode_input(order.topic, order.value)
        assert not isinstance(decoded, Dead)
        said = encode_facts(exchange.apply(decoded), 0, f"{order.topic}@0:10000", 1_700_000_000_000)
        answers[order.topic] = [(record.topic, json.loads(record.value or b"")) for record in said]
    return answers


def _clients(servers: str, prefix: str, **producer: Any) -> tuple[Any, Any]:
    consumer = kafka.KafkaConsumer(
        bootstrap_servers=servers,
        group_id=f"{prefix}loop",
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=20,
        max_partition_fetch_bytes=1024 * 1024,
        metrics_enabled=False,
    )
    consumer.subscribe([prefix + topic for topic in topics.INPUTS])
    made = kafka.KafkaProducer(bootstrap_servers=servers, metrics_enabled=False, **producer)
    return consumer, made


def _encode(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def run_bare(servers: str, prefix: str, orders: int) -> float:
    """Seconds in which a loop without rules took the orders: the same records of the same size, exactly once."""
    consumer, producer = _clients(
        servers,
        prefix,
        transactional_id=f"{prefix}bare",
        batch_size=256 * 1024,
        linger_ms=0,
        retry_backoff_ms=5,
        transaction_timeout_ms=15_000,
    )
    producer.init_transactions()
    answers = _answers()
    taken, began = 0, 0.0
    while taken < orders:
        batches = consumer.poll(timeout_ms=200, max_records=2000)
        if not batches:
            continue
        began = began or time.monotonic()
        producer.begin_transaction()
        futures = []
        for place, records in batches.items():
            entry = []
            for record in records:
                order = json.loads(record.value)
                entry.append({"topic": place.topic, "offset": record.offset, "text": record.value.decode()})
                order_id = order.get("order_id") or order["offer_id"]
                for topic, fields in answers[place.topic[len(prefix) :]]:
                    value = _encode({**fields, "order_id": order_id, "stock_symbol": order["stock_symbol"]})
                    futures.append(producer.send(prefix + topic, value, b"HDFC", partition=place.partition))
            taken += len(records)
            journal = _encode({"inputs": entry})
            futures.append(producer.send(prefix + topics.JOURNAL, journal, b"0", partition=place.partition))
        producer.flush()
        assert all(future.succeeded() for future in futures)
        producer.commit_transaction()
    seconds = time.monotonic() - began
    producer.close()
    consumer.close()
    return seconds


def run_seed(servers: str, prefix: str, orders: int) -> float:
    """Seconds in which the seed's loop took the orders: each matched, told in two messages, and flushed."""
    consumer, producer = _clients(servers, prefix)
    waiting: dict[str, dict[str, deque[dict[str, Any]]]] = defaultdict(lambda: defaultdict(deque))
    taken, began = 0, 0.0
    while taken < orders:
        batches = consumer.poll(timeout_ms=200, max_records=500)
        for record in [record for records in batches.values() for record in records]:
            began = began or time.monotonic()
            order = json.loads(record.value)
            taken += 1
            side, other = ("buy", "sell") if "buyer" in order else ("sell", "buy")
            symbol = order["stock_symbol"]
            if not waiting[symbol][other]:
                waiting[symbol][side].append(order)
                continue
            found = waiting[symbol][other].popleft()
            bid = order if side == "buy" else found
            shares = {
                "transfer_id": str(uuid4()),
                "from_entity": "NSE",
                "to_entity": bid["buyer"],
                "stock_symbol": symbol,
                "quantity": bid["quantity"],
                "order_id": bid["order_id"],
            }
            rupees = {
                "movement_id": str(uuid4()),
                "from_entity": "NSE",
                "to_entity": bid["buyer"],
                "amount": bid["quantity"] * bid["price_per_unit"],
                "order_id": bid["order_id"],
                "description": f"Payment for {bid['quantity']} {symbol} stocks @ ₹{bid['price_per_unit']:g}",
            }
            producer.send(prefix + topics.DEMAT_TRANSFERS, json.dumps(shares).encode())
            producer.send(prefix + topics.CASH_MOVEMENTS, json.dumps(rupees).encode())
            producer.flush()
    seconds = time.monotonic() - began
    producer.close()
    consumer.close()
    return seconds


PROGRAMS: Final[dict[str, Callable[[str, str, int], float]]] = {
    "nse": run_nse,
    "nse-librdkafka": partial(run_nse, client=LIBRDKAFKA),
    "bare": run_bare,
    "seed": run_seed,
}


def run_exchange(servers: str, prefix: str, partitions: int) -> None:
    """An exchange until it is ended, saying what it owns and how much it has taken."""
    with KafkaLog(servers, prefix=prefix, partitions=partitions) as log:
        node = Node(log, name="bench", now_ms=lambda: time.time_ns() // 1_000_000, outlasts_outages=True)
        taken = 0
        while True:
            step = node.step(0.2)
            taken += len(step.taken)
            if step.started or step.lost or step.taken:
                print(json.dumps({"owned": len(node.owners), "taken": taken, "at": time.monotonic()}), flush=True)


# --- what is measured -------------------------------------------------------------------------------------------


def in_a_process(program: str, servers: str, orders: int) -> float:
    """Orders a second of one program on a log of its own."""
    prefix = f"{uuid4().hex[:8]}-"
    with KafkaLog(servers, prefix=prefix) as log:
        fill(log, orders)
    command = [sys.executable, __file__, "--run", program, servers, prefix, str(orders)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=DEADLINE_S)
    return orders / float(done.stdout)


class Process:
    """An exchange in a process of its own; `said` is the last thing that it said."""

    def __init__(self, servers: str, prefix: str, partitions: int) -> None:
        self.said: dict[str, Any] = {"owned": 0, "taken": 0, "at": 0.0}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--exchange", servers, prefix, str(partitions)], stdout=subprocess.PIPE
        )
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said = json.loads(line)

    def end(self, number: int = signal.SIGKILL) -> None:
        """End it."""
        self._process.send_signal(number)
        self._process.wait(30)
        self._listener.join()


@contextmanager
def exchanges(servers: str, prefix: str, partitions: int, count: int) -> Iterator[list[Process]]:
    """So many exchanges that own all shards between them; whatever runs in the end is ended."""
    running: list[Process] = []
    try:
        running += [Process(servers, prefix, partitions) for _ in range(count)]
        until(
            lambda: sum(each.said["owned"] for each in running) == partitions and all(e.said["owned"] for e in running)
        )
        yield running
    finally:
        for each in running:
            each.end()


def until(condition: Any) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def latency(servers: str) -> dict[str, float]:
    """Milliseconds from when the order that trades is meant to be sent to both of its legs seen."""
    prefix, pairs = f"{uuid4().hex[:8]}-", RATE * SECONDS // 2
    with KafkaLog(servers, prefix=prefix) as log, KafkaLog(servers, prefix=prefix) as client:
        log.ensure_topics(topics.SPECS)
        due: dict[str, float] = {}
        seen: dict[str, list[float]] = defaultdict(list)
        legs = [(topic, p) for topic in (topics.DEMAT_TRANSFERS, topics.CASH_MOVEMENTS) for p in range(4)]

        def send() -> None:
            began = time.monotonic() + 0.5
            for number in range(2 * pairs):
                at = began + number / RATE
                time.sleep(max(0.0, at - time.monotonic()))
                if number % 2:
                    due[f"b{number // 2}"] = at
                client.append([pair(number // 2)[number % 2]])

        with exchanges(servers, prefix, 4, 1), closing(log.reader(dict.fromkeys(legs, 0))) as reader:
            client.append(pair(10**6))  # the first append makes the producer
            sender = threading.Thread(target=send)
            sender.start()
            deadline = time.monotonic() + SECONDS + 30
            while sum(len(times) == 2 for times in seen.values()) < pairs:
                assert time.monotonic() < deadline, "the legs did not come"
                for record in reader.poll(0.5):
                    now, leg = time.monotonic(), json.loads(record.value or b"")
                    if leg["to_entity"] == "SELLER" and leg["order_id"] != f"b{10**6}":
                        seen[leg["order_id"]].append(now)
            sender.join()
    warm = min(due.values()) + WARM_UP_S
    first = [(max(times) - due[order]) * 1000 for order, times in seen.items() if due[order] < warm]
    took = [(max(times) - due[order]) * 1000 for order, times in seen.items() if due[order] >= warm]
    slow = sum(ms > 100 for ms in took)
    return {
        "p50_ms": percentile(took, 0.5),
        "p90_ms": percentile(took, 0.9),
        "p99_ms": percentile(took, 0.99),
        "max_ms": max(took),
        "above_100_ms": slow,
        "first_2_s_max_ms": max(first),
        "orders": len(took),
    }


def after_a_kill(servers: str, *, stand_by: bool) -> float:
    """Seconds from `kill -9` to the first new settlement: by a stand-by, or by a process started then."""
    prefix = f"{uuid4().hex[:8]}-"
    with KafkaLog(servers, prefix=prefix, partitions=1) as log:
        fill(log, 2_000)
        with exchanges(servers, prefix, 1, 1) as running:
            until(lambda: running[0].said["taken"] == 2_000)
            if stand_by:
                running.append(Process(servers, prefix, 1))
                until(lambda: len(_members(log, prefix)) == 2)
            with closing(log.reader({(topics.CASH_MOVEMENTS, 0): None})) as reader:
                began = time.monotonic()
                running.pop(0).end()
                if not stand_by:
                    running.append(Process(servers, prefix, 1))
                log.append(pair(10**6))
                while not reader.poll(0.5):
                    assert time.monotonic() < began + DEADLINE_S
                return time.monotonic() - began


def _members(log: KafkaLog, prefix: str) -> list[Any]:
    group = f"{prefix}stocktrade-nse"
    return list(log._connection.admin.describe_groups([group])[group]["members"])  # noqa: SLF001 - only looked at


def on_eight_shards(servers: str, count: int) -> float:
    """Orders a second that so many exchanges take from a log that fills while they run."""
    prefix = f"{uuid4().hex[:8]}-"
    with KafkaLog(servers, prefix=prefix, partitions=8) as log:
        log.ensure_topics(topics.SPECS)
        with exchanges(servers, prefix, 8, count) as running:
            began = time.monotonic()
            fill(log, ORDERS)
            until(lambda: sum(each.said["taken"] for each in running) >= ORDERS)
            last_at: float = max(each.said["at"] for each in running)
            return ORDERS / (last_at - began)


@contextmanager
def broker(servers: str | None) -> Iterator[str]:
    """The broker that was given, or one in a container."""
    if servers is not None:
        yield servers
        return
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from kafka_container import KafkaContainer  # noqa: PLC0415 - only found once the path is extended

    with KafkaContainer() as container:
        yield container.bootstrap_servers


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--bootstrap-server")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--exchange", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run:
        program, servers, prefix, orders = asked.run
        print(PROGRAMS[program](servers, prefix, int(orders)))
        return
    if asked.exchange:
        servers, prefix, partitions = asked.exchange
        run_exchange(servers, prefix, int(partitions))
        return
    results: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "stocktrade": __version__,
    }
    with broker(asked.bootstrap_server) as servers:
        paces: dict[str, list[float]] = defaultdict(list)
        for _ in range(asked.rounds):
            for program in PROGRAMS:
                orders = SEED_ORDERS if program == "seed" else ORDERS
                paces[program].append(in_a_process(program, servers, orders))
        medians = {program: statistics.median(found) for program, found in paces.items()}
        for program, found in paces.items():
            results[program] = {"orders_per_s": medians[program], "slowest": min(found), "fastest": max(found)}
        results["ratios"] = {
            "nse_to_bare": medians["nse"] / medians["bare"],
            "nse_to_seed": medians["nse"] / medians["seed"],
            "librdkafka_to_kafka_python": medians["nse-librdkafka"] / medians["nse"],
        }
        results["latency"] = latency(servers)
        results["after kill -9"] = {
            "take_over_s": statistics.median(after_a_kill(servers, stand_by=True) for _ in range(asked.rounds)),
            "restart_s": statistics.median(after_a_kill(servers, stand_by=False) for _ in range(asked.rounds)),
        }
        eight = {count: on_eight_shards(servers, count) for count in (1, 2)}
        results["eight shards"] = {
            "one_nse_orders_per_s": eight[1],
            "two_nse_orders_per_s": eight[2],
            "ratio": eight[2] / eight[1],
        }
    if asked.json:
        print(json.dumps(results))
        return
    for name, figures in results.items():
        text = figures if isinstance(figures, str) else "  ".join(f"{k} {v:,.2f}" for k, v in figures.items())
        print(f"{name:<13} {text}")


if __name__ == "__main__":
    main()
