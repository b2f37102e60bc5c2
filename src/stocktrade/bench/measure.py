"""The parts of a bench: burst, recovery, latency, and the core by itself.

Invariant: a moment is that of `time.monotonic`, the one clock that all processes of a machine share; a latency begins
when an order is meant to be sent, whether or not it was, so that whoever is late cannot hide it.
"""

import gc
import os
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from stocktrade.audit.auditor import audit
from stocktrade.audit.findings import Report
from stocktrade.bench.load import MEASURED, PATTERN, Load, trading_at_once
from stocktrade.bench.percentiles import Percentiles, percentiles
from stocktrade.bench.process import Crew, Said, Worker, raise_if
from stocktrade.bench.scratch import Site
from stocktrade.core.exchange import Exchange
from stocktrade.shard.node import tune_garbage_collection
from stocktrade.transport import topics
from stocktrade.transport.base import Log, NewRecord, Reader
from stocktrade.transport.codec import Dead, decode_input, encode_facts

WARM_UP_S: Final = 2.0
"""Told apart: new topics, fresh connections, a broker that has just begun to compile what it runs."""

MAX_SLICES: Final = 60
CORE_ROUNDS: Final = 5
DRAIN_S: Final = 30.0
"""How long after the last order nothing may come before those that are not settled are given up."""

_SHARES, _RUPEES = 1, 2
_BOTH: Final = _SHARES | _RUPEES
_POLL_S: Final = 0.2
_AT_ONCE: Final = 1_000

Bar = Callable[[str, str], AbstractContextManager[Callable[[int, int | None], None]]]
"""Of a part: its name, and what is counted."""


class Settings(NamedTuple):
    """What is measured: for the latency orders a second, and seconds; for the burst its orders. 0 leaves a part out."""

    rate: float
    seconds: float
    orders: int
    symbols: int
    seed: int

    @property
    def total(self) -> int:
        """The orders of the latency, the warm-up's with them."""
        return round(self.rate * (WARM_UP_S + self.seconds)) if self.seconds else 0

    @property
    def warm_up(self) -> int:
        """How many of them are the warm-up's."""
        return round(self.rate * WARM_UP_S) if self.seconds else 0


class Burst(NamedTuple):
    """Orders that waited on the log, and the seconds from the exchange's first shard until all were committed."""

    orders: int
    seconds: float


class Recovery(NamedTuple):
    """Seconds from the start of an exchange's process, after its predecessor was killed."""

    inputs: int
    inputs_replayed: int
    from_snapshot: bool
    owns_s: float
    first_commit_s: float


class Slice(NamedTuple):
    """A part of the time: its latencies in milliseconds, and at its end the exchange's memory."""

    from_s: float
    latency: Percentiles
    exchange_rss_bytes: int | None


class Latency(NamedTuple):
    """Milliseconds from when an order was meant to be sent until both of its legs were seen.

    `unsettled` were not by the end; they count as what they had waited until then.
    """

    all: Percentiles
    warm_up: Percentiles
    unsettled: int
    sender: Said
    slice_s: float
    slices: list[Slice]


class Core(NamedTuple):
    """Inputs a second of the core alone: instructions to facts, and bytes to bytes."""

    inputs: int
    inputs_per_s: float
    with_json_inputs_per_s: float


class Results(NamedTuple):
    """What was measured; None where it was left out."""

    about: str
    client: str
    shards: int
    burst: Burst | None
    recovery: Recovery | None
    latency: Latency | None
    audit: Report | None


