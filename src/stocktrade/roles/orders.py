"""`orders` and `orders show`: how far each order has come, and all that happened to one of them.

Invariant: they only read; what is said of an order is what the records say that are named beside it.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from rich.text import Text

from stocktrade import tables
from stocktrade.domain.values import group_indian, rupees_in_table, visible
from stocktrade.errors import ExitCode
from stocktrade.listing import Column, Form, Listing, number, rupees, time_of
from stocktrade.ranges import rfc3339
from stocktrade.roles.order_lookup import Found, find_waiting, refuse_several
from stocktrade.roles.question import Question
from stocktrade.roles.typed import checked_id
from stocktrade.transport.base import Log
from stocktrade.views.history import History, OrderRow, Within
from stocktrade.views.trace import Step, trace

_STATE_STYLES: Final = {
    "open": tables.WAITING,
    "partly filled": tables.WAITING,
    "filled": tables.GOOD,
    "cancelled": tables.FAINT,
    "rejected": tables.BAD,
}


def _shown_price(row: OrderRow) -> str:
    return _no_price(row) if row.price is None else rupees_in_table(row.price)


def _no_price(row: OrderRow) -> str:
    return "market" if row.side == "BUY" else "any"


ORDERS: Final = Listing[OrderRow](
    schema="stocktrade.order-state/1",
    columns=(
        time_of("time", "time", lambda row: row.time_ms, rank=4),
        Column("order_id", "order", lambda row: row.order_id),
        Column("participant", "participant", lambda row: row.participant, folds=True),
        Column("side", "side", lambda row: row.side, lambda row: tables.side(row.side)),
        Column("stock_symbol", "symbol", lambda row: row.symbol),
        rupees("price_per_unit", "price", lambda row: row.price, none=_no_price, rank=1),
        number("quantity", "qty", lambda row: row.whole),
        number("filled_quantity", "filled", lambda row: row.filled, rank=2),
        number("leaves_quantity", "open", lambda row: row.leaves, rank=2),
        number("cancelled_quantity", "cancelled", lambda row: row.cancelled, rank=3),
        Column("state", "state", lambda row: row.state, lambda row: Text(row.state, _STATE_STYLES[row.state])),
        Column("reason", "reason", lambda row: row.reason, rank=5),
    ),
    document=lambda row: {
        "order_id": row.order_id,
        "participant": row.participant,
        "side": row.side,
        "stock_symbol": row.symbol,
        "price_paise": row.price,
        "quantity": row.whole,
        "filled_quantity": row.filled,
        "leaves_quantity": row.leaves,
        "cancelled_quantity": row.cancelled,
        "state": row.state,
        "reason": row.reason or None,
        "time": rfc3339(row.time_ms),
        "shard": row.shard,
        "seq": row.seq,
        "source": row.source,
    },
    empty="no order that an exchange has answered",
)


class _Line(NamedTuple):
    step: Step
    after_ms: int | None


_WHAT_STYLES: Final = {
    "accepted": tables.GOOD,
    "rejected": tables.BAD,
    "refused": tables.BAD,
    "traded": tables.GOOD,
    "cancelled": tables.WAITING,
    "replaced": tables.WAITING,
    "waits": tables.WAITING,
}


def _what(word: str) -> Text:
    return Text(word, _WHAT_STYLES.get(word, ""))


def _time(line: _Line) -> str:
    return "" if line.step.time_ms is None else rfc3339(line.step.time_ms) or ""


def _shown_time(line: _Line) -> str:
    return "" if line.step.time_ms is None else tables.clock(line.step.time_ms, milliseconds=True)


TRACE: Final = Listing[_Line](
    schema="stocktrade.step/1",
    columns=(
        Column("time", "time", _time, _shown_time),
        Column(
            "after_ms",
            "after",
            lambda line: "" if line.after_ms is None else str(line.after_ms),
            lambda line: "" if line.after_ms is None else f"+{tables.duration(line.after_ms)}",
            right=True,
        ),
        Column("what", "what", lambda line: line.step.what, lambda line: _what(line.step.what)),
        Column("text", "text", lambda line: line.step.text, lambda line: tables.shown(line.step.text, 200), folds=True),
        Column("position", "record", lambda line: str(line.step.position)),
    ),
    document=lambda line: {
        "time": _time(line) or None,
        "after_ms": line.after_ms,
        "what": line.step.what,
        "text": line.step.text,
        "position": str(line.step.position),
    },
    empty="",
)


def run(
    log: Log,
    symbols: Sequence[str],
    *,
    participant: str | None,
    only_open: bool,
    within: Within,
    question: Question,
) -> ExitCode:
    """List orders, oldest first.

    Args:
        log: the log.
        symbols: canonical; none: all.
        participant: only this one's.
        only_open: only those that wait in a book.
        within: which of them.
        question: as of when, and where the answer goes.

    Raises:
        UsageError: a sequence as the moment on a log of several shards.
    """
    with question.view(History, log) as view:
        found = view.orders(symbols=symbols, participant=participant, only_open=only_open, within=within)
    question.answer(ORDERS, found)
    return ExitCode.OK


def show(
    log: Log,
    text: str,
    *,
    participant: str | None,
    question: Question,
) -> ExitCode:
    """Tell all that happened to one order, a line for each record that says so.

    Args:
        log: the log.
        text: its id, or an end of it that no other has.
        participant: whose it is, if several have the id.
        question: where the answer goes.

    Raises:
        NoSuchOrder: there is none.
        UsageError: there are several.
    """
    checked_id(text)
    with question.view(History, log) as view:
        rows = view.named(text, participant=participant)
        refuse_several(text, [Found("", row.order_id, row.participant, row.sent) for row in rows])
        steps = trace(log, view, rows[0]) if rows else []
    if not rows:
        waiting, position, time_ms = find_waiting(log, text, participant=participant)
        said = (
            f"{waiting.order_id}: {visible(waiting.symbol, 64)} as {waiting.participant}; no exchange has taken it yet"
        )
        steps = [Step(time_ms, "waits", said, position)]
    elif question.form is Form.TABLE:
        row = rows[0]
        question.console.print(
            Text.assemble(
                (f"Order {row.order_id}", "bold"),
                f"  {row.participant} {row.side.lower()}s {group_indian(row.whole)} {row.symbol}",
                f"  {_shown_price(row)}  ",
                (row.state, _STATE_STYLES[row.state]),
            ),
            soft_wrap=True,
        )
    before = [None, *(step.time_ms for step in steps)]
    lines = [_Line(step, _after_ms(earlier, step.time_ms)) for earlier, step in zip(before, steps, strict=False)]
    question.answer(TRACE, lines)
    return ExitCode.OK


def _after_ms(earlier: int | None, time_ms: int | None) -> int | None:
    """How long after the step before; None where the record was on the log before that step."""
    if earlier is None or time_ms is None or time_ms < earlier:
        return None
    return time_ms - earlier
