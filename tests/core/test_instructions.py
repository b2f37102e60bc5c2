"""What an instruction may say beyond the seed's fields: cancel, replace, IOC, FOK, market, self-trade prevention."""

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import cancel, instruction, random_stream, replace_order

from stocktrade.core.exchange import Exchange
from stocktrade.core.rules import Instrument, Rules
from stocktrade.domain.facts import (
    Action,
    Cancellation,
    Fact,
    Instruction,
    Match,
    Outcome,
    Reason,
    SelfTradePrevention,
    Status,
    Terms,
    TimeInForce,
)
from stocktrade.domain.values import Paise

IOC, FOK = Terms(time_in_force=TimeInForce.IOC), Terms(time_in_force=TimeInForce.FOK)
OFF, PASSIVE, ACTIVE = (Terms(self_trade_prevention=prevention) for prevention in SelfTradePrevention)
NOT_FOUND = (Status.REJECTED, Reason.ORDER_NOT_FOUND)
ACCEPTED = (Status.ACCEPTED, None)


class Desk:
    """One exchange, and short ways to say what came of an instruction."""

    def __init__(self, reference: int | None = None) -> None:
        price = None if reference is None else Paise(reference)
        self.exchange = Exchange(Rules(other=Instrument(((0, 1),), reference_price=price)))

    def facts(self, given_instruction: Instruction) -> list[Fact]:
        """Take it in; everything must hold afterwards."""
        facts = self.exchange.apply(given_instruction)
        self.exchange.check()
        return facts

    def outcome(self, given_instruction: Instruction) -> Outcome:
        """The answer."""
        outcome = self.facts(given_instruction)[0]
        assert isinstance(outcome, Outcome)
        return outcome

    def status(self, given_instruction: Instruction) -> tuple[Status, Reason | None]:
        """Status and reason of the answer."""
        outcome = self.outcome(given_instruction)
        return outcome.status, outcome.reason

    def told(self, given_instruction: Instruction) -> tuple[tuple[int, int, int], list[tuple[Any, ...]]]:
        """Filled, leaves and cancelled of the answer; then (maker or order, shares, price) of what else happened."""
        outcome, *others = self.facts(given_instruction)
        assert isinstance(outcome, Outcome)
        assert outcome.status is Status.ACCEPTED
        lines: list[tuple[Any, ...]] = []
        for fact in others:
            if isinstance(fact, Match):
                lines.append(
                    (fact.buy_order_id if fact.maker == "BUY" else fact.sell_order_id, fact.quantity, fact.price)
                )
            else:
                assert isinstance(fact, Cancellation)
                lines.append((fact.order_id, fact.quantity, "cancelled"))
        return (outcome.filled, outcome.leaves, outcome.cancelled), lines

    def book(self) -> list[tuple[str, int, int | None]]:
        """(order, leaves, price) of all that rests: bids, then offers, each in the order in which they are served."""
        return [(o.order_id, o.leaves, o.price) for o in self.exchange.resting("SBIN")]

    def state(self) -> list[list[Any]]:
        """Books and balances, as a capture has them."""
        return [row for row in self.exchange.capture().rows() if row[0] in {"order", "balance"}]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def bids(desk: Desk, *orders: tuple[str, int, int], participant: str = "LIC") -> None:
    for order_id, quantity, price in orders:
        assert desk.status(instruction("BUY", order_id, quantity, price, participant=participant)) == ACCEPTED


def offers(desk: Desk, *orders: tuple[str, int, int | None], participant: str = "SELLER") -> None:
    for order_id, quantity, price in orders:
        assert desk.status(instruction("SELL", order_id, quantity, price, participant=participant)) == ACCEPTED


# --- cancel ----------------------------------------------------------------------------------------------------


def test_a_cancel_takes_the_rest_of_an_order_out_of_the_book(desk: Desk) -> None:
    """What was traded stays traded; what was left is cancelled, under the cancel's own id."""
    bids(desk, ("b", 100, 885))
    desk.facts(instruction("SELL", "s", 40, 885, participant="SELLER"))
    given_cancel = cancel("c", "b", participant="LIC")
    assert desk.facts(given_cancel) == [
        Outcome(
            3, "BUY", "c", "LIC", "sbin", Status.ACCEPTED, None, "", 60, Paise(885), 0, 0, cancelled=60,
            terms=Terms(Action.CANCEL, target="b"),
        )
    ]  # fmt: skip
    assert desk.book() == []


