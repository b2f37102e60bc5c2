"""What an exchange may be told to do differently: ticks, the memory for order ids, limits.

Owns the numbers that decide an outcome. Invariant: two exchanges with equal `Rules` answer the same inputs with
the same facts; so rules are frozen, have a name, and a journal or snapshot made under one name is never
continued under another.
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from stocktrade.domain.values import Paise

NSE_TICK_BANDS: Final = ((0, 1), (250_00, 5), (1_000_00, 10), (5_000_00, 50), (10_000_00, 100), (20_000_00, 500))
"""NSE's ticks for shares: (from this price on, the tick), both in paise, cheapest band first.

NSE counts ₹1,000 itself to the band below it, and so on up. That makes no difference to what is accepted, because
every border is a multiple of the ticks on both sides of it, so one reading ("from") is enough.
"""


@dataclass(frozen=True)
class Rules:
    """The rules of one exchange.

    Attributes:
        name: Names this set of rules in journals and snapshots.
        remembered_ids: For how many inputs, counted back from the newest, a repeated order id is recognised.
            The ids of resting orders are remembered on top of that.
        tick_bands: (from this price on, the tick) in paise, ascending, the first from 0.
        max_open_orders: How many orders of one participant may rest at the same time.

    Raises:
        ValueError: A number or a band makes no sense.
    """

    name: str = "2026.1"
    remembered_ids: int = 250_000
    tick_bands: tuple[tuple[int, int], ...] = NSE_TICK_BANDS
    max_open_orders: int = 1_000_000
    _starts: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        starts = tuple(start for start, _ in self.tick_bands)
        if starts[:1] != (0,) or any(a >= b for a, b in pairwise(starts)):
            raise ValueError("tick_bands must ascend from 0")
        if any(tick < 1 for _, tick in self.tick_bands):
            raise ValueError("a tick is at least one paisa")
        if self.remembered_ids < 1 or self.max_open_orders < 1:
            raise ValueError("remembered_ids and max_open_orders are at least 1")
        object.__setattr__(self, "_starts", starts)  # frozen for everyone else; bisect wants the starts alone

    def tick_for(self, price: Paise) -> int:
        """The tick, in paise, of which a price in the band of `price` must be a multiple."""
        return self.tick_bands[bisect_right(self._starts, price) - 1][1]


RULES: Final = Rules()
"""The rules of this version of stocktrade."""
