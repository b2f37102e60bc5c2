"""The exchange as a whole: outcomes and their precedence, the memory of ids, captures, and the naive oracle."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracle import TICKS, TIGHT, Oracle, instruction, random_stream

from stocktrade.core.exchange import Capture, Exchange
from stocktrade.core.ledger import CASH
from stocktrade.core.rules import NSE_INSTRUMENT, Instrument, Rules
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

ACCEPTED, REJECTED, DUPLICATE = Status.ACCEPTED, Status.REJECTED, Status.DUPLICATE


def answer(exchange: Exchange, given: Instruction) -> Outcome:
    """The outcome of an input, after which everything still holds."""
    outcome = exchange.apply(given)[0]
    exchange.check()
    assert isinstance(outcome, Outcome)
    return outcome


def status(exchange: Exchange, given: Instruction) -> tuple[Status, Reason | None]:
    outcome = answer(exchange, given)
    return outcome.status, outcome.reason


# The first trade


def test_the_first_trade_gives_these_facts_in_this_order() -> None:
    """HDFC buys 100 SBI at 885 from SELLER: first the outcome, then the match, from which the legs follow."""
    exchange = Exchange()
    buy = Instruction("BUY", "b1", "HDFC", "SBIN", "SBI", 100, Paise(88500), 1)
    sell = Instruction("SELL", "s1", "SELLER", "SBIN", "nse:sbin", 100, None, 2)
    assert exchange.apply(buy) == [
        Outcome(1, "BUY", "b1", "HDFC", "SBI", ACCEPTED, None, "", 100, Paise(88500), 0, 100)
    ]
    facts = exchange.apply(sell)
    assert facts == [
        Outcome(2, "SELL", "s1", "SELLER", "nse:sbin", ACCEPTED, None, "", 100, None, 100, 0),
        Match(2, 1, "SBIN", 100, Paise(88500), "BUY", "b1", "HDFC", "SBI", "s1", "SELLER", "nse:sbin"),
    ]
    assert [type(fact) for fact in facts] == [Outcome, Match]
    assert exchange.ledger.balance("HDFC", "SBIN") == 100
    assert exchange.ledger.balance("SELLER", CASH) == 8_850_000
    exchange.check()


def test_the_trades_of_one_input_are_numbered_from_one() -> None:
    """A sweep over three makers gives the matches 1, 2 and 3 of its sequence."""
    exchange = Exchange()
    for number, price in enumerate((100, 101, 102)):
        exchange.apply(instruction("SELL", f"s{number}", 10, price, participant="SELLER"))
    facts = exchange.apply(instruction("BUY", "b", 40, 102))
    assert [(fact.seq, fact.number) for fact in facts if isinstance(fact, Match)] == [(4, 1), (4, 2), (4, 3)]
    assert isinstance(facts[0], Outcome)
    assert (facts[0].filled, facts[0].leaves) == (30, 10)


def test_books_of_different_symbols_never_meet() -> None:
    """A bid for one symbol does not take an offer of another."""
    exchange = Exchange()
    exchange.apply(instruction("SELL", "s", 10, 100, symbol="INFY"))
    assert len(exchange.apply(instruction("BUY", "b", 10, 100, symbol="SBIN"))) == 1
    assert exchange.depth("SBIN", 5) == ([[100, 10, 1]], [])
    assert exchange.depth("INFY", 5) == ([], [[100, 10, 1]])
    assert exchange.depth("TCS", 5) == ([], [])


# Outcomes and their precedence


def test_every_input_takes_one_sequence() -> None:
    """Accepted, duplicate, reused, rejected: each is answered once, under the next sequence."""
    exchange = Exchange()
    assert exchange.seq == 0
    inputs = [
        instruction("BUY", "a", 1, 100),
        instruction("BUY", "a", 1, 100),
        instruction("BUY", "a", 2, 100),
        instruction("BUY", "b", 0, None, refusal=Reason.INVALID_QUANTITY),
        instruction("SELL", "c", 1, 100),
    ]
    answers = [exchange.apply(given) for given in inputs]
    assert [[fact.seq for fact in facts] for facts in answers] == [[1], [2], [3], [4], [5, 5]]
    assert exchange.seq == 5


def test_a_repeated_order_has_no_effect_and_gets_the_first_answer() -> None:
    """The same id with the same content is a DUPLICATE that names the first sequence, status and reason."""
    exchange = Exchange()
    buy = instruction("BUY", "b", 10, 100)
    exchange.apply(buy)
    assert exchange.apply(buy) == [
        Outcome(2, "BUY", "b", "HDFC", "sbin", DUPLICATE, None, "", 10, Paise(100), 0, 0, 1, ACCEPTED, None)
    ]
    assert exchange.depth("SBIN", 5) == ([[100, 10, 1]], [])


def test_an_id_stays_taken_after_its_order_is_filled() -> None:
    """A retry that arrives after the trade does not trade again."""
    exchange = Exchange()
    buy = instruction("BUY", "b", 10, 100)
    exchange.apply(buy)
    exchange.apply(instruction("SELL", "s", 10, None, participant="SELLER"))
    assert status(exchange, buy) == (DUPLICATE, None)
    assert exchange.depth("SBIN", 5) == ([], [])


def test_a_rejected_input_is_remembered_too() -> None:
    """The repetition of a rejected input is told that, and why; other content under its id is a reuse."""
    exchange = Exchange()
    bad = instruction("BUY", "b", 0, 100, refusal=Reason.INVALID_QUANTITY)
    assert status(exchange, bad) == (REJECTED, Reason.INVALID_QUANTITY)
    again = answer(exchange, bad)
    assert (again.status, again.first_seq, again.first_status, again.first_reason) == (
        DUPLICATE,
        1,
        REJECTED,
        Reason.INVALID_QUANTITY,
    )
    assert status(exchange, instruction("BUY", "b", 5, 100)) == (REJECTED, Reason.ORDER_ID_REUSED)


def test_a_reused_id_is_rejected_and_the_first_use_stays() -> None:
    """Other content under a known id has no effect, is not remembered, and says where the id was used."""
    exchange = Exchange()
    first, other = instruction("BUY", "b", 10, 100), instruction("BUY", "b", 11, 100)
    exchange.apply(first)
    reused = answer(exchange, other)
    assert (reused.status, reused.reason) == (REJECTED, Reason.ORDER_ID_REUSED)
    assert reused.detail == "used at sequence 1 with other content"
    assert status(exchange, other) == (REJECTED, Reason.ORDER_ID_REUSED)
    assert answer(exchange, first).first_seq == 1
    assert exchange.depth("SBIN", 5) == ([[100, 10, 1]], [])


def test_ids_belong_to_their_participant() -> None:
    """Two participants may use the same order id."""
    exchange = Exchange()
    assert status(exchange, instruction("BUY", "x", 1, 100, participant="HDFC")) == (ACCEPTED, None)
    assert status(exchange, instruction("BUY", "x", 1, 100, participant="ICICI")) == (ACCEPTED, None)


def test_a_refused_input_passes_on_what_decoding_said() -> None:
    """Reason and detail of the refusal are the outcome's, and nothing rests."""
    exchange = Exchange()
    outcome = answer(exchange, instruction("BUY", "b", 10, 100, refusal=Reason.NOT_SUPPORTED))
    assert (outcome.status, outcome.reason, outcome.detail) == (REJECTED, Reason.NOT_SUPPORTED, "because")
    assert exchange.depth("SBIN", 5) == ([], [])


