"""The wire: every message on a topic, as a frozen pydantic model.

`BuyOrder`, `SellOffer`, `DematTransfer` and `CashMovement` are the seed's four messages; what was added to them
is optional, so that JSON with the seed's fields alone is valid. A `CancelOrder` or a `ReplaceOrder` goes where the
`BuyOrder`s go, a `CancelOffer` or a `ReplaceOffer` where the `SellOffer`s go.

Invariant: types are strict (`"5"`, `5.0` and `true` are no quantities), unknown fields are ignored, money is a
decimal number of rupees.
"""

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic.config import JsonDict

from stocktrade.domain.facts import Action, Reason, SelfTradePrevention, Status, TimeInForce
from stocktrade.domain.values import (
    MAX_PRICE,
    MAX_QUANTITY,
    Side,
    canonical_symbol,
    is_identifier,
    is_participant,
    paise_from_rupees,
)


def _require_number(value: Any) -> Any:
    # A JSON number read exactly is an int or a Decimal; text, booleans and binary floats are not prices.
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError("a price is a JSON number of rupees")  # noqa: TRY004 - pydantic reports ValueErrors
    return Decimal(value)


def _require_price(value: Decimal) -> Decimal:
    paise_from_rupees(value)
    return value


def _require_symbol(text: str) -> str:
    if canonical_symbol(text) is None:
        raise ValueError("a symbol is 1 to 20 letters, digits, & or -")
    return text


def _require_identifier(text: str) -> str:
    if not is_identifier(text):
        raise ValueError("an id is 1 to 64 letters, digits or _.:@#+=&-")
    return text


def _require_participant(text: str) -> str:
    if not is_participant(text):
        raise ValueError("a participant is 1 to 64 letters, digits or _.:@#+=&-, and not NSE")
    return text


_AS_NUMBER = PlainSerializer(float, return_type=float, when_used="json")
# Not multipleOf 0.01: no validator that counts in binary would let 885.05 pass.
_RUPEES_SCHEMA = {"type": "number", "description": "rupees, with at most two decimals"}

# What the functions above refuse, in regular expressions that every JSON Schema validator knows: they have no flags and
# look neither ahead nor behind. `$` is the end of the text to some and of its line to others, hence what may not occur.
_DEVICES = "[Cc][Oo][Nn]|[Pp][Rr][Nn]|[Aa][Uu][Xx]|[Nn][Uu][Ll]|[Cc][Oo][Mm][0-9]|[Ll][Pp][Tt][0-9]"
_IDENTIFIER_PATTERN = "^[A-Za-z0-9_][A-Za-z0-9_.:@#+=&-]{0,63}$"
_NO_IDENTIFIER = f"[^A-Za-z0-9_.:@#+=&-]|^({_DEVICES})$"
_SYMBOL_PATTERN = "^([Nn][Ss][Ee]:)?[A-Za-z0-9][A-Za-z0-9&-]{0,19}$"


def _text(pattern: str, none_of: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "not": {"pattern": none_of}})


