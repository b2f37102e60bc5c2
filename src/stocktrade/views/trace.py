"""One order from the append to both legs: every record that tells of it, in the order in which things happened.

Invariant: each step names the record that says so. An output belongs to the commit of the input that caused it, so it
has the time of that commit's journal entry.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

from pydantic import ValidationError

from stocktrade.domain.messages import CashMovement, DematTransfer
from stocktrade.domain.values import group_indian, rupees_in_table
from stocktrade.errors import JournalBroken
from stocktrade.shard.history import to_the_end
from stocktrade.shard.journal import decode_entry
from stocktrade.transport import topics
from stocktrade.transport.base import Log, Position, Record
from stocktrade.transport.codec import decode_json, decode_message
from stocktrade.views.follow import last_not_after
from stocktrade.views.history import Change, History, OrderRow
from stocktrade.views.messages import Traded


class Step(NamedTuple):
    """Something that happened to an order: when, in a word what, in words more, and the record that says so.

    `time_ms` is None where the log does not keep the record any more that would tell it.
    """

    time_ms: int | None
    what: str
    text: str
    position: Position


def trace(log: Log, view: History, order: OrderRow) -> list[Step]:
    """The steps of an order that an exchange has answered."""
    trades: defaultdict[int, list[Traded]] = defaultdict(list)
    for trade in view.trades_of(order):
        trades[trade.seq].append(trade)
    changes: defaultdict[int, list[Change]] = defaultdict(list)
    for change in view.changes_of(order):
        changes[change.seq].append(change)
    steps: list[Step] = []
    for seq in sorted({order.seq, *trades, *changes}):
        steps += _input_of(view, order, seq, trades[seq], changes[seq])
        entry = _entry_of(log, order.shard, seq)
        time_ms = None if entry is None else entry.time_ms
        if entry is not None:
            number = decode_entry(entry).entry
            text = f"sequence {group_indian(seq)}, journal entry {group_indian(number)}"
            steps.append(Step(time_ms, "taken", text, entry.position))
        if seq == order.seq:
            steps.append(_answer(order, time_ms))
        for change in changes[seq]:
            steps.append(_changed(order, change, time_ms))
        legs = list(_legs(log, order, trades[seq])) if trades[seq] else []
        for trade in trades[seq]:
            steps.append(_traded(order, trade, time_ms))
            steps += [Step(time_ms, what, text, at) for of, what, text, at in legs if of == trade.trade_id]
    return steps


def position_of(text: str) -> Position | None:
    """The position in `topic@partition:offset`."""
    topic, _, place = text.partition("@")
    partition, _, offset = place.partition(":")
    if partition.isdecimal() and offset.isdecimal():
        return Position(topic, int(partition), int(offset))
    return None


def order_text(order: OrderRow) -> str:
    """`buy 100 SBI at ₹885.00 as HDFC`, as it was asked."""
    at = "at the market" if order.side == "BUY" else "at any price"
    price = at if order.first_price is None else f"at {rupees_in_table(order.first_price)}"
    terms = f" {order.terms}" if order.terms else ""
    return f"{order.side.lower()} {group_indian(order.quantity)} {order.sent} {price}{terms} as {order.participant}"


def _input_of(view: History, order: OrderRow, seq: int, trades: list[Traded], changes: list[Change]) -> Iterator[Step]:
    """The record that caused what happened at a sequence."""
    if seq == order.seq:
        source = position_of(order.source)
        if source is not None:
            yield Step(order.time_ms, "sent", order_text(order), source)
        return
    for change in changes:
        source = position_of(change.source)
        if source is not None:
            asked = f"{change.kind} {change.own_id}" if change.own_id else "an order of the same participant"
            yield Step(change.time_ms, "asked" if change.own_id else "met", asked, source)
            return
    for trade in trades:
        bought = (trade.buy_order, trade.buyer) == (order.order_id, order.participant)
        other = (trade.sell_order, trade.seller) if bought else (trade.buy_order, trade.buyer)
        for taker in view.named(other[0], participant=other[1]):
            source = position_of(taker.source)
            if source is not None and taker.seq == seq:
                yield Step(taker.time_ms, "met", order_text(taker), source)
                return


def _answer(order: OrderRow, time_ms: int | None) -> Step:
    words = [order.reason, order.detail] if order.reason else []
    text = ": ".join(words) if words else f"{group_indian(order.quantity)} {order.sent}"
    return Step(time_ms, order.status.lower(), text, Position(topics.ORDER_EVENTS, order.shard, order.offset))


def _changed(order: OrderRow, change: Change, time_ms: int | None) -> Step:
    at = Position(topics.ORDER_EVENTS, order.shard, change.offset)
    if not change.accepted:
        return Step(time_ms, "refused", f"{change.kind}: {change.reason}", at)
    if change.kind == "replace":
        price = "" if change.price is None else f" at {rupees_in_table(change.price)}"
        return Step(time_ms, "replaced", f"{group_indian(change.quantity)} {order.sent}{price} open from now on", at)
    by = "" if change.kind == "cancel" else f" by {change.kind}"
    return Step(time_ms, "cancelled", f"{group_indian(change.quantity)} {order.sent}{by}", at)


def _traded(order: OrderRow, trade: Traded, time_ms: int | None) -> Step:
    buys = order.side == "BUY"
    with_whom = f"from {trade.seller} ({trade.sell_order})" if buys else f"to {trade.buyer} ({trade.buy_order})"
    text = (
        f"{trade.trade_id}  {group_indian(trade.quantity)} {order.sent} at {rupees_in_table(trade.price)} = "
        f"{rupees_in_table(trade.amount)}  {with_whom}"
    )
    return Step(time_ms, "traded", text, Position(topics.TRADES, trade.shard, trade.offset))


def _entry_of(log: Log, shard: int, seq: int) -> Record | None:
    """The journal's record in which a sequence was given."""

    def first_seq(record: Record) -> int | None:
        try:
            return decode_entry(record).first_seq
        except JournalBroken:
            return None

    return last_not_after(log, (topics.JOURNAL, shard), seq, first_seq)


