"""Finds an order on the log by its id, or the end of it.

Invariant: a text that could mean two orders is refused.
"""

from collections.abc import Sequence
from contextlib import closing
from typing import Final, NamedTuple

from stocktrade import tables
from stocktrade.domain.facts import Action, Instruction
from stocktrade.domain.values import visible
from stocktrade.errors import ExitCode, StocktradeError, UsageError
from stocktrade.lag import records_of
from stocktrade.roles.typed import checked_id
from stocktrade.transport import topics
from stocktrade.transport.base import Log, Position, Record
from stocktrade.transport.codec import decode_input
from stocktrade.views.follow import is_there

_WINDOW: Final = 5_000
"""How many records of a partition are looked through at a time, newest first."""

_SHOWN_CANDIDATES: Final = 5


class NoSuchOrder(StocktradeError):
    """No order on the log has an id that ends so."""

    exit_code = ExitCode.NO


class Found(NamedTuple):
    """An order on the log: on which topic it came, and what it says."""

    topic: str
    order_id: str
    participant: str
    symbol: str


def find(log: Log, text: str, *, participant: str | None = None) -> Found:
    """The one order whose id is `text`, or, if there is none, ends with it.

    Args:
        log: where to look; from the newest order back. The whole log is read unless `text` is an id in full.
        text: an order id, or an end of one.
        participant: only orders of this one.

    Raises:
        NoSuchOrder: there is none.
        UsageError: there are several.
    """
    wanted = checked_id(text).encode()
    log.ensure_topics(topics.SPECS)
    places = [(topic, shard) for topic in topics.INPUTS for shard in range(log.partitions())]
    with closing(log.reader(dict.fromkeys(places))) as reader:
        ends = reader.ends()
    found: dict[tuple[str, str], Found] = {}
    while any(ends.values()):
        for record in _window(log, ends):
            if wanted in (record.value or b""):
                each = order_in(record)
                if each is not None and each.order_id.endswith(text) and participant in (None, each.participant):
                    found.setdefault((each.participant, each.order_id), each)
        exact = {key: each for key, each in found.items() if each.order_id == text}
        if exact:
            found = exact
            break
    if not found:
        raise no_such_order(log, text, participant)
    refuse_several(text, list(found.values()))
    return next(iter(found.values()))


def find_waiting(log: Log, text: str, *, participant: str | None = None) -> tuple[Found, Position, int]:
    """The one order among the last of each shard whose id is, or ends with, `text`; where it stands, and its time.

    For orders that no exchange has answered yet.

    Raises:
        NoSuchOrder: there is none.
        UsageError: there are several.
    """
    seen: dict[tuple[str, str], tuple[Found, Position, int]] = {}
    if is_there(log, topics.BUY_ORDERS):
        places = [(topic, shard) for topic in topics.INPUTS for shard in range(log.partitions())]
        with closing(log.reader(dict.fromkeys(places))) as reader:
            ends = reader.ends()
        for record in _window(log, ends):
            each = order_in(record)
            if each is not None and each.order_id.endswith(text) and participant in (None, each.participant):
                seen.setdefault((each.participant, each.order_id), (each, record.position, record.time_ms))
    exact = {key: each for key, each in seen.items() if each[0].order_id == text}
    seen = exact or seen
    if not seen:
        raise no_such_order(log, text, participant)
    refuse_several(text, [each for each, _, _ in seen.values()])
    return next(iter(seen.values()))


def no_such_order(log: Log, text: str, participant: str | None) -> NoSuchOrder:
    """The error: there is none."""
    return NoSuchOrder(
        f"no order has an id that ends with {visible(text, 64)!r}",
        cause=f"none of {participant} on {log.url}" if participant else f"none on {log.url}",
        hint="an order's id is what `buy` and `sell` say after `order:`",
    )


def refuse_several(text: str, found: Sequence[Found]) -> None:
    """Refuse a text by which several orders could be meant.

    Raises:
        UsageError: several are.
    """
    if len(found) < 2:
        return
    names = [f"{visible(each.order_id, 64)} of {visible(each.participant, 64)}" for each in found]
    more = f" and {len(names) - _SHOWN_CANDIDATES} more" if len(names) > _SHOWN_CANDIDATES else ""
    raise UsageError(
        f"{tables.many(len(names), 'order')} could be meant by {visible(text, 64)!r}",
        cause=", ".join(names[:_SHOWN_CANDIDATES]) + more,
        hint="give more of the id, or say whose it is with --as",
    )


def _window(log: Log, ends: dict[tuple[str, int], int]) -> list[Record]:
    """The last records before `ends` of each partition, which are moved back over them."""
    starts = {at: max(0, end - _WINDOW) for at, end in ends.items() if end}
    until = {at: ends[at] for at in starts}
    ends.update(starts)
    return list(records_of(log, starts, stops=until))


def order_in(record: Record) -> Found | None:
    """The order in a record of an input topic; None for anything else."""
    order = decode_input(record.topic, record.value)
    if not isinstance(order, Instruction) or order.refusal is not None:
        return None
    if order.terms is not None and order.terms.action is not Action.NEW:
        return None
    return Found(record.topic, order.order_id, order.participant, order.symbol_as_sent)