Identifier = Annotated[str, AfterValidator(_require_identifier), _text(_IDENTIFIER_PATTERN, _NO_IDENTIFIER)]
Participant = Annotated[
    str,
    AfterValidator(_require_participant),
    _text(_IDENTIFIER_PATTERN, f"{_NO_IDENTIFIER}|^[Nn][Ss][Ee]$"),
]
Symbol = Annotated[str, AfterValidator(_require_symbol), _text(_SYMBOL_PATTERN, "[^A-Za-z0-9&:-]")]
Quantity = Annotated[int, Field(strict=True, gt=0, le=MAX_QUANTITY)]
Price = Annotated[
    Decimal,
    BeforeValidator(_require_number),
    AfterValidator(_require_price),
    _AS_NUMBER,
    WithJsonSchema({**_RUPEES_SCHEMA, "exclusiveMinimum": 0, "maximum": MAX_PRICE // 100}),
]
"""Rupees per share: above zero, at most two decimals."""

Amount = Annotated[Decimal, BeforeValidator(_require_number), _AS_NUMBER, WithJsonSchema(_RUPEES_SCHEMA)]
"""Rupees."""


# On the wire an enum is its text; strict types would ask for the member itself.
_StatusText = Annotated[Status, Field(strict=False)]
_ReasonText = Annotated[Reason, Field(strict=False)]


class WireModel(BaseModel):
    """What every message has in common: frozen, strict, tolerant of fields it does not know."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


_ActionText = Annotated[Action, Field(strict=False)]
_TimeInForceText = Annotated[TimeInForce, Field(strict=False)]
_SelfTradePreventionText = Annotated[SelfTradePrevention, Field(strict=False)]


class _Sent(WireModel):
    """What a participant sends. `valid_until` is reserved: a value is refused."""

    valid_until: None = None


class _New(_Sent):
    action: Literal["new"] | None = None
    time_in_force: _TimeInForceText | None = None
    self_trade_prevention: _SelfTradePreventionText | None = None
    target_order_id: None = None


# What an instruction may not say beside the fields of its model: the codec refuses it as a CONTRADICTION.
_WAITS_IN_THE_BOOK: JsonDict = {"enum": ["DAY", None]}


class _Cancel(_Sent):
    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [
                {
                    "required": ["action"],
                    "properties": {
                        "quantity": {"type": "null"},
                        "price_per_unit": {"type": "null"},
                        "time_in_force": _WAITS_IN_THE_BOOK,
                        "self_trade_prevention": {"enum": ["off", None]},
                    },
                }
            ]
        }
    )

    action: Literal["cancel"] = "cancel"
    target_order_id: Identifier


class _Replace(_Sent):
    """What is not given stays as it is; `quantity` is what shall be open from now on."""

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [{"required": ["action"], "properties": {"time_in_force": _WAITS_IN_THE_BOOK}}],
            "anyOf": [
                {"required": [name], "properties": {name: {"type": "number"}}}
                for name in ("quantity", "price_per_unit")
            ],
        }
    )

    action: Literal["replace"] = "replace"
    target_order_id: Identifier
    quantity: Quantity | None = None
    price_per_unit: Price | None = None
    self_trade_prevention: _SelfTradePreventionText | None = None


class BuyOrder(_New):
    """`buyer` wants `quantity` shares at no more than `price_per_unit` rupees each; without it, at the market."""

    order_id: Identifier
    buyer: Participant
    stock_symbol: Symbol
    quantity: Quantity
    price_per_unit: Price | None = None


class SellOffer(_New):
    """`seller` has `quantity` shares to sell: at any price, or at no less than `price_per_unit` rupees each."""

    offer_id: Identifier
    seller: Participant
    stock_symbol: Symbol
    quantity: Quantity
    price_per_unit: Price | None = None


class CancelOrder(_Cancel):
    """`buyer` takes the order `target_order_id` out of the book. `order_id` is the id of this message."""

    order_id: Identifier
    buyer: Participant
    stock_symbol: Symbol


class CancelOffer(_Cancel):
    """`seller` takes the offer `target_order_id` out of the book. `offer_id` is the id of this message."""

    offer_id: Identifier
    seller: Participant
    stock_symbol: Symbol


class ReplaceOrder(_Replace):
    """`buyer` gives the order `target_order_id` another quantity or price. `order_id` is the id of this message."""

    order_id: Identifier
    buyer: Participant
    stock_symbol: Symbol


class ReplaceOffer(_Replace):
    """`seller` gives the offer `target_order_id` another quantity or price. `offer_id` is the id of this message."""

    offer_id: Identifier
    seller: Participant
    stock_symbol: Symbol


Sent = BuyOrder | SellOffer | CancelOrder | CancelOffer | ReplaceOrder | ReplaceOffer
"""Every message that a participant may send."""


class OrderEvent(WireModel):
    """What a participant is told on `order-events`: the exchange's one answer to one input, or a cancellation.

    An answer is ACCEPTED, REJECTED or DUPLICATE, and `source` is the topic@partition:offset of its input. A REJECTED
    one has a `reason` and says in `detail` what was wrong; a DUPLICATE repeats what the id was answered first. What
    an instruction said beyond the seed's fields is repeated; of a cancel or a replace `order_id` is its own id.

    A CANCELLED event answers nothing: `cancelled_by` says what took `cancelled_quantity` shares off the order
    `order_id`, while the input at `cause` was taken. It has no `source`.

    `seq` is the exchange sequence within `shard`.
    """

    order_id: str
    participant: str
    side: Side
    stock_symbol: str
    action: _ActionText | None = None
    target_order_id: str | None = None
    time_in_force: _TimeInForceText | None = None
    self_trade_prevention: _SelfTradePreventionText | None = None
    status: _StatusText
    reason: _ReasonText | None = None
    detail: str | None = None
    quantity: int | None = None
    price_per_unit: Amount | None = None
    filled_quantity: int = 0
    leaves_quantity: int = 0
    cancelled_quantity: int = 0
    first_seq: int | None = None
    first_status: _StatusText | None = None
    first_reason: _ReasonText | None = None
    shard: int
    seq: int
    source: str | None = None
    cancelled_by: Literal["self-trade-prevention"] | None = None
    cause: str | None = None


class Trade(WireModel):
    """A trade: `quantity` shares of `stock_symbol` (canonical) changed hands at the maker's price."""

    trade_id: str
    stock_symbol: str
    quantity: int
    price_per_unit: Amount
    amount: Amount
    buyer: str
    buy_order_id: str
    seller: str
    sell_order_id: str
    maker: Side
    shard: int
    seq: int


Direction = Literal["CREDIT", "DEBIT"]


class DematTransfer(WireModel):
    """NSE tells `to_entity` that shares were credited to, or debited from, its demat account.

    Everything from `direction` on was added to the seed's message.
    """

    transfer_id: str
    from_entity: str
    to_entity: str
    stock_symbol: str
    quantity: int
    order_id: str
    direction: Direction | None = None
    trade_id: str | None = None
    seq: int | None = None


class CashMovement(WireModel):
    """NSE tells `to_entity` that `amount` rupees were credited to, or debited from, its account.

    Everything from `direction` on was added to the seed's message.
    """

    movement_id: str
    from_entity: str
    to_entity: str
    amount: Amount
    order_id: str
    description: str
    direction: Direction | None = None
    trade_id: str | None = None
    seq: int | None = None


class JournalInput(WireModel):
    """One input as a shard took it.

    `kind`: `order` (applied; takes the next exchange sequence), `dead` (no message; it went to the dead
    letters with `reason`) or `forwarded` (it belongs to another shard and was sent there). `text` is an order's
    message as it stood on the topic; of the others `sha256` stands for the bytes.
    """

    topic: str
    offset: int
    time_ms: int
    kind: Literal["order", "dead", "forwarded"]
    text: str | None = None
    sha256: str | None = None
    reason: str | None = None


class JournalRecord(WireModel):
    """One entry of a shard's journal: who took the shard over, or which inputs were taken and in which order.

    `entry` counts the records of the shard from 0; `prev` is the digest of the entry before. `first_seq` is the
    exchange sequence of the first applied input. `next_offsets` are the positions in the input topics after
    this entry. `epoch` counts the owners. `instruments`, in a journal's first entry, is the file of them in force.
    """

    v: Literal[1]
    kind: Literal["owner", "batch"]
    shard: int
    entry: int
    epoch: int
    rules: str
    prev: str
    first_seq: int
    next_offsets: dict[str, int]
    inputs: list[JournalInput] = []
    owner: str | None = None
    time_ms: int | None = None
    instruments: str | None = None
    digest: str


class SnapshotManifest(WireModel):
    """The record that makes a snapshot whole: written last, after its parts.

    It holds the state after journal entry `entry` (at `journal_offset`), whose digest is `digest`. `checksum`
    is over the bytes of all `parts` in order.
    """

    v: Literal[1]
    shard: int
    entry: int
    epoch: int
    journal_offset: int
    rules: str
    seq: int
    next_offsets: dict[str, int]
    digest: str
    parts: int
    checksum: str