@pytest.mark.parametrize(
    "given_cancel",
    [
        cancel("c", "never", participant="LIC"),
        cancel("c", "filled", participant="LIC"),
        cancel("c", "cancelled", participant="LIC"),
        cancel("c", "rejected", participant="LIC"),
        cancel("c", "b", participant="HDFC"),
        cancel("c", "b", participant="LIC", symbol="INFY"),
        cancel("c", "gone", participant="LIC"),
    ],
    ids=["unknown", "filled", "cancelled", "rejected", "foreign", "other symbol", "a cancel itself"],
)
def test_a_cancel_of_what_does_not_rest_is_one_answer(desk: Desk, given_cancel: Instruction) -> None:
    """Unknown, dead or foreign: nobody learns from the answer what others have. A replace is told the same."""
    bids(desk, ("filled", 10, 886), ("cancelled", 10, 885), ("b", 10, 884))
    offers(desk, ("s", 10, 886))
    desk.facts(cancel("gone", "cancelled", participant="LIC"))
    desk.facts(instruction("BUY", "rejected", 10, 1, participant="LIC", refusal=Reason.INVALID_PRICE))
    before = desk.state()
    refused = desk.outcome(given_cancel)
    assert (refused.status, refused.reason) == NOT_FOUND
    terms = given_cancel.terms
    assert terms is not None
    replaced = given_cancel._replace(
        order_id="r", quantity=5, fingerprint=0, terms=terms._replace(action=Action.REPLACE)
    )
    other = desk.outcome(replaced)
    assert (other.status, other.reason, other.detail) == (*NOT_FOUND, refused.detail)
    assert desk.state() == before


def test_a_cancel_and_a_replace_find_an_order_of_either_side(desk: Desk) -> None:
    """The topic that they come by does not matter: participant, symbol and id name the order."""
    offers(desk, ("s", 10, 890))
    assert desk.status(replace_order("r", "s", 8, participant="SELLER")) == ACCEPTED
    assert desk.book() == [("s", 8, 890)]
    assert desk.told(cancel("c", "s", participant="SELLER")) == ((0, 0, 8), [])


def test_a_repeated_cancel_gets_its_first_answer(desk: Desk) -> None:
    """A cancel is remembered by its own id, accepted or not; other content under it is a reuse."""
    bids(desk, ("b", 10, 885), ("other", 10, 884))
    done, failed = cancel("c", "b", participant="LIC"), cancel("d", "b", participant="LIC")
    assert (desk.status(done), desk.status(failed)) == (ACCEPTED, NOT_FOUND)
    for again, first in ((done, (3, *ACCEPTED)), (failed, (4, *NOT_FOUND))):
        outcome = desk.outcome(again)
        assert outcome.status is Status.DUPLICATE
        assert (outcome.first_seq, outcome.first_status, outcome.first_reason) == first
        assert outcome.terms == again.terms
    reused = cancel("c", "other", participant="LIC")
    assert desk.status(reused) == (Status.REJECTED, Reason.ORDER_ID_REUSED)
    assert desk.status(cancel("b", "b", participant="LIC")) == (Status.REJECTED, Reason.ORDER_ID_REUSED)
    assert desk.book() == [("other", 10, 884)]


def test_a_cancelled_order_frees_a_place_and_at_last_its_id() -> None:
    """It no longer counts as open; its id is forgotten with the window, and not before."""
    exchange = Exchange(Rules(remembered_ids=2, max_open_orders=1))
    old = instruction("BUY", "old", 10, 100)
    exchange.apply(old)
    for number in range(3):
        exchange.apply(instruction("BUY", f"i{number}", 1, 100, participant="ICICI", symbol=f"S{number}"))
    assert [fact[5] for fact in exchange.apply(old)] == [Status.DUPLICATE]
    exchange.apply(cancel("c", "old"))
    exchange.check()
    assert [fact[5] for fact in exchange.apply(old)] == [Status.ACCEPTED]