@pytest.mark.parametrize(
    ("price", "tick"),
    [
        (24_999, None),
        (25_001, "₹0.05"),
        (88_501, "₹0.05"),
        (88_505, None),
        (100_005, "₹0.10"),
        (500_010, "₹0.50"),
        (1_000_050, "₹1"),
        (2_000_100, "₹5"),
        (2_000_500, None),
    ],
)
def test_a_price_off_the_tick_is_rejected_with_the_tick(price: int, tick: str | None) -> None:
    """Each price band of NSE has its tick; a price between two ticks is refused, never rounded."""
    outcome = answer(Exchange(), instruction("BUY", "b", 10, price))
    expected = (ACCEPTED, "") if tick is None else (REJECTED, f"tick is {tick}")
    assert (outcome.status, outcome.detail) == expected
    assert outcome.reason == (None if tick is None else Reason.PRICE_OFF_TICK)


def test_where_a_tick_band_ends_makes_no_difference() -> None:
    """Each border of the bands is a multiple of both its ticks, so it can count to either band."""
    bands = NSE_INSTRUMENT.tick_bands
    assert [border % tick for (_, below), (border, above) in pairwise(bands) for tick in (below, above)] == [0] * 10
    prices = (1, 24_999, 25_000, 99_999, 100_000, 500_000, 1_000_000, 2_000_000)
    assert [NSE_INSTRUMENT.tick_for(Paise(price)) for price in prices] == [1, 1, 5, 5, 10, 50, 100, 500]
    for price, below in zip(prices, (25_000, 25_000, 100_000, 100_000, 500_000, 1_000_000, 2_000_000), strict=False):
        start, end, tick = NSE_INSTRUMENT.tick_band(Paise(price))
        assert start <= price < end == below
        assert tick == NSE_INSTRUMENT.tick_for(Paise(price))


