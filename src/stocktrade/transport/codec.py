"""Messages as bytes: decoding what participants send, encoding what the exchange says.

Invariant: decoding never raises and never guesses. Bytes become an `Instruction` (which may carry a refusal) when
an id, a participant and a symbol can be read from them, and a `Dead` otherwise. Encoding is a pure function of
the facts, byte for byte the same on every machine and Python version: the journal's digest covers it.
"""

import json
import re
import zlib
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from hashlib import sha1
from json.encoder import encode_basestring as _quote
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

from pydantic import ValidationError

from stocktrade.domain.facts import (
    PLAIN,
    Action,
    Cancellation,
    Fact,
    Instruction,
    Match,
    Outcome,
    Reason,
    SelfTradePrevention,
    Status,
    Terms,
    TimeInForce,
    fact,
)
from stocktrade.domain.messages import (
    BuyOrder,
    CancelOffer,
    CancelOrder,
    ReplaceOffer,
    ReplaceOrder,
    SellOffer,
    Sent,
    WireModel,
)
from stocktrade.domain.values import (
    CLEARING_HOUSE,
    MAX_QUANTITY,
    Paise,
    Side,
    canonical_symbol,
    decimal_rupees,
    group_indian,
    is_identifier,
    is_participant,
    paise_from_rupees,
    rupees_in_text,
    visible,
)
from stocktrade.transport import topics
from stocktrade.transport.base import NewRecord

MAX_MESSAGE_BYTES: Final = 16 * 1024
"""The largest input that is looked into. A larger one is a dead letter; the log's own limit is another matter."""

MAX_DEPTH: Final = 32
"""How deep JSON may nest. Fixed here, because the limit of Python's decoder differs between versions."""

LEG_NAMESPACE: Final = UUID("6f0c1e5a-3b0d-5d52-9c56-5d1d2a6a8850")
"""The namespace of the uuid5 of a leg; its name is `<trade id>:<SECURITIES|FUNDS>:<CREDIT|DEBIT>`."""


class Dead(NamedTuple):
    """Bytes that are no message: the reason goes to the dead letters with them."""

    reason: str
    detail: str


# Fixed sentences, not the validation library's: an outcome must not change with its version.
_DETAILS: Final = {
    Reason.NOT_SUPPORTED: "action is new, cancel or replace; time_in_force is DAY, IOC or FOK; "
    "self_trade_prevention is cancel-passive, cancel-active or off; valid_until is not supported yet",
    Reason.INVALID_TARGET: "target_order_id is the id of an order",
    Reason.INVALID_SYMBOL: "a symbol is 1 to 20 letters, digits, & or -",
    Reason.INVALID_QUANTITY: f"a quantity is a whole number from 1 to {group_indian(MAX_QUANTITY)}",
    Reason.INVALID_PRICE: "a price is a number of rupees above zero with at most two decimals",
}
_REASON_OF_FIELD: Final = {
    "target_order_id": Reason.INVALID_TARGET,
    "stock_symbol": Reason.INVALID_SYMBOL,
    "quantity": Reason.INVALID_QUANTITY,
    "price_per_unit": Reason.INVALID_PRICE,
}
_PRECEDENCE: Final = {reason: place for place, reason in enumerate(Reason)}


class _DuplicateKey(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        # The last of two keys would win: one message could name two buyers.
        raise _DuplicateKey
    return fields


def _decimal(lexeme: str) -> Decimal:
    try:
        return Decimal(lexeme)
    except InvalidOperation:  # an exponent beyond what a Decimal holds
        return Decimal("Infinity")


def _integer(lexeme: str) -> int | Decimal:
    # Longer than any quantity; int() of thousands of digits is slow, and refused by Python itself.
    return int(lexeme) if len(lexeme) <= 20 else Decimal(lexeme)


_decode_first = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_decimal, parse_int=_integer, parse_constant=Decimal
).raw_decode

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")