# --- replace ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantity", "price", "book"),
    [
        (5, None, [("a", 5, 885), ("b", 10, 885), ("c", 10, 885)]),
        (5, 885, [("a", 5, 885), ("b", 10, 885), ("c", 10, 885)]),
        (10, None, [("a", 10, 885), ("b", 10, 885), ("c", 10, 885)]),
        (None, 885, [("a", 10, 885), ("b", 10, 885), ("c", 10, 885)]),
        (11, None, [("b", 10, 885), ("c", 10, 885), ("a", 11, 885)]),
        (5, 884, [("b", 10, 885), ("c", 10, 885), ("a", 5, 884)]),
        (None, 886, [("a", 10, 886), ("b", 10, 885), ("c", 10, 885)]),
    ],
)
def test_a_replace_keeps_its_place_only_if_it_just_gets_smaller(
    desk: Desk, quantity: int | None, price: int | None, book: list[tuple[str, int, int]]
) -> None:
    """Smaller or the same: the place stays. Larger, or at a new price, if only a better one: behind the others."""
    bids(desk, ("a", 10, 885), ("b", 10, 885), ("c", 10, 885))
    outcome = desk.outcome(replace_order("r", "a", quantity, price, participant="LIC"))
    assert (outcome.quantity, outcome.price) == (quantity or 10, price or 885)
    assert (outcome.filled, outcome.leaves, outcome.cancelled) == (0, quantity or 10, 0)
    assert desk.book() == book


def test_the_quantity_of_a_replace_is_what_shall_be_open(desk: Desk) -> None:
    """Of 100 shares 40 are traded; a replace to 50 leaves 50 open, not 10, and keeps the place."""
    bids(desk, ("a", 100, 885), ("b", 10, 885))
    desk.facts(instruction("SELL", "s", 40, 885, participant="SELLER"))
    assert desk.told(replace_order("r", "a", 50, participant="LIC")) == ((0, 50, 0), [])
    assert desk.book() == [("a", 50, 885), ("b", 10, 885)]


def test_a_replace_that_crosses_trades_at_the_makers_price(desk: Desk) -> None:
    """The order is the taker, under its own id; what it leaves rests at the new price."""
    offers(desk, ("s1", 10, 890), ("s2", 10, 892))
    bids(desk, ("b", 15, 885))
    facts = desk.facts(replace_order("r", "b", 25, 895, participant="LIC"))
    matches = [fact for fact in facts if isinstance(fact, Match)]
    assert [(m.maker, m.buy_order_id, m.sell_order_id, m.quantity, m.price) for m in matches] == [
        ("SELL", "b", "s1", 10, 890),
        ("SELL", "b", "s2", 10, 892),
    ]
    outcome = facts[0]
    assert isinstance(outcome, Outcome)
    assert (outcome.order_id, outcome.quantity, outcome.filled, outcome.leaves) == ("r", 25, 20, 5)
    assert desk.book() == [("b", 5, 895)]
    assert desk.told(cancel("c", "b", participant="LIC")) == ((0, 0, 5), [])


def test_an_unpriced_offer_gets_a_price_by_a_replace(desk: Desk) -> None:
    """It leaves the queue of those that sell at any price. A quantity alone leaves it there."""
    offers(desk, ("u", 10, None), ("v", 10, None))
    assert desk.told(replace_order("r1", "u", 4, participant="SELLER")) == ((0, 4, 0), [])
    assert desk.book() == [("u", 4, None), ("v", 10, None)]
    assert desk.told(replace_order("r2", "u", 5, participant="SELLER")) == ((0, 5, 0), [])
    assert desk.book() == [("v", 10, None), ("u", 5, None)]
    assert desk.told(replace_order("r3", "v", None, 890, participant="SELLER")) == ((0, 10, 0), [])
    assert desk.book() == [("u", 5, None), ("v", 10, 890)]


def test_a_replaced_order_is_still_the_one_that_was_sent(desk: Desk) -> None:
    """Sent again it is a DUPLICATE of its first sequence, wherever it stands now, at rest or filled."""
    first = instruction("BUY", "b", 10, 885)
    desk.facts(first)
    desk.facts(replace_order("r", "b", 20))
    for _ in range(2):
        again = desk.outcome(first)
        assert (again.status, again.first_seq) == (Status.DUPLICATE, 1)
        desk.facts(instruction("SELL", "s", 20, 885, participant="SELLER"))
    assert desk.book() == []


