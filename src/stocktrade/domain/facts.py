"""What goes into the exchange and what comes out of it, as the core speaks it.

An `Instruction` is one decoded input; `Outcome`, `Match` and `Cancellation` are the facts that follow from it. They
are plain tuples because they are made hundreds of thousands of times a second; `messages` has the same things as
they stand on the wire. Invariant: money in paise, `symbol` canonical, `*_as_sent` as its sender wrote it.
"""

from enum import StrEnum
from typing import Final, NamedTuple

from stocktrade.domain.values import Paise, Side

fact: Final = tuple.__new__
"""`fact(Match, (...))` is `Match(...)` in little more than half the time; every field must be given."""


class Status(StrEnum):
    """ACCEPTED, REJECTED and DUPLICATE are the outcomes of an input. CANCELLED is never one: see `Cancellation`."""

    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"
    DUPLICATE = "DUPLICATE"


class Reason(StrEnum):
    """Why an input was rejected. The order of the members is the order of precedence."""

    ORDER_ID_REUSED = "ORDER_ID_REUSED"
    NOT_SUPPORTED = "NOT_SUPPORTED"
    CONTRADICTION = "CONTRADICTION"
    INVALID_TARGET = "INVALID_TARGET"
    INVALID_SYMBOL = "INVALID_SYMBOL"
    INVALID_QUANTITY = "INVALID_QUANTITY"
    INVALID_PRICE = "INVALID_PRICE"
    # From here on the exchange decides; the ones above can be seen in the message alone, but for the first.
    UNKNOWN_SYMBOL = "UNKNOWN_SYMBOL"
    ORDER_NOT_FOUND = "ORDER_NOT_FOUND"
    QUANTITY_OFF_LOT = "QUANTITY_OFF_LOT"
    QUANTITY_ABOVE_CAP = "QUANTITY_ABOVE_CAP"
    PRICE_OFF_TICK = "PRICE_OFF_TICK"
    PRICE_OUTSIDE_BAND = "PRICE_OUTSIDE_BAND"
    TOO_MANY_OPEN_ORDERS = "TOO_MANY_OPEN_ORDERS"
    FOK_NOT_FILLABLE = "FOK_NOT_FILLABLE"


class Action(StrEnum):
    """What an instruction does: a new order, or something to one that rests."""

    NEW = "new"
    CANCEL = "cancel"
    REPLACE = "replace"


class TimeInForce(StrEnum):
    """What becomes of the shares that an order cannot trade at once.

    DAY: they rest. IOC (immediate or cancel): they are cancelled. FOK (fill or kill): there are none, or the whole
    order is rejected.
    """

    DAY = "DAY"
    IOC = "IOC"
    FOK = "FOK"


class SelfTradePrevention(StrEnum):
    """What happens when an order would trade with one of its own participant's.

    OFF: they trade. CANCEL_PASSIVE: the one at rest is cancelled, and the other goes on. CANCEL_ACTIVE: what is left
    of the one that came is cancelled. The instruction that comes decides, not the order at rest.
    """

    OFF = "off"
    CANCEL_PASSIVE = "cancel-passive"
    CANCEL_ACTIVE = "cancel-active"


class Terms(NamedTuple):
    """What an instruction says beyond the seed's fields. `target` is the id of the order to cancel or replace."""

    action: Action = Action.NEW
    time_in_force: TimeInForce = TimeInForce.DAY
    self_trade_prevention: SelfTradePrevention = SelfTradePrevention.OFF
    target: str = ""


PLAIN: Final = Terms()
"""The seed's meaning: a new order that rests until it is filled and trades with anybody."""


class Instruction(NamedTuple):
    """One input that can be answered: its id and participant could be read.

    `refusal` is what decoding found wrong, to be said unless the id is a duplicate; then `symbol` may be empty
    and `quantity` and `price` None. `fingerprint` is a checksum of the content, by which a repeated id is told
    from a reused one. `terms` None means PLAIN.

    A new order without a price means "at any price": a SELL of the seed's rests so, a BUY is a market order. A
    replace without a price, or with quantity 0, leaves that as it is; a cancel has neither.
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
    terms: Terms | None = None


class Outcome(NamedTuple):
    """The one answer to an input. `seq` is its exchange sequence.

    Of an accepted order `quantity` is `filled`, `leaves` and `cancelled` together, but for what self-trade
    prevention took off it, which a `Cancellation` tells. `filled` traded at once, `leaves` rest, and `cancelled` is
    what an order that may not rest could not trade. An accepted replace says the same of the order that it left,
    `quantity` being what was open then; an accepted cancel has as `quantity` and `cancelled` what was left of its
    target. A rejected input has the quantity and the price that it named.

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
    cancelled: int = 0
    terms: Terms | None = None


class Match(NamedTuple):
    """A trade: `quantity` shares at `price`, the `number`-th trade of the input with sequence `seq`.

    Its four legs follow from it alone, so they are no facts of their own; the codec writes them with it.
    """

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


class Cancellation(NamedTuple):
    """Self-trade prevention cancelled the last `quantity` shares of an order, during the input with sequence `seq`.

    It is no answer to an input: who sent the order is told, beside the outcome of the input that caused it.
    """

    seq: int
    side: Side
    order_id: str
    participant: str
    symbol_as_sent: str
    quantity: int
    price: Paise | None


Fact = Outcome | Match | Cancellation
