"""The exchange: one door, through which an instruction goes in and the facts that follow from it come out.

Owns the exchange sequence, the books, the ledger and the memory of order ids. Invariants: every input takes one
sequence and gets exactly one `Outcome`; state and facts are a function of the rules and the inputs in their order
and of nothing else, so that a replay, or a restored capture, goes on identically; the ids of resting orders are
always remembered.

An exception out of `apply` is a bug, and leaves an exchange that must be dropped.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from stocktrade.core.book import Depth, Order, OrderBook
from stocktrade.core.clearing import advices, obligations
from stocktrade.core.ledger import Ledger
from stocktrade.core.rules import RULES, Rules
from stocktrade.domain.facts import Fact, Instruction, Match, Outcome, Reason, Status
from stocktrade.domain.values import group_indian, rupees_in_text

CAPTURE_FORMAT: Final = 1
"""The version of the rows of a `Capture`."""

# Bound once: looking a member up on its enum costs more than a global, a few times for each input.
ACCEPTED, REJECTED, DUPLICATE = Status.ACCEPTED, Status.REJECTED, Status.DUPLICATE


class Answered(NamedTuple):
    """What is remembered of an input that left nothing at rest: filled at once, or rejected."""

    seq: int
    participant: str
    order_id: str
    fingerprint: int
    status: Status
    reason: Reason | None


Remembered = Order | Answered
"""An id in memory. An order that rests, or rested once, stands there itself."""


class Exchange:
    """Books, clearing and ledger of the symbols of one shard.

    Attributes:
        rules: The rules in force.
        seq: The exchange sequence of the newest input; 0 before the first.
        ledger: All accounts, after every trade up to `seq`.
    """

    def __init__(self, rules: Rules = RULES) -> None:
        self.rules = rules
        self.seq = 0
        self.ledger = Ledger()
        self._books: dict[str, OrderBook] = {}
        self._open: dict[str, int] = {}  # participant -> number of orders at rest; absent when none
        # By (participant, order id). The window holds the newest of them, oldest at the left, each of which is
        # in memory; what memory holds beyond the window is at rest.
        self._memory: dict[tuple[str, str], Remembered] = {}
        self._window: deque[Remembered] = deque()

    def apply(self, instruction: Instruction) -> list[Fact]:
        """Take in one input.

        The first of these that holds decides: the (participant, order id) is remembered with the same content
        (DUPLICATE) or with other content (ORDER_ID_REUSED); decoding refused it; its price is off the tick; its
        participant has as many orders at rest as the rules allow, whether or not this one would have to rest.
        Otherwise it is accepted, trades what it can, and what it leaves rests.

        Args:
            instruction: What was decoded. Unless it carries a refusal, its quantity is at least 1, and a BUY has
                a price.

        Returns:
            The outcome; then, for each trade in order, the match and its four legs.
        """
        seq = self.seq = self.seq + 1
        side, order_id, participant, symbol, symbol_as_sent, quantity, price, fingerprint, _, _ = instruction
        key = (participant, order_id)
        memory = self._memory
        first = memory.get(key)
        if first is not None:
            return [self._repeated(instruction, first)]
        refused = self._refuse(instruction)
        if refused is not None:
            reason, detail = refused
            self._remember(key, Answered(seq, participant, order_id, fingerprint, REJECTED, reason))
            outcome = Outcome(
                seq, side, order_id, participant, symbol_as_sent, REJECTED, reason, detail, quantity, price, 0, 0
            )
            return [outcome]

        book = self._books.get(symbol)
        if book is None:
            book = self._books[symbol] = OrderBook(symbol)
        if side == "SELL":
            fills, leaves = book.sell(quantity, price)
        else:
            assert price is not None
            fills, leaves = book.buy(quantity, price)
        filled = quantity - leaves
        facts: list[Fact] = [
            Outcome(
                seq,
                side,
                order_id,
                participant,
                symbol_as_sent,
                ACCEPTED,
                None,
                "",
                quantity,
                price,
                filled,
                leaves,
            )
        ]
        post = self.ledger.post
        for number, (maker, shares, at) in enumerate(fills, 1):
            other_id, other, other_symbol = maker.order_id, maker.participant, maker.symbol_as_sent
            if side == "SELL":
                match = Match(
                    seq, number, symbol, shares, at, "BUY",
                    other_id, other, other_symbol, order_id, participant, symbol_as_sent,
                )  # fmt: skip
            else:
                match = Match(
                    seq, number, symbol, shares, at, "SELL",
                    order_id, participant, symbol_as_sent, other_id, other, other_symbol,
                )  # fmt: skip
            post(obligations(match))
            facts.append(match)
            facts += advices(match)
            if not maker.leaves:
                self._left_the_book(maker)
        if leaves:
            order = Order(seq, side, order_id, participant, symbol_as_sent, quantity, price, leaves, fingerprint)
            book.rest(order)
            self._open[participant] = self._open.get(participant, 0) + 1
            self._remember(key, order)
        else:
            self._remember(key, Answered(seq, participant, order_id, fingerprint, ACCEPTED, None))
        return facts

    def depth(self, symbol: str, levels: int) -> tuple[Depth, Depth]:
        """The best levels of bids and asks of the canonical `symbol`, as `OrderBook.depth` gives them."""
        book = self._books.get(symbol)
        return ([], []) if book is None else book.depth(levels)

    def _refuse(self, instruction: Instruction) -> tuple[Reason, str] | None:
        """Why a new input is rejected, and the detail, in the order of precedence; None if it is accepted."""
        if instruction.refusal is not None:
            return instruction.refusal, instruction.detail
        rules = self.rules
        price = instruction.price
        if price is not None:
            tick = rules.tick_for(price)
            if price % tick:
                return Reason.PRICE_OFF_TICK, f"tick is {rupees_in_text(tick)}"
        if self._open.get(instruction.participant, 0) >= rules.max_open_orders:
            most = group_indian(rules.max_open_orders)
            return Reason.TOO_MANY_OPEN_ORDERS, f"at most {most} orders of one participant rest"
        return None

    def _repeated(self, instruction: Instruction, first: Remembered) -> Outcome:
        """The outcome of an input whose id is remembered. It is not remembered itself: the first stays."""
        side, order_id, participant, _, symbol_as_sent, quantity, price, fingerprint, _, _ = instruction
        if fingerprint == first.fingerprint:
            return Outcome(
                self.seq, side, order_id, participant, symbol_as_sent, DUPLICATE, None, "", quantity, price, 0, 0,
                first.seq, first.status, first.reason,
            )  # fmt: skip
        reason = Reason.ORDER_ID_REUSED
        detail = f"this id was used at sequence {first.seq} with other content"
        return Outcome(
            self.seq, side, order_id, participant, symbol_as_sent, REJECTED, reason, detail, quantity, price, 0, 0
        )

    def _remember(self, key: tuple[str, str], answered: Remembered) -> None:
        """Take the newest input into memory, and drop the oldest that is beyond the window unless it rests."""
        self._memory[key] = answered
        window = self._window
        window.append(answered)
        if len(window) > self.rules.remembered_ids:
            oldest = window.popleft()
            if isinstance(oldest, Answered) or not oldest.leaves:
                del self._memory[oldest.participant, oldest.order_id]

    def _left_the_book(self, order: Order) -> None:
        """Count a filled order off its participant, and forget its id if only its rest kept it in memory."""
        participant = order.participant
        still_open = self._open[participant] - 1
        if still_open:
            self._open[participant] = still_open
        else:
            del self._open[participant]
        if order.seq < self._window[0].seq:
            del self._memory[participant, order.order_id]

    def check(self) -> None:
        """Prove the invariants of the books, of the ledger and of the memory.

        Raises:
            AssertionError: One does not hold; the message names it.
        """
        resting: dict[tuple[str, str], Order] = {}
        open_orders: dict[str, int] = {}
        for book in self._books.values():
            book.check()
            for order in book.orders():
                resting[order.participant, order.order_id] = order
                open_orders[order.participant] = open_orders.get(order.participant, 0) + 1
        beyond = len(self._memory) - len(self._window)
        memory = list(self._memory.values())
        problems = {
            "an account sum is not zero": any(self.ledger.sums().values()),
            "the clearing house is not flat": not self.ledger.clearing_house_is_flat(),
            "the counts of open orders are wrong": open_orders != self._open,
            "a resting order is not remembered": any(self._memory.get(k) is not o for k, o in resting.items()),
            "the memory exceeds its window": len(self._window) > self.rules.remembered_ids,
            "the window is not the newest memory": memory[beyond:] != list(self._window),
            "an id is remembered beyond the window": any(
                resting.get((old.participant, old.order_id)) is not old for old in memory[:beyond]
            ),
        }
        for problem, found in problems.items():
            if found:
                raise AssertionError(problem)

    def capture(self) -> "Capture":
        """A picture of the state now. Copies references and leaves, no more; `Capture.rows` does the work."""
        books = [(symbol, book.orders()) for symbol, book in sorted(self._books.items())]
        return Capture(
            seq=self.seq,
            rules=self.rules.name,
            books=[(symbol, orders, [order.leaves for order in orders]) for symbol, orders in books],
            ledger=self.ledger.copy(),
            # Beyond the window only resting orders are remembered, and these are in the books.
            answered=[old for old in self._window if isinstance(old, Answered) or not old.leaves],
        )

    @classmethod
    def restore(cls, rows: Iterable[list[Any]], rules: Rules = RULES) -> "Exchange":
        """The exchange of which `rows` were captured; from here on it behaves identically.

        Raises:
            ValueError: The rows have another format, were made under other rules, or are not those of a capture.
        """
        exchange = cls(rules)
        orders: dict[str, list[Order]] = {}
        answered: list[Answered] = []
        rows = iter(rows)
        head = next(rows, None)
        if head is None or head[:3] != ["exchange", CAPTURE_FORMAT, rules.name]:
            raise ValueError(f"not a capture of format {CAPTURE_FORMAT} under rules {rules.name}: {head}")
        exchange.seq = head[3]
        for tag, *row in rows:
            if tag == "order":
                orders.setdefault(row[0], []).append(Order(*row[1:]))
            elif tag == "balance":
                exchange.ledger.restore(*row)
            elif tag == "answered":
                *fields, status, reason = row
                answered.append(Answered(*fields, Status(status), reason and Reason(reason)))
            else:
                raise ValueError(f"not a row of a capture: {tag}")
        exchange._restore(orders, answered)
        return exchange

    def _restore(self, orders: dict[str, list[Order]], answered: list[Answered]) -> None:
        """Fill the books, and what follows from them and from the answered ids."""
        remembered: list[Remembered] = [*answered]
        for symbol, resting in orders.items():
            self._books[symbol] = OrderBook.of(symbol, resting)
            remembered += resting
            for order in resting:
                self._open[order.participant] = self._open.get(order.participant, 0) + 1
        remembered.sort(key=lambda old: old.seq)
        self._memory = {(old.participant, old.order_id): old for old in remembered}
        self._window.extend(remembered[-self.rules.remembered_ids :])


@dataclass(frozen=True)
class Capture:
    """The state of an exchange at `seq`, which stays as it was while the exchange goes on.

    Attributes:
        seq: The exchange sequence of the newest input.
        rules: The name of the rules.
        books: Symbol, its orders in priority, and their leaves. The orders are the exchange's own; their leaves
            are copied, since only these change.
        ledger: A copy of the ledger.
        answered: The ids remembered without resting, oldest first.
    """

    seq: int
    rules: str
    books: list[tuple[str, list[Order], list[int]]]
    ledger: Ledger
    answered: list[Remembered]

    def rows(self) -> Iterator[list[Any]]:
        """The state as small lists that JSON can hold, made one at a time.

        A head; the orders by symbol, side and priority; the balances; the answered ids.
        """
        yield ["exchange", CAPTURE_FORMAT, self.rules, self.seq]
        for symbol, orders, leaves in self.books:
            for o, left in zip(orders, leaves, strict=True):
                yield [
                    "order", symbol, o.seq, o.side, o.order_id, o.participant, o.symbol_as_sent, o.quantity,
                    o.price, left, o.fingerprint,
                ]  # fmt: skip
        for balance in self.ledger.balances():
            yield ["balance", *balance]
        for a in self.answered:
            reason = a.reason and a.reason.value
            yield ["answered", a.seq, a.participant, a.order_id, a.fingerprint, a.status.value, reason]
