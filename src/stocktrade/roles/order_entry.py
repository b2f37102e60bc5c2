"""A participant's side of an order: put it on the log, and follow it until it is settled or cancelled.

Shared by `buy` and `sell`. Invariant: the order id is known before the order is sent, so that whatever happens to
the answer, sending the same id again is safe.
"""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final, TextIO

from rich.console import Console

from stocktrade import tables
from stocktrade.domain.facts import Action, Status
from stocktrade.domain.messages import (
    BuyOrder,
    CashMovement,
    DematTransfer,
    OrderEvent,
    SellOffer,
    Trade,
    WireModel,
)
from stocktrade.domain.values import Side, canonical_symbol, decimal_rupees, paise_from_rupees
from stocktrade.errors import ExitCode, Unknown
from stocktrade.transport import topics
from stocktrade.transport.base import Log, NewRecord, Position, Reader
from stocktrade.transport.codec import decode_message, encode_order, key_of_symbol
from stocktrade.transport.partitioner import partition_for

_MODELS: Final[dict[str, type[WireModel]]] = {
    topics.ORDER_EVENTS: OrderEvent,
    topics.TRADES: Trade,
    topics.DEMAT_TRANSFERS: DematTransfer,
    topics.CASH_MOVEMENTS: CashMovement,
}


@dataclass
class Progress:
    """How far an order has come. Money in paise.

    `event` is the answer to it; `changes` are what was done to it later, and by its own self-trade prevention.
    """

    position: Position
    event: OrderEvent | None = None
    changes: dict[int, OrderEvent] = field(default_factory=dict)
    trades: dict[str, Trade] = field(default_factory=dict)
    shares_moved: set[str] = field(default_factory=set)
    funds_moved: set[str] = field(default_factory=set)

    @property
    def filled(self) -> int:
        """Shares traded so far."""
        return sum(trade.quantity for trade in self.trades.values())

    @property
    def amount(self) -> int:
        """What these shares cost, in paise."""
        return sum(trade.quantity * paise_from_rupees(trade.price_per_unit) for trade in self.trades.values())

    @property
    def settled(self) -> bool:
        """Whether both legs of every trade so far have arrived, and there is at least one."""
        return bool(self.trades) and self.shares_moved >= self.trades.keys() <= self.funds_moved

    def to_fill(self, quantity: int) -> int:
        """How many of an order's `quantity` shares were traded or still can be: all but the cancelled ones."""
        total = quantity - (0 if self.event is None else self.event.cancelled_quantity)
        for seq, change in sorted(self.changes.items()):
            if change.action is Action.REPLACE:
                # What is open from then on, whatever was filled before.
                before = sum(trade.quantity for trade in self.trades.values() if trade.seq < seq)
                total = before + (change.quantity or 0)
            else:
                total -= change.cancelled_quantity
        return total

    def is_final(self, quantity: int) -> bool:
        """Whether nothing more will happen to an order of `quantity` shares."""
        if self.event is None:
            return False
        if self.event.status is not Status.ACCEPTED:
            return True
        return self.filled == self.to_fill(quantity) and (self.settled or not self.trades)


def order_id_of(order: BuyOrder | SellOffer) -> str:
    """The id of an order, whichever side it is on."""
    return order.order_id if isinstance(order, BuyOrder) else order.offer_id


def participant_of(order: BuyOrder | SellOffer) -> str:
    """Who sends an order, whichever side it is on."""
    return order.buyer if isinstance(order, BuyOrder) else order.seller


def destination(order: BuyOrder | SellOffer, partitions: int) -> tuple[str, bytes, int]:
    """Topic, key and partition of an order."""
    key = key_of_symbol(canonical_symbol(order.stock_symbol) or "")
    topic = topics.BUY_ORDERS if isinstance(order, BuyOrder) else topics.SELL_OFFERS
    return topic, key, partition_for(key, partitions)


class Placed:
    """An order that is on the log. Make it with `place`; `follow` yields its progress."""

    def __init__(self, order: BuyOrder | SellOffer, position: Position, reader: Reader) -> None:
        self.order = order
        self.progress = Progress(position)
        self._reader = reader

    def follow(self, seconds: float) -> Iterator[Progress]:
        """The progress each time something happened to the order, until it is final or the time is over."""
        left = seconds
        deadline = time.monotonic() + seconds
        while not self.progress.is_final(self.order.quantity):
            records = self._reader.poll(min(max(left, 0.0), 0.5))
            changes = [self._take(record.topic, record.value) for record in records]
            if any(changes):
                yield self.progress
            left = deadline - time.monotonic()
            if left <= 0 and not records:
                return

    def _take(self, topic: str, value: bytes | None) -> bool:
        try:
            message = decode_message(_MODELS[topic], value)
        except ValueError:
            return False  # a stranger's record; it is nothing about this order
        mine, me, progress = order_id_of(self.order), participant_of(self.order), self.progress
        if isinstance(message, OrderEvent):
            if message.source == str(progress.position):
                progress.event = message
                return True
            changed = message.order_id if message.status is Status.CANCELLED else message.target_order_id
            accepted = message.status in (Status.ACCEPTED, Status.CANCELLED)
            if accepted and (changed, message.participant) == (mine, me):
                progress.changes[message.seq] = message
                return True
        elif isinstance(message, Trade):
            if (mine, me) in ((message.buy_order_id, message.buyer), (message.sell_order_id, message.seller)):
                progress.trades[message.trade_id] = message
                return True
        elif (
            isinstance(message, DematTransfer | CashMovement)
            and (message.order_id, message.to_entity) == (mine, me)
            and message.trade_id is not None
        ):
            moved = progress.shares_moved if isinstance(message, DematTransfer) else progress.funds_moved
            moved.add(message.trade_id)
            return True
        return False

    def close(self) -> None:
        """Stop following."""
        self._reader.close()


