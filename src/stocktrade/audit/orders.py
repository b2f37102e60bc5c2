"""The orders of a shard as the log tells them, and whether everybody was served in turn.

A matcher that predicts the next trade from two heaps a symbol and compares it with what stands on the log. Written
apart from the book of the exchange, and slower. Invariant: after a trade that it did not expect it follows the log,
so that one wrong record does not make all later ones look wrong.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from heapq import heappop, heappush
from typing import Any, Final

from stocktrade.audit.findings import Report, Rule
from stocktrade.audit.streams import Message
from stocktrade.domain.values import canonical_symbol

_ANY: Final = -1
"""The rank of an offer without a price: it is served before all others."""


def paise(rupees: Any) -> int | None:
    """Rupees off the wire in paise; None for none."""
    return None if rupees is None else int(Decimal(rupees) * 100)


@dataclass(slots=True, eq=False)
class Live:
    """An order that rests, or just came. `place` is the sequence that gave it its place in the queue."""

    participant: str
    order_id: str
    side: str
    symbol: str
    symbol_as_sent: str
    price: int | None
    leaves: int
    place: int


class Queue:
    """One side of one book; orders that left, or moved, are passed over when they come to its head."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int, Live]] = []
        self._pushed = 0

    def add(self, order: Live) -> None:
        """Let an order wait."""
        rank = _ANY if order.price is None else -order.price if order.side == "BUY" else order.price
        self._pushed += 1
        heappush(self._heap, (rank, order.place, self._pushed, order))

    def head(self) -> Live | None:
        """Who is served next."""
        while self._heap:
            _, place, _, order = self._heap[0]
            if order.leaves and order.place == place:
                return order
            heappop(self._heap)
        return None


class Book:
    """The queues of one symbol; offers without a price have their own."""

    def __init__(self) -> None:
        self.bids = Queue()
        self.asks = Queue()
        self.unpriced = Queue()

    def add(self, order: Live) -> None:
        """Let an order wait."""
        queue = self.bids if order.side == "BUY" else self.unpriced if order.price is None else self.asks
        queue.add(order)

    def next_for(self, taker: Live, limit: int | None, reference: int | None) -> tuple[Live, int] | None:
        """Whom an order with this limit meets next, and at which price; None if nobody."""
        if taker.side == "SELL":
            bid = self.bids.head()
            if bid is None or bid.price is None or (limit is not None and bid.price < limit):
                return None
            return bid, bid.price
        ask, waiting = self.asks.head(), self.unpriced.head()
        best = None if ask is None else ask.price
        if waiting is not None:
            # The buyer's limit, or what the best priced offer would have asked, whichever is less.
            prices = [price for price in (limit, best) if price is not None]
            price = min(prices) if prices else reference
            if price is not None:
                return waiting, price
        if ask is None or best is None or (limit is not None and best > limit):
            return None
        return ask, best


@dataclass(slots=True)
class Asked:
    """An order, a cancel or a replace as its sender put it on the topic."""

    seq: int
    source: str
    side: str
    order_id: str
    participant: str
    symbol: str
    fields: dict[str, Any]


def asked(seq: int, source: str, fields: dict[str, Any]) -> Asked:
    """An input from its journalled message."""
    buys = source.startswith("buy-orders@")
    return Asked(
        seq,
        source,
        "BUY" if buys else "SELL",
        str(fields.get("order_id" if buys else "offer_id")),
        str(fields.get("buyer" if buys else "seller")),
        canonical_symbol(str(fields.get("stock_symbol"))) or "",
        fields,
    )


