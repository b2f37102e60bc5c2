"""How many inputs a second the pure core takes, next to the order book `pyorderbook` from PyPI.

Both get the same seeded orders of one symbol, in turns over several rounds, and must trade the same quantity for
the same money. About half of the orders trade on arrival. Three measurements, from the whole to the part:

* `from fields`: side, price and quantity become the library's own order object, and this is processed. Ours is
  `Instruction` and `Exchange.apply`: outcome, trades, clearing, ledger, memory of ids. Theirs is `bid`/`ask` (a UUID
  and a Decimal) and `Book.match`.
* `orders made`: the same with the order objects made beforehand.
* `book only`: matching and nothing else; our `OrderBook` against `Book.match` with orders made beforehand.

The garbage collector is set as `nse` sets it, for both, and does not see the load itself (`gc.freeze`).

    python benchmarks/core.py [--orders N] [--rounds N] [--resting N] [--seed N] [--json]
"""

import argparse
import gc
import json
import platform
import random
import sys
import tracemalloc
from collections.abc import Callable
from importlib.metadata import version
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import pyorderbook  # type: ignore[import-untyped]

from machine import processor
from stocktrade import __version__
from stocktrade.core.book import Order, OrderBook
from stocktrade.core.exchange import Exchange
from stocktrade.domain.facts import Instruction, Match, fact
from stocktrade.domain.values import Paise, Side
from stocktrade.shard.node import tune_garbage_collection

T = TypeVar("T")
MAKE = {"BUY": pyorderbook.bid, "SELL": pyorderbook.ask}


class Fields(NamedTuple):
    """One order before it is anybody's object; the price for ours in paise, for theirs in rupees."""

    side: Side
    order_id: str
    participant: str
    quantity: int
    paise: Paise
    rupees: float
    fingerprint: int


def load(orders: int, seed: int) -> list[Fields]:
    """Limit orders around a price that walks by ticks of 5 paise: half of them reach across it."""
    rng = random.Random(seed)
    middle = 885_00
    made = []
    for number in range(orders):
        if number % 20 == 0:
            middle += rng.choice((-5, 0, 5))
        side: Side = rng.choice(("BUY", "SELL"))
        away = 5 * rng.randrange(-10, 10)
        paise = Paise(middle - away if side == "BUY" else middle + away)
        quantity, member = 10 * rng.randrange(1, 20), rng.randrange(50)
        made.append(Fields(side, f"o-{number:07}", f"P{member}", quantity, paise, paise / 100, rng.getrandbits(32)))
    return made


def instruction(fields: Fields) -> Instruction:
    """Our order object."""
    side, order_id, participant, quantity, paise, _, fingerprint = fields
    return Instruction(side, order_id, participant, "SBIN", "SBI", quantity, paise, fingerprint)


def their_order(fields: Fields) -> pyorderbook.Order:
    """Their order object; matching uses it up."""
    return MAKE[fields.side]("SBIN", fields.rupees, fields.quantity)


def ours_from_fields(inputs: list[Fields]) -> None:
    """Instructions made and applied."""
    apply = Exchange().apply
    for side, order_id, participant, quantity, paise, _, fingerprint in inputs:
        fields = (side, order_id, participant, "SBIN", "SBI", quantity, paise, fingerprint, None, "", None)
        apply(fact(Instruction, fields))  # as the codec makes it


def theirs_from_fields(inputs: list[Fields]) -> None:
    """Orders made and matched."""
    match = pyorderbook.Book().match
    for side, _, _, quantity, _, rupees, _ in inputs:
        match(MAKE[side]("SBIN", rupees, quantity))


def ours_made(inputs: list[Instruction]) -> None:
    """Instructions applied."""
    apply = Exchange().apply
    for made in inputs:
        apply(made)


def theirs_made(inputs: list[pyorderbook.Order]) -> None:
    """Orders matched."""
    match = pyorderbook.Book().match
    for made in inputs:
        match(made)


def ours_book(inputs: list[Instruction]) -> None:
    """Instructions matched, their leaves at rest; nothing else."""
    book = OrderBook("SBIN")
    for seq, (side, order_id, participant, _, sent, quantity, price, fingerprint, *_) in enumerate(inputs, 1):
        assert price is not None
        _, leaves = book.buy(quantity, price) if side == "BUY" else book.sell(quantity, price)
        if leaves:
            book.rest(Order(seq, side, order_id, participant, sent, quantity, price, leaves, fingerprint, seq))


def traded(inputs: list[Fields]) -> dict[str, int]:
    """What one run trades.

    Raises:
        SystemExit: The two libraries disagree, so there is nothing to compare.
    """
    exchange, book = Exchange(), pyorderbook.Book()
    answers = [exchange.apply(instruction(fields)) for fields in inputs]
    ours = [fact for facts in answers for fact in facts if isinstance(fact, Match)]
    theirs = [trade for fields in inputs for trade in book.match(their_order(fields)).trades]
    shares, paise = sum(m.quantity for m in ours), sum(m.quantity * m.price for m in ours)
    if (shares, paise) != (
        sum(trade.fill_quantity for trade in theirs),
        sum(int(trade.fill_price * 100) * trade.fill_quantity for trade in theirs),
    ):
        raise SystemExit("the two books do not trade the same")
    takers = sum(len(facts) > 1 for facts in answers)
    return {"orders": len(inputs), "orders_trading_on_arrival": takers, "trades": len(ours), "shares": shares}


