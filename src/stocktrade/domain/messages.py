"""The wire: every message on a topic, as a frozen pydantic model.

`BuyOrder`, `SellOffer`, `DematTransfer` and `CashMovement` are the seed's four messages; what was added to them
is optional, so that JSON with the seed's fields alone is valid. Invariant: types are strict (`"5"`, `5.0` and
`true` are no quantities), unknown fields are ignored, money is a decimal number of rupees.
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

from stocktrade.domain.facts import Reason, Status
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
_RUPEES_SCHEMA = {"type": "number", "multipleOf": 0.01}

Identifier = Annotated[str, AfterValidator(_require_identifier)]
Participant = Annotated[str, AfterValidator(_require_participant)]
Symbol = Annotated[str, AfterValidator(_require_symbol)]
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


class _Reserved(WireModel):
    """Fields that mean an instruction which is not built yet: any value but the default is refused."""

    action: Literal["new"] | None = None
    time_in_force: Literal["DAY"] | None = None
    self_trade_prevention: Literal["off"] | None = None
    target_order_id: None = None
    valid_until: None = None


class BuyOrder(_Reserved):
    """`buyer` wants `quantity` shares at no more than `price_per_unit` rupees each."""

    order_id: Identifier
    buyer: Participant
    stock_symbol: Symbol
    quantity: Quantity
    price_per_unit: Price


class SellOffer(_Reserved):
    """`seller` has `quantity` shares to sell: at any price, or at no less than `price_per_unit` rupees each."""

    offer_id: Identifier
    seller: Participant
    stock_symbol: Symbol
    quantity: Quantity
    price_per_unit: Price | None = None


class OrderEvent(WireModel):
    """The exchange's one answer to one input, read on `order-events`.

    `seq` is the exchange sequence within `shard`; `source` is the input's topic@partition:offset. A REJECTED
    event has a `reason` and says in `detail` what was wrong; a DUPLICATE repeats what the id was answered first.
    """

    order_id: str
    participant: str
    side: Side
    stock_symbol: str
    status: _StatusText
    reason: _ReasonText | None = None
    detail: str | None = None
    quantity: int | None = None
    price_per_unit: Amount | None = None
    filled_quantity: int = 0
    leaves_quantity: int = 0
    first_seq: int | None = None
    first_status: _StatusText | None = None
    first_reason: _ReasonText | None = None
    shard: int
    seq: int
    source: str


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
    this entry. `epoch` counts the owners.
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
