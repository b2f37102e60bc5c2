"""The exchange: one door, through which an instruction goes in and the facts that follow from it come out.

Owns the exchange sequence, the books, the ledger and the memory of order ids. Invariants: every input takes one
sequence and gets exactly one `Outcome`; state and facts are a function of the rules and the inputs in their order
and of nothing else, so that a replay, or a restored capture, goes on identically; the ids of resting orders are
always remembered.

An exception out of `apply` is a bug, and leaves an exchange that must be dropped. A resting order costs about
300 bytes, its texts and its place in the memory of ids included; nothing here makes reference cycles.

The seed's orders are nearly all of the traffic, so `apply` deals with them by itself, in few steps; what says more
(an action, a time in force, self-trade prevention, a market order) goes on to `_apply_terms`.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from sys import intern
from typing import Any, Final, NamedTuple

from stocktrade.core.book import Depth, Met, Order, OrderBook, Resting
from stocktrade.core.clearing import settle
from stocktrade.core.ledger import Ledger
from stocktrade.core.rules import RULES, Instrument, Rules
from stocktrade.domain.facts import (
    PLAIN,
    Action,
    Cancellation,
    Fact,
    Instruction,
    Match,
    Outcome,
    Reason,
    Status,
    Terms,
    TimeInForce,
    fact,
)
from stocktrade.domain.values import Paise, Side, canonical_symbol, group_indian

CAPTURE_FORMAT: Final = 2
"""The version of the rows of a `Capture`. Format 1 had orders without a place; `Exchange.restore` reads it, too."""

# Bound once: looking a member up on its enum costs more than a global, a few times for each input.
ACCEPTED, REJECTED, DUPLICATE = Status.ACCEPTED, Status.REJECTED, Status.DUPLICATE
_new_order: Final = Order.__new__


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

Refusal = tuple[Reason, str]
"""Why an input is rejected, as a code and as a sentence."""


class Market:
    """A symbol's book and how it is traded. The tick of the last price's band is kept at hand."""

    __slots__ = ("band_below", "band_from", "book", "instrument", "is_new", "only_ticks", "tick")

    def __init__(self, symbol: str, instrument: Instrument) -> None:
        self.book = OrderBook(symbol)
        self.instrument = instrument
        self.is_new = True
        self.only_ticks = instrument.only_ticks
        self.band_from = self.band_below = 0
        self.tick = 1

    def is_off_tick(self, price: Paise) -> bool:
        """Whether `price` is no multiple of the tick of its band."""
        if not self.band_from <= price < self.band_below:
            self.band_from, self.band_below, self.tick = self.instrument.tick_band(price)
        return price % self.tick != 0


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
        self._most_resting = rules.max_open_orders
        self._remembered_ids = rules.remembered_ids
        self.seq = 0
        self.ledger = Ledger()
        self._markets: dict[str, Market] = {}
        self._members: dict[str, Member] = {}
        # The newest remembered inputs, oldest at the left. What members remember beyond it is at rest. A replaced
        # order stands here as the object that it was, and with its member as the one that took its new place.
        self._window: deque[Remembered] = deque()

    def apply(self, instruction: Instruction) -> list[Fact]:
        """Take in one input.

        The first of these that holds decides: the (participant, order id) is remembered with the same content
        (DUPLICATE) or with other content (ORDER_ID_REUSED); decoding refused it; then the reasons from
        UNKNOWN_SYMBOL on, in the order of `Reason`. Otherwise it is accepted and does what it says.

        Args:
            instruction: What was decoded. Unless it carries a refusal, the quantity of a new order is at least 1.

        Returns:
            The outcome; then, in the order in which they happened, the matches and the cancellations by self-trade
            prevention, that of the order which came being the last.
        """
        seq = self.seq = self.seq + 1
        (
            side, order_id, participant, symbol, symbol_as_sent, quantity, price, fingerprint, reason, detail, terms
        ) = instruction  # fmt: skip
        member = self._members.get(participant)
        if member is None:
            member = self._members[participant] = Member(participant)
        elif (first := member.ids.get(order_id)) is not None:
            return [self._repeated(instruction, first)]
        if reason is not None:
            return self._reject(instruction, member, reason, detail)
        market = self._markets.get(symbol)
        if market is None:
            instrument = self.rules.instrument(symbol)
            if instrument is None:
                detail = f"{symbol} is not among the instruments"
                return self._reject(instruction, member, Reason.UNKNOWN_SYMBOL, detail)
            market = Market(symbol, instrument)
        if terms is not None or (price is None and side == "BUY"):
            return self._apply_terms(instruction, member, market, terms or PLAIN)
        if not market.only_ticks or (price is not None and market.is_off_tick(price)):
            refusal = market.instrument.refusal(quantity, price)
            if refusal is not None:
                return self._reject(instruction, member, *refusal)
        if member.resting >= self._most_resting:
            return self._reject(instruction, member, *self._too_many())

        participant = member.name  # the same text, but one object for all orders and accounts
        if side == "SELL":
            fills, leaves = market.book.sell(quantity, price)
        else:
            assert price is not None
            fills, leaves = market.book.buy(quantity, price)
        answered: Remembered
        if leaves:
            # As Order(...), in a third of the time.
            answered = _new_order(Order)
            answered.seq = answered.place = seq
            answered.side = side
            answered.order_id = order_id
            answered.participant = participant
            answered.symbol_as_sent = symbol_as_sent
            answered.quantity = quantity
            answered.price = price
            answered.leaves = leaves
            answered.fingerprint = fingerprint
            market.book.rest(answered)
            if market.is_new:
                self._keep(market)
            member.resting += 1
        else:
            answered = fact(Answered, (seq, participant, order_id, fingerprint, ACCEPTED, None))
        member.ids[order_id] = answered
        facts: list[Fact] = [
            fact(Outcome, (
                seq, side, order_id, participant, symbol_as_sent, ACCEPTED, None, "", quantity, price,
                quantity - leaves, leaves, 0, None, None, 0, None,
            ))
        ]  # fmt: skip
        if fills:
            settle(self.ledger, market.book.symbol, side, participant, fills)
            self._tell(facts, market.book.symbol, side, order_id, participant, symbol_as_sent, fills)
        # As `_slide_window`.
        window = self._window
        window.append(answered)
        if len(window) > self._remembered_ids:
            oldest = window.popleft()
            if isinstance(oldest, Answered) or not oldest.leaves:
                self._forget(oldest)
        return facts

    def _tell(
        self,
        facts: list[Fact],
        symbol: str,
        side: Side,
        order_id: str,
        participant: str,
        symbol_as_sent: str,
        met: Iterable[Met],
    ) -> None:
        """Say what the order of `participant` met: a match for each fill, in their order; makers that left free ids."""
        seq, members, oldest = self.seq, self._members, self._window[0].seq
        number = 0
        for maker, shares, at in met:
            if at is None:
                facts.append(_cancellation(seq, maker, shares))
            elif side == "SELL":
                number += 1
                facts.append(fact(Match, (
                    seq, number, symbol, shares, at, "BUY",
                    maker.order_id, maker.participant, maker.symbol_as_sent,
                    order_id, participant, symbol_as_sent,
                )))  # fmt: skip
            else:
                number += 1
                facts.append(fact(Match, (
                    seq, number, symbol, shares, at, "SELL",
                    order_id, participant, symbol_as_sent,
                    maker.order_id, maker.participant, maker.symbol_as_sent,
                )))  # fmt: skip
            if not maker.leaves:
                # As `_has_left`.
                members[maker.participant].resting -= 1
                if maker.seq < oldest:
                    self._forget(maker)

    # --- what says more than the seed's orders ---------------------------------------------------------------

    def _apply_terms(self, instruction: Instruction, member: Member, market: Market, terms: Terms) -> list[Fact]:
        """Take in a cancel, a replace, or a new order that does not just wait for its price."""
        target: Order | None = None
        if terms.action is not Action.NEW:
            target = self._target(member, terms.target, instruction.symbol)
            if target is None:
                detail = "no order of yours with this id rests in the book of this symbol"
                return self._reject(instruction, member, Reason.ORDER_NOT_FOUND, detail)
            if terms.action is Action.CANCEL:
                return self._cancel(instruction, member, market, target)
        refusal = self._refusal(instruction, member, market, terms)
        if refusal is not None:
            return self._reject(instruction, member, *refusal)
        if target is not None:
            return self._replace(instruction, member, market, terms, target)
        return self._enter(instruction, member, market, terms)

    def _refusal(self, new: Instruction, member: Member, market: Market, terms: Terms) -> Refusal | None:
        """Why a new order or a replace is rejected."""
        refusal = market.instrument.refusal(new.quantity or None, new.price)
        if refusal is None and terms.action is Action.NEW:
            if _can_rest(new, terms):
                if member.resting >= self._most_resting:
                    return self._too_many()
            elif terms.time_in_force is TimeInForce.FOK and not market.book.can_fill(
                new.side,
                new.quantity,
                new.price,
                market.instrument.reference_price,
                member.name,
                terms.self_trade_prevention,
            ):
                return Reason.FOK_NOT_FILLABLE, "it cannot be filled in full at once"
        return refusal

    def _enter(self, new: Instruction, member: Member, market: Market, terms: Terms) -> list[Fact]:
        """A new order."""
        met, left, is_ended = self._meet(new.side, new.quantity, new.price, member, market, terms)
        rests = left if _can_rest(new, terms) and not is_ended else 0
        facts: list[Fact] = [
            _accepted(
                self.seq,
                new,
                quantity=new.quantity,
                price=new.price,
                filled=new.quantity - left,
                leaves=rests,
                cancelled=0 if rests or is_ended else left,
            )
        ]
        order = Order(
            self.seq,
            new.side,
            new.order_id,
            member.name,
            new.symbol_as_sent,
            new.quantity,
            new.price,
            left,
            new.fingerprint,
            self.seq,
        )
        if rests:
            self._rest(order, member, market)
            answered: Remembered = order
        else:
            answered = Answered(self.seq, member.name, new.order_id, new.fingerprint, ACCEPTED, None)
        member.ids[new.order_id] = answered
        self._trade(facts, new.symbol, order, met)
        if is_ended:
            facts.append(_cancellation(self.seq, order, left))
        self._slide_window(answered)
        return facts

    def _cancel(self, cancel: Instruction, member: Member, market: Market, target: Order) -> list[Fact]:
        """Take an order out of the book."""
        left = target.leaves
        answered = self._answered(cancel, member)
        market.book.withdraw(target)
        self._has_left(target, member)
        self._slide_window(answered)
        return [_accepted(self.seq, cancel, quantity=left, price=target.price, filled=0, leaves=0, cancelled=left)]

    def _replace(self, replace: Instruction, member: Member, market: Market, terms: Terms, target: Order) -> list[Fact]:
        """Give an order another quantity or another price; it keeps its place if it only gets smaller."""
        quantity = replace.quantity or target.leaves
        price = target.price if replace.price is None else replace.price
        answered = self._answered(replace, member)
        if price == target.price and quantity <= target.leaves:
            market.book.reduce(target, quantity)
            self._slide_window(answered)
            return [_accepted(self.seq, replace, quantity=quantity, price=price, filled=0, leaves=quantity)]
        market.book.withdraw(target)
        member.resting -= 1
        met, left, is_ended = self._meet(target.side, quantity, price, member, market, terms)
        rests = 0 if is_ended else left
        facts: list[Fact] = [
            _accepted(self.seq, replace, quantity=quantity, price=price, filled=quantity - left, leaves=rests)
        ]
        moved = Order(
            target.seq,
            target.side,
            target.order_id,
            member.name,
            target.symbol_as_sent,
            quantity,
            price,
            left,
            target.fingerprint,
            self.seq,
        )
        if rests:
            self._rest(moved, member, market)
            member.ids[target.order_id] = moved
        elif target.seq < self._window[0].seq:
            self._forget(target)
        self._trade(facts, replace.symbol, moved, met)
        if is_ended:
            facts.append(_cancellation(self.seq, moved, left))
        self._slide_window(answered)
        return facts

    def _meet(
        self, side: Side, wanted: int, limit: Paise | None, member: Member, market: Market, terms: Terms
    ) -> tuple[list[Met], int, bool]:
        reference = market.instrument.reference_price
        return market.book.meet(side, wanted, limit, reference, member.name, terms.self_trade_prevention)

    def _trade(self, facts: list[Fact], symbol: str, order: Order, met: list[Met]) -> None:
        """Settle what `order` met, if anything, and say it."""
        if not met:
            return
        if any(price is not None for _, _, price in met):
            settle(self.ledger, symbol, order.side, order.participant, met)
        self._tell(facts, symbol, order.side, order.order_id, order.participant, order.symbol_as_sent, met)

    def _rest(self, order: Order, member: Member, market: Market) -> None:
        market.book.rest(order)
        if market.is_new:
            self._keep(market)
        member.resting += 1

    def _target(self, member: Member, order_id: str, symbol: str) -> Order | None:
        """The order at rest that a cancel or a replace means: one of the same participant and symbol."""
        order = member.ids.get(order_id)
        if not isinstance(order, Order) or not order.leaves:
            return None
        return order if canonical_symbol(order.symbol_as_sent) == symbol else None

    # --- answers and memory ----------------------------------------------------------------------------------

    def _keep(self, market: Market) -> None:
        """Keep a market from the first order on that rests there."""
        self._markets[market.book.symbol] = market
        market.is_new = False

    def _too_many(self) -> Refusal:
        detail = f"at most {group_indian(self.rules.max_open_orders)} orders of a participant may rest"
        return Reason.TOO_MANY_OPEN_ORDERS, detail

    def _repeated(self, instruction: Instruction, first: Remembered) -> Outcome:
        """The outcome of an input whose id is remembered. It is not remembered itself: the first stays."""
        if instruction.fingerprint != first.fingerprint:
            detail = f"used at sequence {first.seq} with other content"
            return self._rejected(instruction, Reason.ORDER_ID_REUSED, detail)
        side, order_id, participant, _, symbol_as_sent, quantity, price, _, _, _, terms = instruction
        return Outcome(
            self.seq, side, order_id, participant, symbol_as_sent, DUPLICATE, None, "", quantity, price, 0, 0,
            first.seq, first.status, first.reason, 0, terms,
        )  # fmt: skip

    def _reject(self, instruction: Instruction, member: Member, reason: Reason, detail: str) -> list[Fact]:
        """Answer and remember a refusal."""
        self._slide_window(self._answered(instruction, member, REJECTED, reason))
        return [self._rejected(instruction, reason, detail)]

    def _rejected(self, instruction: Instruction, reason: Reason, detail: str) -> Outcome:
        side, order_id, participant, _, symbol_as_sent, quantity, price, _, _, _, terms = instruction
        return Outcome(
            self.seq, side, order_id, participant, symbol_as_sent, REJECTED, reason, detail, quantity, price, 0, 0,
            0, None, None, 0, terms,
        )  # fmt: skip

    def _answered(
        self, instruction: Instruction, member: Member, status: Status = ACCEPTED, reason: Reason | None = None
    ) -> Answered:
        """Remember the id of an input that leaves nothing at rest under it; `_slide_window` must follow.

        Before anything else leaves: a member of whom no id is remembered is dropped.
        """
        answered = Answered(self.seq, member.name, instruction.order_id, instruction.fingerprint, status, reason)
        member.ids[instruction.order_id] = answered
        return answered

    def _slide_window(self, newest: Remembered) -> None:
        """Add the newest id to the window. The one that this pushes out is forgotten unless it rests.

        Comes last in `apply`: the orders that it filled no longer rest.
        """
        window = self._window
        window.append(newest)
        if len(window) > self._remembered_ids:
            oldest = window.popleft()
            if isinstance(oldest, Answered) or not oldest.leaves:
                self._forget(oldest)

    def _has_left(self, order: Order, member: Member) -> None:
        """An order of `member` no longer rests: that frees a place, and its id if only the order kept that."""
        member.resting -= 1
        if order.seq < self._window[0].seq:
            self._forget(order)

    def _forget(self, old: Remembered) -> None:
        member = self._members[old.participant]
        now = member.ids[old.order_id]
        if now is not old and isinstance(now, Order) and now.leaves:
            return  # it was replaced, and rests at its new place
        del member.ids[old.order_id]
        if not member.ids:
            del self._members[old.participant]

    # --- what there is ---------------------------------------------------------------------------------------

    @property
    def symbols(self) -> list[str]:
        """The canonical symbols in whose books something rests, sorted."""
        return sorted(symbol for symbol, market in self._markets.items() if market.book.has_orders)

    def depth(self, symbol: str, levels: int) -> tuple[Depth, Depth]:
        """The best levels of bids and asks of the canonical `symbol`, as `OrderBook.depth` gives them."""
        market = self._markets.get(symbol)
        return ([], []) if market is None else market.book.depth(levels)

    def resting(self, symbol: str) -> list[Resting]:
        """Every order in the book of the canonical `symbol`, as `OrderBook.listing` gives them."""
        market = self._markets.get(symbol)
        return [] if market is None else market.book.listing()

    def check(self) -> None:
        """Prove the invariants of the books, of the ledger and of the memory.

        Raises:
            AssertionError: One does not hold; the message names it.
        """
        resting: dict[tuple[str, str], Remembered] = {}
        for market in self._markets.values():
            market.book.check()
            resting.update({(order.participant, order.order_id): order for order in market.book.resting()[0]})
        counts = Counter(participant for participant, _ in resting)
        memory = {(name, i): old for name, member in self._members.items() for i, old in member.ids.items()}
        # Of a replaced order the window has what it was, and the memory what it is.
        window = {(old.participant, old.order_id): old for old in self._window}
        window |= {key: now for key, now in memory.items() if key in window and window[key].seq == now.seq}
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
            books=[(symbol, *market.book.resting()) for symbol, market in sorted(self._markets.items())],
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
        if head is None or head[:3] not in [["exchange", known, rules.name] for known in (1, CAPTURE_FORMAT)]:
            raise ValueError(f"not a capture of format {CAPTURE_FORMAT} or 1 under rules {rules.name}: {head}")
        exchange.seq = head[3]
        for tag, *row in rows:
            if tag == "order":
                symbol, seq, side, order_id, participant, sent, quantity, price, leaves, fingerprint, *place = row
                # JSON has made each of these few texts anew for every order; once is enough.
                known: Side = "BUY" if side == "BUY" else "SELL"
                order = Order(
                    seq, known, order_id, intern(participant), intern(sent), quantity, price, leaves, fingerprint,
                    *(place or [seq]),
                )  # fmt: skip
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
            instrument = self.rules.instrument(symbol)
            if instrument is None:
                raise ValueError(f"not a capture under these rules: orders in {symbol}")
            market = Market(symbol, instrument)
            market.book = OrderBook.of(symbol, resting)
            self._keep(market)
            remembered += resting
        remembered.sort(key=lambda old: old.seq)
        for old in remembered:
            member = self._members.setdefault(old.participant, Member(old.participant))
            member.ids[old.order_id] = old
            if isinstance(old, Order):
                member.resting += 1
        self._window.extend(remembered[-self.rules.remembered_ids :])


def _can_rest(new: Instruction, terms: Terms) -> bool:
    """Whether what a new order cannot trade at once waits in the book."""
    return terms.time_in_force is TimeInForce.DAY and (new.side == "SELL" or new.price is not None)


def _accepted(
    seq: int,
    instruction: Instruction,
    *,
    quantity: int,
    price: Paise | None,
    filled: int,
    leaves: int,
    cancelled: int = 0,
) -> Outcome:
    side, order_id, participant, _, symbol_as_sent, _, _, _, _, _, terms = instruction
    return Outcome(
        seq, side, order_id, participant, symbol_as_sent, ACCEPTED, None, "", quantity, price, filled, leaves,
        0, None, None, cancelled, terms,
    )  # fmt: skip


def _cancellation(seq: int, order: Order, shares: int) -> Cancellation:
    return Cancellation(seq, order.side, order.order_id, order.participant, order.symbol_as_sent, shares, order.price)


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
                    o.price, left, o.fingerprint, o.place,
                ]  # fmt: skip
        for balance in self.ledger.balances():
            yield ["balance", *balance]
        for a in self.window:
            if a.seq not in at_rest:
                reason = a.reason and a.reason.value
                yield ["answered", a.seq, a.participant, a.order_id, a.fingerprint, a.status.value, reason]