def place(log: Log, order: BuyOrder | SellOffer) -> Placed:
    """Put an order on the log.

    Raises:
        Unavailable: it is not on the log. `Unknown`: it may be; sending the same id again is safe.
    """
    topic, key, partition = destination(order, log.partitions())
    # The reader begins before the order is sent, or a fast exchange would have answered unseen.
    reader = log.reader(dict.fromkeys([(output, partition) for output in topics.OUTPUTS]))
    try:
        (position,) = log.append([NewRecord(topic, key, encode_order(order), partition)])
    except BaseException:
        reader.close()
        raise
    return Placed(order, position, reader)


def exchange_is_running(log: Log, partition: int) -> bool:
    """Whether somebody owns the shard, so that an order on it can be expected to be taken soon."""
    return log.owners().get(partition) is not None


@dataclass(frozen=True)
class Options:
    """How an order is sent: `wait_s` None waits a moment on a terminal and not at all elsewhere."""

    wait_s: float | None = None
    dry_run: bool = False
    quiet: bool = False
    as_json: bool = False


MOMENT_S: Final = 2.0
"""How long a terminal waits by itself."""

NO_EXCHANGE_AFTER_S: Final = 0.5


def send(log: Log, order: BuyOrder | SellOffer, options: Options, *, console: Console, out: TextIO) -> ExitCode:
    """Send an order and say how it went.

    Returns:
        OK, NO when it was rejected or ended without a trade, PENDING when `wait_s` was given and it was not final by
        then.

    Raises:
        Unavailable: it is not on the log, or (`Unknown`) it may be.
    """
    partition = destination(order, log.partitions())[2]
    if options.dry_run:
        out.write(encode_order(order).decode() + "\n")
        return ExitCode.OK
    log.ensure_topics(topics.SPECS)
    try:
        placed = place(log, order)
    except Unknown as error:
        raise Unknown(
            error.what,
            cause=error.cause or "the log did not answer whether it has the order",
            hint=f"repeat it with --id {order_id_of(order)}: it will not be taken twice",
        ) from error
    wait_s = options.wait_s
    with closing(placed):
        say: _Say = _Say() if options.quiet or options.as_json or not console.is_terminal else _Told(console)
        if wait_s is None:
            wait_s = MOMENT_S if isinstance(say, _Told) else 0.0
        say.accepted(placed)
        began = time.monotonic()
        running = True
        for progress in placed.follow(min(wait_s, NO_EXCHANGE_AFTER_S)):
            say.progress(placed, progress)
        if placed.progress.event is None:
            running = exchange_is_running(log, partition)
            if not running and wait_s:
                say.waiting(placed, exchange_running=False)
        # Without an exchange only --wait is worth waiting for: somebody may be about to start one.
        if running or options.wait_s is not None:
            for progress in placed.follow(wait_s - (time.monotonic() - began)):
                say.progress(placed, progress)
        progress = placed.progress
        if running and not progress.is_final(order.quantity):
            say.waiting(placed, exchange_running=True)
        if not isinstance(say, _Told):
            out.write(_summary(placed, options, running=running))
        if progress.event is not None and Status.REJECTED in (progress.event.status, progress.event.first_status):
            return ExitCode.NO
        if state_of(placed) == "cancelled":
            return ExitCode.NO
        if options.wait_s is not None and not progress.is_final(order.quantity):
            return ExitCode.PENDING
    return ExitCode.OK


class _Say:
    """What is said while an order is followed; by itself nothing."""

    def accepted(self, placed: Placed) -> None:
        """The log has the order."""

    def progress(self, placed: Placed, progress: Progress) -> None:
        """Something happened to it."""

    def waiting(self, placed: Placed, *, exchange_running: bool) -> None:
        """Nothing more happens for now."""


