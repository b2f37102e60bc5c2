"""The order book of one symbol: who rests at which price, in which order, and who meets an incoming order.

Owns the resting orders and the price-time rule; knows nothing of facts, money accounts or ids already used.
Invariants, which `OrderBook.check` proves: the book is never crossed; no bid rests while an unpriced offer does;
every resting order has leaves; each level's total is the sum of its orders, first come first served.

How it is laid out, and why:

* A level is a queue (`deque`) of the orders at one price, with their total: the oldest leaves at the left, a new
  one joins at the right, both at once.
* A side has its levels in a dict by *rank* and the ranks in a sorted list. Rank is the price on the buying side
  and the negated price on the selling side, so a higher rank is always the better price and both sides run
  through the same code. The best rank stands at the end of the list, where most prices come and go: insertion
  there moves few elements, removal none, and `depth` reads straight off it. A heap would be as quick at the top,
  but could not list the next levels, nor lose one in the middle, without work. (With 50,000 prices on one side a
  new one in the middle still costs only a few microseconds.)
* Unpriced offers ("available at any price") are one more level, served before the asks.
* Who withdraws an order needs no search: its side and price name the level; its leaves come off the total and
  become 0. Such a dead order stays in its queue until it reaches the head, or until the dead are the greater part
  of the queue, which is then made anew. So a withdrawal costs the same however many orders wait at its price.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Final, NamedTuple, NoReturn, Self

from stocktrade.domain.facts import Reason, SelfTradePrevention, Status
from stocktrade.domain.values import Paise, Side

SIDES: Final[tuple[Side, Side]] = ("BUY", "SELL")

DEAD_KEPT: Final = 32
"""How many dead orders a queue may hold before they are counted against the living."""

Depth = list[list[int | None]]
"""Levels, best first, each `[price in paise or None, total shares, number of orders]`."""


@dataclass(slots=True, eq=False)
class Order:
    """An order in the book. Only `leaves` ever changes: 0 means that it has left.

    `seq` is the sequence of the order, `place` that of the instruction that gave it its place in the queue, and
    `quantity` what was open then: a replace that loses the place puts a new `Order` with the same `seq` there.

    It keeps the `fingerprint` of its input, and `status` and `reason` say how that was answered, so that the
    exchange's memory of ids can hold the order itself instead of a second record of it.
    """

    seq: int
    side: Side
    order_id: str
    participant: str
    symbol_as_sent: str
    quantity: int
    price: Paise | None
    leaves: int
    fingerprint: int
    place: int
    status: ClassVar[Status] = Status.ACCEPTED
    reason: ClassVar[Reason | None] = None


Fill = tuple[Order, int, Paise]
"""The resting order that was met, how many shares, at which price in paise."""

Met = tuple[Order, int, Paise | None]
"""A fill; or, with None for a price, an order that was withdrawn instead, with what was left of it."""


class Resting(NamedTuple):
    """One order at rest, as a listing of the book has it."""

    side: Side
    price: Paise | None
    leaves: int
    participant: str
    order_id: str
    seq: int


class Level:
    """The orders at one price, oldest first, and the total of their leaves in shares; `dead` have no leaves."""

    __slots__ = ("dead", "orders", "total")

    def __init__(self) -> None:
        self.orders: deque[Order] = deque()
        self.total = 0
        self.dead = 0

    def add(self, order: Order) -> None:
        """Queue `order` behind the others."""
        self.orders.append(order)
        self.total += order.leaves

    def take(self, wanted: int, price: Paise, fills: list[Fill]) -> int:
        """Trade up to `wanted` shares at `price`, oldest order first, and note the fills.

        Returns:
            How many shares are still wanted.
        """
        orders = self.orders
        before = wanted
        while orders:
            order = orders[0]
            leaves = order.leaves
            if leaves > wanted:
                order.leaves = leaves - wanted
                fills.append((order, wanted, price))
                wanted = 0
                break
            orders.popleft()
            if not leaves:
                self.dead -= 1
                continue
            order.leaves = 0
            fills.append((order, leaves, price))
            wanted -= leaves
            if not wanted:
                break
        self.total -= before - wanted
        return wanted

    def head(self) -> Order:
        """The order that is served next. There is one."""
        while not self.orders[0].leaves:
            self.orders.popleft()
            self.dead -= 1
        return self.orders[0]

    def withdraw(self, order: Order) -> None:
        """Let `order` leave with what is left of it."""
        self.total -= order.leaves
        order.leaves = 0
        self.dead += 1
        if self.dead > DEAD_KEPT and self.dead * 2 > len(self.orders):
            self.orders = deque(self.living())
            self.dead = 0

    def living(self) -> list[Order]:
        """The orders that have leaves, oldest first."""
        return [order for order in self.orders if order.leaves] if self.dead else list(self.orders)


class Ladder:
    """The priced orders of one side. `sign` is 1 for bids and -1 for asks: rank = sign * price."""

    __slots__ = ("levels", "ranks", "sign")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.levels: dict[int, Level] = {}
        self.ranks: list[int] = []

    def add(self, order: Order, price: Paise) -> None:
        """Queue `order` at `price`."""
        rank = self.sign * price
        level = self.levels.get(rank)
        if level is None:
            level = self.levels[rank] = Level()
            insort(self.ranks, rank)
        level.add(order)

    def take(self, wanted: int, worst: int, fills: list[Fill]) -> int:
        """Trade up to `wanted` shares, best price first, with orders ranked `worst` or better.

        Returns:
            How many shares are still wanted.
        """
        ranks = self.ranks
        while wanted and ranks:
            rank = ranks[-1]
            if rank < worst:
                break
            level = self.levels[rank]
            price: Paise = rank * self.sign  # type: ignore[assignment]  # a call of Paise() costs as much as a fill
            wanted = level.take(wanted, price, fills)
            if not level.total:
                ranks.pop()
                del self.levels[rank]
        return wanted

    def drop_if_empty(self, price: Paise) -> None:
        """Remove the level at `price` once nothing is left there."""
        rank = self.sign * price
        if not self.levels[rank].total:
            del self.levels[rank]
            del self.ranks[bisect_left(self.ranks, rank)]

    def best_first(self) -> Iterator[tuple[Paise, Level]]:
        """Price and level, best price first."""
        return ((Paise(rank * self.sign), self.levels[rank]) for rank in reversed(self.ranks))


class OrderBook:
    """The book of one symbol: `buy` or `sell` what an order can take at once, then `rest` its leaves."""

    __slots__ = ("asks", "bids", "symbol", "unpriced")

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.bids = Ladder(1)
        self.asks = Ladder(-1)
        self.unpriced = Level()

    @classmethod
    def of(cls, symbol: str, orders: Iterable[Order]) -> Self:
        """The book in which `orders` rest, given in their priority."""
        book = cls(symbol)
        ladders = {"BUY": book.bids, "SELL": book.asks}
        for order in orders:
            if order.price is None:
                book.unpriced.add(order)
            else:
                ladder = ladders[order.side]
                rank = ladder.sign * order.price
                if rank not in ladder.levels:
                    ladder.levels[rank] = Level()
                ladder.levels[rank].add(order)
        # Once at the end: one by one, best first, each rank would push all the others aside.
        for ladder in ladders.values():
            ladder.ranks = sorted(ladder.levels)
        return book

    # --- an order comes --------------------------------------------------------------------------------------

    def buy(self, wanted: int, limit: Paise) -> tuple[list[Fill], int]:
        """Take up to `wanted` shares on offer at `limit` or less.

        An unpriced offer goes at the limit, but at no more than the best priced offer that it stands before;
        a priced one goes at its own price.

        Returns:
            The fills in the order of trading, and how many shares are still wanted.
        """
        fills: list[Fill] = []
        asks = self.asks
        if self.unpriced.total:
            price = limit
            if asks.ranks and -asks.ranks[-1] < limit:
                price = Paise(-asks.ranks[-1])
            wanted = self.unpriced.take(wanted, price, fills)
        return fills, asks.take(wanted, -limit, fills)

    def sell(self, offered: int, limit: Paise | None) -> tuple[list[Fill], int]:
        """Give up to `offered` shares to the bids at `limit` or more; at any price when it is None.

        Returns:
            The fills, each at the bid's price, in the order of trading, and how many shares are left.
        """
        fills: list[Fill] = []
        return fills, self.bids.take(offered, limit or 0, fills)

    def meet(
        self,
        side: Side,
        wanted: int,
        limit: Paise | None,
        reference: Paise | None,
        own: str,
        prevention: SelfTradePrevention,
    ) -> tuple[list[Met], int, bool]:
        """Trade as `buy` and `sell` do, for an order on `side` that may say more than the seed's.

        Args:
            side: Which side the order is on.
            wanted: How many shares.
            limit: Its price; None for any, on either side.
            reference: The price of an unpriced offer that meets a buy at any price, where no ask gives one; without
                it these two do not trade.
            own: The participant of the order.
            prevention: What to do when it meets an order of `own`.

        Returns:
            What it met, in order; how many shares are left; whether meeting an order of `own` was its end.
        """
        met: list[Met] = []
        while wanted and (found := next(self._crossing(side, limit, reference), None)) is not None:
            price, level = found
            order = level.head()
            if order.participant == own and prevention is not SelfTradePrevention.OFF:
                if prevention is SelfTradePrevention.CANCEL_ACTIVE:
                    return met, wanted, True
                met.append((order, order.leaves, None))
                self.withdraw(order)
                continue
            shares = min(wanted, order.leaves)
            met.append((order, shares, price))
            wanted -= shares
            if shares == order.leaves:
                self.withdraw(order)
            else:
                self.reduce(order, order.leaves - shares)
        return met, wanted, False

    def can_fill(
        self,
        side: Side,
        wanted: int,
        limit: Paise | None,
        reference: Paise | None,
        own: str,
        prevention: SelfTradePrevention,
    ) -> bool:
        """Whether `meet` would trade all of `wanted`. Changes nothing."""
        for _, level in self._crossing(side, limit, reference):
            if prevention is SelfTradePrevention.OFF:
                wanted -= level.total
                if wanted <= 0:
                    return True
                continue
            for order in level.orders:
                if order.leaves and order.participant == own:
                    if prevention is SelfTradePrevention.CANCEL_ACTIVE:
                        return False
                    continue
                wanted -= order.leaves
                if wanted <= 0:
                    return True
        return False

    def _crossing(self, side: Side, limit: Paise | None, reference: Paise | None) -> Iterator[tuple[Paise, Level]]:
        """The levels that an order on `side` can trade with, first the one that is served first, and their prices."""
        if side == "SELL":
            for price, level in self.bids.best_first():
                if limit is not None and price < limit:
                    return
                yield price, level
            return
        if self.unpriced.total:
            best = None if not self.asks.ranks else Paise(-self.asks.ranks[-1])
            if limit is not None:
                yield (limit if best is None else min(limit, best)), self.unpriced
            elif best is not None or reference is not None:
                at = best if best is not None else reference
                assert at is not None
                yield at, self.unpriced
        for price, level in self.asks.best_first():
            if limit is not None and price > limit:
                return
            yield price, level

    def rest(self, order: Order) -> None:
        """Queue the leaves of an order that can take nothing more."""
        if order.price is None:
            self.unpriced.add(order)
        elif order.side == "BUY":
            self.bids.add(order, order.price)
        else:
            self.asks.add(order, order.price)

    # --- an order at rest changes ----------------------------------------------------------------------------

    def withdraw(self, order: Order) -> None:
        """Let an order at rest leave the book."""
        if order.price is None:
            self.unpriced.withdraw(order)
            return
        ladder = self.bids if order.side == "BUY" else self.asks
        ladder.levels[ladder.sign * order.price].withdraw(order)
        ladder.drop_if_empty(order.price)

    def reduce(self, order: Order, leaves: int) -> None:
        """Leave only `leaves` shares of an order at rest, at least one; it keeps its place."""
        level = self.unpriced
        if order.price is not None:
            ladder = self.bids if order.side == "BUY" else self.asks
            level = ladder.levels[ladder.sign * order.price]
        level.total -= order.leaves - leaves
        order.leaves = leaves

    # --- what is in it ---------------------------------------------------------------------------------------

    @property
    def has_orders(self) -> bool:
        """Whether anything rests."""
        return bool(self.unpriced.total or self.bids.ranks or self.asks.ranks)

    def levels(self, side: Side) -> Iterator[tuple[Paise | None, Level]]:
        """Price and level of one side in the order in which they are served; unpriced offers have None."""
        if side == "SELL" and self.unpriced.total:
            yield None, self.unpriced
        yield from (self.bids if side == "BUY" else self.asks).best_first()

    def resting(self) -> tuple[list[Order], list[int]]:
        """Every order at rest in its priority, bids before offers; and the leaves of each.

        Quick, since a capture waits for it: level by level, the leaves are read while the orders are at hand.
        """
        orders = self.unpriced.living()  # while it has orders there are no bids, so these come first
        leaves = [order.leaves for order in orders]
        for ladder in (self.bids, self.asks):
            for rank in reversed(ladder.ranks):
                level = ladder.levels[rank]
                living = level.living() if level.dead else level.orders
                orders.extend(living)
                leaves.extend([order.leaves for order in living])
        return orders, leaves

    def listing(self) -> list[Resting]:
        """Every order at rest: the bids in the order in which they are served, then the offers in theirs."""
        return [Resting(o.side, o.price, o.leaves, o.participant, o.order_id, o.seq) for o in self.resting()[0]]

    def depth(self, levels: int) -> tuple[Depth, Depth]:
        """The best `levels` levels of bids and of asks; the unpriced offers are the first level of the asks."""
        bids, asks = (
            [[price, level.total, len(level.orders) - level.dead] for price, level in islice(self.levels(side), levels)]
            for side in SIDES
        )
        return bids, asks

    def check(self) -> None:
        """Prove the invariants of this module.

        Raises:
            AssertionError: One does not hold; the message names it. It is raised under `python -O`, too.
        """
        for side, ladder in (("BUY", self.bids), ("SELL", self.asks)):
            if ladder.ranks != sorted(ladder.levels):
                self._broken(f"ranks and levels of {side} differ")
            for rank, level in ladder.levels.items():
                self._check_level(level, side, ladder.sign * rank)
                if not level.total:
                    self._broken(f"empty level at {ladder.sign * rank}")
        self._check_level(self.unpriced, "SELL", None)
        if self.bids.ranks:
            if self.unpriced.total:
                self._broken("a bid and an unpriced offer both rest")
            if self.asks.ranks and self.bids.ranks[-1] >= -self.asks.ranks[-1]:
                self._broken("crossed")

    def _check_level(self, level: Level, side: str, price: int | None) -> None:
        newest = 0
        dead = 0
        for order in level.orders:
            if not 0 <= order.leaves <= order.quantity:
                self._broken(f"order {order.seq} has leaves {order.leaves} of {order.quantity}")
            if (order.side, order.price) != (side, price):
                self._broken(f"order {order.seq} is not on its level")
            if order.place <= newest:
                self._broken(f"order {order.seq} is behind {newest}")
            newest = order.place
            dead += not order.leaves
        if level.dead != dead:
            self._broken(f"{dead} orders of {side} at {price} have no leaves, not {level.dead}")
        if level.total != sum(order.leaves for order in level.orders):
            self._broken(f"total of {side} at {price} is not the sum of its orders")

    def _broken(self, what: str) -> NoReturn:
        raise AssertionError(f"book of {self.symbol}: {what}")
