"""What a larger exchange costs: one thing grows at a time, and all else stays as it is.

    python benchmarks/growth.py [--only NAME ...] [--quick] [--rounds N] [--bootstrap-server HOST:PORT]
                                [--json FILE] [--from FILE] [--draw]

    resting       orders at rest: on the core alone, and on the embedded log
    symbols       that are traded, each in turn; the same
    participants  who trade, each in turn; the same
    shards        of one process on Kafka, by each client library
    processes     that share eight shards on Kafka, by each client library
    length        of the embedded log, in records: by real trading, up to ten million

Each point is measured in a process of its own, but for `length`, where one log grows. The load is always the same: an
order that rests and an offer that trades with it, so that two orders make one trade. The core and the embedded log
begin as an exchange that remembers as many order ids as it ever will, but for `length`, which begins with nothing.
Without a server a broker is started in a container, as the tests do.

`--json` keeps the results in a file, `--from` begins with those of a file (`--only` then measures some of them anew),
and `--draw` draws docs/growth.svg and writes the tables between the marks of docs/performance.md. `--quick` does all
of it at a size that says nothing, in seconds.

Bounded: about twenty minutes. `length` needs 3.5 GB in the folder of temporary files, the others 1 GB; all is removed.
"""

import argparse
import gc
import json
import platform
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple
from uuid import uuid4

from exchange_process import DEADLINE_S, ExchangeProcess, until
from growth_page import SCHEMA, draw, write
from machine import machine
from side_by_side.broker import broker
from stocktrade import __version__
from stocktrade.bench.percentiles import percentiles
from stocktrade.core.exchange import Exchange
from stocktrade.core.rules import RULES
from stocktrade.domain.facts import Instruction
from stocktrade.domain.values import Paise
from stocktrade.shard.node import Node, tune_garbage_collection
from stocktrade.transport import CLIENTS, LIBRDKAFKA, connect, topics
from stocktrade.transport.base import Log, NewRecord

Figures = dict[str, float]

DOCS: Final = Path(__file__).parents[1] / "docs"
CHUNK: Final = 5_000
"""How many orders are put on the log at a time."""
TICK: Final = 5
LOWEST: Final = 80_00
TOP: Final = 110_00
SNAPSHOT_STEPS: Final = 1_000
"""In so many steps without orders the largest of the snapshots is written."""
SHARED_SHARDS: Final = 8
LEGS: Final = (topics.DEMAT_TRANSFERS, topics.CASH_MOVEMENTS)
LEGS_OF_A_TRADE: Final = 4


class Size(NamedTuple):
    """How much is done: the points of each dimension, and the work at each of them, in orders."""

    points: Mapping[str, tuple[int, ...]]
    remembered: int = RULES.remembered_ids
    warm_up: int = 20_000
    measured: int = 50_000
    singles: int = 200
    on_kafka: int = 20_000


FULL: Final = Size(
    {
        "resting": (1_000, 10_000, 100_000, 1_000_000),
        "symbols": (1, 10, 100, 1_000, 10_000),
        "participants": (1, 10, 100, 1_000, 10_000),
        "shards": (1, 2, 4, 8, 16, 32),
        "processes": (1, 2, 3, 4),
        "length": (100_000, 1_000_000, 3_000_000, 10_000_000),
    }
)
QUICK: Final = Size(
    {
        "resting": (100, 1_000),
        "symbols": (1, 10),
        "participants": (1, 10),
        "shards": (1, 2),
        "processes": (1, 2),
        "length": (10_000, 20_000),
    },
    remembered=2_000,
    warm_up=1_000,
    measured=2_000,
    singles=10,
    on_kafka=500,
)


