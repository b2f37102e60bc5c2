"""The records of a topic that a range names, partition by partition.

Invariant: what counts from an end counts records, also where offsets have gaps (on Kafka the end of a transaction has
an offset, too); a range of times holds no record of another time.
"""

from collections import defaultdict, deque
from collections.abc import Collection, Mapping
from contextlib import closing
from functools import partial
from typing import Final, NamedTuple

from stocktrade.lag import records_of
from stocktrade.ranges import Point, offset_of_time, resolve
from stocktrade.transport.base import Log, Record, TopicPartition

_GAPS: Final = 2
"""An offset in two may be a gap: on Kafka a shard's commits often hold one record of a topic, and each has an end."""

_GROWS: Final = 8


class Span(NamedTuple):
    """From `starts` to before `stops` (a partition that is not among these has no end), and of these times."""

    starts: Mapping[TopicPartition, int]
    stops: Mapping[TopicPartition, int]
    since_ms: int | None = None
    before_ms: int | None = None

    def holds(self, record: Record) -> bool:
        """Whether a record that was read from `starts` on belongs to it."""
        if record.offset >= self.stops.get((record.topic, record.partition), record.offset + 1):
            return False
        if self.since_ms is not None and record.time_ms < self.since_ms:
            return False
        return self.before_ms is None or record.time_ms < self.before_ms


def span_of(
    log: Log,
    topic: str,
    *,
    start: Point | None = None,
    until: Point | None = None,
    last: int | None = None,
    shards: Collection[int] | None = None,
) -> Span:
    """A range of what is on a topic now.

    Args:
        log: the log.
        topic: a topic that is there.
        start: where it begins in each partition; None: with what is kept.
        until: where it ends in each partition; None: with what is there.
        last: of each partition no more than so many, the last ones before the end of the range.
        shards: the partitions; None: all.
    """
    wanted = range(log.partitions()) if shards is None else shards
    with closing(log.reader({(topic, shard): 0 for shard in wanted})) as reader:
        kept, ends = reader.starts(), reader.ends()
    kept = {at: kept.get(at, 0) for at in ends}
    starts = kept if start is None else _offsets(log, start, kept, ends)
    stops = ends if until is None else _offsets(log, until, kept, ends)
    if last is not None:
        lasting = _back(log, kept, stops, last)
        starts = {at: max(offset, lasting[at]) for at, offset in starts.items()}
    return Span(starts, stops, _time_of(start), _time_of(until))


def _time_of(point: Point | None) -> int | None:
    return point.value if point is not None and point.kind == "time" else None


def _offsets(
    log: Log, point: Point, kept: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> Mapping[TopicPartition, int]:
    if point.kind == "before_end":
        return _back(log, kept, ends, point.value)
    return {
        at: resolve(point, start=kept[at], end=end, offset_at=partial(offset_of_time, log, *at, end=end))
        for at, end in ends.items()
    }


def _back(
    log: Log, kept: Mapping[TopicPartition, int], stops: Mapping[TopicPartition, int], count: int
) -> dict[TopicPartition, int]:
    """For each partition the offset before the last `count` records before its stop."""
    if count == 0:
        return dict(stops)
    found = {at: kept[at] for at, stop in stops.items() if stop - kept[at] <= count}
    back = _GAPS * count
    while left := stops.keys() - found.keys():
        begins = {at: max(kept[at], stops[at] - back) for at in left}
        seen: dict[TopicPartition, deque[int]] = defaultdict(lambda: deque(maxlen=count))
        for record in records_of(log, begins, stops=stops):
            seen[record.topic, record.partition].append(record.offset)
        for at, begin in begins.items():
            if len(seen[at]) == count:
                found[at] = seen[at][0]
            elif begin == kept[at]:
                found[at] = begin
        back *= _GROWS
    return found