class _Told(_Say):
    """For people: a line for each step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._told: set[str] = set()

    def accepted(self, placed: Placed) -> None:
        order = placed.order
        price = None if order.price_per_unit is None else paise_from_rupees(order.price_per_unit)
        self._console.print(
            tables.order_accepted(
                side=side_of(order),
                participant=participant_of(order),
                symbol=order.stock_symbol,
                quantity=order.quantity,
                price=price,
                position=str(placed.progress.position),
            )
        )

    def progress(self, placed: Placed, progress: Progress) -> None:
        order, event = placed.order, progress.event
        if event is not None and "event" not in self._told:
            self._told.add("event")
            if event.status is Status.REJECTED:
                self._console.print(tables.order_refused(reason=event.reason or "", detail=event.detail or ""))
            elif event.status is Status.DUPLICATE:
                self._console.print(
                    tables.order_repeated(
                        first_status=event.first_status or "",
                        first_seq=event.first_seq or 0,
                        first_reason=event.first_reason,
                    )
                )
        filled = 0
        for trade in progress.trades.values():
            filled += trade.quantity
            if trade.trade_id not in self._told:
                self._told.add(trade.trade_id)
                self._console.print(
                    tables.order_filled(
                        side=side_of(order),
                        symbol=order.stock_symbol,
                        quantity=trade.quantity,
                        price=paise_from_rupees(trade.price_per_unit),
                        trade=trade.trade_id,
                        leaves=max(0, progress.to_fill(order.quantity) - filled),
                    )
                )
        self._cancelled(order, progress)
        settled = f"settled {progress.filled}"
        if progress.settled and settled not in self._told:
            self._told.add(settled)
            self._console.print(
                tables.order_settled(
                    side=side_of(order),
                    symbol=order.stock_symbol,
                    quantity=progress.filled,
                    amount=progress.amount,
                    ms=round((time.monotonic() - self._began) * 1000),
                )
            )

    def _cancelled(self, order: BuyOrder | SellOffer, progress: Progress) -> None:
        said = [] if progress.event is None else [progress.event]
        for event in (*said, *progress.changes.values()):
            key = f"cancelled {event.seq} {event.status}"
            if event.cancelled_quantity and key not in self._told:
                self._told.add(key)
                why = "your own order would have met it" if event.cancelled_by else ""
                self._console.print(
                    tables.order_cancelled(symbol=order.stock_symbol, quantity=event.cancelled_quantity, why=why)
                )

    def waiting(self, placed: Placed, *, exchange_running: bool) -> None:
        leaves = placed.progress.to_fill(placed.order.quantity) - placed.progress.filled
        self._console.print(
            tables.order_waiting(symbol=placed.order.stock_symbol, leaves=leaves, exchange_running=exchange_running)
        )


def side_of(order: BuyOrder | SellOffer) -> Side:
    """Which side an order is on."""
    return "BUY" if isinstance(order, BuyOrder) else "SELL"


def state_of(placed: Placed) -> str:
    """Where an order stands, in one word: sent, open, filled, settled, cancelled, rejected or duplicate.

    Cancelled is what ended without a trade; what traded in part and was cancelled then is filled, and settled.
    """
    progress = placed.progress
    if progress.event is None and not progress.trades:
        return "sent"
    if progress.event is not None and progress.event.status is not Status.ACCEPTED:
        return progress.event.status.lower()
    if progress.filled < progress.to_fill(placed.order.quantity):
        return "open"
    if not progress.trades:
        return "cancelled"
    return "settled" if progress.settled else "filled"


def _summary(placed: Placed, options: Options, *, running: bool) -> str:
    order, progress = placed.order, placed.progress
    order_id, state = order_id_of(order), state_of(placed)
    if options.quiet:
        return f"{order_id}\n"
    price = None if order.price_per_unit is None else paise_from_rupees(order.price_per_unit)
    if not options.as_json:
        cells = (
            order_id,
            side_of(order),
            order.stock_symbol,
            str(order.quantity),
            "" if price is None else decimal_rupees(price),
            participant_of(order),
            state,
            str(progress.filled),
            str(progress.position),
        )
        return tables.tsv(cells) + "\n"
    event = progress.event
    document = {
        "schema": "stocktrade.order/1",
        "order_id": order_id,
        "side": side_of(order),
        "participant": participant_of(order),
        "stock_symbol": order.stock_symbol,
        "quantity": order.quantity,
        "price_paise": price,
        "position": str(progress.position),
        "state": state,
        "seq": None if event is None else event.seq,
        "reason": None if event is None else event.reason,
        "detail": None if event is None else event.detail,
        "first_status": None if event is None else event.first_status,
        "time_in_force": order.time_in_force or "DAY",
        "filled_quantity": progress.filled,
        "cancelled_quantity": order.quantity - progress.to_fill(order.quantity),
        "amount_paise": progress.amount,
        "settled": progress.settled,
        "exchange_running": running,
        "trades": [
            {
                "trade_id": trade.trade_id,
                "quantity": trade.quantity,
                "price_paise": paise_from_rupees(trade.price_per_unit),
            }
            for trade in progress.trades.values()
        ],
    }
    return json.dumps(document, ensure_ascii=False) + "\n"
