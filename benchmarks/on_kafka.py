"""The exchange on Kafka, by itself: how soon it answers, what a kill costs, what a second one brings.

    python benchmarks/on_kafka.py [--bootstrap-server HOST:PORT] [--rounds N] [--json]

Without a server it starts a broker in a container. Latency from the moment an order is meant to be sent to both legs
seen by a reader of committed records, at 100 orders/s; the time from `kill -9` to the first new settlement, by a
stand-by and by a restart; two exchanges on eight shards against one. Bounded: about two minutes. How many orders a
second it takes, beside other programs, is measured by `performance.py`.
"""

import argparse
import json
import platform
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final
from uuid import uuid4

from end_to_end import percentile
from machine import machine
from side_by_side.broker import broker
from side_by_side.work import fill, pair
from stocktrade import __version__
from stocktrade.shard.node import Node
from stocktrade.transport import topics
from stocktrade.transport.kafka import KafkaLog

ORDERS: Final = 20_000
RATE: Final = 100
SECONDS: Final = 20
WARM_UP_S: Final = 2
"""Told apart: new topics, a new group and a broker that has just begun to compile what it runs."""
DEADLINE_S: Final = 120.0


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


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--bootstrap-server")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--exchange", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.exchange:
        servers, prefix, partitions = asked.exchange
        run_exchange(servers, prefix, int(partitions))
        return
    results: dict[str, Any] = {
        "machine": machine(),
        "python": platform.python_version(),
        "stocktrade": __version__,
    }
    with broker(asked.bootstrap_server) as servers:
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
