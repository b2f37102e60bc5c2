"""Matching without a log: the core beside the order books of PyPI, in one process and in turn.

    python -m side_by_side.books ROUNDS [ORDERS]

The orders are those of `core.load`: seeded, of one symbol, half of them trade on arrival. Each library makes its own
order object of side, price and quantity and processes it; what it answers is kept, and after each run its fills are
counted and compared with ours. Ours does more than the others: outcomes, clearing, ledger, memory of ids. Prints one
line of JSON.
"""

import gc
import json
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter
from typing import Any, Final, NamedTuple

from core import Fields, load
from stocktrade.core.book import Order, OrderBook
from stocktrade.core.exchange import Exchange
from stocktrade.domain.facts import Instruction, Match, fact
from stocktrade.shard.node import tune_garbage_collection

SEED: Final = 2026
ORDERS: Final = 100_000

Fill = tuple[int, int]
"""Shares and paise of one fill."""


class Book(NamedTuple):
    """A library: its name here, its distribution, how it takes orders, how its fills are found in what it answered.

    `orders`: how many it takes at most, since some slow down with what rests.
    """

    name: str
    distribution: str
    run: Callable[[list[Fields]], Any]
    fills: Callable[[Any], list[Fill]]
    orders: int = ORDERS


def _ours(inputs: list[Fields]) -> Any:
    apply = Exchange().apply
    return [
        apply(fact(Instruction, (side, order_id, participant, "SBIN", "SBI", quantity, paise, print_, None, "", None)))
        for side, order_id, participant, quantity, paise, _, print_ in inputs
    ]


def _our_fills(answers: Any) -> list[Fill]:
    return [(one.quantity, one.price) for facts in answers for one in facts if isinstance(one, Match)]


def _our_book(inputs: list[Fields]) -> Any:
    book, answers = OrderBook("SBIN"), []
    for seq, (side, order_id, participant, quantity, paise, _, print_) in enumerate(inputs, 1):
        executions, leaves = book.buy(quantity, paise) if side == "BUY" else book.sell(quantity, paise)
        answers.append(executions)
        if leaves:
            book.rest(Order(seq, side, order_id, participant, "SBI", quantity, paise, leaves, print_, seq))
    return answers


def _our_book_fills(answers: Any) -> list[Fill]:
    return [(shares, price) for executions in answers for _, shares, price in executions]


def _pyorderbook(inputs: list[Fields]) -> Any:
    library = import_module("pyorderbook")
    make, match = {"BUY": library.bid, "SELL": library.ask}, library.Book().match
    return [match(make[side]("SBIN", rupees, quantity)) for side, _, _, quantity, _, rupees, _ in inputs]


def _pyorderbook_fills(answers: Any) -> list[Fill]:
    return [(trade.fill_quantity, round(trade.fill_price * 100)) for status in answers for trade in status.trades]


def _cython(inputs: list[Fields]) -> Any:
    library = import_module("cython_orderbook")
    sides, order = {"BUY": library.OrderSide.BID, "SELL": library.OrderSide.ASK}, library.Order
    book = library.OrderBook()
    add = book.add_limit_order
    for side, _, _, quantity, paise, _, _ in inputs:
        add(order(sides[side], quantity, paise))  # whole paise; its examples have Decimals, which are slower
    return book.trade_log


def _cython_fills(log: Any) -> list[Fill]:
    return [(trade.quantity_filled, trade.price) for trade in log]


def _light(inputs: list[Fields]) -> Any:
    library = import_module("lightmatchingengine.lightmatchingengine")
    sides, add = {"BUY": library.Side.BUY, "SELL": library.Side.SELL}, library.LightMatchingEngine().add_order
    return [add("SBIN", paise, quantity, sides[side]) for side, _, _, quantity, paise, _, _ in inputs]


def _light_fills(answers: Any) -> list[Fill]:
    # The first trade of a price is the incoming order's whole fill, those of the orders it met follow.
    return [
        (trade.trade_qty, trade.trade_price)
        for order, trades in answers
        for trade in trades
        if trade.order_id != order.order_id
    ]


