"""What an exchange may be told to do differently: instruments, the memory for order ids, limits.

Owns the numbers that decide an outcome. Invariant: two exchanges with equal `Rules` answer the same inputs with
the same facts; so rules are frozen, have a name, and a journal or snapshot made under one name is never
continued under another.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from stocktrade.domain.facts import Reason
from stocktrade.domain.values import MAX_PRICE, MAX_QUANTITY, Paise, group_indian, rupees_in_text

NSE_TICK_BANDS: Final = ((0, 1), (250_00, 5), (1_000_00, 10), (5_000_00, 50), (10_000_00, 100), (20_000_00, 500))
"""NSE's ticks for shares: (from this price on, the tick), both in paise, cheapest band first.

NSE counts ₹1,000 itself to the band below it, and so on up. That makes no difference to what is accepted, because
every border is a multiple of the ticks on both sides of it, so one reading ("from") is enough.
"""


@dataclass(frozen=True)
class Instrument:
    """How one symbol is traded.

    Attributes:
        tick_bands: (from this price on, the tick) in paise, ascending, the first from 0.
        lot: A quantity is a multiple of this many shares.
        max_quantity: The largest quantity of one order, in shares.
        reference_price: In paise, the middle of the price band, and the price of an unpriced offer that meets a
            market order when no offer has a price.
        band_basis_points: How far a price may be from the reference price, in hundredths of a percent of it. None:
            as far as it likes.

    Raises:
        ValueError: A number or a band makes no sense.
    """

    tick_bands: tuple[tuple[int, int], ...] = NSE_TICK_BANDS
    lot: int = 1
    max_quantity: int = MAX_QUANTITY
    reference_price: Paise | None = None
    band_basis_points: int | None = None
    _starts: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        starts = tuple(start for start, _ in self.tick_bands)
        if starts[:1] != (0,) or any(a >= b for a, b in pairwise(starts)):
            raise ValueError("tick bands must ascend from 0")
        if any(tick < 1 for _, tick in self.tick_bands):
            raise ValueError("a tick is at least one paisa")
        if not 1 <= self.lot <= self.max_quantity <= MAX_QUANTITY:
            raise ValueError(f"1, lot, max_quantity and {MAX_QUANTITY} must ascend")
        if self.band_basis_points is not None and self.band_basis_points < 1:
            raise ValueError("a price band is at least 0.01 percent")
        object.__setattr__(self, "_starts", starts)  # frozen for everyone else; bisect wants the starts alone
        if self.reference_price is not None:
            if not 0 < self.reference_price <= MAX_PRICE:
                raise ValueError("a reference price is above zero")
            if self.reference_price % self.tick_for(self.reference_price):
                raise ValueError("a reference price is a multiple of its tick")

    def tick_for(self, price: Paise) -> int:
        """The tick, in paise, of which a price in the band of `price` must be a multiple."""
        return self.tick_bands[bisect_right(self._starts, price) - 1][1]

    def tick_band(self, price: Paise) -> tuple[int, int, int]:
        """The band of `price`: from which price, below which price, and its tick."""
        place = bisect_right(self._starts, price)
        below = self._starts[place] if place < len(self._starts) else MAX_PRICE + 1
        return self._starts[place - 1], below, self.tick_bands[place - 1][1]

    @property
    def price_band(self) -> tuple[int, int] | None:
        """The lowest and the highest price that are allowed, in paise; None when all are."""
        if self.reference_price is None or self.band_basis_points is None:
            return None
        away = self.reference_price * self.band_basis_points  # in ten-thousandths of a paisa
        return self.reference_price - away // 10_000, self.reference_price + away // 10_000

    @property
    def only_ticks(self) -> bool:
        """Whether the tick is all that an order of valid quantity can break."""
        return self.lot == 1 and self.max_quantity == MAX_QUANTITY and self.price_band is None

    def refusal(self, quantity: int | None, price: Paise | None) -> tuple[Reason, str] | None:
        """Why an order with these is rejected, and a sentence; None when it is not. None stands for "none named"."""
        if quantity is not None:
            if quantity % self.lot:
                return Reason.QUANTITY_OFF_LOT, f"lot is {group_indian(self.lot)}"
            if quantity > self.max_quantity:
                return Reason.QUANTITY_ABOVE_CAP, f"at most {group_indian(self.max_quantity)}"
        if price is not None:
            if price % (tick := self.tick_for(price)):
                return Reason.PRICE_OFF_TICK, f"tick is {rupees_in_text(tick)}"
            if (band := self.price_band) is not None and not band[0] <= price <= band[1]:
                lowest, highest = (rupees_in_text(edge) for edge in band)
                return Reason.PRICE_OUTSIDE_BAND, f"from {lowest} to {highest}"
        return None


NSE_INSTRUMENT: Final = Instrument()
"""How NSE trades a share, as far as we do it too."""


@dataclass(frozen=True)
class Rules:
    """The rules of one exchange.

    Attributes:
        name: Names this set of rules, the instruments included, in journals and snapshots.
        remembered_ids: For how many inputs, counted back from the newest, a repeated order id is recognised.
            The ids of resting orders are remembered on top of that.
        max_open_orders: How many orders of one participant may rest at the same time.
        instruments: The instruments that have their own, by canonical symbol.
        other: The instrument of every symbol that is not among them; None: such a symbol is not traded.
        file: The instruments file that these rules were read from, as it stands; None without one.

    Raises:
        ValueError: A number makes no sense.
    """

    name: str = "2026.1"
    remembered_ids: int = 250_000
    max_open_orders: int = 1_000_000
    instruments: Mapping[str, Instrument] = field(default_factory=dict)
    other: Instrument | None = NSE_INSTRUMENT
    file: str | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.remembered_ids < 1 or self.max_open_orders < 1:
            raise ValueError("remembered_ids and max_open_orders are at least 1")

    def instrument(self, symbol: str) -> Instrument | None:
        """How the canonical `symbol` is traded; None when it is not."""
        return self.instruments.get(symbol, self.other)


RULES: Final = Rules()
"""The rules of this version of stocktrade."""