class Load(NamedTuple):
    """Orders of 10 shares: a bid, and an offer at any price that takes the best bid of the same symbol."""

    symbols: int = 100
    participants: int = 100
    levels: int = 1
    """At how many prices the bids of a symbol are."""

    def bid(self, number: int, name: str = "B") -> tuple[str, str, str, Paise | None]:
        """Its id, participant, symbol, and price in paise."""
        turn = number // self.symbols
        price = Paise(LOWEST + TICK * (turn * 7919 % self.levels))
        return f"{name}{number}", f"P{turn % self.participants}", f"S{number % self.symbols}", price

    def offer(self, number: int) -> tuple[str, str, str, Paise | None]:
        """The same; it has no price."""
        turn = number // self.symbols
        return f"O{number}", f"P{(turn * 7 + 3) % self.participants}", f"S{number % self.symbols}", None


RESTING: Final = Load(levels=500)
PLAIN: Final = Load()


def load_of(dimension: str, x: int) -> Load:
    """The load in which the dimension has the size `x`."""
    if dimension == "symbols":
        return Load(symbols=x)
    if dimension == "participants":
        return Load(symbols=10, participants=x)
    return RESTING if dimension == "resting" else PLAIN


def record(order: tuple[str, str, str, Paise | None]) -> NewRecord:
    """An order as a client puts it on the log."""
    order_id, participant, symbol, price = order
    if price is None:
        text = f'{{"offer_id":"{order_id}","seller":"{participant}","stock_symbol":"{symbol}","quantity":10}}'
        return NewRecord(topics.SELL_OFFERS, symbol.encode(), text.encode())
    text = (
        f'{{"order_id":"{order_id}","buyer":"{participant}","stock_symbol":"{symbol}","quantity":10,'
        f'"price_per_unit":{price / 100:.2f}}}'
    )
    return NewRecord(topics.BUY_ORDERS, symbol.encode(), text.encode())


def instruction(order: tuple[str, str, str, Paise | None]) -> Instruction:
    """An order as the core takes it."""
    order_id, participant, symbol, price = order
    side: Any = "SELL" if price is None else "BUY"
    return Instruction(side, order_id, participant, symbol, symbol, 10, price, hash(order_id) & 0x7FFFFFFF)


def pairs(load: Load, first: int, orders: int) -> Iterator[tuple[str, str, str, Paise | None]]:
    """So many orders, from the pair `first` on: a bid and an offer in turn."""
    for number in range(first, first + orders // 2):
        yield load.bid(number)
        yield load.offer(number)


def peak_mib() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "linux" else 1024) / 1024


def spread(took_ms: list[float]) -> Figures:
    """The middle of some times, and what few of them exceed."""
    found = percentiles(took_ms)
    assert found.p50 is not None
    assert found.p99 is not None
    return {"p50_ms": found.p50, "p99_ms": found.p99}


# --- the core alone ------------------------------------------------------------------------------------------------