def _seq_of(record: Record) -> int | None:
    try:
        fields: Any = decode_json(record.value or b"")
    except ValueError:
        return None
    seq = fields.get("seq") if isinstance(fields, dict) else None
    return seq if type(seq) is int else None


def _legs(log: Log, order: OrderRow, trades: list[Traded]) -> Iterator[tuple[str, str, str, Position]]:
    """Of each leg of the order's participant and side: the trade, `shares` or `funds`, what moved, and where."""
    seq = trades[0].seq
    names = {trade.trade_id for trade in trades}
    sides = {"BUY": ("CREDIT", "DEBIT"), "SELL": ("DEBIT", "CREDIT")}[order.side]
    kinds: list[tuple[str, type[DematTransfer | CashMovement], str]] = [
        (topics.DEMAT_TRANSFERS, DematTransfer, sides[0]),
        (topics.CASH_MOVEMENTS, CashMovement, sides[1]),
    ]
    for topic, model, direction in kinds:
        before = last_not_after(log, (topic, order.shard), seq - 1, _seq_of)
        start = 0 if before is None else before.offset + 1
        with closing(log.reader({(topic, order.shard): start})) as reader:
            for record in to_the_end(reader):
                if (_seq_of(record) or 0) > seq:
                    break
                try:
                    leg = decode_message(model, record.value)
                except (ValueError, ValidationError):
                    continue
                mine = (leg.to_entity, leg.direction, leg.order_id) == (order.participant, direction, order.order_id)
                if leg.trade_id in names and mine:
                    sign = "+" if direction == "CREDIT" else "-"
                    if isinstance(leg, DematTransfer):
                        text = f"{sign}{group_indian(leg.quantity)} {leg.stock_symbol}"
                    else:
                        text = f"{sign}{rupees_in_table(int(leg.amount * 100))}"
                    what = "shares" if isinstance(leg, DematTransfer) else "funds"
                    yield str(leg.trade_id), what, text, record.position