def test_a_replaced_order_keeps_its_id_while_it_rests_and_no_longer() -> None:
    """The window forgets what the order was, not the order; once filled its id is free."""
    exchange = Exchange(Rules(remembered_ids=2))
    old = instruction("BUY", "old", 10, 100)
    exchange.apply(old)
    exchange.apply(replace_order("r", "old", 20))
    for number in range(3):
        exchange.apply(instruction("BUY", f"i{number}", 1, 50, participant="ICICI"))
        exchange.check()
    assert [fact[5] for fact in exchange.apply(old)] == [Status.DUPLICATE]
    exchange.apply(instruction("SELL", "s", 20, 100, participant="SELLER"))
    exchange.check()
    assert [fact[5] for fact in exchange.apply(old)] == [Status.ACCEPTED]


def test_a_refused_replace_leaves_the_order_alone(desk: Desk) -> None:
    """A price that is not allowed: the order rests as before, in its place."""
    exchange = desk.exchange = Exchange()
    bids(desk, ("a", 10, 88_500), ("b", 10, 88_500))
    before = desk.state()
    outcome = exchange.apply(replace_order("r", "a", 5, 88_501, participant="LIC"))[0]
    assert isinstance(outcome, Outcome)
    assert outcome.reason is Reason.PRICE_OFF_TICK
    assert (outcome.quantity, outcome.price) == (5, 88_501)
    assert desk.state() == before


# --- IOC, FOK, market ------------------------------------------------------------------------------------------


def test_ioc_trades_what_it_can_and_never_rests(desk: Desk) -> None:
    """At its limit or better; the rest is cancelled in the same answer."""
    offers(desk, ("s1", 10, 885), ("s2", 10, 890))
    assert desk.told(instruction("BUY", "b", 25, 886, terms=IOC)) == ((10, 0, 15), [("s1", 10, 885)])
    assert desk.told(instruction("BUY", "c", 25, 886, terms=IOC)) == ((0, 0, 25), [])
    assert desk.book() == [("s2", 10, 890)]


def test_an_unpriced_ioc_offer_is_a_market_sell(desk: Desk) -> None:
    """Without a price it takes every bid; only its time in force keeps it from resting."""
    bids(desk, ("b1", 10, 885), ("b2", 10, 880))
    told = desk.told(instruction("SELL", "s", 25, None, terms=IOC, participant="SELLER"))
    assert told == ((20, 0, 5), [("b1", 10, 885), ("b2", 10, 880)])
    assert desk.book() == []


@pytest.mark.parametrize(("quantity", "fills"), [(20, True), (21, False)])
def test_fok_is_all_or_nothing(desk: Desk, quantity: int, fills: bool) -> None:
    """With enough at its limit it is filled in full, over levels; with a share too few nothing happens at all."""
    offers(desk, ("s1", 12, 885), ("s2", 8, 890), ("s3", 100, 891))
    before = desk.state()
    given_order = instruction("BUY", "b", quantity, 890, terms=FOK)
    if fills:
        assert desk.told(given_order) == ((20, 0, 0), [("s1", 12, 885), ("s2", 8, 890)])
    else:
        refused = desk.outcome(given_order)
        assert (refused.status, refused.reason) == (Status.REJECTED, Reason.FOK_NOT_FILLABLE)
        assert refused.detail == "it cannot be filled in full at once"
        assert desk.state() == before


def test_a_market_buy_takes_what_is_there_at_the_makers_prices(desk: Desk) -> None:
    """It sweeps the offers, and its rest is cancelled: it never waits."""
    offers(desk, ("s1", 10, 890), ("s2", 10, 1_000))
    assert desk.told(instruction("BUY", "b", 25, None)) == ((20, 0, 5), [("s1", 10, 890), ("s2", 10, 1_000)])
    assert desk.told(instruction("BUY", "c", 25, None)) == ((0, 0, 25), [])
    assert desk.book() == []


def test_a_market_buy_pays_the_best_priced_offer_for_an_unpriced_one(desk: Desk) -> None:
    """The unpriced offer is served first, at the price of the offer that it stands before."""
    offers(desk, ("s1", 10, 890), ("u", 10, None))
    assert desk.told(instruction("BUY", "b", 15, None)) == ((15, 0, 0), [("u", 10, 890), ("s1", 5, 890)])


