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

from stocktrade.domain.facts import Fact, Instruction, Leg, Match, Outcome, Reason, fact
from stocktrade.domain.messages import BuyOrder, SellOffer, WireModel
from stocktrade.domain.values import (
    CLEARING_HOUSE,
    MAX_QUANTITY,
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
    Reason.NOT_SUPPORTED: "action, time_in_force, self_trade_prevention, target_order_id and valid_until take "
    "only their defaults yet",
    Reason.INVALID_SYMBOL: "a symbol is 1 to 20 letters, digits, & or -",
    Reason.INVALID_QUANTITY: f"a quantity is a whole number from 1 to {group_indian(MAX_QUANTITY)}",
    Reason.INVALID_PRICE: "a price is a number of rupees above zero with at most two decimals",
}
_REASON_OF_FIELD: Final = {
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


_decode_json = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_decimal, parse_int=_integer, parse_constant=Decimal
).decode

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
        return _decode_json(value.decode())
    except UnicodeDecodeError as error:
        raise ValueError("NOT_UTF8", "not UTF-8") from error
    except _DuplicateKey as error:
        raise ValueError("DUPLICATE_KEY", "a key stands twice in one object") from error
    except (ValueError, RecursionError) as error:
        raise ValueError("NOT_JSON", "not JSON") from error


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
    side: Side
    model: type[BuyOrder | SellOffer]
    if topic == topics.BUY_ORDERS:
        side, model, id_field, participant_field = "BUY", BuyOrder, "order_id", "buyer"
    else:
        side, model, id_field, participant_field = "SELL", SellOffer, "offer_id", "seller"
    order_id, participant = fields.get(id_field), fields.get(participant_field)
    symbol_as_sent = fields.get("stock_symbol")
    if not (isinstance(order_id, str) and is_identifier(order_id)):
        return Dead("INVALID_ID", f"{id_field} is missing or no id")
    if not (isinstance(participant, str) and is_participant(participant)):
        return Dead("INVALID_PARTICIPANT", f"{participant_field} is missing or no participant")
    if not isinstance(symbol_as_sent, str):
        return Dead("NO_SYMBOL", "stock_symbol is missing or no text")
    symbol = canonical_symbol(symbol_as_sent)
    try:
        order = model.model_validate(fields)
    except ValidationError as error:
        reason = min(
            (_REASON_OF_FIELD.get(str(e["loc"][0]), Reason.NOT_SUPPORTED) for e in error.errors(include_url=False)),
            key=_PRECEDENCE.__getitem__,
        )
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
            _DETAILS[reason],
        )
    assert symbol is not None
    price = None if order.price_per_unit is None else paise_from_rupees(order.price_per_unit)
    quantity = order.quantity
    fingerprint = zlib.crc32(f"{side}|{symbol}|{quantity}|{price}".encode())
    return fact(
        Instruction,
        (side, order_id, participant, symbol, symbol_as_sent, quantity, price, fingerprint, None, ""),
    )


_Model = TypeVar("_Model", bound=WireModel)


def decode_message(model: type[_Model], value: bytes | None) -> _Model:
    """A message of the exchange's own topics.

    Raises:
        ValueError: the bytes are no such message.
    """
    if value is None:
        raise ValueError("NO_VALUE", "no value")
    return model.model_validate(decode_json(value))


def encode_order(order: BuyOrder | SellOffer) -> bytes:
    """An order as its participant puts it on an input topic: the fields that are set."""
    return order.model_dump_json(exclude_none=True).encode()


def key_of_symbol(symbol: str) -> bytes:
    """The record key of everything that belongs to a canonical symbol: it decides the shard."""
    return symbol.encode()


def trade_id(shard: int, seq: int, number: int) -> str:
    """The id of a trade: a function of its place in history, so that writing it again is no second trade."""
    return f"T{shard}-{seq}-{number}"


