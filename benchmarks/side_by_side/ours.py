"""The exchange itself: what `nse` runs (`shard.node.Node`), without a screen."""

import time

from side_by_side.work import ENDLESS, Stopwatch, open_log
from stocktrade.shard.node import Node
from stocktrade.transport import KAFKA_PYTHON, LIBRDKAFKA


def run(where: str, prefix: str, orders: int, client: str = KAFKA_PYTHON) -> float:
    """Seconds in which the exchange took the orders.

    A step reads, matches and commits at once, so time runs from before the first step after the shards are owned.
    """
    watch = Stopwatch()
    with open_log(where, prefix, client) as log:
        node = Node(log, name="bench", now_ms=lambda: time.time_ns() // 1_000_000)
        while len(node.owners) < log.partitions():
            node.step(0.05)
        # Not counted by what it says: a batch whose commit was not answered is in the journal, and told by nobody.
        ends = dict.fromkeys(node.backlog_ends(), orders) if orders == ENDLESS else node.backlog_ends()
        watch.consumed()
        while not node.has_taken(ends):
            node.step(0.2)
        seconds = watch.seconds()
        node.abandon()
    return seconds


def run_librdkafka(where: str, prefix: str, orders: int) -> float:
    """The same, its records carried by librdkafka."""
    return run(where, prefix, orders, LIBRDKAFKA)