def test_a_participant_with_too_many_orders_at_rest_is_refused_until_one_leaves() -> None:
    """The limit counts resting orders of one participant, and refuses before matching."""
    exchange = Exchange(replace(TIGHT, max_open_orders=2))
    for number in (1, 2):
        assert status(exchange, instruction("BUY", f"b{number}", 10, 100)) == (ACCEPTED, None)
    outcome = answer(exchange, instruction("BUY", "b3", 10, 100))
    assert (outcome.status, outcome.reason) == (REJECTED, Reason.TOO_MANY_OPEN_ORDERS)
    assert outcome.detail == "at most 2 orders of a participant may rest"
    assert status(exchange, instruction("SELL", "s1", 10, 100)) == (REJECTED, Reason.TOO_MANY_OPEN_ORDERS)
    assert status(exchange, instruction("SELL", "s1", 10, 100, participant="SELLER")) == (ACCEPTED, None)
    assert status(exchange, instruction("BUY", "b4", 10, 100)) == (ACCEPTED, None)


def test_precedence_of_reasons() -> None:
    """An input with every fault at once is told the first in the order of `Reason`, then the next, and so on."""
    exchange = Exchange(replace(TIGHT, max_open_orders=1))
    exchange.apply(instruction("BUY", "b", 10, 100))
    refused = instruction("SELL", "b", 10, 101, refusal=Reason.INVALID_SYMBOL)
    off_tick = instruction("SELL", "c", 10, 101)
    too_many = instruction("SELL", "d", 10, 102)
    reasons = [status(exchange, given)[1] for given in (refused, refused._replace(order_id="e"), off_tick, too_many)]
    assert reasons == [
        Reason.ORDER_ID_REUSED,
        Reason.INVALID_SYMBOL,
        Reason.PRICE_OFF_TICK,
        Reason.TOO_MANY_OPEN_ORDERS,
    ]
    assert reasons == [reason for reason in Reason if reason in reasons]


@pytest.mark.parametrize(
    "wrong",
    [
        {"tick_bands": ()},
        {"tick_bands": ((5, 1),)},
        {"tick_bands": ((0, 1), (10, 5), (10, 6))},
        {"tick_bands": ((0, 0),)},
        {"lot": 0},
        {"lot": 10, "max_quantity": 9},
        {"max_quantity": 2_000_000_000},
        {"reference_price": 0},
        {"reference_price": 88_501},
        {"reference_price": 88_500, "band_basis_points": 0},
    ],
)
def test_instruments_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    """Instruments are checked when they are made, not when an order meets them."""
    with pytest.raises(ValueError, match=r"at least|ascend|above zero|multiple"):
        Instrument(**wrong)


