"""What goes into the exchange and what comes out of it, as the core speaks it.

An `Instruction` is one decoded input; `Outcome`, `Match` and `Leg` are the facts that follow from it. They are
plain tuples because they are made hundreds of thousands of times a second; `messages` has the same things as
they stand on the wire. Invariant: money in paise, `symbol` canonical, `*_as_sent` as its sender wrote it.
"""

from enum import StrEnum
from typing import Final, Literal, NamedTuple

from stocktrade.domain.values import Paise, Side

fact: Final = tuple.__new__
"""`fact(Leg, (...))` is `Leg(...)` in little more than half the time; every field must be given."""


class Status(StrEnum):
    """The outcome of one input."""

    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"
    DUPLICATE = "DUPLICATE"


class Reason(StrEnum):
    """Why an input was rejected. The order of the members is the order of precedence."""

    ORDER_ID_REUSED = "ORDER_ID_REUSED"
    NOT_SUPPORTED = "NOT_SUPPORTED"
    INVALID_SYMBOL = "INVALID_SYMBOL"
    INVALID_QUANTITY = "INVALID_QUANTITY"
    INVALID_PRICE = "INVALID_PRICE"
    PRICE_OFF_TICK = "PRICE_OFF_TICK"
    TOO_MANY_OPEN_ORDERS = "TOO_MANY_OPEN_ORDERS"


class Instruction(NamedTuple):
    """One input that can be answered: its id and participant could be read.

    `refusal` is what decoding found wrong, to be said unless the id is a duplicate; then `symbol` may be empty
    and `quantity` and `price` None. `fingerprint` is a checksum of the content, by which a repeated id is told
    from a reused one. `price` None on a sell means "available at any price".
    """

    side: Side
    order_id: str
    participant: str
    symbol: str
    symbol_as_sent: str
    quantity: int
    price: Paise | None
    fingerprint: int
    refusal: Reason | None = None
    detail: str = ""


class Outcome(NamedTuple):
    """The one answer to an input. `seq` is its exchange sequence.

    `first_seq`, `first_status` and `first_reason` are set on a DUPLICATE: what the id was answered before.
    """

    seq: int
    side: Side
    order_id: str
    participant: str
    symbol_as_sent: str
    status: Status
    reason: Reason | None
    detail: str
    quantity: int
    price: Paise | None
    filled: int
    leaves: int
    first_seq: int = 0
    first_status: Status | None = None
    first_reason: Reason | None = None


class Match(NamedTuple):
    """A trade: `quantity` shares at `price`, the `number`-th trade of the input with sequence `seq`."""

    seq: int
    number: int
    symbol: str
    quantity: int
    price: Paise
    maker: Side
    buy_order_id: str
    buyer: str
    buy_symbol_as_sent: str
    sell_order_id: str
    seller: str
    sell_symbol_as_sent: str


class Leg(NamedTuple):
    """One of the four advices of a trade: what moved on the account of `participant`.

    CREDIT and DEBIT are the effect on that participant's account. A securities leg moves `quantity` shares, a
    funds leg `quantity * price` paise.
    """

    seq: int
    number: int
    kind: Literal["SECURITIES", "FUNDS"]
    direction: Literal["CREDIT", "DEBIT"]
    participant: str
    order_id: str
    symbol_as_sent: str
    quantity: int
    price: Paise


Fact = Outcome | Match | Leg
