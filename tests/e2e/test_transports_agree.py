"""The same orders on the embedded log and on Kafka: the same trades, whatever restarts come in between."""

import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from stocktrade.shard.node import Node
from stocktrade.transport import connect, topics
from stocktrade.transport.base import Log
from stocktrade.transport.kafka import KafkaLog
from test_auditor import orders

pytestmark = pytest.mark.kafka

PLACES = {"seq", "source", "cause", "shard", "trade_id", "transfer_id", "movement_id", "first_seq"}
"""What says where something stands, and so differs from one log to another."""


def told(log: Log, *, restart_every: int) -> dict[str, list[dict[str, Any]]]:
    """What the exchange says of each symbol, in order, when orders come one at a time."""
    node = Node(log, name="test", now_ms=lambda: 0)
    reader = log.reader({(topic, shard): 0 for topic in topics.OUTPUTS for shard in range(log.partitions())})
    for number, record in enumerate(orders(11, 60)):
        log.append([record._replace(partition=None)])
        ends = node.backlog_ends()
        while not node.has_taken(ends):
            node.step(0.05)
        if number % restart_every == restart_every - 1:
            node.close()
            node = Node(log, name="test", now_ms=lambda: 0)
    node.close()
    ends = reader.ends()
    by_topic: dict[tuple[str, int], list[bytes]] = defaultdict(list)
    while not reader.caught_up(ends):
        for found in reader.poll(1.0):
            by_topic[found.topic, found.partition].append(found.value or b"")
    said: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for (topic, _), values in by_topic.items():
        for value in values:
            fields = json.loads(value)
            symbol = fields.get("stock_symbol") or fields["description"].split(" ")[3]
            said[f"{topic} {symbol.upper()}"].append({name: fields[name] for name in fields.keys() - PLACES})
    return said


def test_both_logs_tell_the_same(kafka_servers: str, tmp_path: Path) -> None:
    """Per symbol and topic, once positions are set aside."""
    with (
        KafkaLog(kafka_servers, prefix=f"agree-{tmp_path.name}-{time.time_ns()}-", partitions=4) as on_kafka,
        connect(f"sqlite:{tmp_path / 'log'}", partitions=4) as embedded,
    ):
        told_on_kafka, told_embedded = told(on_kafka, restart_every=25), told(embedded, restart_every=1_000)
    assert told_on_kafka == told_embedded
    assert sum(len(said) for topic, said in told_on_kafka.items() if topic.startswith("trades")) > 5