@pytest.mark.parametrize("wrong", [{"remembered_ids": 0}, {"max_open_orders": 0}])
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    """Rules are checked when they are made, too."""
    with pytest.raises(ValueError, match="at least"):
        Rules(**wrong)


# The memory of ids


def test_ids_are_forgotten_in_sequence_but_never_while_their_order_rests() -> None:
    """The sixth later input pushes an id out; that of an order at rest goes when the order is filled."""
    exchange = Exchange(TIGHT)
    rests = instruction("BUY", "rests", 10, 94)
    rejected = instruction("BUY", "rejected", 10, 101)
    exchange.apply(rests)
    exchange.apply(rejected)
    for number in range(4):
        exchange.apply(instruction("BUY", f"n{number}", 1, 101))
    assert status(exchange, rejected) == (DUPLICATE, None)  # a duplicate takes no place in the memory
    exchange.apply(instruction("BUY", "n4", 1, 101))
    assert status(exchange, rejected) == (DUPLICATE, None)
    exchange.apply(instruction("BUY", "n5", 1, 101))
    assert status(exchange, rejected) == (REJECTED, Reason.PRICE_OFF_TICK)  # forgotten, so judged anew
    assert status(exchange, rests) == (DUPLICATE, None)
    exchange.apply(instruction("SELL", "s", 10, 94, participant="SELLER"))
    assert status(exchange, rests) == (ACCEPTED, None)


def test_a_participant_whose_only_old_id_leaves_by_its_own_order_is_remembered() -> None:
    """Filling one's own last remembered order forgets that id, and not the id that filled it."""
    exchange = Exchange(replace(TIGHT, remembered_ids=1))
    buy, sell = instruction("BUY", "b", 10, 94), instruction("SELL", "s", 10, 94)
    exchange.apply(buy)
    exchange.apply(instruction("BUY", "x", 1, 94, participant="ICICI", symbol="INFY"))
    assert answer(exchange, sell).filled == 10
    assert status(exchange, sell) == (DUPLICATE, None)
    assert status(exchange, buy) == (ACCEPTED, None)


# Against the oracle

PARTICIPANTS, IDS = ["HDFC", "ICICI", "SELLER"], [f"o{number}" for number in range(12)]
preventions = st.sampled_from([*SelfTradePrevention])
new_terms = st.one_of(
    st.none(), st.builds(lambda *said: Terms(Action.NEW, *said), st.sampled_from([*TimeInForce]), preventions)
)
symbols_and_quantities = st.one_of(
    st.tuples(st.just("SBIN"), st.integers(1, 12)), st.tuples(st.just("INFY"), st.integers(1, 6).map(lambda n: 2 * n))
)
prices = st.one_of(st.none(), st.integers(94, 106))
new_orders = st.builds(
    lambda order_id, side, price, symbol_and_quantity, participant, refusal, terms: instruction(
        side,
        order_id,
        symbol_and_quantity[1],
        price,
        participant=participant,
        symbol=symbol_and_quantity[0],
        refusal=refusal,
        terms=terms,
    ),
    st.sampled_from(IDS),
    st.sampled_from(["BUY", "SELL"]),
    prices,
    symbols_and_quantities,
    st.sampled_from(PARTICIPANTS),
    st.sampled_from([None] * 12 + [Reason.INVALID_SYMBOL]),
    new_terms,
)
changes = st.builds(
    lambda order_id, side, target, quantity, price, participant, symbol, prevention: instruction(
        side,
        order_id,
        0 if quantity is None else quantity,
        None if quantity is None else price,
        participant=participant,
        symbol=symbol,
        terms=Terms(Action.CANCEL, target=target)
        if quantity is None
        else Terms(Action.REPLACE, TimeInForce.DAY, prevention, target),
    ),
    st.sampled_from([f"c{number}" for number in range(12)]),
    st.sampled_from(["BUY", "SELL"]),
    st.sampled_from(IDS),
    st.one_of(st.none(), st.integers(0, 14)),
    prices,
    st.sampled_from(PARTICIPANTS),
    st.sampled_from(["SBIN", "SBIN", "INFY"]),
    preventions,
)
instructions = st.one_of(new_orders, new_orders, changes)
streams = st.lists(instructions, max_size=60).flatmap(
    lambda stream: st.lists(st.integers(0, max(len(stream) - 1, 0)), max_size=10).map(
        # Some inputs are sent again, at the place that their number gives.
        lambda again: [*stream, *(stream[index] for index in again if stream)]
    )
)
rules = st.builds(
    Rules,
    name=st.just("drawn"),
    remembered_ids=st.integers(1, 20),
    max_open_orders=st.integers(1, 20),
    instruments=st.sampled_from([{}, TIGHT.instruments]),
    other=st.sampled_from([Instrument(((0, 1),)), Instrument(TICKS), Instrument(TICKS, reference_price=Paise(98))]),
)


