"""`watch`: the settlement flow, live on a terminal, as lines elsewhere, as JSON for programs.

Owns which records are read, where reading begins and ends, and how often the screen is drawn. Invariants: it only
reads; every record of the range comes out once, also across a break of the connection; nothing that came off a
topic reaches the output raw.
"""

import math
import select
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from typing import Final, NamedTuple, Protocol, TextIO

from rich.console import Console
from rich.live import Live

from stocktrade.domain.values import canonical_symbol, visible
from stocktrade.errors import ExitCode, Unavailable, UsageError
from stocktrade.flow import MAX_PENDING, MAX_SETTLED, WATCHED, Flow
from stocktrade.keys import NO_KEYS, Keys
from stocktrade.ranges import END, START, Point, offset_of_time, parse_point, resolve
from stocktrade.records import json_line, row_of
from stocktrade.tables import RECORD_TEXT_LIMIT, FlowView, RecordRow, record_line, settlement_line
from stocktrade.transport import topics
from stocktrade.transport.base import Log, Reader, Record, TopicPartition
from stocktrade.transport.codec import decode_json

KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "orders": topics.INPUTS,
    "trades": (topics.TRADES,),
    "shares": (topics.DEMAT_TRANSFERS,),
    "funds": (topics.CASH_MOVEMENTS,),
    "events": (topics.ORDER_EVENTS,),
    "dead": (topics.DEAD_LETTERS,),
}
"""What `--only` chooses among."""

LAST_TRADES: Final = 20
GLANCE: Final = 1_000
"""Where nothing else is said, watching begins with the last trades, and with no more than this many records of
each topic that is not about trades."""

POLL_S: Final = 0.25
"""How long one wait for records lasts at most: a stop that was asked for is noticed then."""

RETRY_S: Final = 1.0
REDRAW_S: Final = 0.1
RATES_S: Final = 1.0
OWNERS_S: Final = 1.0
RECORDS_KEPT: Final = 500
HELD_TRADES: Final = 10_000

_LEGS: Final = (topics.DEMAT_TRANSFERS, topics.CASH_MOVEMENTS)
_SETTLEMENT: Final = frozenset({topics.TRADES, *_LEGS})


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


