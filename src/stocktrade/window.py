"""Which records are watched: from where, to where, and on again after a break of the connection.

Owns where a range begins and ends on each partition. Invariant: every committed record of the range comes out once,
in the order of its partition, also when the log goes away meanwhile.
"""

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Final, NamedTuple

from stocktrade.errors import Unavailable
from stocktrade.flow import WATCHED
from stocktrade.ranges import END, START, Point, offset_of_time, parse_point, resolve
from stocktrade.transport import topics
from stocktrade.transport.base import Log, Reader, Record, TopicPartition

LAST_TRADES: Final = 20
GLANCE: Final = 1_000
"""Where nothing else is said, watching begins with the last trades, and with no more than this many records of
each topic that is not about trades."""

LOOKED_BACK: Final = 200_000
"""For the lowest and the highest price of today no more trades of a shard than this are read."""

POLL_S: Final = 0.25
"""How long one wait for records should last at most: a stop that was asked for is noticed then."""

RETRY_S: Final = 1.0

SETTLEMENT: Final = frozenset({topics.TRADES, topics.DEMAT_TRANSFERS, topics.CASH_MOVEMENTS})
"""The topics that tell a trade and its settlement."""

_IST_OFFSET_MS: Final = 19_800_000
_DAY_MS: Final = 86_400_000


class Points(NamedTuple):
    """A range as it was typed: where it begins (None: with the last trades), where it ends, whether it goes on."""

    start: Point | None
    until: Point | None
    follow: bool


def points_from(start: str | None, until: str | None, *, follow: bool | None, now_ms: int) -> Points:
    """The range of `--from`, `--until` and `--follow`.

    Raises:
        UsageError: one of them is no point on the log.
    """
    first = None if start is None else parse_point(start, now_ms=now_ms)
    last = None if until is None else parse_point(until, now_ms=now_ms)
    if last is None and follow is False:
        last = END
    ahead = last is not None and last.kind == "time" and last.value > now_ms
    return Points(first, last, follow=last is None or (ahead and follow is not False))


class Window(NamedTuple):
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

    @classmethod
    def onward(cls, starts: dict[TopicPartition, int]) -> "Window":
        """Everything from these offsets on."""
        return cls(starts, None, {}, {}, None, starts)

    def holds(self, record: Record) -> bool:
        """Whether a record that was read belongs to it."""
        if self.stops is not None and record.offset >= self.stops[record.topic, record.partition]:
            return False
        return (
            self.since.get(record.partition, record.time_ms)
            <= record.time_ms
            < self.before_ms.get(record.partition, record.time_ms + 1)
        )


def window_of(log: Log, read: frozenset[str], points: Points) -> Window:
    """Where a range lies on the partitions of the topics that are `read`.

    Raises:
        Unavailable: the log cannot be read.
    """
    shards = range(log.partitions())
    every = [(topic, shard) for topic in WATCHED for shard in shards if topic in read or topic == topics.TRADES]
    with closing(log.reader(dict.fromkeys(every))) as reader:
        ends = reader.ends()
    first = Point("before_end", LAST_TRADES) if points.start is None else points.start
    starts, since = _from(log, first, ends)
    if points.start is None:
        for at in starts:
            if at[0] not in SETTLEMENT:
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

    return Window(of_read(starts), stops and of_read(stops), since, before, until_ms, ends)


def earlier_today(log: Log, window: Window, *, now_ms: int) -> Window:
    """The trades of today, in India, before those of a window; of very many the last LOOKED_BACK of each shard.

    Raises:
        Unavailable: the log cannot be read.
    """
    midnight_ms = now_ms - (now_ms + _IST_OFFSET_MS) % _DAY_MS
    stops = {at: offset for at, offset in window.starts.items() if at[0] == topics.TRADES}
    starts = _at_times(log, {shard: midnight_ms for _, shard in stops}, stops)
    starts = {at: max(offset, stops[at] - LOOKED_BACK) for at, offset in starts.items()}
    since = {shard: midnight_ms for _, shard in starts}
    return Window(starts, stops, since, {}, None, stops)


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


class Tail:
    """The records of a window, on and on; after a break of the connection it goes on where it was.

    Attributes:
        news: What there is to say about the connection, until it is taken.
    """

    def __init__(
        self,
        log: Log,
        window: Window,
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

    def poll(self, patience_s: float) -> list["Seen"]:
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


Seen = tuple[Record, bool]
"""A record, and whether it was seen as it happened."""