def compare(exchange: Exchange, oracle: Oracle, given: Instruction) -> None:
    """Both must give the same facts, books and accounts, and the exchange be sound."""
    facts, expected = exchange.apply(given), oracle.apply(given)
    assert facts == expected
    assert [type(fact) for fact in facts] == [type(fact) for fact in expected]
    exchange.check()
    for symbol in ("SBIN", "INFY"):
        assert exchange.depth(symbol, 100) == oracle.depth(symbol)
        assert exchange.resting(symbol) == oracle.listing(symbol)
        assert (symbol in exchange.symbols) is bool(oracle.listing(symbol))
    assert not any(exchange.ledger.sums().values())
    assert exchange.ledger.clearing_house_is_flat()


def compare_end(exchange: Exchange, oracle: Oracle) -> None:
    """Accounts and memory must be the same, too."""
    accounts = {(asset, owner): balance for asset, owner, balance in exchange.ledger.balances() if owner != "NSE"}
    assert accounts == oracle.accounts
    rows = exchange.capture().rows()
    known = {
        (row[5], row[4]) if row[0] == "order" else (row[2], row[3]) for row in rows if row[0] in {"order", "answered"}
    }
    assert known == set(oracle.remembered())


@settings(deadline=None, max_examples=300)
@given(streams, rules)
def test_any_stream_is_answered_as_the_oracle_answers_it(stream: list[Instruction], drawn: Rules) -> None:
    """Facts, books, balances and remembered ids agree with a naive exchange written apart from ours."""
    exchange, oracle = Exchange(drawn), Oracle(drawn)
    for given_instruction in stream:
        compare(exchange, oracle, given_instruction)
    compare_end(exchange, oracle)


@pytest.mark.parametrize("seed", range(4))
def test_long_streams_are_answered_as_the_oracle_answers_them(seed: int) -> None:
    """The same over 1,500 inputs, with deep books and an id window that ids outlive at rest."""
    allowed = replace(TIGHT, remembered_ids=40, max_open_orders=60)
    exchange, oracle = Exchange(allowed), Oracle(allowed)
    seen: set[object] = set()
    for given_instruction in random_stream(seed, 1500, seed_only=seed == 3):
        compare(exchange, oracle, given_instruction)
        outcome = exchange.apply(given_instruction._replace(fingerprint=-1))[0]
        assert [outcome] == oracle.apply(given_instruction._replace(fingerprint=-1))
        assert isinstance(outcome, Outcome)
        seen |= {outcome.status, outcome.reason}
    compare_end(exchange, oracle)
    assert {REJECTED, Reason.ORDER_ID_REUSED} <= seen


def test_the_streams_meet_everything() -> None:
    """Each reason that the exchange itself gives, each kind of fact and each accepted instruction comes up."""
    met: set[object] = set()
    for seed in range(30):
        exchange = Exchange(replace(TIGHT, max_open_orders=8))
        for given_instruction in random_stream(seed, 300):
            outcome, *others = exchange.apply(given_instruction)
            assert isinstance(outcome, Outcome)
            met |= {outcome.status, outcome.reason, *(type(fact) for fact in others)}
            if outcome.status is ACCEPTED:
                terms = outcome.terms or Terms()
                met |= {terms.action, terms.time_in_force, (terms.self_trade_prevention, bool(outcome.filled))}
    decided = [*Reason][[*Reason].index(Reason.ORDER_NOT_FOUND) :]
    prevented = [(prevention, filled) for prevention in SelfTradePrevention for filled in (True, False)]
    assert {Match, Cancellation, *Action, *TimeInForce, *decided, *prevented, DUPLICATE} <= met