def measure(
    site: Site, settings: Settings, crew: Crew, *, audited: bool, stop: Callable[[], bool], bar: Bar
) -> Results:
    """Measure on a log that holds nothing yet.

    Args:
        site: the log.
        settings: what is measured.
        crew: who ends the processes that are started here.
        audited: whether the log is audited afterwards.
        stop: whether to end early.
        bar: shows how far a part is.

    Raises:
        KeyboardInterrupt: `stop`.
        StocktradeError: the log or a process failed.
    """
    load = Load(settings.seed, settings.symbols)
    burst = recovery = latency = report = None
    with site.connect() as log:
        log.ensure_topics(topics.SPECS)
        raise_if(stop)
        task = {"task": "exchange", "site": site._asdict()}
        exchange: Worker | None = None
        if settings.orders:
            _fill(log, load, settings.orders, stop, bar)
            exchange = crew.start(task)
            burst = _burst(exchange, settings.orders, stop, bar)
            exchange.kill()
            log.append(list(load.burst(2, "f")))
            exchange = crew.start(task)
            recovery = _recovery(exchange, settings.orders, stop, bar)
        if settings.seconds:
            exchange = exchange or crew.start(task)
            exchange.wait_for(_owns, stop)
            latency = _latency(log, exchange, crew, site, settings, stop, bar)
        if exchange is not None:
            exchange.end()
        if audited:
            with bar("audit", "inputs") as show:

                def on_progress(done: int, total: int | None) -> None:
                    raise_if(stop)
                    show(done, total)

                report = audit(log, on_progress=on_progress)
        return Results(log.about(), log.client, log.partitions(), burst, recovery, latency, report)


def _owns(said: Said) -> bool:
    return "owned_at" in said


def _fill(log: Log, load: Load, orders: int, stop: Callable[[], bool], bar: Bar) -> None:
    records = load.burst(orders)
    with bar("orders onto the log", "orders") as show:
        for done in range(0, orders, _AT_ONCE):
            raise_if(stop)
            log.append(list(islice(records, _AT_ONCE)))
            show(min(done + _AT_ONCE, orders), orders)


def _burst(exchange: Worker, orders: int, stop: Callable[[], bool], bar: Bar) -> Burst:
    with bar("burst", "orders") as show:
        said = exchange.wait_for(
            lambda said: said.get("taken", 0) >= orders, stop, lambda said: show(said.get("taken", 0), orders)
        )
    return Burst(orders, said["last_at"] - said["began"])


def _recovery(exchange: Worker, orders: int, stop: Callable[[], bool], bar: Bar) -> Recovery:
    with bar("recovery", "s") as show:
        said = exchange.wait_for(
            lambda said: _owns(said) and said.get("taken", 0) > 0,
            stop,
            lambda _: show(int(time.monotonic() - exchange.began), None),
        )
    return Recovery(
        orders,
        said["inputs_replayed"],
        said["from_snapshot"],
        said["owned_at"] - exchange.began,
        said["first_at"] - exchange.began,
    )


# --- latency ---------------------------------------------------------------------------------------------------


def _latency(
    log: Log, exchange: Worker, crew: Crew, site: Site, settings: Settings, stop: Callable[[], bool], bar: Bar
) -> Latency:
    legs = [(topic, p) for topic in (topics.DEMAT_TRANSFERS, topics.CASH_MOVEMENTS) for p in range(log.partitions())]
    sender = crew.start(
        {
            "task": "sender",
            "site": site._asdict(),
            "total": settings.total,
            "warm_up": settings.warm_up,
            **settings._asdict(),
        }
    )
    sender.wait_for(lambda said: "ready" in said, stop)
    with closing(log.reader(dict.fromkeys(legs, None))) as reader, bar("latency", "s") as show:
        reader.poll(0.0)  # the first poll makes connections
        watch = _Watch(settings, begin=time.monotonic() + 0.2)
        sender.tell({"begin": watch.begin})
        seconds = int(WARM_UP_S + settings.seconds)
        heard_at = ends_by = None
        while True:
            raise_if(stop)
            exchange.check()
            said = sender.check()
            before = watch.settled
            watch.read(reader)
            watch.look_at(exchange.pid)
            now = time.monotonic()
            show(min(max(0, int(now - watch.begin)), seconds), seconds)
            if "done" not in said:
                continue
            if watch.settled == trading_at_once(said["sent"]):
                break
            ends_by = ends_by or now + DRAIN_S + settings.seconds
            if heard_at is None or watch.settled > before:
                heard_at = now
            if now >= heard_at + DRAIN_S or now >= ends_by:
                break
    sender.end()
    return watch.latency(said)