@pytest.mark.parametrize("terms", [None, FOK])
def test_two_orders_without_a_price_trade_only_at_a_reference_price(terms: Terms | None) -> None:
    """Without one the market order finds nothing, and the offer still waits; with one that is the price."""
    market_buy = instruction("BUY", "b", 10, None, terms=terms)
    without, with_one = Desk(), Desk(reference=880)
    for desk in (without, with_one):
        offers(desk, ("u", 10, None))
    if terms is None:
        assert without.told(market_buy) == ((0, 0, 10), [])
    else:
        assert without.status(market_buy) == (Status.REJECTED, Reason.FOK_NOT_FILLABLE)
    assert without.book() == [("u", 10, None)]
    assert with_one.told(market_buy) == ((10, 0, 0), [("u", 10, 880)])


def test_what_cannot_rest_is_taken_from_a_participant_with_too_many_orders() -> None:
    """The limit is on orders at rest: IOC, FOK and market orders leave none there."""
    exchange = Exchange(Rules(max_open_orders=1))
    exchange.apply(instruction("BUY", "b", 1, 100))
    for number, (price, terms) in enumerate(((100, IOC), (None, None), (100, None), (100, PASSIVE))):
        outcome = exchange.apply(instruction("BUY", f"n{number}", 1, price, terms=terms))[0]
        assert isinstance(outcome, Outcome)
        assert outcome.reason is (None if number < 2 else Reason.TOO_MANY_OPEN_ORDERS)


# --- self-trade prevention -------------------------------------------------------------------------------------


def test_without_prevention_one_may_trade_with_oneself(desk: Desk) -> None:
    """Off, said or not, is the seed's meaning."""
    offers(desk, ("s", 20, 885), participant="HDFC")
    assert desk.told(instruction("BUY", "b", 10, 885)) == ((10, 0, 0), [("s", 10, 885)])
    assert desk.told(instruction("BUY", "c", 10, 885, terms=OFF)) == ((10, 0, 0), [("s", 10, 885)])


def test_cancel_passive_removes_the_own_order_at_rest_and_goes_on(desk: Desk) -> None:
    """Events come in the order of what happened, and the cancelled order has one of its own."""
    offers(desk, ("s1", 5, 885))
    offers(desk, ("own1", 10, 885), ("own2", 10, 888), participant="HDFC")
    offers(desk, ("s2", 10, 886), ("s3", 10, 887))
    told = desk.told(instruction("BUY", "b", 20, 887, terms=PASSIVE))
    assert told == ((20, 0, 0), [("s1", 5, 885), ("own1", 10, "cancelled"), ("s2", 10, 886), ("s3", 5, 887)])
    assert desk.book() == [("s3", 5, 887), ("own2", 10, 888)]
    assert desk.status(cancel("c", "own1")) == NOT_FOUND


def test_cancel_active_ends_the_order_that_came(desk: Desk) -> None:
    """It keeps what it traded before it met the own order; what is left is told by an event of its own, once."""
    offers(desk, ("s1", 5, 885))
    offers(desk, ("own", 10, 885), participant="HDFC")
    offers(desk, ("s2", 10, 886))
    facts = desk.facts(instruction("BUY", "b", 20, 887, terms=ACTIVE))
    assert [type(fact) for fact in facts] == [Outcome, Match, Cancellation]
    assert facts[-1] == Cancellation(4, "BUY", "b", "HDFC", "sbin", 15, Paise(887))
    outcome = facts[0]
    assert isinstance(outcome, Outcome)
    assert (outcome.filled, outcome.leaves, outcome.cancelled) == (5, 0, 0)
    assert desk.book() == [("own", 10, 885), ("s2", 10, 886)]


def test_only_who_comes_is_asked_about_prevention(desk: Desk) -> None:
    """An order at rest that said cancel-active does not keep its participant's next one from trading with it."""
    assert desk.status(instruction("SELL", "s", 10, 885, terms=ACTIVE)) == ACCEPTED
    assert desk.told(instruction("BUY", "b", 10, 885)) == ((10, 0, 0), [("s", 10, 885)])


