"""The exchange: one door, through which an instruction goes in and the facts that follow from it come out.

Owns the exchange sequence, the books, the ledger and the memory of order ids. Invariants: every input takes one
sequence and gets exactly one `Outcome`; state and facts are a function of the rules and the inputs in their order
and of nothing else, so that a replay, or a restored capture, goes on identically; the ids of resting orders are
always remembered.

An exception out of `apply` is a bug, and leaves an exchange that must be dropped. A resting order costs about
300 bytes, its texts and its place in the memory of ids included; nothing here makes reference cycles.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from sys import intern
from typing import Any, Final, NamedTuple

from stocktrade.core.book import Depth, Order, OrderBook
from stocktrade.core.clearing import novate
from stocktrade.core.ledger import Ledger
from stocktrade.core.rules import RULES, Rules
from stocktrade.domain.facts import Fact, Instruction, Match, Outcome, Reason, Status, fact
from stocktrade.domain.values import Side, group_indian, rupees_in_text

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


class Member:
    """A participant of whom ids are remembered: these, and how many of its orders rest."""

    __slots__ = ("ids", "name", "resting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.ids: dict[str, Remembered] = {}
        self.resting = 0


class Exchange:
    """Books, clearing and ledger of the symbols of one shard.

    Attributes:
        rules: The rules in force.
        seq: The exchange sequence of the newest input; 0 before the first.
        ledger: All accounts, after every trade up to `seq`.
    """

    def __init__(self, rules: Rules = RULES) -> None:
        self.rules = rules
        self._tick_for = rules.tick_for  # bound once, as what is asked for every input
        self._may_rest = rules.max_open_orders
        self.seq = 0
        self.ledger = Ledger()
        self._books: dict[str, OrderBook] = {}
        self._members: dict[str, Member] = {}
        # The newest remembered inputs, oldest at the left. What members remember beyond it is at rest.
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
        (
            side, order_id, participant, symbol, symbol_as_sent, quantity, price, fingerprint, reason, detail
        ) = instruction  # fmt: skip
        member = self._members.get(participant)
        if member is None:
            member = self._members[participant] = Member(participant)
        elif (first := member.ids.get(order_id)) is not None:
            return [self._repeated(instruction, first)]
        if reason is None:
            if price is not None and price % (tick := self._tick_for(price)):
                reason, detail = Reason.PRICE_OFF_TICK, f"tick is {rupees_in_text(tick)}"
            elif member.resting >= self._may_rest:
                reason = Reason.TOO_MANY_OPEN_ORDERS
                detail = f"at most {group_indian(self.rules.max_open_orders)} orders of a participant may rest"
        if reason is not None:
            answered: Remembered = Answered(seq, participant, order_id, fingerprint, REJECTED, reason)
            member.ids[order_id] = answered
            self._slide_window(answered)
            return [self._rejected(instruction, reason, detail)]

        participant = member.name  # the same text, but one object for all orders and accounts
        book = self._books.get(symbol)
        if book is None:
            book = self._books[symbol] = OrderBook(symbol)
        if side == "SELL":
            fills, leaves = book.sell(quantity, price)
        else:
            assert price is not None
            fills, leaves = book.buy(quantity, price)
        if leaves:
            answered = Order(seq, side, order_id, participant, symbol_as_sent, quantity, price, leaves, fingerprint)
            book.rest(answered)
            member.resting += 1
        else:
            answered = fact(Answered, (seq, participant, order_id, fingerprint, ACCEPTED, None))
        member.ids[order_id] = answered
        facts: list[Fact] = [
            fact(Outcome, (
                seq, side, order_id, participant, symbol_as_sent, ACCEPTED, None, "", quantity, price,
                quantity - leaves, leaves, 0, None, None,
            ))
        ]  # fmt: skip
        for number, (maker, shares, at) in enumerate(fills, 1):
            if side == "SELL":
                match = fact(Match, (
                    seq, number, book.symbol, shares, at, "BUY",
                    maker.order_id, maker.participant, maker.symbol_as_sent,
                    order_id, participant, symbol_as_sent,
                ))  # fmt: skip
            else:
                match = fact(Match, (
                    seq, number, book.symbol, shares, at, "SELL",
                    order_id, participant, symbol_as_sent,
                    maker.order_id, maker.participant, maker.symbol_as_sent,
                ))  # fmt: skip
            postings, legs = novate(match)
            self.ledger.post(postings)
            facts.append(match)
            facts.extend(legs)
            if not maker.leaves:
                # A filled order frees its member's place, and its id if only it kept that.
                self._members[maker.participant].resting -= 1
                if maker.seq < self._window[0].seq:
                    self._forget(maker)
        # As `_slide_window`.
        window = self._window
        window.append(answered)
        if len(window) > self.rules.remembered_ids:
            oldest = window.popleft()
            if isinstance(oldest, Answered) or not oldest.leaves:
                self._forget(oldest)
        return facts

    def depth(self, symbol: str, levels: int) -> tuple[Depth, Depth]:
        """The best levels of bids and asks of the canonical `symbol`, as `OrderBook.depth` gives them."""
        book = self._books.get(symbol)
        return ([], []) if book is None else book.depth(levels)

    def _repeated(self, instruction: Instruction, first: Remembered) -> Outcome:
        """The outcome of an input whose id is remembered. It is not remembered itself: the first stays."""
        side, order_id, participant, _, symbol_as_sent, quantity, price, fingerprint, _, _ = instruction
        if fingerprint == first.fingerprint:
            return Outcome(
                self.seq, side, order_id, participant, symbol_as_sent, DUPLICATE, None, "", quantity, price, 0, 0,
                first.seq, first.status, first.reason,
            )  # fmt: skip
        detail = f"used at sequence {first.seq} with other content"
        return self._rejected(instruction, Reason.ORDER_ID_REUSED, detail)

    def _rejected(self, instruction: Instruction, reason: Reason, detail: str) -> Outcome:
        side, order_id, participant, _, symbol_as_sent, quantity, price, _, _, _ = instruction
        return Outcome(
            self.seq, side, order_id, participant, symbol_as_sent, REJECTED, reason, detail, quantity, price, 0, 0
        )

    def _slide_window(self, newest: Remembered) -> None:
        """Add the newest id to the window. The one that this pushes out is forgotten unless it rests.

        Comes last in `apply`: the orders that it filled no longer rest.
        """
        window = self._window
        window.append(newest)
        if len(window) > self.rules.remembered_ids:
            oldest = window.popleft()
            if isinstance(oldest, Answered) or not oldest.leaves:
                self._forget(oldest)

    def _forget(self, old: Remembered) -> None:
        member = self._members[old.participant]
        del member.ids[old.order_id]
        if not member.ids:
            del self._members[old.participant]

    def check(self) -> None:
        """Prove the invariants of the books, of the ledger and of the memory.

        Raises:
            AssertionError: One does not hold; the message names it.
        """
        resting: dict[tuple[str, str], Remembered] = {}
        for book in self._books.values():
            book.check()
            resting.update({(order.participant, order.order_id): order for order in book.resting()[0]})
        counts = Counter(participant for participant, _ in resting)
        window = {(old.participant, old.order_id): old for old in self._window}
        memory = {(name, i): old for name, member in self._members.items() for i, old in member.ids.items()}
        sequences = [old.seq for old in self._window]
        problems = {
            "an asset does not sum to zero": any(self.ledger.sums().values()),
            "the clearing house is not flat": not self.ledger.clearing_house_is_flat(),
            "the memory is not the window and what rests": memory != resting | window,
            "the window is longer than the rules allow": len(window) > self.rules.remembered_ids,
            "the window is not in sequence": sequences != sorted(set(sequences)),
            "a member is kept without an id": not all(member.ids for member in self._members.values()),
            "a count of resting orders is wrong": any(
                member.resting != counts[name] for name, member in self._members.items()
            ),
        }
        for problem, found in problems.items():
            if found:
                raise AssertionError(problem)

    def capture(self) -> "Capture":
        """A picture of the state now. Copies references and leaves, no more; `Capture.rows` does the work."""
        return Capture(
            seq=self.seq,
            rules=self.rules.name,
            books=[(symbol, *book.resting()) for symbol, book in sorted(self._books.items())],
            ledger=self.ledger.copy(),
            window=list(self._window),
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
                symbol, seq, side, order_id, participant, sent, *rest = row
                # JSON has made each of these few texts anew for every order; once is enough.
                known: Side = "BUY" if side == "BUY" else "SELL"
                order = Order(seq, known, order_id, intern(participant), intern(sent), *rest)
                orders.setdefault(symbol, []).append(order)
            elif tag == "balance":
                exchange.ledger.restore(*row)
            elif tag == "answered":
                seq, participant, order_id, fingerprint, status, reason = row
                reason = reason and Reason(reason)
                answered.append(Answered(seq, participant, order_id, fingerprint, Status(status), reason))
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
        remembered.sort(key=lambda old: old.seq)
        for old in remembered:
            member = self._members.setdefault(old.participant, Member(old.participant))
            member.ids[old.order_id] = old
            if isinstance(old, Order):
                member.resting += 1
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
        window: The newest remembered inputs, oldest first. (Of older ones only those at rest are remembered, and
            these are in the books.)
    """

    seq: int
    rules: str
    books: list[tuple[str, list[Order], list[int]]]
    ledger: Ledger
    window: list[Remembered]

    def rows(self) -> Iterator[list[Any]]:
        """The state as small lists that JSON can hold, made one at a time.

        A head; the orders by symbol, side and priority; the balances; the ids in the window that do not rest.
        """
        yield ["exchange", CAPTURE_FORMAT, self.rules, self.seq]
        oldest = self.window[0].seq if self.window else 0
        at_rest: set[int] = set()  # what of the window rested then; its leaves now may say something else
        for symbol, orders, leaves in self.books:
            for o, left in zip(orders, leaves, strict=True):
                if o.seq >= oldest:
                    at_rest.add(o.seq)
                yield [
                    "order", symbol, o.seq, o.side, o.order_id, o.participant, o.symbol_as_sent, o.quantity,
                    o.price, left, o.fingerprint,
                ]  # fmt: skip
        for balance in self.ledger.balances():
            yield ["balance", *balance]
        for a in self.window:
            if a.seq not in at_rest:
                reason = a.reason and a.reason.value
                yield ["answered", a.seq, a.participant, a.order_id, a.fingerprint, a.status.value, reason]
