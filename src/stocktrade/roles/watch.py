"""`watch`: the settlement flow, live on a terminal, as lines elsewhere, as JSON for programs.

Owns which of the records that were read are shown, and in which form. Invariants: it only reads; every record of the
range comes out once; nothing that came off a topic reaches the output raw.
"""

import copy
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from typing import Final, Protocol, TextIO

from rich.console import Console

from stocktrade import window
from stocktrade.domain.values import Paise, canonical_symbol, visible
from stocktrade.errors import ExitCode, Unavailable, UsageError
from stocktrade.flow import MAX_PENDING, MAX_SETTLED, Flow
from stocktrade.keys import NO_KEYS, Keys
from stocktrade.records import json_line, row_of
from stocktrade.screen import Screen, is_deaf
from stocktrade.tables import RECORD_TEXT_LIMIT, FlowView, RecordRow, record_line, settlement_line
from stocktrade.transport import topics
from stocktrade.transport.base import Log, Record
from stocktrade.transport.codec import decode_json
from stocktrade.views.messages import traded
from stocktrade.window import SETTLEMENT, Seen, Tail

KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "orders": topics.INPUTS,
    "trades": (topics.TRADES,),
    "shares": (topics.DEMAT_TRANSFERS,),
    "funds": (topics.CASH_MOVEMENTS,),
    "events": (topics.ORDER_EVENTS,),
    "dead": (topics.DEAD_LETTERS,),
}
"""What `--only` chooses among."""

RATES_S: Final = 1.0
OWNERS_S: Final = 1.0
RECORDS_KEPT: Final = 500
HELD_TRADES: Final = 10_000

_LEGS: Final = (topics.DEMAT_TRANSFERS, topics.CASH_MOVEMENTS)


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
    points = window.points_from(start, until, follow=follow, now_ms=now_ms())
    log.ensure_topics(topics.SPECS)
    sieve = _Sieve(wanted, participant, chosen)
    records = window.window_of(log, _Sieve.reads(chosen, wanted, participant), points)
    flow = Flow(wanted, participant, answers=topics.ORDER_EVENTS in chosen)
    settles = chosen >= SETTLEMENT
    with closing(Tail(log, records, stop=stop, now_ms=now_ms, pause=pause)) as tail:
        sink: _Sink
        if json_lines:
            sink = _Lines(out, err, sieve, json_line)
        elif console.is_interactive and console.file.isatty():  # FORCE_COLOR makes a pipe no screen
            filters = [" ".join(symbols), f"as {participant}" if participant else "", " ".join(only)]
            title = "  ".join(["stocktrade watch", log.url, *filter(None, filters)])
            shows_records = None if settles else sieve

            def earlier() -> Tail:
                today = window.earlier_today(log, records, now_ms=now_ms())
                return Tail(log, today, stop=stop, now_ms=now_ms, pause=pause)

            sink = _Screen(
                console,
                log,
                flow,
                earlier if points.follow else None,
                title=title,
                sieve=shows_records,
                keys=keys,
                now_ms=now_ms,
                seconds=seconds,
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

    def take(self, seen: Sequence[Seen]) -> None:
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
        return window.POLL_S

    def take(self, seen: Sequence[Seen]) -> None:
        for record, _ in seen:
            for chosen in self._sieve.sift(record):
                self._write(self._line(chosen))

    def tell(self, news: str) -> None:
        self._err.write(f"{visible(news, 500)}\n")
        self._err.flush()

    def end_of_range(self) -> None:
        pass

    def is_deaf(self) -> bool:
        return is_deaf(self._out)

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

    def take(self, seen: Sequence[Seen]) -> None:
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
    """The live view.

    Args:
        console: the terminal.
        log: asked now and then whether an exchange runs.
        flow: fed here.
        earlier: finds the trades of today that are not shown, for the range of the prices.
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
        earlier: Callable[[], Tail] | None = None,
        *,
        title: str,
        sieve: _Sieve | None,
        keys: Keys = NO_KEYS,
        now_ms: Callable[[], int],
        seconds: Callable[[], float],
    ) -> None:
        self.screen = Screen(console, keys, seconds=seconds)
        self._console = console
        self._log = log
        self._flow = flow
        self._find_earlier = earlier
        self._earlier: Tail | None = None
        self._title = title
        self._sieve = sieve
        self._now_ms = now_ms
        self._seconds = seconds
        self._records: deque[RecordRow] = deque(maxlen=RECORDS_KEPT)
        self._news = ""
        self._exchange_runs = True
        self._asked_at = -math.inf
        self._still: FlowView | None = None
        self._unseen = 0

    def patience_s(self) -> float:
        return 0.0 if self._earlier is not None else self.screen.patience_s(self._state(), window.POLL_S)

    def take(self, seen: Sequence[Seen]) -> None:
        self.screen.obey()
        if self.screen.is_paused != (self._still is not None):
            self._still = copy.deepcopy(self._view()) if self.screen.is_paused else None
            self._unseen = 0
        now_ms = self._now_ms()
        for record, live in seen:
            self._flow.feed(record, now_ms=now_ms, live=live)
            if self._sieve is not None:
                self._records.extend([row_of(chosen, RECORD_TEXT_LIMIT) for chosen in self._sieve.sift(record)])
        self._unseen += len(seen)
        self._ask()
        self._draw()
        self._look_back()

    def tell(self, news: str) -> None:
        self._news = news
        self._draw()

    def end_of_range(self) -> None:
        pass

    def is_deaf(self) -> bool:
        return self.screen.is_over

    def close(self) -> None:
        if self._earlier is not None:
            self._earlier.close()
        self.screen.close()
        self._console.print(self._view())  # what was seen last stays on the screen

    def _draw(self) -> None:
        self.screen.draw(self._state(), self._view if self._still is None else self._still_view)

    def _state(self) -> object:
        """Equal to what it was when there is nothing new to draw."""
        told = (self._news, self._exchange_runs)
        if self._still is not None:
            return self._unseen, told
        # A rate falls while nothing happens, until it is nothing.
        beat = int(self._seconds() / RATES_S) if self._flow.is_lively(self._now_ms()) else None
        return self._flow.version, told, beat

    def _look_back(self) -> None:
        """Read some more of what came before; to find it may take a second, so something is drawn first."""
        if self._find_earlier is not None:
            with suppress(Unavailable):  # the reader will say so
                self._earlier = self._find_earlier()
                self._find_earlier = None
        if self._earlier is None:
            return
        for record, _ in self._earlier.poll(0.0):
            trade = traded(record)
            if trade is not None:
                self._flow.look_back(trade.symbol, Paise(trade.price), record.time_ms)
        if self._earlier.over():
            self._flow.looked_back()
            self._earlier.close()
            self._earlier = None

    def _ask(self) -> None:
        if self._seconds() < self._asked_at + OWNERS_S:
            return
        self._asked_at = self._seconds()
        with suppress(Unavailable):  # the reader will say so
            self._exchange_runs = any(owner is not None for owner in self._log.owners().values())

    def _notices(self) -> list[str]:
        notices = [] if self._exchange_runs else ["no exchange is running: orders wait on the log"]
        return [*notices, self._news] if self._news else notices

    def _view(self) -> FlowView:
        records = None if self._sieve is None else list(self._records)
        return FlowView(self._flow, self._now_ms(), self._title, self._notices(), records)

    def _still_view(self) -> FlowView:
        """The view as it was when it was paused, and how much has come since."""
        assert self._still is not None
        self._still.paused, self._still.notices = self._unseen, self._notices()
        return self._still
