"""`cancel` and `replace`: find an order on the log by its id or the end of it, and say what shall become of it.

Invariant: what is sent names one order in full; a text that could mean two is refused.
"""

import json
import time
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple, TextIO

from rich.console import Console

from stocktrade import tables
from stocktrade.domain.facts import Action, Status
from stocktrade.domain.messages import (
    CancelOffer,
    CancelOrder,
    CashMovement,
    DematTransfer,
    OrderEvent,
    ReplaceOffer,
    ReplaceOrder,
    Trade,
)
from stocktrade.domain.values import canonical_symbol, group_indian, paise_from_rupees, rupees_in_table
from stocktrade.errors import ExitCode, Unknown, UsageError
from stocktrade.roles.order_entry import MOMENT_S, Options, exchange_is_running
from stocktrade.roles.order_lookup import Found
from stocktrade.roles.typed import checked_id, checked_price, checked_quantity
from stocktrade.transport import topics
from stocktrade.transport.base import Log, NewRecord, Position, Reader, Record
from stocktrade.transport.codec import decode_message, encode_order, key_of_symbol
from stocktrade.transport.partitioner import partition_for

Amendment = CancelOrder | CancelOffer | ReplaceOrder | ReplaceOffer


def cancel_of(order: Found, *, amendment_id: str) -> CancelOrder | CancelOffer:
    """The message that takes an order out of the book."""
    who = order.participant
    if order.topic == topics.BUY_ORDERS:
        return CancelOrder(
            order_id=checked_id(amendment_id), buyer=who, stock_symbol=order.symbol, target_order_id=order.order_id
        )
    return CancelOffer(
        offer_id=checked_id(amendment_id), seller=who, stock_symbol=order.symbol, target_order_id=order.order_id
    )


class Change(NamedTuple):
    """What a replace gives an order; None leaves it as it is."""

    quantity: int | None
    price: Decimal | None


def change_from(quantity: str | None, price: str | None) -> Change:
    """The change that was typed.

    Raises:
        UsageError: it is none, or one of them is wrong.
    """
    if quantity is None and price is None:
        raise UsageError(
            "a replace needs --quantity, --price or both",
            cause="nothing would change",
            hint="for example --price 886; to take an order out, use `stocktrade cancel`",
        )
    return Change(
        None if quantity is None else checked_quantity(quantity),
        None if price is None else Decimal(checked_price(price)) / 100,
    )


def replace_of(order: Found, change: Change, *, amendment_id: str) -> ReplaceOrder | ReplaceOffer:
    """The message that gives an order another quantity or price."""
    who = order.participant
    if order.topic == topics.BUY_ORDERS:
        return ReplaceOrder(
            order_id=checked_id(amendment_id),
            buyer=who,
            stock_symbol=order.symbol,
            target_order_id=order.order_id,
            quantity=change.quantity,
            price_per_unit=change.price,
        )
    return ReplaceOffer(
        offer_id=checked_id(amendment_id),
        seller=who,
        stock_symbol=order.symbol,
        target_order_id=order.order_id,
        quantity=change.quantity,
        price_per_unit=change.price,
    )


@dataclass
class _Seen:
    """What came back: the answer, and the trades of a replace that met somebody, with their legs."""

    event: OrderEvent | None = None
    trades: dict[str, Trade] = field(default_factory=dict)
    moved: dict[str, int] = field(default_factory=dict)

    @property
    def filled(self) -> list[Trade]:
        """The trades that the answer speaks of."""
        return [trade for trade in self.trades.values() if self.event is not None and trade.seq == self.event.seq]

    def note(self, leg: DematTransfer | CashMovement, participant: str) -> None:
        """A leg has come."""
        if leg.trade_id is not None and leg.to_entity == participant:
            self.moved[leg.trade_id] = self.moved.get(leg.trade_id, 0) + 1

    @property
    def is_final(self) -> bool:
        """Whether the answer is here, and everything that it speaks of."""
        if self.event is None:
            return False
        done = sum(trade.quantity for trade in self.filled if self.moved.get(trade.trade_id, 0) >= 2)
        return done >= self.event.filled_quantity


def send(log: Log, amendment: Amendment, options: Options, *, console: Console, out: TextIO) -> ExitCode:
    """Send a cancel or a replace and say how it went.

    Returns:
        OK, NO when it was rejected, PENDING when `wait_s` was given and there was no answer by then.

    Raises:
        Unavailable: it is not on the log, or (`Unknown`) it may be.
    """
    if options.dry_run:
        out.write(encode_order(amendment).decode() + "\n")
        return ExitCode.OK
    buys = isinstance(amendment, CancelOrder | ReplaceOrder)
    topic = topics.BUY_ORDERS if buys else topics.SELL_OFFERS
    key = key_of_symbol(canonical_symbol(amendment.stock_symbol) or "")
    partition = partition_for(key, log.partitions())
    told = console.is_terminal and not options.quiet and not options.as_json
    wait_s = options.wait_s if options.wait_s is not None else MOMENT_S if told else 0.0
    with closing(log.reader(dict.fromkeys([(output, partition) for output in topics.OUTPUTS]))) as reader:
        try:
            (position,) = log.append([NewRecord(topic, key, encode_order(amendment), partition)])
        except Unknown as error:
            raise Unknown(
                error.what,
                cause=error.cause or "the log did not answer whether it has the message",
                hint=f"repeat it with --id {amendment_id_of(amendment)}: it will not be taken twice",
            ) from error
        if told:
            _tell_sent(amendment, position, console)
        seen = _follow(reader, amendment, position, wait_s)
    running = seen.event is not None or exchange_is_running(log, partition)
    if told:
        _tell(amendment, seen, console, running=running)
    else:
        out.write(_summary(amendment, position, seen, options, running=running))
    if seen.event is not None and Status.REJECTED in (seen.event.status, seen.event.first_status):
        return ExitCode.NO
    if options.wait_s is not None and not seen.is_final:
        return ExitCode.PENDING
    return ExitCode.OK