def _depth(value: bytes) -> int:
    depth = deepest = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", value)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def decode_json(value: bytes) -> Any:
    """JSON read strictly: UTF-8, no duplicate keys, bounded depth, numbers exact (int or Decimal).

    Raises:
        ValueError: with the reason as its first argument and a detail as its second.
    """
    # Counting opening brackets bounds the depth from above and costs nothing for an ordinary order.
    if value.count(b"{") + value.count(b"[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise ValueError("TOO_DEEP", f"JSON nested deeper than {MAX_DEPTH}")
    try:
        text = value.decode().strip(" \t\n\r")
        found, end = _decode_first(text)
        if end == len(text):
            return found
    except UnicodeDecodeError as error:
        raise ValueError("NOT_UTF8", "not UTF-8") from error
    except _DuplicateKey as error:
        raise ValueError("DUPLICATE_KEY", "a key stands twice in one object") from error
    except (ValueError, RecursionError) as error:
        raise ValueError("NOT_JSON", "not JSON") from error
    raise ValueError("NOT_JSON", "not JSON")


class _Channel(NamedTuple):
    """What an input topic holds: the side, the names of two fields, and the message of each action."""

    side: Side
    id_field: str
    participant_field: str
    new: type[BuyOrder | SellOffer]
    cancel: type[CancelOrder | CancelOffer]
    replace: type[ReplaceOrder | ReplaceOffer]


# A message with none of these is the seed's, by far the most frequent; only such a one is understood without a model.
_BEYOND_THE_SEED: Final = BuyOrder.model_fields.keys() - {
    "order_id", "buyer", "stock_symbol", "quantity", "price_per_unit",
}  # fmt: skip

_ORDERS: Final = _Channel("BUY", "order_id", "buyer", BuyOrder, CancelOrder, ReplaceOrder)
_OFFERS: Final = _Channel("SELL", "offer_id", "seller", SellOffer, CancelOffer, ReplaceOffer)


def decode_input(topic: str, value: bytes | None) -> Instruction | Dead:
    """The instruction in a record of an input topic."""
    if not value:
        return Dead("EMPTY", "no value")
    if len(value) > MAX_MESSAGE_BYTES:
        return Dead("TOO_LARGE", f"{len(value)} bytes, the limit is {MAX_MESSAGE_BYTES}")
    try:
        fields = decode_json(value)
    except ValueError as error:
        reason, detail = error.args
        return Dead(reason, detail)
    if not isinstance(fields, dict):
        return Dead("NOT_AN_OBJECT", "not a JSON object")
    channel = _ORDERS if topic == topics.BUY_ORDERS else _OFFERS
    side, id_field, participant_field = channel[:3]
    order_id, participant = fields.get(id_field), fields.get(participant_field)
    symbol_as_sent = fields.get("stock_symbol")
    if not (isinstance(order_id, str) and is_identifier(order_id)):
        return Dead("INVALID_ID", f"{id_field} is missing or no id")
    if not (isinstance(participant, str) and is_participant(participant)):
        return Dead("INVALID_PARTICIPANT", f"{participant_field} is missing or no participant")
    if not isinstance(symbol_as_sent, str):
        return Dead("NO_SYMBOL", "stock_symbol is missing or no text")
    symbol = canonical_symbol(symbol_as_sent)
    if symbol is not None and fields.keys().isdisjoint(_BEYOND_THE_SEED):
        plain = _quantity_and_price(fields)
        if plain is not None:
            quantity, price = plain
            return fact(
                Instruction,
                (
                    side, order_id, participant, symbol, symbol_as_sent, quantity, price,
                    zlib.crc32(f"{side}|{symbol}|{quantity}|{price}".encode()), None, "", None,
                ),
            )  # fmt: skip
    return _decode_whole(channel, value, fields, order_id, participant, symbol)


def _quantity_and_price(fields: dict[str, Any]) -> tuple[int, Paise | None] | None:
    """What the seed's two fields say of a new order, as its model would; None if they say nothing that may be sent."""
    quantity, rupees = fields.get("quantity"), fields.get("price_per_unit")
    # Not isinstance: True is an int.
    if type(quantity) is not int or not 0 < quantity <= MAX_QUANTITY:
        return None
    if rupees is None:
        return quantity, None
    if type(rupees) is not int and type(rupees) is not Decimal:
        return None
    try:
        return quantity, paise_from_rupees(rupees)
    except ValueError:
        return None


def _decode_whole(
    channel: _Channel, value: bytes, fields: dict[str, Any], order_id: str, participant: str, symbol: str | None
) -> Instruction:
    """What is more than the seed's order, or wrong: by the model of its message."""
    side, symbol_as_sent = channel.side, fields["stock_symbol"]
    model: type[Sent] = channel.new
    contradiction = ""
    if "action" in fields or "target_order_id" in fields:
        contradiction = _contradiction(fields)
        action = fields.get("action")
        model = channel.cancel if action == "cancel" else channel.replace if action == "replace" else channel.new
    order: Sent | None = None
    reasons = {Reason.CONTRADICTION} if contradiction else set()
    try:
        order = model.model_validate(fields)
    except ValidationError as error:
        places = (str(wrong["loc"][0]) for wrong in error.errors(include_url=False))
        reasons |= {_REASON_OF_FIELD.get(place, Reason.NOT_SUPPORTED) for place in places}
    if order is None or reasons:
        reason = min(reasons, key=_PRECEDENCE.__getitem__)
        return Instruction(
            side,
            order_id,
            participant,
            symbol or "",
            visible(symbol_as_sent, 64),
            0,
            None,
            zlib.crc32(value),
            reason,
            contradiction if reason is Reason.CONTRADICTION else _DETAILS[reason],
            _terms_of_refused(fields),
        )
    assert symbol is not None
    quantity, price, terms = _content(order)
    content = f"{side}|{symbol}|{quantity}|{price}"
    if terms is not None:
        content += f"|{'|'.join(terms)}"
    fingerprint = zlib.crc32(content.encode())
    return Instruction(
        side, order_id, participant, symbol, symbol_as_sent, quantity, price, fingerprint, None, "", terms
    )


def _content(order: Sent) -> tuple[int, Paise | None, Terms | None]:
    """Quantity (0 when none is named), price and terms (None when they are PLAIN) of a message."""
    if isinstance(order, CancelOrder | CancelOffer):
        return 0, None, PLAIN._replace(action=Action.CANCEL, target=order.target_order_id)
    price = None if order.price_per_unit is None else paise_from_rupees(order.price_per_unit)
    prevention = order.self_trade_prevention or SelfTradePrevention.OFF
    if isinstance(order, ReplaceOrder | ReplaceOffer):
        terms = Terms(Action.REPLACE, TimeInForce.DAY, prevention, order.target_order_id)
        return order.quantity or 0, price, terms
    terms = Terms(Action.NEW, order.time_in_force or TimeInForce.DAY, prevention)
    return order.quantity, price, None if terms == PLAIN else terms


def _contradiction(fields: dict[str, Any]) -> str:
    """What in a message does not go together, if anything: told from which fields it has, not from their types.

    A field that states its default is as good as absent.
    """
    action = fields.get("action")
    has_target = fields.get("target_order_id") is not None
    if action not in ("cancel", "replace"):
        return "a target_order_id belongs to a cancel or a replace" if has_target else ""
    if not has_target:
        return f"a {action} names its target_order_id"
    if fields.get("time_in_force") not in (None, "DAY"):
        return f"a {action} has no time_in_force: the order waits in the book"
    quantity, price = fields.get("quantity"), fields.get("price_per_unit")
    if action == "replace":
        return "a replace has a quantity, a price_per_unit or both" if quantity is None and price is None else ""
    if quantity is not None or price is not None:
        return "a cancel has neither quantity nor price_per_unit"
    return "" if fields.get("self_trade_prevention") in (None, "off") else "a cancel prevents no self-trade"


def _terms_of_refused(fields: dict[str, Any]) -> Terms | None:
    """What the answer to a refused cancel or replace repeats: that it was one, and of what."""
    action, target = fields.get("action"), fields.get("target_order_id")
    if action not in ("cancel", "replace"):
        return None
    named = target if isinstance(target, str) and is_identifier(target) else ""
    return PLAIN._replace(action=Action(action), target=named)


_Model = TypeVar("_Model", bound=WireModel)


def decode_message(model: type[_Model], value: bytes | None) -> _Model:
    """A message of the exchange's own topics.

    Raises:
        ValueError: the bytes are no such message.
    """
    if value is None:
        raise ValueError("NO_VALUE", "no value")
    return model.model_validate(decode_json(value))


def encode_order(order: Sent) -> bytes:
    """A message as its participant puts it on an input topic: the fields that are set."""
    return order.model_dump_json(exclude_none=True).encode()


def key_of_symbol(symbol: str) -> bytes:
    """The record key of everything that belongs to a canonical symbol: it decides the shard."""
    return symbol.encode()


def trade_id(shard: int, seq: int, number: int) -> str:
    """The id of a trade: a function of its place in history, so that writing it again is no second trade."""
    return f"T{shard}-{seq}-{number}"


_LEG_NAMESPACE_BYTES: Final = LEG_NAMESPACE.bytes
_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def leg_id(trade: str, kind: str, direction: str) -> str:
    """The uuid5 of a leg of a trade, as `uuid.uuid5` makes it but in a third of the time."""
    h = sha1(_LEG_NAMESPACE_BYTES + f"{trade}:{kind}:{direction}".encode(), usedforsecurity=False).hexdigest()
    return f"{h[:8]}-{h[8:12]}-5{h[13:16]}-{_VARIANT[h[16]]}{h[17:20]}-{h[20:32]}"


def _encode_terms(terms: Terms) -> str:
    """What an instruction said beyond the seed's fields."""
    action, time_in_force, prevention, target = terms
    text = "" if action is Action.NEW else f',"action":"{action}"'
    if target:
        text += f',"target_order_id":"{target}"'
    if time_in_force is not TimeInForce.DAY:
        text += f',"time_in_force":"{time_in_force}"'
    if prevention is not SelfTradePrevention.OFF:
        text += f',"self_trade_prevention":"{prevention}"'
    return text


def _encode_outcome(said: Outcome, shard: int, source: str) -> str:
    (
        seq, side, order_id, participant, symbol_as_sent, status, reason, detail, quantity, price, filled, leaves,
        first_seq, first_status, first_reason, cancelled, terms,
    ) = said  # fmt: skip
    text = (
        f'{{"order_id":"{order_id}","participant":"{participant}","side":"{side}",'
        f'"stock_symbol":{_quote(symbol_as_sent)}'
    )
    if terms is not None:
        text += _encode_terms(terms)
    text += f',"status":"{status}"'
    if reason is not None:
        text += f',"reason":"{reason}","detail":{_quote(detail)}'
    if quantity > 0:
        text += f',"quantity":{quantity}'
    if price is not None:
        text += f',"price_per_unit":{decimal_rupees(price)}'
    text += f',"filled_quantity":{filled},"leaves_quantity":{leaves}'
    if cancelled:
        text += f',"cancelled_quantity":{cancelled}'
    if first_status is not None:
        text += f',"first_seq":{first_seq},"first_status":"{first_status}"'
        if first_reason is not None:
            text += f',"first_reason":"{first_reason}"'
    return f'{text},"shard":{shard},"seq":{seq},"source":"{source}"}}'


def _encode_cancellation(said: Cancellation, shard: int, cause: str) -> str:
    price = "" if said.price is None else f',"price_per_unit":{decimal_rupees(said.price)}'
    return (
        f'{{"order_id":"{said.order_id}","participant":"{said.participant}","side":"{said.side}",'
        f'"stock_symbol":{_quote(said.symbol_as_sent)},"status":"{Status.CANCELLED}"{price},'
        f'"cancelled_quantity":{said.quantity},"shard":{shard},"seq":{said.seq},'
        f'"cancelled_by":"self-trade-prevention","cause":"{cause}"}}'
    )


def _encode_match(said: Match, shard: int, time_ms: int) -> list[NewRecord]:
    """A trade and its four legs: the buyer's shares and money, then the seller's."""
    seq, number, symbol, shares, at, maker, buy_id, buyer, buy_symbol, sell_id, seller, sell_symbol = said
    trade = trade_id(shard, seq, number)
    price, amount = decimal_rupees(at), decimal_rupees(at * shares)
    about = f"stocks @ {rupees_in_text(at)}"
    buyer_key, seller_key = buyer.encode(), seller.encode()
    text = (
        f'{{"trade_id":"{trade}","stock_symbol":"{symbol}","quantity":{shares},"price_per_unit":{price},'
        f'"amount":{amount},"buyer":"{buyer}","buy_order_id":"{buy_id}","seller":"{seller}",'
        f'"sell_order_id":"{sell_id}","maker":"{maker}","shard":{shard},"seq":{seq}}}'
    )
    bought = (
        f'{{"transfer_id":"{leg_id(trade, "SECURITIES", "CREDIT")}","from_entity":"{CLEARING_HOUSE}",'
        f'"to_entity":"{buyer}","stock_symbol":"{buy_symbol}","quantity":{shares},"order_id":"{buy_id}",'
        f'"direction":"CREDIT","trade_id":"{trade}","seq":{seq}}}'
    )
    paid = (
        f'{{"movement_id":"{leg_id(trade, "FUNDS", "DEBIT")}","from_entity":"{CLEARING_HOUSE}",'
        f'"to_entity":"{buyer}","amount":{amount},"order_id":"{buy_id}",'
        f'"description":"Payment for {shares} {buy_symbol} {about}",'
        f'"direction":"DEBIT","trade_id":"{trade}","seq":{seq}}}'
    )
    sold = (
        f'{{"transfer_id":"{leg_id(trade, "SECURITIES", "DEBIT")}","from_entity":"{CLEARING_HOUSE}",'
        f'"to_entity":"{seller}","stock_symbol":"{sell_symbol}","quantity":{shares},"order_id":"{sell_id}",'
        f'"direction":"DEBIT","trade_id":"{trade}","seq":{seq}}}'
    )
    received = (
        f'{{"movement_id":"{leg_id(trade, "FUNDS", "CREDIT")}","from_entity":"{CLEARING_HOUSE}",'
        f'"to_entity":"{seller}","amount":{amount},"order_id":"{sell_id}",'
        f'"description":"Proceeds of {shares} {sell_symbol} {about}",'
        f'"direction":"CREDIT","trade_id":"{trade}","seq":{seq}}}'
    )
    return [
        fact(NewRecord, (topics.TRADES, symbol.encode(), text.encode(), shard, time_ms, ())),
        fact(NewRecord, (topics.DEMAT_TRANSFERS, buyer_key, bought.encode(), shard, time_ms, ())),
        fact(NewRecord, (topics.CASH_MOVEMENTS, buyer_key, paid.encode(), shard, time_ms, ())),
        fact(NewRecord, (topics.DEMAT_TRANSFERS, seller_key, sold.encode(), shard, time_ms, ())),
        fact(NewRecord, (topics.CASH_MOVEMENTS, seller_key, received.encode(), shard, time_ms, ())),
    ]


def _event(participant: str, text: str, shard: int, time_ms: int) -> NewRecord:
    return fact(NewRecord, (topics.ORDER_EVENTS, participant.encode(), text.encode(), shard, time_ms, ()))


def encode_facts(facts: Iterable[Fact], shard: int, source: str, time_ms: int) -> list[NewRecord]:
    """The output records of one input: `source` is its position, `time_ms` its time on the log.

    A match is written with its four legs.
    """
    records: list[NewRecord] = []
    for said in facts:
        if isinstance(said, Match):
            records += _encode_match(said, shard, time_ms)
        elif isinstance(said, Outcome):
            text = _encode_outcome(said, shard, source)
            records.append(_event(said.participant, text, shard, time_ms))
        elif isinstance(said, Cancellation):
            text = _encode_cancellation(said, shard, source)
            records.append(_event(said.participant, text, shard, time_ms))
    return records