def run(
    log: Log,
    *,
    symbols: Sequence[str] = (),
    participant: str | None = None,
    only: Sequence[str] = (),
    json_lines: bool = False,
    start: str | None = None,
    until: str | None = None,
    follow: bool | None = None,
    console: Console,
    out: TextIO,
    err: TextIO,
    stop: Callable[[], bool],
    keys: Keys = NO_KEYS,
    now_ms: Callable[[], int] = _wall_clock_ms,
    seconds: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> ExitCode:
    """Watch until `stop` says so, the range is over, or nobody reads the output any more.

    Args:
        log: where to read; nothing is written but topics that are missing.
        symbols: only what is about these symbols, under any of their names. Empty: all.
        participant: only what is about this participant.
        only: the kinds of record to read, out of KINDS. Without trades, shares and funds among them there are
            no settlements to show: then it is one line for each record.
        json_lines: one JSON object for each record (`stocktrade.record/1`).
        start: where to begin, see `ranges`; numbers count trades (N and +N those of each shard, -N those of all).
            None: with the last 20 trades.
        until: where to end. Numbers count trades that are on the log now; only a time may lie ahead.
        follow: wait for what comes; None: unless `until` says where to end.
        console: the terminal; the live view is drawn when it is one.
        out: where lines go.
        err: where trouble is told.
        stop: whether a clean stop was asked for.
        keys: what is typed meanwhile: `p` pauses the screen and goes on, `q` ends.
        now_ms: the wall clock, for latencies, rates and ranges.
        seconds: a clock that is never set, for how often the screen is drawn.
        pause: sleeps that many seconds.

    Raises:
        UsageError: no such symbol, kind or range.
        Unavailable: the log cannot be read when watching begins; later, it is tried again.
    """
    wanted = _canonical(symbols)
    chosen = _topics_of(only)
    points = _parsed(start, until, follow=follow, now_ms=now_ms())
    log.ensure_topics(topics.SPECS)
    sieve = _Sieve(wanted, participant, chosen)
    window = _window(log, _Sieve.reads(chosen, wanted, participant), points)
    flow = Flow(wanted, participant, answers=topics.ORDER_EVENTS in chosen)
    settles = chosen >= _SETTLEMENT
    with closing(_Tail(log, window, stop=stop, now_ms=now_ms, pause=pause)) as tail:
        sink: _Sink
        if json_lines:
            sink = _Lines(out, err, sieve, json_line)
        elif console.is_interactive and console.file.isatty():  # FORCE_COLOR makes a pipe no screen
            filters = [" ".join(symbols), f"as {participant}" if participant else "", " ".join(only)]
            title = "  ".join(["stocktrade watch", log.url, *filter(None, filters)])
            shows_records = None if settles else sieve
            sink = _Screen(
                console, log, flow, title=title, sieve=shows_records, keys=keys, now_ms=now_ms, seconds=seconds
            )
        elif settles:
            sink = _TradeLines(out, err, sieve, flow, now_ms)
        else:
            sink = _Lines(out, err, sieve, lambda record: record_line(row_of(record)))
        with closing(sink), suppress(BrokenPipeError, KeyboardInterrupt):
            while not stop() and not sink.is_deaf():
                sink.take(tail.poll(sink.patience_s()))
                if tail.news:
                    sink.tell(tail.news)
                    tail.news = ""
                if tail.over():
                    sink.end_of_range()
                    break
    return ExitCode.OK


def _canonical(symbols: Iterable[str]) -> frozenset[str]:
    wanted = set()
    for text in symbols:
        symbol = canonical_symbol(text)
        if symbol is None:
            raise UsageError(f"not a symbol: {visible(text, 64)!r}", hint="a symbol is 1 to 20 letters, digits, & or -")
        wanted.add(symbol)
    return frozenset(wanted)


def _topics_of(only: Sequence[str]) -> frozenset[str]:
    unknown = [kind for kind in only if kind not in KINDS]
    if unknown:
        raise UsageError(f"nothing to watch is called {visible(unknown[0], 64)!r}", hint=f"use {', '.join(KINDS)}")
    return frozenset([topic for kind in only or KINDS for topic in KINDS[kind]])


# --- where to read -------------------------------------------------------------------------------------------


class _Points(NamedTuple):
    start: Point | None
    until: Point | None
    follow: bool


def _parsed(start: str | None, until: str | None, *, follow: bool | None, now_ms: int) -> _Points:
    first = None if start is None else parse_point(start, now_ms=now_ms)
    last = None if until is None else parse_point(until, now_ms=now_ms)
    if last is None and follow is False:
        last = END
    ahead = last is not None and last.kind == "time" and last.value > now_ms
    return _Points(first, last, follow=last is None or (ahead and follow is not False))


class _Window(NamedTuple):
    """The records to read: from `starts`, before `stops` (None: no end), of times from `since` (by partition).

    The offsets found for a time are right but for the disorder of a clock that was set back; the times are exact.
    `live_from` is where the log ended when watching began: what comes from there on is seen as it happens.
    """

    starts: dict[TopicPartition, int]
    stops: dict[TopicPartition, int] | None
    since: dict[int, int]
    before_ms: dict[int, int]
    until_ms: int | None
    live_from: dict[TopicPartition, int]

    def holds(self, record: Record) -> bool:
        if self.stops is not None and record.offset >= self.stops[record.topic, record.partition]:
            return False
        return (
            self.since.get(record.partition, record.time_ms)
            <= record.time_ms
            < self.before_ms.get(record.partition, record.time_ms + 1)
        )


def _window(log: Log, read: frozenset[str], points: _Points) -> _Window:
    shards = range(log.partitions())
    every = [(topic, shard) for topic in WATCHED for shard in shards if topic in read or topic == topics.TRADES]
    with closing(log.reader(dict.fromkeys(every))) as reader:
        ends = reader.ends()
    first = Point("before_end", LAST_TRADES) if points.start is None else points.start
    starts, since = _from(log, first, ends)
    if points.start is None:
        for at in starts:
            if at[0] not in _SETTLEMENT:
                starts[at] = max(starts[at], ends[at] - GLANCE)
    stops: dict[TopicPartition, int] | None = None
    before: dict[int, int] = {}
    until_ms = None
    if points.follow:
        until_ms = None if points.until is None else points.until.value
        before = {} if until_ms is None else dict.fromkeys(shards, until_ms)
    elif points.until is not None:
        stops, before = _until(log, points.until, ends)

    def of_read(offsets: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        return {at: offset for at, offset in offsets.items() if at[0] in read}

    return _Window(of_read(starts), stops and of_read(stops), since, before, until_ms, ends)


_Bounds = tuple[dict[TopicPartition, int], dict[int, int]]
"""An offset for each partition of each topic, and for each partition a time that goes with it."""


def _from(log: Log, point: Point, ends: Mapping[TopicPartition, int]) -> _Bounds:
    """Where a range begins. A number counts trades; the other topics begin at the time of its first trade."""
    if point == START:
        return dict.fromkeys(ends, 0), {}
    if point == END:
        return dict(ends), {}
    shards = [shard for topic, shard in ends if topic == topics.TRADES]
    if point.kind == "time":
        since = dict.fromkeys(shards, point.value)
        return _at_times(log, since, ends), since
    since = {}
    starts: dict[TopicPartition, int] = {}
    if point.kind == "before_end":
        last = [(*trade, shard) for shard in shards for trade in _last_trades(log, shard, point.value, ends)]
        last = sorted(last)[-point.value :]
        for time_ms, _, offset, shard in reversed(last):
            since[shard] = time_ms
            starts[topics.TRADES, shard] = offset
        if len(last) < point.value:  # all there are: then everything before them is of interest, too
            return dict.fromkeys(ends, 0), {}
        since = dict.fromkeys(shards, last[0][0]) | since
        starts = {(topics.TRADES, shard): ends[topics.TRADES, shard] for shard in shards} | starts
    else:
        for shard in shards:
            at = (topics.TRADES, shard)
            starts[at] = resolve(point, end=ends[at], offset_at=lambda _: 0)
            record = _record_at(log, at, starts[at]) if starts[at] < ends[at] else None
            if record is not None and starts[at] > 0:
                since[shard] = record.time_ms
            elif starts[at] > 0:
                starts |= {other: end for other, end in ends.items() if other[1] == shard}
    found = _at_times(log, since, ends)
    return {at: starts.get(at, found.get(at, 0)) for at in ends}, since


def _until(log: Log, point: Point, ends: Mapping[TopicPartition, int]) -> _Bounds:
    """Where a range ends. A number counts trades; the other topics end after the time of its last trade."""
    shards = [shard for topic, shard in ends if topic == topics.TRADES]
    before: dict[int, int] = {}
    stops = dict(ends)
    if point.kind == "time":
        before = dict.fromkeys(shards, point.value)
        return stops | _at_times(log, before, ends), before
    exact: dict[TopicPartition, int] = {}
    for shard in shards:
        at = (topics.TRADES, shard)
        exact[at] = resolve(point, end=ends[at], offset_at=lambda _: 0)
        if exact[at] == 0 and point != END:
            stops |= {other: 0 for other in ends if other[1] == shard}
        elif exact[at] < ends[at]:
            record = _record_at(log, at, exact[at] - 1)
            if record is not None:
                before[shard] = record.time_ms + 1
    return stops | _at_times(log, before, ends) | exact, before


def _at_times(log: Log, times: Mapping[int, int], ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    return {
        (topic, shard): offset_of_time(log, topic, shard, times[shard], end=end)
        for (topic, shard), end in ends.items()
        if shard in times
    }


def _record_at(log: Log, at: TopicPartition, offset: int) -> Record | None:
    with closing(log.reader({at: offset})) as reader:
        records = reader.poll(1.0, 1)
    return records[0] if records else None


def _last_trades(log: Log, shard: int, count: int, ends: Mapping[TopicPartition, int]) -> list[tuple[int, int, int]]:
    """Time, arrival and offset of the last records of a partition of the trades."""
    at = (topics.TRADES, shard)
    span = count
    while True:
        first = max(0, ends[at] - span)
        last: deque[tuple[int, int, int]] = deque(maxlen=count)
        with closing(log.reader({at: first})) as reader:
            while reader.position(*at) < ends[at] and (records := reader.poll(1.0)):
                last.extend([(r.time_ms, r.arrival, r.offset) for r in records if r.offset < ends[at]])
        if first == 0 or len(last) == count:
            return list(last)
        span *= 2  # offsets have gaps


class _Tail:
    """The records of a window, on and on; after a break of the connection it goes on where it was.

    Attributes:
        news: What there is to say about the connection, until it is taken.
    """

    def __init__(
        self,
        log: Log,
        window: _Window,
        *,
        stop: Callable[[], bool],
        now_ms: Callable[[], int],
        pause: Callable[[float], None],
    ) -> None:
        self.news = ""
        self._log = log
        self._window = window
        self._stop = stop
        self._now_ms = now_ms
        self._pause = pause
        self._stops = window.stops
        self._positions: dict[TopicPartition, int | None] = dict(window.starts)
        self._live_from = window.live_from
        self._reader: Reader | None = log.reader(self._positions)
        self._down = False
        self._held: frozenset[TopicPartition] = frozenset()

    def poll(self, patience_s: float) -> list["_Seen"]:
        """What has come, which may be nothing, within `patience_s` seconds; a log that is down takes longer."""
        try:
            if self._reader is None:
                self._wait()
                self._reader = self._log.reader(self._positions)
                self._live_from = self._reader.ends()
            until_ms = self._window.until_ms
            if self._stops is None and until_ms is not None and self._now_ms() >= until_ms:
                self._stops = self._reader.ends()
            records = self._reader.poll(0.0 if self._stops is not None else patience_s)
            self._tell_held_back(self._reader.held_back())
        except Unavailable as error:
            self.close()
            if not self._down:
                self._down = True
                self.news = f"{error.what}; trying again each second"
            return []
        if self._down:
            self._down = False
            self.news = "the log is back"
        for record in records:
            self._positions[record.topic, record.partition] = record.offset + 1
        return [
            (record, record.offset >= self._live_from[record.topic, record.partition])
            for record in records
            if self._window.holds(record)
        ]

    def _tell_held_back(self, held: Mapping[TopicPartition, float]) -> None:
        news = []
        for topic, shard in sorted(self._held ^ held.keys()):
            waited = held.get((topic, shard))
            if waited is None:
                news.append(f"{topic}@{shard} goes on")
            else:
                news.append(f"{topic}@{shard} waits since {waited:.0f} s: somebody has a transaction open there")
        if news:
            self.news = "; ".join(news)
        self._held = frozenset(held)

    def over(self) -> bool:
        """Whether the window has been read to its end."""
        return self._stops is not None and self._reader is not None and self._reader.caught_up(self._stops)

    def close(self) -> None:
        """Stop reading. Safe to call twice."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _wait(self) -> None:
        for _ in range(int(RETRY_S / POLL_S)):
            if not self._stop():
                self._pause(POLL_S)


_Seen = tuple[Record, bool]
"""A record, and whether it was seen as it happened."""


class _Sieve:
    """Lets through what is about the symbols and the participant asked for.

    A leg goes with its trade; one that comes before its trade waits for it.
    """

    def __init__(self, symbols: frozenset[str], participant: str | None, topics_wanted: frozenset[str]) -> None:
        self._symbols = symbols
        self._participant = participant
        self._topics = topics_wanted
        self._trades = Flow(symbols, participant)
        self._held: OrderedDict[str, list[Record]] = OrderedDict()

    @staticmethod
    def reads(chosen: frozenset[str], symbols: frozenset[str], participant: str | None) -> frozenset[str]:
        """The topics that must be read to choose among the records of those that were chosen."""
        filtered = bool(symbols) or participant is not None
        return chosen | {topics.TRADES} if filtered and chosen.intersection(_LEGS) else chosen

    def sift(self, record: Record) -> list[Record]:
        """The records that go on now that this one has come."""
        if not self._symbols and self._participant is None:
            return [record]
        try:
            fields = decode_json(record.value or b"")
        except ValueError:
            return []
        if not isinstance(fields, dict):
            return []
        through = []
        trade = fields.get("trade_id")
        if record.topic == topics.TRADES:
            self._trades.feed(record, now_ms=record.time_ms, live=False)
            wanted = self._trades.wants(str(trade))
            through = [record] if wanted and record.topic in self._topics else []
            held = self._held.pop(str(trade), [])
            return through + held if wanted else []
        if record.topic in _LEGS:
            if not isinstance(trade, str) or (wanted := self._trades.wants(trade)) is False:
                return []
            if wanted:
                return [record]
            self._held.setdefault(trade, []).append(record)
            if len(self._held) > HELD_TRADES:
                self._held.popitem(last=False)
            return []
        return [record] if self._is_about(fields) else []

    def _is_about(self, fields: Mapping[str, object]) -> bool:
        symbol = fields.get("stock_symbol")
        if self._symbols and not (isinstance(symbol, str) and canonical_symbol(symbol) in self._symbols):
            return False
        names = [fields.get(name) for name in ("participant", "buyer", "seller")]
        return self._participant is None or self._participant in names


# --- where it goes -------------------------------------------------------------------------------------------


class _Sink(Protocol):
    """What becomes of the records."""

    def patience_s(self) -> float:
        """How long to wait for the next record at most."""

    def take(self, seen: Sequence[_Seen]) -> None:
        """Show what has come."""

    def tell(self, news: str) -> None:
        """Say something about the connection."""

    def end_of_range(self) -> None:
        """Nothing more comes."""

    def is_deaf(self) -> bool:
        """Whether nobody reads the output any more."""

    def close(self) -> None:
        """Leave the screen as it should stay."""


class _Lines:
    """A line for each record."""

    def __init__(self, out: TextIO, err: TextIO, sieve: _Sieve, line: Callable[[Record], str]) -> None:
        self._out = out
        self._err = err
        self._sieve = sieve
        self._line = line

    def patience_s(self) -> float:
        return POLL_S

    def take(self, seen: Sequence[_Seen]) -> None:
        for record, _ in seen:
            for chosen in self._sieve.sift(record):
                self._write(self._line(chosen))

    def tell(self, news: str) -> None:
        self._err.write(f"{visible(news, 500)}\n")
        self._err.flush()

    def end_of_range(self) -> None:
        pass

    def is_deaf(self) -> bool:
        try:
            descriptor = self._out.fileno()
        except (OSError, ValueError):  # not a file of the system
            return False
        poller = select.poll()
        poller.register(descriptor, 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poller.poll(0))

    def close(self) -> None:
        pass

    def _write(self, line: str) -> None:
        self._out.write(f"{line}\n")
        self._out.flush()


class _TradeLines(_Lines):
    """A line for each trade, when the last of its legs has come."""

    def __init__(self, out: TextIO, err: TextIO, sieve: _Sieve, flow: Flow, now_ms: Callable[[], int]) -> None:
        super().__init__(out, err, sieve, json_line)
        self._flow = flow
        self._now_ms = now_ms

    def take(self, seen: Sequence[_Seen]) -> None:
        now_ms = self._now_ms()
        for record, live in seen:
            row = self._flow.feed(record, now_ms=now_ms, live=live)
            if row is not None:
                self._write(settlement_line(row))

    def end_of_range(self) -> None:
        # Whoever asked for a range wants to see what is not settled in it, too.
        for row in self._flow.recent(MAX_PENDING + MAX_SETTLED):
            if not row.settled:
                self._write(settlement_line(row))


class _Screen:
    """The live view: drawn when something changed, at most once in REDRAW_S.

    Args:
        console: the terminal.
        log: asked now and then whether an exchange runs.
        flow: fed here.
        title: the line above all.
        sieve: given when records are shown, not trades.
        keys: what is typed meanwhile.
        now_ms: the wall clock, for latencies and rates.
        seconds: a clock that is never set, for the drawing.
    """

    def __init__(
        self,
        console: Console,
        log: Log,
        flow: Flow,
        *,
        title: str,
        sieve: _Sieve | None,
        keys: Keys = NO_KEYS,
        now_ms: Callable[[], int],
        seconds: Callable[[], float],
    ) -> None:
        self.draws = 0
        self._console = console
        self._log = log
        self._flow = flow
        self._title = title
        self._sieve = sieve
        self._now_ms = now_ms
        self._seconds = seconds
        self._keys = keys
        self._is_paused = self._is_over = False
        self._records: deque[RecordRow] = deque(maxlen=RECORDS_KEPT)
        self._news = ""
        self._exchange_runs = True
        self._asked_at = self._drawn_at = -math.inf
        self._drawn: object = None
        self._live = Live(
            self._view(),
            console=console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._live.start()

    def patience_s(self) -> float:
        # Something that could not be drawn yet is drawn as soon as it may be.
        soon = self._drawn_at + REDRAW_S - self._seconds()
        return max(0.0, min(POLL_S, soon)) if self._state() != self._drawn else POLL_S

    def take(self, seen: Sequence[_Seen]) -> None:
        now_ms = self._now_ms()
        for record, live in seen:
            self._flow.feed(record, now_ms=now_ms, live=live)
            if self._sieve is not None:
                self._records.extend([row_of(chosen, RECORD_TEXT_LIMIT) for chosen in self._sieve.sift(record)])
        self._ask()
        for key in self._keys.pressed():
            self._is_over = self._is_over or key == "q"
            if key in "p ":
                self._is_paused = not self._is_paused
                self._drawn_at = -math.inf
        self._draw()

    def tell(self, news: str) -> None:
        self._news = news
        self._draw()

    def end_of_range(self) -> None:
        pass

    def is_deaf(self) -> bool:
        return self._is_over

    def close(self) -> None:
        self._live.stop()
        self._is_paused = False
        self._console.print(self._view())  # what was seen last stays on the screen

    def _state(self) -> object:
        """Equal to what it was when there is nothing new to draw."""
        if self._is_paused:
            return "paused", self._news, self._console.size
        # A rate falls while nothing happens, until it is nothing.
        beat = int(self._seconds() / RATES_S) if self._flow.is_lively(self._now_ms()) else None
        return self._flow.version, self._news, self._exchange_runs, self._console.size, beat

    def _draw(self) -> None:
        if self._seconds() < self._drawn_at + REDRAW_S:
            return
        state = self._state()
        if state != self._drawn:
            self._live.update(self._view(), refresh=True)
            self._drawn_at, self._drawn = self._seconds(), state
            self.draws += 1

    def _ask(self) -> None:
        if self._seconds() < self._asked_at + OWNERS_S:
            return
        self._asked_at = self._seconds()
        with suppress(Unavailable):  # the reader will say so
            self._exchange_runs = any(owner is not None for owner in self._log.owners().values())

    def _view(self) -> FlowView:
        notices = [] if self._exchange_runs else ["no exchange is running: orders wait on the log"]
        if self._news:
            notices.append(self._news)
        if self._is_paused:
            notices.append("paused: p goes on, q ends")
        records = None if self._sieve is None else list(self._records)
        return FlowView(self._flow, self._now_ms(), self._title, notices, records)