@pytest.mark.parametrize(
    ("prevention", "quantity", "fills"),
    [(OFF, 30, True), (PASSIVE, 20, True), (PASSIVE, 21, False), (ACTIVE, 10, True), (ACTIVE, 11, False)],
)
def test_fok_counts_only_what_prevention_lets_it_have(
    desk: Desk,
    prevention: Terms,
    quantity: int,
    fills: bool,
) -> None:
    """Own orders do not count; met under cancel-active they are the end. Refused, nothing is cancelled either."""
    offers(desk, ("s1", 10, 885))
    offers(desk, ("own", 10, 886), participant="HDFC")
    offers(desk, ("s2", 10, 887))
    before = desk.state()
    terms = prevention._replace(time_in_force=TimeInForce.FOK)
    outcome = desk.outcome(instruction("BUY", "b", quantity, 887, terms=terms))
    if fills:
        assert (outcome.status, outcome.filled) == (Status.ACCEPTED, quantity)
    else:
        assert (outcome.status, outcome.reason) == (Status.REJECTED, Reason.FOK_NOT_FILLABLE)
        assert desk.state() == before


@pytest.mark.parametrize(
    ("prevention", "told", "book"),
    [
        (SelfTradePrevention.CANCEL_PASSIVE, ((0, 10, 0), [("s", 10, "cancelled")]), [("b", 10, 890)]),
        (SelfTradePrevention.CANCEL_ACTIVE, ((0, 0, 0), [("b", 10, "cancelled")]), [("s", 10, 890)]),
        (SelfTradePrevention.OFF, ((10, 0, 0), [("s", 10, 890)]), []),
    ],
)
def test_a_replace_can_prevent_a_self_trade(
    desk: Desk, prevention: SelfTradePrevention, told: object, book: list[tuple[str, int, int]]
) -> None:
    """It comes anew, so it says itself what holds; the order that it ends is named by its own id."""
    offers(desk, ("s", 10, 890), participant="LIC")
    bids(desk, ("b", 10, 885))
    assert desk.told(replace_order("r", "b", None, 890, participant="LIC", prevention=prevention)) == told
    assert desk.book() == book


# --- the rules of one symbol -----------------------------------------------------------------------------------

ODD = Rules(
    instruments={"SBIN": Instrument(lot=25, max_quantity=100, reference_price=Paise(88_500), band_basis_points=1_000)},
    other=None,
)


@pytest.mark.parametrize(
    ("quantity", "price", "symbol", "reason", "detail"),
    [
        (25, 88_500, "INFY", Reason.UNKNOWN_SYMBOL, "INFY is not among the instruments"),
        (24, 1, "SBIN", Reason.QUANTITY_OFF_LOT, "lot is 25"),
        (125, 1, "SBIN", Reason.QUANTITY_ABOVE_CAP, "at most 100"),
        (100, 79_651, "SBIN", Reason.PRICE_OFF_TICK, "tick is ₹0.05"),
        (100, 79_645, "SBIN", Reason.PRICE_OUTSIDE_BAND, "from ₹796.50 to ₹973.50"),
        (100, 97_355, "SBIN", Reason.PRICE_OUTSIDE_BAND, "from ₹796.50 to ₹973.50"),
        (100, 79_650, "SBIN", None, ""),
        (100, 97_350, "SBIN", None, ""),
        (25, None, "SBIN", None, ""),
    ],
)
@pytest.mark.parametrize("terms", [None, IOC])
def test_an_instrument_decides_what_an_order_may_say(
    quantity: int, price: int | None, symbol: str, reason: Reason | None, detail: str, terms: Terms | None
) -> None:
    """Unknown symbol, lot, cap, tick and band, in this order; the borders of the band belong to it."""
    outcome = Exchange(ODD).apply(instruction("SELL", "s", quantity, price, symbol=symbol, terms=terms))[0]
    assert isinstance(outcome, Outcome)
    assert (outcome.reason, outcome.detail) == (reason, detail)


def test_a_replace_is_held_to_the_instrument_in_what_it_says() -> None:
    """Quantity and price that it names are judged; what it leaves as it is was judged before."""
    desk = Desk()
    desk.exchange = Exchange(ODD)
    bids(desk, ("b", 50, 88_500))
    said = [(26, None), (125, None), (None, 88_501), (None, 97_355), (25, None), (None, 97_350)]
    reasons = [desk.status(replace_order(f"r{n}", "b", *what, participant="LIC"))[1] for n, what in enumerate(said)]
    assert reasons == [
        Reason.QUANTITY_OFF_LOT,
        Reason.QUANTITY_ABOVE_CAP,
        Reason.PRICE_OFF_TICK,
        Reason.PRICE_OUTSIDE_BAND,
        None,
        None,
    ]
    assert desk.book() == [("b", 25, 97_350)]