# Captures


def through_json(capture: Capture) -> list[list[Any]]:
    """The rows as a snapshot gives them back."""
    return [json.loads(json.dumps(row)) for row in capture.rows()]


@settings(deadline=None, max_examples=300)
@given(streams, rules, st.integers(0, 70))
@example(random_stream(1, 70), TIGHT, 50)
def test_a_restored_exchange_goes_on_identically(stream: list[Instruction], drawn: Rules, cut: int) -> None:
    """At any point: restored from the rows, the same rows again, and the same facts for all that follows."""
    exchange = Exchange(drawn)
    for before in stream[:cut]:
        exchange.apply(before)
    capture = exchange.capture()
    rows = through_json(capture)
    restored = Exchange.restore(rows, drawn)
    restored.check()
    assert capture.seq == restored.seq == exchange.seq == min(cut, len(stream))
    assert through_json(restored.capture()) == rows
    for after in stream[cut:]:
        facts: list[Fact] = exchange.apply(after)
        assert restored.apply(after) == facts
    assert through_json(restored.capture()) == through_json(exchange.capture())
    assert through_json(capture) == rows  # nor has the capture changed while the exchange went on


def test_rows_are_made_one_at_a_time_and_in_order() -> None:
    """Head, orders by symbol and priority, balances, answered ids: this is what a snapshot holds."""
    exchange = Exchange()
    exchange.apply(instruction("BUY", "b1", 10, 99))
    exchange.apply(instruction("BUY", "b2", 10, 100))
    exchange.apply(instruction("SELL", "s1", 4, 100, participant="SELLER"))
    exchange.apply(instruction("SELL", "s2", 5, None, participant="SELLER", symbol="INFY"))
    exchange.apply(instruction("SELL", "s3", 5, 70_001, participant="SELLER"))
    rows = exchange.capture().rows()
    assert next(rows) == ["exchange", 2, "2026.1", 5]
    marks = {given.order_id: given.fingerprint for given in (
        instruction("BUY", "b1", 10, 99), instruction("BUY", "b2", 10, 100), instruction("SELL", "s1", 4, 100),
        instruction("SELL", "s2", 5, None, symbol="INFY"), instruction("SELL", "s3", 5, 70_001),
    )}  # fmt: skip
    assert list(rows) == [
        ["order", "INFY", 4, "SELL", "s2", "SELLER", "infy", 5, None, 5, marks["s2"], 4],
        ["order", "SBIN", 2, "BUY", "b2", "HDFC", "sbin", 10, 100, 6, marks["b2"], 2],
        ["order", "SBIN", 1, "BUY", "b1", "HDFC", "sbin", 10, 99, 10, marks["b1"], 1],
        ["balance", "SBIN", "HDFC", 4],
        ["balance", "SBIN", "NSE", 0],
        ["balance", "SBIN", "SELLER", -4],
        ["balance", "₹", "HDFC", -400],
        ["balance", "₹", "NSE", 0],
        ["balance", "₹", "SELLER", 400],
        ["answered", 3, "SELLER", "s1", marks["s1"], "ACCEPTED", None],
        ["answered", 5, "SELLER", "s3", marks["s3"], "REJECTED", "PRICE_OFF_TICK"],
    ]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [["exchange", 3, "2026.1", 0]],
        [["exchange", 2, "2019.1", 0]],
        [["balance", "SBIN", "HDFC", 1]],
        [["exchange", 2, "2026.1", 0], ["weather", "fine"]],
    ],
)
def test_foreign_rows_are_refused(rows: list[list[Any]]) -> None:
    """Another format, other rules or no capture at all: an error, never an exchange on a guessed state."""
    with pytest.raises(ValueError, match="not a"):
        Exchange.restore(rows)


