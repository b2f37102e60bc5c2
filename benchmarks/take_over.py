"""What a kill costs on Kafka: how long nothing is settled, with an exchange that stands by and without.

    python benchmarks/take_over.py [--bootstrap-server HOST:PORT] [--client NAME] [--rounds N] [--json]

Without a server it starts a broker in a container. An exchange that owns the one shard is killed (SIGKILL) after 2,000
orders; the time runs until the first legs of a trade that was sent then are committed and read. It is taken over by an
exchange that stood by on the same machine, or by one that is started at the kill. Medians. Bounded: under a minute.
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from statistics import median
from typing import Any
from uuid import uuid4

from exchange_process import DEADLINE_S, ExchangeProcess, until
from machine import machine
from side_by_side.broker import broker
from side_by_side.work import fill, pair
from stocktrade import __version__
from stocktrade.shard.node import DEFAULT_GROUP
from stocktrade.transport import CLIENTS, KAFKA_PYTHON, topics
from stocktrade.transport.kafka import KafkaLog

ORDERS = 2_000


@contextmanager
def ending(running: list[ExchangeProcess]) -> Iterator[None]:
    """Whatever runs in the end is ended."""
    try:
        yield
    finally:
        for each in running:
            each.end()


def after_a_kill(servers: str, client: str, *, stand_by: bool) -> float:
    """Seconds from the kill to the first new settlement."""
    prefix = f"{uuid4().hex[:8]}-"
    running: list[ExchangeProcess] = []

    def start() -> None:
        running.append(ExchangeProcess(servers, prefix, 1, client))

    with KafkaLog(servers, prefix=prefix, partitions=1, client=client) as log, ending(running):
        log.ensure_topics(topics.SPECS)
        start()
        fill(log, ORDERS)
        until(lambda: running[0].said["taken"] == ORDERS)
        if stand_by:
            start()
            until(lambda: len(_members(log, prefix)) == 2)
        with closing(log.reader({(topics.CASH_MOVEMENTS, 0): None})) as reader:
            began = time.monotonic()
            running.pop(0).end()
            if not stand_by:
                start()
            log.append(pair(10**6))
            while not reader.poll(0.5):
                assert time.monotonic() < began + DEADLINE_S
            return time.monotonic() - began


def _members(log: KafkaLog, prefix: str) -> list[Any]:
    group = prefix + DEFAULT_GROUP
    return list(log._connection.admin.describe_groups([group])[group]["members"])  # noqa: SLF001 - only looked at


def main() -> None:
    """Measure and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--bootstrap-server")
    parser.add_argument("--client", choices=CLIENTS, default=KAFKA_PYTHON)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    figures: dict[str, float] = {}
    with broker(asked.bootstrap_server) as servers:
        for name, stand_by in (("stand_by_s", True), ("restart_s", False)):
            took = [after_a_kill(servers, asked.client, stand_by=stand_by) for _ in range(asked.rounds)]
            figures[name] = median(took)
    if asked.json:
        about = {"machine": machine(), "stocktrade": __version__, "client": asked.client}
        print(json.dumps({**about, "after kill -9": figures}))
        return
    print("after kill -9  " + "  ".join(f"{name} {value:.2f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