class _Watch:
    """What is seen of the legs. For each order it keeps a byte, and a number when it is settled."""

    def __init__(self, settings: Settings, begin: float) -> None:
        self.begin = begin
        self.settled = 0
        self._rate = settings.rate
        self._slice_s = max(1.0, float(-(-settings.seconds // MAX_SLICES)))
        self._slices = [array("d") for _ in range(max(1, int(-(-settings.seconds // self._slice_s))))]
        self._memory: list[int | None] = []
        self._warm_up = array("d")
        self._legs = bytearray(settings.total)  # of each order: _SHARES, _RUPEES, or both

    def read(self, reader: Reader) -> None:
        """Take in what has come."""
        records = reader.poll(_POLL_S, max_records=10_000)
        now = time.monotonic()
        for record in records:
            found = MEASURED.search(record.value or b"")
            if found is None:
                continue
            number = int(found[1])
            before = self._legs[number]
            self._legs[number] |= _SHARES if record.topic == topics.DEMAT_TRANSFERS else _RUPEES
            if before != _BOTH == self._legs[number]:
                self.settled += 1
                self._note(number, now)

    def _note(self, number: int, now: float) -> None:
        due_s = number / self._rate
        if due_s < WARM_UP_S:
            into = self._warm_up
        else:
            into = self._slices[min(int((due_s - WARM_UP_S) / self._slice_s), len(self._slices) - 1)]
        into.append((now - self.begin - due_s) * 1000)

    def look_at(self, pid: int) -> None:
        """Note the memory of the exchange for each slice that is over."""
        over = (time.monotonic() - self.begin - WARM_UP_S) / self._slice_s
        while len(self._memory) < min(int(over), len(self._slices)):
            self._memory.append(rss_bytes(pid))

    def latency(self, sender: Said) -> Latency:
        """The figures; the orders that are not settled count as if they were now."""
        now = time.monotonic()
        left = [
            number
            for number in range(sender["sent"])
            if PATTERN[number % len(PATTERN)] == "t" and self._legs[number] != _BOTH
        ]
        for number in left:
            self._note(number, now)
        memory = self._memory + [None] * (len(self._slices) - len(self._memory))
        return Latency(
            percentiles(sample for each in self._slices for sample in each),
            percentiles(self._warm_up),
            len(left),
            sender,
            self._slice_s,
            [Slice(place * self._slice_s, percentiles(each), memory[place]) for place, each in enumerate(self._slices)],
        )


def rss_bytes(pid: int) -> int | None:
    """The memory of a process that is in use now; None where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


# --- the core --------------------------------------------------------------------------------------------------


def measure_core(settings: Settings, *, stop: Callable[[], bool], bar: Bar) -> Core:
    """Measure the core alone on the mixed load, in this process: no log, no disk.

    Raises:
        KeyboardInterrupt: `stop`.
    """
    records = list(islice(Load(settings.seed, settings.symbols).mixed(), settings.orders))
    bare: list[float] = []
    with_json: list[float] = []
    with bar("core", "rounds") as show:
        for done in range(CORE_ROUNDS):
            show(done, CORE_ROUNDS)
            for seconds, run in ((bare, _apply), (with_json, _apply_bytes)):
                raise_if(stop)
                work = run(records)
                next(work)
                tune_garbage_collection()
                began = time.perf_counter()
                next(work, None)
                seconds.append(time.perf_counter() - began)
                gc.unfreeze()
    return Core(len(records), len(records) / median(bare), len(records) / median(with_json))


def _apply(records: list[NewRecord]) -> Iterator[None]:
    """Instructions that were made before, to facts."""
    decoded: list[Any] = [decode_input(record.topic, record.value) for record in records]
    apply = Exchange().apply
    yield
    for instruction in decoded:
        apply(instruction)


def _apply_bytes(records: list[NewRecord]) -> Iterator[None]:
    """Bytes as they stand on the log, to the records that would be written."""
    apply = Exchange().apply
    yield
    for place, (topic, _, value, *_) in enumerate(records):
        decoded = decode_input(topic, value)
        assert not isinstance(decoded, Dead)
        encode_facts(apply(decoded), 0, f"{topic}@0:{place}", 1_700_000_000_000)