_LEG_SHA1 = sha1(LEG_NAMESPACE.bytes, usedforsecurity=False)
_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def leg_id(trade: str, kind: str, direction: str) -> str:
    """The uuid5 of a leg of a trade, as `uuid.uuid5` makes it but in a third of the time."""
    state = _LEG_SHA1.copy()
    state.update(f"{trade}:{kind}:{direction}".encode())
    h = state.hexdigest()
    return f"{h[:8]}-{h[8:12]}-5{h[13:16]}-{_VARIANT[h[16]]}{h[17:20]}-{h[20:32]}"


def _encode_outcome(fact: Outcome, shard: int, source: str) -> str:
    known = fact.quantity > 0
    head = (
        f'{{"order_id":"{fact.order_id}","participant":"{fact.participant}","side":"{fact.side}",'
        f'"stock_symbol":{_quote(fact.symbol_as_sent)},"status":"{fact.status}"'
    )
    parts = [head]
    if fact.reason is not None:
        parts.append(f',"reason":"{fact.reason}","detail":{_quote(fact.detail)}')
    if known:
        parts.append(f',"quantity":{fact.quantity}')
        if fact.price is not None:
            parts.append(f',"price_per_unit":{decimal_rupees(fact.price)}')
    parts.append(f',"filled_quantity":{fact.filled},"leaves_quantity":{fact.leaves}')
    if fact.first_status is not None:
        parts.append(f',"first_seq":{fact.first_seq},"first_status":"{fact.first_status}"')
        if fact.first_reason is not None:
            parts.append(f',"first_reason":"{fact.first_reason}"')
    parts.append(f',"shard":{shard},"seq":{fact.seq},"source":"{source}"}}')
    return "".join(parts)


def _encode_match(fact: Match, shard: int) -> str:
    return (
        f'{{"trade_id":"{trade_id(shard, fact.seq, fact.number)}","stock_symbol":"{fact.symbol}",'
        f'"quantity":{fact.quantity},"price_per_unit":{decimal_rupees(fact.price)},'
        f'"amount":{decimal_rupees(fact.price * fact.quantity)},"buyer":"{fact.buyer}",'
        f'"buy_order_id":"{fact.buy_order_id}","seller":"{fact.seller}","sell_order_id":"{fact.sell_order_id}",'
        f'"maker":"{fact.maker}","shard":{shard},"seq":{fact.seq}}}'
    )


def _encode_leg(fact: Leg, shard: int) -> str:
    trade = trade_id(shard, fact.seq, fact.number)
    unique = leg_id(trade, fact.kind, fact.direction)
    added = f'"direction":"{fact.direction}","trade_id":"{trade}","seq":{fact.seq}}}'
    if fact.kind == "SECURITIES":
        return (
            f'{{"transfer_id":"{unique}","from_entity":"{CLEARING_HOUSE}","to_entity":"{fact.participant}",'
            f'"stock_symbol":"{fact.symbol_as_sent}","quantity":{fact.quantity},'
            f'"order_id":"{fact.order_id}",{added}'
        )
    verb = "Payment for" if fact.direction == "DEBIT" else "Proceeds of"
    about = f"{verb} {fact.quantity} {fact.symbol_as_sent} stocks @ {rupees_in_text(fact.price)}"
    return (
        f'{{"movement_id":"{unique}","from_entity":"{CLEARING_HOUSE}","to_entity":"{fact.participant}",'
        f'"amount":{decimal_rupees(fact.price * fact.quantity)},"order_id":"{fact.order_id}",'
        f'"description":"{about}",{added}'
    )


def encode_facts(facts: Iterable[Fact], shard: int, source: str, time_ms: int) -> list[NewRecord]:
    """The output records of one input: `source` is its position, `time_ms` its time on the log."""
    records = []
    for said in facts:
        if isinstance(said, Leg):
            topic = topics.DEMAT_TRANSFERS if said.kind == "SECURITIES" else topics.CASH_MOVEMENTS
            key, text = said.participant, _encode_leg(said, shard)
        elif isinstance(said, Match):
            topic, key, text = topics.TRADES, said.symbol, _encode_match(said, shard)
        else:
            topic, key, text = topics.ORDER_EVENTS, said.participant, _encode_outcome(said, shard, source)
        records.append(NewRecord(topic, key.encode(), text.encode(), shard, time_ms))
    return records