class Orders:
    """Every order that can still trade, fed with the inputs in the order of the exchange sequence.

    Args:
        report: where findings go.
        shard: whose orders.
        reference_price: of a symbol, in paise; None without one.
        remembered_ids: for how many inputs an id is known that left nothing at rest.
    """

    def __init__(
        self,
        report: Report,
        shard: int,
        *,
        reference_price: Callable[[str], int | None],
        remembered_ids: int,
    ) -> None:
        self._report = report
        self._shard = shard
        self._reference_price = reference_price
        self._remembered = remembered_ids
        self._live: dict[tuple[str, str], Live] = {}
        self._books: dict[str, Book] = {}
        self._ids: dict[tuple[str, str], int] = {}
        self._window: deque[tuple[str, str]] = deque()

    def take(self, said: Asked, outcome: Message, cancelled: list[Message], trades: list[Message]) -> None:
        """Check one input against its outcome, the cancellations that it caused, and its trades."""
        event = outcome.fields
        self._check_id(said, outcome)
        self._check_numbers(said, trades)
        if event.get("status") != "ACCEPTED":
            for each in (*cancelled, *trades):
                self._report.broken(Rule.FILLS, each.where, f"{said.source} was not accepted")
            return
        action = said.fields.get("action") or "new"
        if action == "cancel":
            self._cancel(said, outcome)
            return
        taker, limit, moves = self._entering(said, outcome, replaces=action == "replace")
        if taker is None:
            return
        if not moves:
            self._expect(outcome, 0, taker.leaves, 0)
            return
        self._match(said, outcome, taker, limit, cancelled, trades)

    def symbols_as_sent(self, said: Asked, trades: list[Message]) -> dict[tuple[str, str], str]:
        """The symbols of the orders in these trades as their participants wrote them; before `take`."""
        found = {(said.participant, said.order_id): str(said.fields.get("stock_symbol"))}
        for trade in trades:
            fields = trade.fields
            for name, order_id in (("buyer", "buy_order_id"), ("seller", "sell_order_id")):
                key = (fields[name], fields[order_id])
                order = self._live.get(key)
                if order is not None:
                    found[key] = order.symbol_as_sent
        return found

    # --- ids and numbers -----------------------------------------------------------------------------------

    def _check_id(self, said: Asked, outcome: Message) -> None:
        event = outcome.fields
        key = (said.participant, said.order_id)
        status, known = event.get("status"), key in self._ids or key in self._live
        repeats = status == "DUPLICATE" or event.get("reason") == "ORDER_ID_REUSED"
        self._report.checked(Rule.IDS)
        if repeats != known:
            what = "is known, and was taken again" if known else "is not known, and was answered as a repeated one"
            self._report.broken(Rule.IDS, outcome.where, f"the id {said.order_id} {what}")
        if known:
            return
        self._ids[key] = said.seq
        self._window.append(key)
        if len(self._window) > self._remembered:
            del self._ids[self._window.popleft()]

    def _check_numbers(self, said: Asked, trades: list[Message]) -> None:
        for number, trade in enumerate(trades, 1):
            self._report.trades += 1
            self._report.checked(Rule.TRADES)
            fields = trade.fields
            expected = f"T{self._shard}-{said.seq}-{number}"
            if (fields.get("trade_id"), fields.get("shard")) != (expected, self._shard):
                self._report.broken(Rule.TRADES, trade.where, f"is {fields.get('trade_id')}, not {expected}")
            worth = Decimal(fields["quantity"]) * Decimal(fields["price_per_unit"])
            if Decimal(fields["amount"]) != worth:
                self._report.broken(Rule.TRADES, trade.where, f"amount is {fields['amount']}, not {worth}")

    def _expect(self, outcome: Message, filled: int, leaves: int, cancelled: int) -> None:
        """Compare what an outcome says of its order with what became of it."""
        event = outcome.fields
        said = tuple(event.get(f"{name}_quantity", 0) for name in ("filled", "leaves", "cancelled"))
        if said != (filled, leaves, cancelled):
            what = "filled {}, rests {}, cancelled {}"
            self._report.broken(
                Rule.FILLS, outcome.where, f"says {what.format(*said)}, not {what.format(filled, leaves, cancelled)}"
            )

    # --- what an instruction does --------------------------------------------------------------------------

    def _target(self, said: Asked, outcome: Message) -> Live | None:
        target = self._live.get((said.participant, str(said.fields.get("target_order_id"))))
        if target is None or target.symbol != said.symbol:
            self._report.broken(Rule.FILLS, outcome.where, "was accepted, but its target does not rest")
            return None
        return target

    def _cancel(self, said: Asked, outcome: Message) -> None:
        self._report.checked(Rule.FILLS)
        target = self._target(said, outcome)
        if target is not None:
            self._expect(outcome, 0, 0, target.leaves)
            self._leave(target)

    def _entering(self, said: Asked, outcome: Message, *, replaces: bool) -> tuple[Live | None, int | None, bool]:
        """The order that comes, its limit, and whether it may meet somebody (or just got smaller)."""
        quantity, price = said.fields.get("quantity"), paise(said.fields.get("price_per_unit"))
        if not replaces:
            assert isinstance(quantity, int)
            sent = str(said.fields.get("stock_symbol"))
            came = Live(said.participant, said.order_id, said.side, said.symbol, sent, price, quantity, said.seq)
            return came, price, True
        target = self._target(said, outcome)
        if target is None:
            return None, None, False
        quantity = quantity or target.leaves
        price = target.price if price is None else price
        if price == target.price and quantity <= target.leaves:
            target.leaves = quantity
            return target, price, False
        self._leave(target)
        moved = Live(
            target.participant,
            target.order_id,
            target.side,
            target.symbol,
            target.symbol_as_sent,
            price,
            quantity,
            said.seq,
        )
        return moved, price, True

    def _leave(self, order: Live) -> None:
        order.leaves = 0
        self._live.pop((order.participant, order.order_id), None)

    def _match(
        self,
        said: Asked,
        outcome: Message,
        taker: Live,
        limit: int | None,
        cancelled: list[Message],
        trades: list[Message],
    ) -> None:
        """Predict whom the order meets, and compare each meeting with the log."""
        terms = said.fields
        book = self._books.setdefault(taker.symbol, Book())
        reference = self._reference_price(taker.symbol)
        prevention = terms.get("self_trade_prevention") or "off"
        told, quantity, ended = deque(cancelled), taker.leaves, False
        left = deque(trades)
        while taker.leaves and (met := book.next_for(taker, limit, reference)) is not None:
            maker, price = met
            if maker.participant == taker.participant and prevention != "off":
                ended = prevention == "cancel-active"
                loser = taker if ended else maker
                self._check_cancellation(told, loser, said, outcome)
                if ended:
                    break
                self._leave(maker)
                continue
            if not left:
                self._report.checked(Rule.PRIORITY)
                self._report.broken(Rule.PRIORITY, outcome.where, f"did not trade with {maker.order_id}, which waits")
                break
            self._check_trade(left.popleft(), taker, maker, price, limit)
        for trade in left:
            self._check_trade(trade, taker, None, None, limit)
        for each in told:
            self._report.broken(Rule.FILLS, each.where, "cancels an order that nothing cancelled")
        waits = (terms.get("time_in_force") or "DAY") == "DAY" and (taker.side == "SELL" or limit is not None)
        rests = taker.leaves if waits and not ended else 0
        self._expect(outcome, quantity - taker.leaves, rests, 0 if waits or ended else taker.leaves)
        if terms.get("time_in_force") == "FOK" and taker.leaves:
            self._report.broken(Rule.FILLS, outcome.where, "is fill or kill, and was not filled")
        if rests:
            self._live[taker.participant, taker.order_id] = taker
            book.add(taker)

    def _check_cancellation(self, told: deque[Message], loser: Live, said: Asked, outcome: Message) -> None:
        """Self-trade prevention takes the loser off; its sender is told."""
        self._report.checked(Rule.FILLS)
        expected = (loser.participant, loser.order_id, loser.leaves, said.source)
        if not told:
            self._report.broken(Rule.FILLS, outcome.where, f"nobody was told that {loser.order_id} is cancelled")
            return
        each = told.popleft()
        names = ("participant", "order_id", "cancelled_quantity", "cause")
        if tuple(each.fields.get(name) for name in names) != expected:
            self._report.broken(Rule.FILLS, each.where, f"is not the cancellation of {loser.order_id}")

    def _check_trade(
        self, trade: Message, taker: Live, expected: Live | None, price: int | None, limit: int | None
    ) -> None:
        """Compare one trade with the meeting that was due, and do to the orders what it says."""
        fields, report = trade.fields, self._report
        report.checked(Rule.FILLS)
        report.checked(Rule.PRIORITY)
        shares, at = fields["quantity"], paise(fields["price_per_unit"])
        buyer = (fields.get("buyer"), fields.get("buy_order_id"))
        seller = (fields.get("seller"), fields.get("sell_order_id"))
        mine, others = (buyer, seller) if taker.side == "BUY" else (seller, buyer)
        maker = self._live.get((str(others[0]), str(others[1])))
        side = "SELL" if taker.side == "BUY" else "BUY"
        if mine != (taker.participant, taker.order_id) or fields.get("maker") != side:
            report.broken(Rule.TRADES, trade.where, f"is not a trade of {taker.order_id}")
        if fields.get("stock_symbol") != taker.symbol:
            report.broken(Rule.TRADES, trade.where, f"is not in {taker.symbol}")
        if maker is None or maker.side != side or maker.symbol != taker.symbol:
            report.broken(Rule.FILLS, trade.where, f"{others[1]} does not rest: filled, cancelled or never there")
            return
        if shares < 1 or shares > min(maker.leaves, taker.leaves):
            what = f"{shares} shares, but {maker.leaves} and {taker.leaves} were left"
            report.broken(Rule.FILLS, trade.where, what)
        if at is None or at < 1 or _is_beyond(limit, taker.side, at) or _is_beyond(maker.price, maker.side, at):
            report.broken(Rule.FILLS, trade.where, f"traded at {fields['price_per_unit']}, through a limit")
        if expected is None:
            report.broken(Rule.PRIORITY, trade.where, "traded, though nobody was to be met")
        elif maker is not expected:
            report.broken(Rule.PRIORITY, trade.where, f"served {maker.order_id} before {expected.order_id}")
        elif at != price:
            report.broken(Rule.PRIORITY, trade.where, f"traded at {fields['price_per_unit']}, not at the maker's price")
        elif shares != min(maker.leaves, taker.leaves):
            report.broken(Rule.PRIORITY, trade.where, f"{shares} shares, though both had more")
        taker.leaves = max(0, taker.leaves - shares)
        maker.leaves = max(0, maker.leaves - shares)
        if not maker.leaves:
            self._leave(maker)


def _is_beyond(limit: int | None, side: str, price: int) -> bool:
    """Whether a price is worse than a limit for that side."""
    return limit is not None and (price > limit if side == "BUY" else price < limit)