def timed(run: Callable[[list[Any]], None], prepare: Callable[[], list[Any]]) -> float:
    """Inputs a second of one run; making its inputs is not counted."""
    inputs = prepare()
    tune_garbage_collection()
    start = perf_counter()
    run(inputs)
    seconds = perf_counter() - start
    gc.unfreeze()
    return len(inputs) / seconds


def speeds(inputs: list[Fields], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Inputs a second by measurement and library, a figure for each round."""
    instructions = [instruction(fields) for fields in inputs]

    def fields() -> list[Any]:
        return inputs

    def ours() -> list[Any]:
        return instructions

    def theirs() -> list[Any]:
        return [their_order(fields) for fields in inputs]

    plan: dict[str, tuple[tuple[Any, Any], tuple[Any, Any]]] = {
        "from fields": ((ours_from_fields, fields), (theirs_from_fields, fields)),
        "orders made": ((ours_made, ours), (theirs_made, theirs)),
        "book only": ((ours_book, ours), (theirs_made, theirs)),
    }
    measured: dict[str, dict[str, list[float]]] = {name: {"ours": [], "theirs": []} for name in plan}
    for _ in range(rounds):
        for name, (our_run, their_run) in plan.items():
            measured[name]["ours"].append(timed(*our_run))
            measured[name]["theirs"].append(timed(*their_run))
    return measured


def resting(count: int) -> tuple[Exchange, dict[str, int]]:
    """An exchange with `count` resting bids at 100 prices, and bytes per resting order, ids and texts included."""
    prices = [Paise(800_00 + 5 * step) for step in range(100)]

    def ours() -> Exchange:
        exchange = Exchange()
        for number in range(count):
            price, order_id, participant = prices[number % 100], f"o-{number:07}", f"P{number % 50}"
            exchange.apply(
                Instruction("BUY", order_id, participant, "SBIN", "SBI", 1000 + number, price, 2**31 + number)
            )
        return exchange

    def theirs() -> pyorderbook.Book:
        book = pyorderbook.Book()
        for number in range(count):
            book.match(pyorderbook.bid("SBIN", prices[number % 100] / 100, 1000 + number))
        return book

    exchange, our_bytes = _traced(ours)
    _, their_bytes = _traced(theirs)
    return exchange, {"ours": our_bytes // count, "theirs": their_bytes // count}


def _traced(make: Callable[[], T]) -> tuple[T, int]:
    gc.collect()
    tracemalloc.start()
    made = make()
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return made, size


def capture_pause(exchange: Exchange, rounds: int) -> float:
    """Milliseconds for which trading stops while a capture is taken (the median)."""
    pauses = []
    for _ in range(rounds):
        start = perf_counter()
        capture = exchange.capture()
        pauses.append((perf_counter() - start) * 1e3)
        del capture  # outside of the measured time: whoever writes the snapshot lets go of it
    return median(pauses)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Exchange.apply against PyPI's pyorderbook, on the same orders")
    parser.add_argument("--orders", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--resting", type=int, default=100_000, help="orders at rest for memory and capture")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    inputs = load(options.orders, options.seed)
    what = traded(inputs)
    measured = speeds(inputs, options.rounds)
    exchange, size = resting(options.resting)
    pause = capture_pause(exchange, options.rounds)
    machine = f"{processor()}, {platform.system()} {platform.machine()}"
    versions = {
        "python": platform.python_version(),
        "stocktrade": __version__,
        "pyorderbook": version("pyorderbook"),
    }
    if options.json:
        document = {
            "schema": "stocktrade.benchmark.core/1",
            "machine": machine,
            "versions": versions,
            "seed": options.seed,
            "traded": what,
            "inputs_per_s": measured,
            "bytes_per_resting_order": size,
            "resting": options.resting,
            "capture_pause_ms": pause,
        }
        json.dump(document, sys.stdout, indent=1)
        print()
        return
    print(f"{machine}; " + ", ".join(f"{name} {number}" for name, number in versions.items()))
    print(", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in what.items()) + "; the same in both")
    print(f"\ninputs/s, median of {options.rounds} rounds (slowest - fastest)")
    for name, by in measured.items():
        ratio = median(by["ours"]) / median(by["theirs"])
        ours, theirs = (f"{median(v):>9,.0f} ({min(v):,.0f} - {max(v):,.0f})" for v in by.values())
        print(f"  {name:<12} stocktrade {ours}   pyorderbook {theirs}   {ratio:.2f}x")
    print(f"\nbytes per resting order: stocktrade {size['ours']}, pyorderbook {size['theirs']}")
    print(f"capture of {options.resting:,} resting orders stops trading for {pause:.1f} ms")


if __name__ == "__main__":
    main()
