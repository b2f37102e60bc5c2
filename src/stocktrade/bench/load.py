"""The orders of a bench, as any client would send them; the same seed gives the same orders.

A `burst` is pairs: an order, then the one that trades with it. The `mixed` load is `PATTERN` over and over: of twenty
orders twelve are such pairs, three rest away from the market, three cancel the oldest that rests, and two are rejected.

Invariants: however long an order is on its way, the orders of a symbol trade pair by pair and whole, for they have one
price and one quantity, and so the first buy that waits meets the first sell. The books hold no more than RESTING orders
and one, and what is on its way, so that an hour measures what a minute does.
"""

import json
import random
import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from stocktrade.domain.values import Side, decimal_rupees
from stocktrade.transport import topics
from stocktrade.transport.base import NewRecord
from stocktrade.transport.codec import key_of_symbol

PATTERN: Final = "mtmtrmtcxmtrmtcmtrcx"
"""m: waits for the next one; t: trades with it at once; r: rests; c: cancels what rests; x: is rejected."""

RESTING: Final = 100
"""So many orders rest before the oldest is cancelled; until then what would cancel rests, too."""

PARTICIPANTS: Final = tuple(f"P{number:02}" for number in range(50))

MEASURED: Final = re.compile(rb'"order_id":"t(\d+)"')
"""In a message of the exchange: the number of the order of the mixed load that traded at once."""


class _Terms(NamedTuple):
    """How a symbol is traded by everybody.

    All of its offers that can trade name a price, or none does: those without one would be served before the others.
    """

    symbol: str
    quantity: int
    paise: int
    offers_priced: bool


class Load:
    """The orders of one seed.

    Args:
        seed: what everything follows from.
        symbols: how many there are.
    """

    def __init__(self, seed: int, symbols: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - a load, not a secret
        self._terms = [
            _Terms(
                f"BENCH{number}",
                10 * self._chance.randrange(1, 20),
                100 * self._chance.randrange(260, 2_000),
                number % 4 != 0,
            )
            for number in range(symbols)
        ]

    def burst(self, orders: int, name: str = "b") -> Iterator[NewRecord]:
        """So many orders, half of them buys; every second one trades with the one before it."""
        for number in range(0, orders, 2):
            yield from self._pair(f"{name}{number}", f"{name}{number + 1}", buy_first=number % 4 == 0)

    def mixed(self) -> Iterator[NewRecord]:
        """The mixed load, without an end. The orders that trade at once have the id t and their number."""
        resting: deque[tuple[str, str, _Terms]] = deque()
        number = 0
        while True:
            for kind in PATTERN:
                if kind == "m":
                    pair = self._pair(f"m{number}", f"t{number + 1}", buy_first=self._chance.random() < 0.5)
                    yield pair[0]
                elif kind == "t":
                    yield pair[1]
                elif kind == "x":
                    yield self._rejected(f"x{number}")
                elif kind == "c" and len(resting) > RESTING:
                    yield _cancel(f"c{number}", *resting.popleft())
                else:
                    terms, seller = self._chance.choice(self._terms), self._chance.choice(PARTICIPANTS)
                    resting.append((f"r{number}", seller, terms))
                    # A tenth above the price, in whole rupees. A bid below it would be taken by an unpriced offer.
                    yield _order("SELL", f"r{number}", seller, terms, terms.paise * 11 // 1000 * 100)
                number += 1

    def _pair(self, first: str, second: str, *, buy_first: bool) -> tuple[NewRecord, NewRecord]:
        terms = self._chance.choice(self._terms)
        buyer, seller = self._chance.sample(PARTICIPANTS, 2)
        buy_id, sell_id = (first, second) if buy_first else (second, first)
        buy = _order("BUY", buy_id, buyer, terms, terms.paise)
        sell = _order("SELL", sell_id, seller, terms, terms.paise if terms.offers_priced else None)
        return (buy, sell) if buy_first else (sell, buy)

    def _rejected(self, order_id: str) -> NewRecord:
        """An order off the tick."""
        terms = self._chance.choice(self._terms)
        return _order("BUY", order_id, self._chance.choice(PARTICIPANTS), terms, terms.paise + 1)


def trading_at_once(orders: int) -> int:
    """How many of the first `orders` of the mixed load trade at once."""
    rounds, rest = divmod(orders, len(PATTERN))
    return rounds * PATTERN.count("t") + PATTERN[:rest].count("t")


def _order(side: Side, order_id: str, participant: str, terms: _Terms, paise: int | None) -> NewRecord:
    topic, id_field, participant_field = _FIELDS[side]
    fields = {
        id_field: order_id,
        participant_field: participant,
        "stock_symbol": terms.symbol,
        "quantity": terms.quantity,
    }
    if paise is not None:
        fields["price_per_unit"] = float(decimal_rupees(paise))
    return _record(topic, terms, fields)


def _cancel(offer_id: str, target: str, seller: str, terms: _Terms) -> NewRecord:
    fields = {"offer_id": offer_id, "seller": seller, "stock_symbol": terms.symbol}
    return _record(topics.SELL_OFFERS, terms, {**fields, "action": "cancel", "target_order_id": target})


def _record(topic: str, terms: _Terms, fields: dict[str, Any]) -> NewRecord:
    return NewRecord(topic, key_of_symbol(terms.symbol), json.dumps(fields, separators=(",", ":")).encode())


_FIELDS: Final[dict[Side, Sequence[str]]] = {
    "BUY": (topics.BUY_ORDERS, "order_id", "buyer"),
    "SELL": (topics.SELL_OFFERS, "offer_id", "seller"),
}