def test_the_reasons_of_the_exchange_have_the_order_of_their_list() -> None:
    """An instruction with every fault is told them one after the other as they are taken away."""
    rules = Rules(
        max_open_orders=1,
        instruments={"SBIN": Instrument(lot=5, max_quantity=50, reference_price=Paise(100), band_basis_points=1_000)},
        other=None,
    )
    desk = Desk()
    desk.exchange = Exchange(rules)
    bids(desk, ("used", 5, 100))
    fok = Terms(time_in_force=TimeInForce.FOK)
    wrong = replace_order("used", "nobody", 54, 25_001, participant="LIC", symbol="TCS")
    steps: list[dict[str, Any]] = [
        {"refusal": Reason.INVALID_PRICE},
        {"order_id": "n1"},
        {"order_id": "n2", "refusal": None},
        {"order_id": "n3", "symbol": "SBIN"},
        {"order_id": "n4", "terms": fok},
        {"order_id": "n5", "quantity": 55},
        {"order_id": "n6", "quantity": 50},
        {"order_id": "n7", "price": Paise(25_000)},
        {"order_id": "n8", "price": Paise(100), "terms": None},
        {"order_id": "n9", "terms": fok},
    ]
    reasons = []
    for step in steps:
        wrong = wrong._replace(**step)
        reasons.append(desk.status(wrong)[1])
    assert reasons == [
        Reason.ORDER_ID_REUSED,
        Reason.INVALID_PRICE,
        *[*Reason][[*Reason].index(Reason.UNKNOWN_SYMBOL) :],
    ]


# --- what always holds -----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32), st.integers(20, 120))
def test_no_share_of_an_order_is_lost_or_made(seed: int, length: int) -> None:
    """At every step, of every order: what was sent, as replaces changed it, is filled, cancelled or at rest.

    And on the way: the book holds no IOC, FOK or market order; a refused FOK changes nothing, an accepted one is
    filled in full; who may not trade with itself does not; no id but the cancelled one's has a cancellation.
    """
    desk = Desk(reference=100 if seed % 2 else None)
    sent: defaultdict[tuple[str, str], int] = defaultdict(int)
    gone: defaultdict[tuple[str, str], int] = defaultdict(int)
    orders: dict[tuple[str, str], Instruction] = {}
    for given_instruction in random_stream(seed, length):
        terms = given_instruction.terms or Terms()
        before, state = _at_rest(desk), desk.state()
        outcome, *others = desk.facts(given_instruction)
        assert isinstance(outcome, Outcome)
        who = given_instruction.participant
        key = (who, terms.target or given_instruction.order_id)
        if outcome.status is not Status.ACCEPTED:
            assert others == []
            assert desk.state() == state
            continue
        if terms.action is Action.NEW:
            assert key not in orders
            orders[key] = given_instruction
            sent[key] += given_instruction.quantity
            if terms.time_in_force is TimeInForce.FOK:
                assert outcome.filled == given_instruction.quantity
        elif terms.action is Action.REPLACE:
            sent[key] += outcome.quantity - before[key]
        gone[key] += outcome.cancelled
        for fact in others:
            if isinstance(fact, Match):
                gone[fact.buyer, fact.buy_order_id] += fact.quantity
                gone[fact.seller, fact.sell_order_id] += fact.quantity
                if terms.self_trade_prevention is not SelfTradePrevention.OFF:
                    assert fact.buyer != fact.seller
            else:
                assert isinstance(fact, Cancellation)
                assert fact.participant == who
                gone[who, fact.order_id] += fact.quantity
        at_rest = _at_rest(desk)
        assert sent == {key: gone[key] + at_rest.get(key, 0) for key in sent}
        for key in at_rest:
            order = orders[key]
            assert (order.terms or Terms()).time_in_force is TimeInForce.DAY
            assert (order.side, order.price) != ("BUY", None)


def _at_rest(desk: Desk) -> dict[tuple[str, str], int]:
    return {
        (order.participant, order.order_id): order.leaves
        for symbol in desk.exchange.symbols
        for order in desk.exchange.resting(symbol)
    }