def in_the_core(dimension: str, x: int, size: Size) -> Iterator[Figures]:
    """One point, without a log."""
    load = load_of(dimension, x)
    gc.collect()
    tracemalloc.start()
    exchange = Exchange()
    for number in range(x if dimension == "resting" else size.warm_up):
        exchange.apply(instruction(load.bid(number, "R")))
    for each in pairs(load, 0, size.warm_up if dimension == "resting" else 4 * size.warm_up):
        exchange.apply(instruction(each))
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    number = 10 * size.warm_up
    for each in pairs(load, number, size.remembered):
        exchange.apply(instruction(each))
    number += size.remembered
    tune_garbage_collection()
    rounds = []
    for _ in range(5):
        orders = [instruction(order) for order in pairs(load, number, size.measured // 5)]
        number += size.measured
        began = time.process_time()  # it waits for nothing
        for order in orders:
            exchange.apply(order)
        rounds.append(len(orders) / (time.process_time() - began))
        del orders
    began = time.process_time()
    capture = exchange.capture()
    pause_s = time.process_time() - began
    del capture
    yield {
        "x": x,
        "orders_per_s": median(rounds),
        "capture_ms": pause_s * 1000,
        "kept_bytes": kept,
        "peak_mib": peak_mib(),
    }


# --- on the embedded log -------------------------------------------------------------------------------------------


class Steps:
    """What the steps of a node took: each in seconds, and the processor time of all, that of its threads with it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu_s = 0.0


class Market:
    """A node, and the orders that are put before it."""

    def __init__(self, log: Log) -> None:
        began = time.monotonic()
        self.log = log
        self.node = Node(log, name="growth", now_ms=lambda: time.time_ns() // 1_000_000)
        while len(self.node.owners) < log.partitions():
            self.node.step(0.05)
        self.start_s = time.monotonic() - began
        self.inputs_replayed = sum(owner.recovered.inputs_replayed for owner in self.node.owners.values())

    def trade(self, orders: Iterator[tuple[str, str, str, Paise | None]]) -> Steps:
        """Put the orders on the log and let the node take them."""
        steps = Steps()
        more = True
        while more:
            batch = [record(order) for order, _ in zip(orders, range(CHUNK), strict=False)]
            more = len(batch) == CHUNK
            self.log.append(batch)
            self.take(len(batch), steps)
        return steps

    def take(self, orders: int, steps: Steps) -> None:
        """Let the node take so many orders that are on the log."""
        deadline = time.monotonic() + DEADLINE_S
        taken = 0
        while taken < orders:
            assert time.monotonic() < deadline, "the orders were not taken"
            began, used = time.perf_counter(), time.process_time()
            taken += len(self.node.step(0.2).taken)
            steps.cpu_s += time.process_time() - used
            steps.seconds.append(time.perf_counter() - began)

    def singles(self, count: int, load: Load) -> list[float]:
        """Milliseconds from the return of the append of an offer to all legs of its trade read, one at a time."""
        name = uuid4().hex[:8]
        shards = range(self.log.partitions())
        took = []
        with closing(self.log.reader({(topic, shard): None for topic in LEGS for shard in shards})) as reader:
            for number in range(count):
                order_id, participant, symbol, _ = load.bid(number, name)
                self.trade(iter([(order_id, participant, symbol, Paise(TOP))]))
                self.log.append([record((f"{name}O{number}", participant, symbol, None))])
                began = time.perf_counter()
                while not self.node.step(0.2).taken:
                    pass
                legs = 0
                while legs < LEGS_OF_A_TRADE:
                    legs += len(reader.poll(0.2))
                took.append((time.perf_counter() - began) * 1000)
        return took

    def measured(self, load: Load, first: int, size: Size) -> Figures:
        """Throughput, then latency; the exchange's own time, without that of whoever sends the orders."""
        steps = self.trade(pairs(load, first, size.measured))
        for _ in range(SNAPSHOT_STEPS):
            self.node.step(0.0)
        took = spread(self.singles(size.singles, load))
        return {
            "orders_per_s": size.measured / sum(steps.seconds),
            "longest_step_ms": max(steps.seconds) * 1000,
            "cpu_us_per_order": steps.cpu_s / size.measured * 1e6,
            **took,
            "peak_mib": peak_mib(),
        }


def log_bytes(folder: Path) -> int:
    """What an embedded log takes on the disk."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def fill_memory(folder: Path, size: Size) -> None:
    """Make a log whose exchange remembers all the ids that it may."""
    with connect(f"sqlite:{folder}") as log:
        market = Market(log)
        market.trade(pairs(PLAIN, 10**8, size.remembered))
        market.node.close()


def on_the_embedded_log(dimension: str, x: int, size: Size, folder: Path) -> Iterator[Figures]:
    """One point, on a log whose exchange remembers all the ids that it may."""
    load = load_of(dimension, x)
    with connect(f"sqlite:{folder}") as log:
        market = Market(log)
        before = log_bytes(folder)
        if dimension == "resting":
            market.trade(load.bid(number, "R") for number in range(x))
        filled = log_bytes(folder) - before
        market.trade(pairs(load, 0, size.warm_up))
        tune_garbage_collection()
        figures = market.measured(load, size.warm_up, size)
        began = time.monotonic()
        market.node.close()
        stop_s = time.monotonic() - began
        del market
        started = Market(log)
        started.node.abandon()
    yield {
        "x": x,
        **figures,
        "stop_s": stop_s,
        "start_s": started.start_s,
        "fill_bytes": filled,
    }


def as_it_grows(records: tuple[int, ...], size: Size, folder: Path) -> Iterator[Figures]:
    """The points of one log that becomes longer and longer."""
    market: Market | None = None
    done = 0
    with connect(f"sqlite:{folder}") as log:
        for x in records:
            began = time.monotonic()
            market = market or Market(log)
            while written(log) < x:
                left = (x - written(log)) // 10  # a pair makes nine records and a share of the journal
                orders = 2 * max(1, min(left, 50_000))
                market.trade(pairs(PLAIN, done, orders))
                done += orders
            built_s = time.monotonic() - began
            figures = market.measured(PLAIN, done, size)
            done += size.measured
            size_on_disk = log_bytes(folder)
            so_far = done + 2 * size.singles * (1 + records.index(x))
            market.node.abandon()  # as if killed
            market = None  # or there would be two of them in memory
            market = Market(log)
            killed_s, replayed = market.start_s, market.inputs_replayed
            market.node.close()
            market = None
            market = Market(log)
            yield {
                "x": x,
                **figures,
                "start_s": market.start_s,
                "start_killed_s": killed_s,
                "replayed": replayed,
                "bytes": size_on_disk,
                "bytes_per_order": size_on_disk / so_far,
                "orders": so_far,
                "built_s": built_s,
            }
        if market is not None:
            market.node.abandon()


def written(log: Log) -> int:
    """How many records there are, snapshots apart."""
    counted = [spec.name for spec in topics.SPECS if not spec.compacted]
    with closing(log.reader({(topic, 0): None for topic in counted})) as reader:
        return sum(reader.ends().values())


# --- on Kafka ------------------------------------------------------------------------------------------------------


def put(log: Log, first: int, orders: int) -> None:
    """Put orders on the log, after as many others."""
    made = [record(order) for order in pairs(Load(symbols=512), first // 2, orders)]
    for at in range(0, orders, CHUNK):
        log.append(made[at : at + CHUNK])


def warm_up(log: Log, size: Size, take: Callable[[int], None]) -> int:
    """Let the exchange take orders that are not counted, and return how many.

    In two waves: a broker makes the index of a partition with the second batch of some size, which can take it many
    milliseconds for each partition that is new, once.
    """
    wave = size.on_kafka // 8 * 2  # whole pairs
    for number in range(2):
        put(log, number * wave, wave)
        take(wave)
    return 2 * wave


def of_shards(x: int, client: str, size: Size, servers: str) -> Iterator[Figures]:
    """One process that owns `x` shards: a burst that waits for it, then single orders."""
    from stocktrade.transport.kafka import KafkaLog  # noqa: PLC0415 - an import that others need not pay for

    prefix = f"growth-{uuid4().hex[:8]}-"
    with KafkaLog(servers, prefix=prefix, partitions=x, client=client) as log:
        log.ensure_topics(topics.SPECS)
        market = Market(log)
        before = warm_up(log, size, lambda orders: market.take(orders, Steps()))
        put(log, before, size.on_kafka)
        steps = Steps()
        market.take(size.on_kafka, steps)
        took = spread(market.singles(size.singles, Load(symbols=512)))
        size_on_disk = kafka_bytes(log, prefix)
        market.node.abandon()
    yield {
        "x": x,
        "orders_per_s": size.on_kafka / sum(steps.seconds),
        "cpu_us_per_order": steps.cpu_s / size.on_kafka * 1e6,
        **took,
        "start_s": market.start_s,
        "bytes_per_order": size_on_disk / (before + size.on_kafka + 2 * size.singles),
        "peak_mib": peak_mib(),
    }


def kafka_bytes(log: Any, prefix: str) -> int:
    """What the topics take on the disks of the brokers, all copies together."""
    brokers = log._connection.admin.describe_log_dirs()  # noqa: SLF001 - the library that is behind it, only asked
    kept = [topic for each in brokers for place in each["log_dirs"] for topic in place["topics"]]
    partitions = [each for topic in kept if topic["name"].startswith(prefix) for each in topic["partitions"]]
    return sum(each["partition_size"] for each in partitions)


def of_processes(x: int, client: str, size: Size, servers: str) -> Iterator[Figures]:
    """Some exchanges that share eight shards; they are frozen while the orders are put on the log."""
    from stocktrade.transport.kafka import KafkaLog  # noqa: PLC0415

    prefix = f"growth-{uuid4().hex[:8]}-"
    with KafkaLog(servers, prefix=prefix, partitions=SHARED_SHARDS, client=LIBRDKAFKA) as log, ExitStack() as ending:
        log.ensure_topics(topics.SPECS)
        running: list[ExchangeProcess] = []
        for _ in range(x):
            running.append(ExchangeProcess(servers, prefix, SHARED_SHARDS, client))
            ending.callback(running[-1].end)
        shares = sorted(len(range(first, SHARED_SHARDS, x)) for first in range(x))
        until(lambda: sorted(each.said["owned"] for each in running) == shares)
        taken = 0

        def take(orders: int) -> None:
            nonlocal taken
            taken += orders
            until(lambda: sum(each.said["taken"] for each in running) >= taken)

        before = warm_up(log, size, take)
        had = [each.said["taken"] for each in running]
        for each in running:
            each.tell(signal.SIGSTOP)
        put(log, before, size.on_kafka)
        began = time.monotonic()
        for each in running:
            each.tell(signal.SIGCONT)
        take(size.on_kafka)
        seconds = max(each.said["at"] for each in running) - began
        most = max(each.said["taken"] - earlier for each, earlier in zip(running, had, strict=True))
    yield {"x": x, "orders_per_s": size.on_kafka / seconds, "largest_share": most / size.on_kafka}


# --- all of it -----------------------------------------------------------------------------------------------------

LINES: Final[dict[str, tuple[str, ...]]] = {
    "resting": ("core", "embedded"),
    "symbols": ("core", "embedded"),
    "participants": ("core", "embedded"),
    "shards": CLIENTS,
    "processes": CLIENTS,
    "length": ("embedded",),
}


def points(dimension: str, line: str, xs: tuple[int, ...], size: Size, place: str) -> Iterator[Figures]:
    """Measure here; `place` is a folder or a broker."""
    if dimension == "length":
        return as_it_grows(xs, size, Path(place))
    if line == "core":
        return in_the_core(dimension, xs[0], size)
    if line == "embedded":
        return on_the_embedded_log(dimension, xs[0], size, Path(place))
    return (of_shards if dimension == "shards" else of_processes)(xs[0], line, size, place)


def in_processes(
    dimension: str, line: str, xs: tuple[int, ...], size: Size, place: str, memory: Path | None
) -> Iterator[Figures]:
    """Measure in processes: one for each point, or one for all that share a log."""
    for some in [xs] if dimension == "length" else [(x,) for x in xs]:
        with tempfile.TemporaryDirectory(prefix="stocktrade-growth-") as folder:
            at = place or f"{folder}/log"
            if memory is not None and line == "embedded" and dimension != "length":
                shutil.copytree(memory, at)
            asked = [dimension, line, ",".join(map(str, some)), at, *(["quick"] if size is QUICK else [])]
            child = subprocess.Popen([sys.executable, __file__, "--point", *asked], stdout=subprocess.PIPE, text=True)
            try:
                assert child.stdout is not None
                for text in child.stdout:
                    yield json.loads(text)
                if child.wait():
                    raise SystemExit(f"measuring {dimension} on {line} at {some} failed")
            finally:
                child.kill()
                child.wait()


class Places:
    """Where to measure, each made when it is first asked for and removed in the end."""

    def __init__(self, opened: ExitStack, size: Size, servers: str | None) -> None:
        self._opened = opened
        self._size = size
        self._given = servers
        self._servers = ""
        self._memory: Path | None = None

    def servers(self) -> str:
        """A broker that has warmed up."""
        if not self._servers:
            self._servers = self._opened.enter_context(broker(self._given))
            for client in CLIENTS:
                for _ in in_processes("shards", client, (4,), self._size, self._servers, None):
                    pass
        return self._servers

    def memory(self) -> Path:
        """A log whose exchange remembers all the ids that it may; to be copied."""
        if self._memory is None:
            folder = self._opened.enter_context(tempfile.TemporaryDirectory(prefix="stocktrade-growth-"))
            self._memory = Path(folder) / "log"
            fill_memory(self._memory, self._size)
        return self._memory


def measure(only: list[str], size: Size, rounds: int, servers: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every dimension with its lines; of several rounds the medians."""
    with ExitStack() as opened:
        places = Places(opened, size, servers)
        for dimension in only:
            place = places.servers() if LINES[dimension] == CLIENTS else ""
            memory = places.memory() if len(LINES[dimension]) == 2 and not place else None
            began = time.monotonic()
            found: dict[str, dict[float, list[Figures]]] = {line: {} for line in LINES[dimension]}
            for _ in range(1 if dimension == "length" else rounds):
                for line, points_of in found.items():
                    for point in in_processes(dimension, line, size.points[dimension], size, place, memory):
                        points_of.setdefault(point["x"], []).append(point)
                        text = "  ".join(f"{name} {value:,.1f}" for name, value in point.items() if name != "x")
                        print(f"{dimension:<12} {line:<12} {point['x']:>12,.0f}  {text}", file=sys.stderr, flush=True)
            seconds = time.monotonic() - began
            print(f"{dimension:<12} took {seconds:.0f} s", file=sys.stderr, flush=True)
            lines = {
                line: [{name: median(each[name] for each in same) for name in same[0]} for same in points_of.values()]
                for line, points_of in found.items()
            }
            yield dimension, {"lines": lines, "seconds": seconds}


def main() -> None:
    """Measure, keep, draw."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=[*LINES], help="a dimension; several times for several")
    parser.add_argument("--quick", action="store_true", help="small, for a look whether it works")
    parser.add_argument("--rounds", type=int, default=1, help="how often each point is measured, but for `length`")
    parser.add_argument("--bootstrap-server", help="a broker to use instead of one in a container")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the results here")
    parser.add_argument("--from", type=Path, metavar="FILE", dest="kept", help="begin with results that were kept")
    parser.add_argument("--draw", action="store_true", help="draw docs/growth.svg and write docs/performance.md")
    parser.add_argument("--docs", type=Path, default=DOCS, metavar="FOLDER", help="where these two are")
    parser.add_argument("--point", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    size = QUICK if asked.quick else FULL
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was made is removed then, too
    if asked.point:
        dimension, line, xs, place, *quick = asked.point
        random.seed(0)
        for point in points(dimension, line, tuple(map(int, xs.split(","))), QUICK if quick else FULL, place):
            print(json.dumps(point), flush=True)
        return
    results: dict[str, Any] = {"schema": SCHEMA, "dimensions": {}}
    if asked.kept:
        results = json.loads(asked.kept.read_text(encoding="utf-8"))
    only = asked.only or ([] if asked.kept else [*LINES])
    if only:
        results["machine"] = machine()
        results["versions"] = f"Python {platform.python_version()}, stocktrade {__version__}"
    with suppress(KeyboardInterrupt):  # what was measured until then is kept
        for dimension, found in measure(only, size, asked.rounds, asked.bootstrap_server):
            results["dimensions"][dimension] = found
    results["dimensions"] = {name: results["dimensions"][name] for name in LINES if name in results["dimensions"]}
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if asked.draw:
        draw(results, asked.docs / "growth.svg")
        write(results, asked.docs / "performance.md")
    if not asked.json and not asked.draw:
        json.dump(results, sys.stdout, indent=1)
        print()


if __name__ == "__main__":
    main()