def test_rows_of_a_symbol_that_the_rules_do_not_know_are_refused() -> None:
    """A capture under a name that means other instruments is not believed."""
    rows = [["exchange", 2, "2026.1", 1], ["order", "SBIN", 1, "BUY", "b", "HDFC", "SBI", 5, 100, 5, 0, 1]]
    assert Exchange.restore(rows).depth("SBIN", 1) == ([[100, 5, 1]], [])
    with pytest.raises(ValueError, match="orders in SBIN"):
        Exchange.restore(rows, Rules(other=None))


def test_rows_of_the_format_before_are_read() -> None:
    """A snapshot of before orders had a place of their own is restored: their place is their sequence."""
    exchange = Exchange()
    for number, given_instruction in enumerate(
        (
            instruction("BUY", "b1", 10, 99),
            instruction("BUY", "b2", 10, 100),
            instruction("SELL", "s1", 4, 100, participant="SELLER"),
        ),
        1,
    ):
        exchange.apply(given_instruction)
        assert exchange.seq == number
    rows = through_json(exchange.capture())
    older = [["exchange", 1, *rows[0][2:]], *(row[:11] if row[0] == "order" else row for row in rows[1:])]
    assert [len(row) for row in older if row[0] == "order"] == [11, 11]
    restored = Exchange.restore(older)
    restored.check()
    assert through_json(restored.capture()) == rows


@pytest.mark.parametrize("seed", ["0", "4711"])
def test_neither_facts_nor_rows_depend_on_the_hash_seed(seed: str) -> None:
    """Another process with another PYTHONHASHSEED gives the same facts and the same rows."""
    script = (
        "import json; from oracle import TIGHT, random_stream; from stocktrade.core.exchange import Exchange\n"
        "exchange = Exchange(TIGHT)\n"
        "facts = [exchange.apply(given) for given in random_stream(3, 400)]\n"
        "print(json.dumps([facts, list(exchange.capture().rows())]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent)}
    other = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    ).stdout
    exchange = Exchange(TIGHT)
    facts = [exchange.apply(given_instruction) for given_instruction in random_stream(3, 400)]
    assert other == json.dumps([facts, list(exchange.capture().rows())]) + "\n"


# The check itself


def _lost_share(exchange: Exchange) -> None:
    exchange.ledger.restore("SBIN", "HDFC", 0)


def _kept_by_the_clearing_house(exchange: Exchange) -> None:
    exchange.ledger.post([("HDFC", "NSE", "SBIN", 1)])


def _miscounted(exchange: Exchange) -> None:
    exchange._members["HDFC"].resting += 1


def _forgotten(exchange: Exchange) -> None:
    del exchange._members["HDFC"].ids["b1"]


def _never_forgotten(exchange: Exchange) -> None:
    exchange._window.popleft()
    exchange._window.popleft()


def _out_of_sequence(exchange: Exchange) -> None:
    exchange._window.reverse()


def _broken_book(exchange: Exchange) -> None:
    exchange._markets["SBIN"].book.bids.levels[100].total += 1


@pytest.mark.parametrize(
    ("sabotage", "what"),
    [
        (_lost_share, "an asset does not sum to zero"),
        (_kept_by_the_clearing_house, "the clearing house is not flat"),
        (_miscounted, "a count of resting orders is wrong"),
        (_forgotten, "the memory is not the window and what rests"),
        (_never_forgotten, "the memory is not the window and what rests"),
        (_out_of_sequence, "the window is not in sequence"),
        (_broken_book, "book of SBIN: total of BUY at 100 is not the sum of its orders"),
    ],
)
def test_check_finds_every_kind_of_damage(sabotage: Callable[[Exchange], None], what: str) -> None:
    """Each invariant of the exchange, broken on purpose, is named."""
    exchange = Exchange()
    exchange.apply(instruction("BUY", "b1", 10, 100))
    exchange.apply(instruction("SELL", "s1", 4, 100, participant="SELLER"))
    exchange.check()
    sabotage(exchange)
    with pytest.raises(AssertionError) as broken:
        exchange.check()
    assert str(broken.value) == what
