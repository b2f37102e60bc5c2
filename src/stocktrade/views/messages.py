"""Records of the exchange's own topics as the views take them in: quickly, and nothing that is not possible.

Invariant: what passes is made of ids, names and numbers within the exchange's limits, so it fits every table; a
stranger's record is None.
"""

import json
from typing import Any, Final, NamedTuple

from stocktrade.domain.facts import Action, Status
from stocktrade.domain.values import MAX_PRICE, MAX_QUANTITY, canonical_symbol, is_identifier, is_participant
from stocktrade.transport.base import Record
from stocktrade.transport.codec import trade_id

_MOST: Final = 2**62
_STATUSES: Final = frozenset(Status)


class Traded(NamedTuple):
    """A trade."""

    shard: int
    seq: int
    number: int
    offset: int
    time_ms: int
    symbol: str
    quantity: int
    price: int
    buyer: str
    buy_order: str
    seller: str
    sell_order: str
    maker: str

    @property
    def trade_id(self) -> str:
        """The id of the trade."""
        return trade_id(self.shard, self.seq, self.number)

    @property
    def amount(self) -> int:
        """Paise."""
        return self.quantity * self.price


def traded(record: Record) -> Traded | None:
    """The trade in a record of `trades`."""
    fields = _fields(record)
    if fields is None:
        return None
    name, symbol, maker = fields.get("trade_id"), fields.get("stock_symbol"), fields.get("maker")
    quantity, price, seq = fields.get("quantity"), _paise(fields.get("price_per_unit")), fields.get("seq")
    who = [fields.get(part) for part in ("buyer", "buy_order_id", "seller", "sell_order_id")]
    if not (isinstance(name, str) and isinstance(symbol, str) and canonical_symbol(symbol) == symbol):
        return None
    if not (type(quantity) is int and 0 < quantity <= MAX_QUANTITY and 0 < price <= MAX_PRICE):
        return None
    buyer, buy_order, seller, sell_order = who
    if not (_is_name(buyer) and _is_name(seller) and _is_id(buy_order) and _is_id(sell_order)):
        return None
    number = name.rpartition("-")[2]
    if type(seq) is not int or not 0 < seq < _MOST or not number.isdecimal() or len(number) > 9 or not number.isascii():
        return None
    trade = Traded(
        record.partition, seq, int(number), record.offset, record.time_ms, symbol, quantity, price,
        str(buyer), str(buy_order), str(seller), str(sell_order), "BUY" if maker == "BUY" else "SELL",
    )  # fmt: skip
    return trade if trade.trade_id == name else None


def seq_of_trade(record: Record) -> int | None:
    """The exchange sequence of the trade in a record of `trades`."""
    trade = traded(record)
    return None if trade is None else trade.seq


class Told(NamedTuple):
    """An order event. `price` is in paise; `target` and `cancelled_by` are "" where there is none."""

    shard: int
    seq: int
    offset: int
    time_ms: int
    order_id: str
    participant: str
    side: str
    symbol: str
    sent: str
    status: str
    reason: str
    detail: str
    action: str
    target: str
    time_in_force: str
    quantity: int
    price: int | None
    leaves: int
    cancelled: int
    source: str
    cancelled_by: str


def told(record: Record) -> Told | None:
    """The event in a record of `order-events`."""
    fields = _fields(record)
    if fields is None:
        return None
    order_id, participant, seq = fields.get("order_id"), fields.get("participant"), fields.get("seq")
    status, side = fields.get("status"), fields.get("side")
    if not (_is_id(order_id) and _is_name(participant) and type(seq) is int and 0 < seq < _MOST):
        return None
    if status not in _STATUSES or side not in ("BUY", "SELL"):
        return None
    price = fields.get("price_per_unit")
    numbers = [fields.get(name, 0) for name in ("quantity", "leaves_quantity", "cancelled_quantity")]
    if not all(type(number) is int and 0 <= number <= MAX_QUANTITY for number in numbers):
        return None
    quantity, leaves, cancelled = numbers
    sent = _text(fields.get("stock_symbol"))
    return Told(
        record.partition, seq, record.offset, record.time_ms, str(order_id), str(participant), str(side),
        canonical_symbol(sent) or sent, sent, str(status), _text(fields.get("reason")), _text(fields.get("detail")),
        _text(fields.get("action")) or Action.NEW, _text(fields.get("target_order_id")),
        _text(fields.get("time_in_force")), quantity, None if price is None else _paise(price), leaves, cancelled,
        _text(fields.get("source")) or _text(fields.get("cause")), _text(fields.get("cancelled_by")),
    )  # fmt: skip


def _fields(record: Record) -> dict[str, Any] | None:
    try:
        fields = json.loads(record.value or b"")
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _paise(rupees: Any) -> int:
    """Paise of a JSON number of rupees, 0 for anything else. Up to MAX_PRICE a float tells every paisa."""
    if type(rupees) not in (int, float) or not 0 < rupees * 100 <= MAX_PRICE:
        return 0
    return round(float(rupees) * 100)


def _text(value: Any) -> str:
    """A text with nothing in it that a database refuses, or ""."""
    return value.encode(errors="replace").decode()[:200] if isinstance(value, str) else ""


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and is_identifier(value)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and is_participant(value)