def _order_matching(inputs: list[Fields]) -> Any:
    import_module("loguru").logger.disable("order_matching")
    library, orders = import_module("order_matching.matching_engine"), import_module("order_matching.orders")
    order, enums = import_module("order_matching.order").LimitOrder, import_module("order_matching.enums")
    sides = {"BUY": enums.Side.BUY, "SELL": enums.Side.SELL}
    engine, now, tick = library.MatchingEngine(seed=1), datetime(2026, 1, 1), timedelta(milliseconds=1)  # noqa: DTZ001 - it compares with a naive maximum
    answers = []
    for side, order_id, participant, quantity, _, rupees, _ in inputs:
        now += tick
        made = order(
            side=sides[side],
            price=rupees,
            size=quantity,
            timestamp=now,
            order_id=order_id,
            trader_id=participant,
            price_number_of_digits=2,
        )
        engine.place(orders.Orders([made]))
        answers.append(engine.match(timestamp=now))
    return answers


def _order_matching_fills(answers: Any) -> list[Fill]:
    return [(int(trade.size), round(trade.price * 100)) for trades in answers for trade in trades.trades]


BOOKS: Final = (
    Book("stocktrade, the whole core", "stocktrade", _ours, _our_fills),
    Book("stocktrade, its order book alone", "stocktrade", _our_book, _our_book_fills),
    Book("pyorderbook", "pyorderbook", _pyorderbook, _pyorderbook_fills),
    Book("cython-orderbook", "cython-orderbook", _cython, _cython_fills),
    Book("lightmatchingengine", "lightmatchingengine", _light, _light_fills),
    Book("order-matching", "order-matching", _order_matching, _order_matching_fills, 2_000),
)


def summary(fills: list[Fill]) -> dict[str, int]:
    """Trades, shares and paise: what two libraries must agree on."""
    return {
        "trades": len(fills),
        "shares": sum(shares for shares, _ in fills),
        "paise": sum(shares * price for shares, price in fills),
    }


def timed(book: Book, inputs: list[Fields]) -> tuple[float, list[Fill]]:
    """Inputs a second of one run, and its fills; the garbage collector is set as `nse` sets it."""
    tune_garbage_collection()
    start = perf_counter()
    answers = book.run(inputs)
    seconds = perf_counter() - start
    gc.unfreeze()
    return len(inputs) / seconds, book.fills(answers)


def compare(rounds: int, orders: int = ORDERS) -> dict[str, Any]:
    """By name: `inputs_per_s` of each round, `orders`, `version`, and `differs`: how its fills differ from ours.

    A library that cannot be used has `unusable` instead, with the reason.
    """
    inputs = load(orders, SEED)
    found: dict[str, Any] = {}
    for number in range(rounds):
        for book in BOOKS:
            some = inputs[: book.orders]
            figures = found.setdefault(book.name, {"orders": len(some), "inputs_per_s": []})
            if "unusable" in figures:
                continue
            try:
                speed, fills = timed(book, some)
                figures["version"] = version(book.distribution)
            except (ImportError, PackageNotFoundError, AttributeError, TypeError) as error:
                found[book.name] = {"unusable": f"{type(error).__name__}: {error}"}
                continue
            figures["inputs_per_s"].append(speed)
            if number == 0:
                figures |= summary(fills)
                figures["differs"] = difference(fills, BOOKS[0].fills(BOOKS[0].run(some)))
            else:
                assert summary(fills).items() <= figures.items(), f"{book.name} does not repeat itself"
    return found


def difference(theirs: list[Fill], ours: list[Fill]) -> str:
    """Where a library trades otherwise; nothing if it does not."""
    if theirs == ours:
        return ""
    them, us = summary(theirs), summary(ours)
    told = [f"{them[name]:,} {name} for {us[name]:,}" for name in us if them[name] != us[name]]
    first = next((n for n, (one, other) in enumerate(zip(theirs, ours, strict=False)) if one != other), len(ours))
    return ", ".join(told) + f"; from trade {first + 1:,} on" if told else f"another order, from trade {first + 1:,} on"


def main() -> None:
    """Compare and print."""
    rounds, *orders = map(int, sys.argv[1:])
    print(json.dumps(compare(rounds, *orders)))


if __name__ == "__main__":
    main()