def amendment_id_of(amendment: Amendment) -> str:
    """The id of the message itself."""
    return amendment.order_id if isinstance(amendment, CancelOrder | ReplaceOrder) else amendment.offer_id


def _participant_of(amendment: Amendment) -> str:
    return amendment.buyer if isinstance(amendment, CancelOrder | ReplaceOrder) else amendment.seller


def _follow(reader: Reader, amendment: Amendment, position: Position, seconds: float) -> _Seen:
    seen = _Seen()
    deadline = time.monotonic() + seconds
    while not seen.is_final and (left := deadline - time.monotonic()) > 0:
        for record in reader.poll(min(left, 0.5)):
            _take(seen, amendment, position, record)
    return seen


def _take(seen: _Seen, amendment: Amendment, position: Position, record: Record) -> None:
    try:
        if record.topic == topics.ORDER_EVENTS:
            event = decode_message(OrderEvent, record.value)
            if event.source == str(position):
                seen.event = event
        elif record.topic == topics.TRADES:
            trade = decode_message(Trade, record.value)
            if amendment.target_order_id in (trade.buy_order_id, trade.sell_order_id):
                seen.trades[trade.trade_id] = trade
        elif record.topic == topics.DEMAT_TRANSFERS:
            seen.note(decode_message(DematTransfer, record.value), _participant_of(amendment))
        else:
            seen.note(decode_message(CashMovement, record.value), _participant_of(amendment))
    except ValueError:
        return  # a stranger's record


def _tell_sent(amendment: Amendment, position: Position, console: Console) -> None:
    what = ""
    if isinstance(amendment, ReplaceOrder | ReplaceOffer):
        quantity = "" if amendment.quantity is None else f" to {group_indian(amendment.quantity)}"
        price = amendment.price_per_unit
        at = "" if price is None else f" at {rupees_in_table(paise_from_rupees(price))}"
        what = f"{quantity}{at}"
    console.print(
        tables.amendment_sent(
            action=amendment.action,
            order_id=amendment.target_order_id,
            participant=_participant_of(amendment),
            symbol=amendment.stock_symbol,
            what=what,
            position=str(position),
        )
    )


def _tell(amendment: Amendment, seen: _Seen, console: Console, *, running: bool) -> None:
    event, symbol = seen.event, amendment.stock_symbol
    if event is None:
        console.print(tables.amendment_waiting(exchange_running=running))
        return
    if event.status is Status.REJECTED:
        console.print(tables.order_refused(reason=event.reason or "", detail=event.detail or ""))
        return
    if event.status is Status.DUPLICATE:
        first = (event.first_status or "", event.first_seq or 0)
        console.print(tables.order_repeated(first_status=first[0], first_seq=first[1], first_reason=event.first_reason))
        return
    for trade in seen.filled:
        console.print(
            tables.order_filled(
                side=event.side,
                symbol=symbol,
                quantity=trade.quantity,
                price=paise_from_rupees(trade.price_per_unit),
                trade=trade.trade_id,
            )
        )
    if seen.filled and seen.is_final:
        console.print(
            tables.order_settled(
                side=event.side,
                symbol=symbol,
                quantity=event.filled_quantity,
                amount=sum(trade.quantity * paise_from_rupees(trade.price_per_unit) for trade in seen.filled),
            )
        )
    if event.cancelled_quantity:
        console.print(tables.order_cancelled(symbol=symbol, quantity=event.cancelled_quantity))
    elif event.leaves_quantity:
        price = None if event.price_per_unit is None else paise_from_rupees(event.price_per_unit)
        console.print(tables.order_replaced(symbol=symbol, open_quantity=event.leaves_quantity, price=price))


def _state_of(seen: _Seen) -> str:
    if seen.event is None:
        return "sent"
    if seen.event.status is not Status.ACCEPTED:
        return seen.event.status.lower()
    return "cancelled" if seen.event.action is Action.CANCEL else "replaced"


def _summary(amendment: Amendment, position: Position, seen: _Seen, options: Options, *, running: bool) -> str:
    own_id, state, event = amendment_id_of(amendment), _state_of(seen), seen.event
    if options.quiet:
        return f"{own_id}\n"
    if not options.as_json:
        cells = (
            own_id,
            amendment.action,
            amendment.target_order_id,
            amendment.stock_symbol,
            _participant_of(amendment),
            state,
            str(position),
        )
        return tables.tsv(cells) + "\n"
    document = {
        "schema": "stocktrade.amendment/1",
        "order_id": own_id,
        "action": amendment.action,
        "target_order_id": amendment.target_order_id,
        "participant": _participant_of(amendment),
        "stock_symbol": amendment.stock_symbol,
        "position": str(position),
        "state": state,
        "seq": None if event is None else event.seq,
        "reason": None if event is None else event.reason,
        "detail": None if event is None else event.detail,
        "filled_quantity": 0 if event is None else event.filled_quantity,
        "leaves_quantity": 0 if event is None else event.leaves_quantity,
        "cancelled_quantity": 0 if event is None else event.cancelled_quantity,
        "exchange_running": running,
    }
    return json.dumps(document, ensure_ascii=False) + "\n"
