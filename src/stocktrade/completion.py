"""What a shell offers when Tab is pressed: symbols, participants, orders and topics, from the end of the embedded log.

Invariant: whatever is wrong, it offers less. It makes nothing, connects to nothing, prints nothing and takes a moment.
"""

from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Final, Literal

from stocktrade.domain.facts import Instruction
from stocktrade.domain.values import ALIASES
from stocktrade.errors import StocktradeError
from stocktrade.settings import log_target
from stocktrade.transport import connect, topics
from stocktrade.transport.codec import decode_input
from stocktrade.transport.premises import folder_of, holds_log

LOOKED_AT: Final = 300
"""So many of the last inputs of each partition are looked at."""

OFFERED: Final = 100

What = Literal["symbols", "participants", "orders", "topics"]


def offered(what: What, beginning: str) -> list[str]:
    """The words that begin with what was typed, in any case of letters; those met last first."""
    if what == "topics":
        words = [spec.name for spec in topics.SPECS]
    else:
        words = [*_met(what)]
        words += {"symbols": [*ALIASES, *ALIASES.values()], "participants": ["HDFC", "SELLER"]}.get(what, [])
    fitting = [word for word in dict.fromkeys(words) if word.lower().startswith(beginning.lower())]
    return fitting[:OFFERED]


def _met(what: What) -> Iterator[str]:
    # A shell that waits, or shows an error in the middle of a line, is worse than one that offers nothing.
    with suppress(StocktradeError, OSError):
        target = log_target()
        folder = folder_of(target.url)
        if folder is None or not holds_log(folder):
            return
        with connect(target.url) as log:
            if log.missing_topics(topics.SPECS):
                return
            places = [(topic, shard) for topic in topics.INPUTS for shard in range(log.partitions())]
            with closing(log.reader(dict.fromkeys(places))) as reader:
                starts = {at: max(0, end - LOOKED_AT) for at, end in reader.ends().items()}
            with closing(log.reader(starts)) as reader:
                records = reader.poll(0.0, LOOKED_AT * len(places))
        for record in reversed(records):
            order = decode_input(record.topic, record.value)
            if isinstance(order, Instruction):
                yield {"symbols": order.symbol, "participants": order.participant, "orders": order.order_id}[what]
