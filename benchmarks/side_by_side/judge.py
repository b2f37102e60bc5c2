"""Looks at what a program wrote: is every order answered and settled, once?

Knows the orders and the topics, and nothing of the programs. Invariant: an order counts as exact when the records that
belong to it are there, one each: its answer, its side of a trade, its shares and its rupees.
"""

import json
import time
from collections import Counter
from contextlib import closing
from typing import Any, Final, NamedTuple

from side_by_side.work import bytes_of_outputs
from stocktrade.transport import topics
from stocktrade.transport.base import Log

PATIENCE_S: Final = 90.0
"""How long a transaction that was left open is waited for: longer than any timeout of the programs."""

BUY, SELL = "BUY", "SELL"
_SIDES: Final = {
    (topics.DEMAT_TRANSFERS, "CREDIT"): BUY,
    (topics.DEMAT_TRANSFERS, "DEBIT"): SELL,
    (topics.CASH_MOVEMENTS, "DEBIT"): BUY,
    (topics.CASH_MOVEMENTS, "CREDIT"): SELL,
}
_SEED: Final = {topics.DEMAT_TRANSFERS: "CREDIT", topics.CASH_MOVEMENTS: "DEBIT"}
"""The direction of a leg that names none: the first example tells the buyer only."""

Seen = Counter[tuple[str, str, str]]
"""How often a record of a topic was seen for an order: topic, side, id."""


class Verdict(NamedTuple):
    """What became of `orders` orders, as a reader of committed records sees it.

    `lost` orders miss a record, `doubled` ones have one twice, `foreign` records belong to no order. `records` and
    `bytes` are of values on the output topics, `expected_bytes` what the exchange writes there for these orders (0
    where another number of records is written), `journal_bytes` what stands on the journal beside them.
    """

    orders: int
    lost: int
    doubled: int
    foreign: int
    records: int
    bytes: int
    expected_bytes: int
    journal_bytes: int

    @property
    def exact(self) -> bool:
        """Nothing is missing, nothing is there twice, and it is the same bytes but for the digits of numbers."""
        same = not self.expected_bytes or abs(self.bytes - self.expected_bytes) <= self.expected_bytes / 100
        return same and not (self.lost or self.doubled or self.foreign)

    def __str__(self) -> str:
        """In a few words."""
        if self.exact:
            return "exact"
        said = [f"{count:,} {what}" for what, count in self._faults() if count]
        return ", ".join(said) or f"{self.bytes:,} bytes where {self.expected_bytes:,} are due"

    def _faults(self) -> list[tuple[str, int]]:
        return [("orders lost", self.lost), ("settled twice", self.doubled), ("foreign records", self.foreign)]


def read(log: Log) -> tuple[Seen, dict[str, int]]:
    """What stands committed on the outputs, and the bytes of the values by topic.

    Raises:
        TimeoutError: a transaction stays open.
    """
    seen: Seen = Counter()
    size: dict[str, int] = dict.fromkeys((*topics.OUTPUTS, topics.JOURNAL), 0)
    starts = {(topic, partition): 0 for topic in size for partition in range(log.partitions())}
    deadline = time.monotonic() + PATIENCE_S
    with closing(log.reader(starts)) as reader:
        ends = reader.written_ends()
        while not reader.caught_up(ends):
            if time.monotonic() > deadline:
                raise TimeoutError(f"an open transaction hides what was written: {reader.held_back()}")
            for record in reader.poll(0.5, 10_000):
                value = record.value or b""
                size[record.topic] += len(value)
                if record.topic != topics.JOURNAL:
                    seen.update(_keys(record.topic, json.loads(value)))
    return seen, size


def _keys(topic: str, fields: dict[str, Any]) -> list[tuple[str, str, str]]:
    if topic == topics.TRADES:
        return [(topic, BUY, fields["buy_order_id"]), (topic, SELL, fields["sell_order_id"])]
    side = fields["side"] if topic == topics.ORDER_EVENTS else _SIDES[topic, fields.get("direction", _SEED[topic])]
    return [(topic, side, fields["order_id"])]


def judge(log: Log, orders: int, *, writes_all: bool = True) -> Verdict:
    """What became of the orders that `work.fill` put on the log; without `writes_all` only the buyers' legs count.

    Raises:
        TimeoutError: a transaction stays open.
    """
    seen, size = read(log)
    wanted = topics.OUTPUTS if writes_all else (topics.DEMAT_TRANSFERS, topics.CASH_MOVEMENTS)
    sides = (BUY, SELL) if writes_all else (BUY,)
    lost = doubled = belonging = 0
    for number in range(orders // 2):
        for side in sides:
            counts = [seen[topic, side, f"b{number}"] for topic in wanted]
            belonging += sum(counts)
            lost += 0 in counts
            doubled += max(counts) > 1
    records = sum(seen.values())
    return Verdict(
        orders=orders,
        lost=lost,
        doubled=doubled,
        foreign=records - belonging,
        records=records - seen_trades(seen),
        bytes=sum(count for topic, count in size.items() if topic != topics.JOURNAL),
        expected_bytes=bytes_of_outputs(orders, log.partitions()) if writes_all else 0,
        journal_bytes=size[topics.JOURNAL],
    )


def seen_trades(seen: Seen) -> int:
    """How many trades; each is seen from both sides."""
    return sum(count for (topic, side, _), count in seen.items() if (topic, side) == (topics.TRADES, BUY))
