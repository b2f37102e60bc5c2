"""The exchange's topics: their names, and what each needs of the log.

Invariant: every topic of the exchange has the same number of partitions, and shard p is partition p of all of
them.
"""

from typing import Final

from stocktrade.transport.base import TopicSpec

BUY_ORDERS: Final = "buy-orders"
SELL_OFFERS: Final = "sell-offers"
ORDER_EVENTS: Final = "order-events"
TRADES: Final = "trades"
DEMAT_TRANSFERS: Final = "demat-transfers"
CASH_MOVEMENTS: Final = "cash-movements"
DEAD_LETTERS: Final = "dead-letters"
JOURNAL: Final = "exchange-journal"
SNAPSHOTS: Final = "exchange-snapshots"

INPUTS: Final = (BUY_ORDERS, SELL_OFFERS)
OUTPUTS: Final = (ORDER_EVENTS, TRADES, DEMAT_TRANSFERS, CASH_MOVEMENTS)

SPECS: Final = (
    TopicSpec(BUY_ORDERS, append_time=True),
    TopicSpec(SELL_OFFERS, append_time=True),
    TopicSpec(ORDER_EVENTS),
    TopicSpec(TRADES),
    TopicSpec(DEMAT_TRANSFERS),
    TopicSpec(CASH_MOVEMENTS),
    TopicSpec(DEAD_LETTERS),
    TopicSpec(JOURNAL),
    TopicSpec(SNAPSHOTS, compacted=True),
)
