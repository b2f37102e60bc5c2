"""How far the exchange is behind its inputs, read from the ends of the topics alone.

Invariant: nothing is written, and no more of the log is read than the question needs.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

from stocktrade.domain.messages import JournalRecord
from stocktrade.shard.history import to_the_end
from stocktrade.shard.journal import decode_entry
from stocktrade.transport import topics
from stocktrade.transport.base import Log, Record, TopicPartition

PATIENCE_S: Final = 5.0
"""How long a log may bring nothing of what it said it has."""

COUNTED: Final = 10_000
"""So many records of a partition are counted one by one; of the ones before them it is known about how many."""

_FIRST_TAIL: Final = 8
_TAIL_GROWS: Final = 8


class Backlog(NamedTuple):
    """What a shard's inputs hold that its journal has not taken."""

    counts: Mapping[TopicPartition, int]
    oldest_ms: int | None
    taken: Mapping[TopicPartition, int]
    ends: Mapping[TopicPartition, int]

    @property
    def records(self) -> int:
        """How many there are on both topics."""
        return sum(self.counts.values())


def backlogs(log: Log, entries: Mapping[int, JournalRecord], shards: Iterable[int]) -> dict[int, Backlog]:
    """The shards whose inputs hold something that was not taken."""
    taken = {
        (topic, shard): entries[shard].next_offsets.get(topic, 0) if shard in entries else 0
        for shard in shards
        for topic in topics.INPUTS
    }
    with closing(log.reader(taken)) as reader:
        ends = reader.ends()
    behind = {at: offset for at, offset in taken.items() if offset < ends[at]}
    counted: dict[TopicPartition, int] = defaultdict(int)
    reached: dict[TopicPartition, int] = {}
    oldest: dict[TopicPartition, int] = {}
    for record in records_of(log, behind, at_most=COUNTED):
        at = (record.topic, record.partition)
        counted[at] += 1
        reached[at] = record.offset + 1
        oldest[at] = min(record.time_ms, oldest.get(at, record.time_ms))
    cut = sum(counted.values()) >= COUNTED
    found = {}
    for shard in shards:
        places = [(topic, shard) for topic in topics.INPUTS]
        counts = dict.fromkeys(places, 0)
        for at in set(places) & behind.keys():
            # What is not counted one by one is all between the last one counted and the end.
            beyond = ends[at] - reached.get(at, taken[at]) if cut else 0
            counts[at] = counted[at] + beyond
        if any(counts.values()):
            times = [oldest[at] for at in places if at in oldest]
            found[shard] = Backlog(
                counts,
                min(times, default=None),
                {at: taken[at] for at in places},
                {at: ends[at] for at in places},
            )
    return found


_T = TypeVar("_T")


def records_of(
    log: Log,
    starts: Mapping[TopicPartition, int],
    at_most: int | None = None,
    *,
    stops: Mapping[TopicPartition, int] = MappingProxyType({}),
) -> Iterator[Record]:
    """What stands on partitions from offsets to their present ends, or before `stops` where there are any.

    Raises:
        Unavailable: the log brings nothing more of what it has.
    """
    if not starts:
        return
    with closing(log.reader(starts)) as reader:
        ends = {at: min(end, stops.get(at, end)) for at, end in reader.ends().items()}
        found = to_the_end(reader, ends=ends, patience_s=PATIENCE_S)
        before = (each for each in found if each.offset < stops.get((each.topic, each.partition), each.offset + 1))
        yield from islice(before, at_most)


def newest(
    log: Log, topic: str, shards: Collection[int], pick: Callable[[Sequence[Record]], _T | None]
) -> dict[int, _T]:
    """What `pick` finds in the last records of each shard's partition; where it finds nothing, further back."""
    with closing(log.reader({(topic, shard): 0 for shard in shards})) as reader:
        starts, ends = reader.starts(), reader.ends()
    found: dict[int, _T] = {}
    left = {(topic, shard) for shard in shards if ends[topic, shard]}
    back = _FIRST_TAIL
    while left:
        begins = {at: max(starts.get(at, 0), ends[at] - back) for at in left}
        tails: dict[TopicPartition, list[Record]] = defaultdict(list)
        for record in records_of(log, begins):
            tails[record.topic, record.partition].append(record)
        for at, begin in begins.items():
            picked = pick(tails[at])
            if picked is not None:
                found[at[1]] = picked
            if picked is not None or begin <= starts.get(at, 0):
                left.discard(at)
        back *= _TAIL_GROWS
    return found


def last_entries(log: Log, shards: Collection[int]) -> dict[int, JournalRecord]:
    """The last entry of each shard's journal that has one.

    Raises:
        JournalBroken: what stands there is no entry.
    """
    return newest(log, topics.JOURNAL, shards, _last_entry)


def _last_entry(records: Sequence[Record]) -> JournalRecord | None:
    # Of two with one number the first counts: the other one is of an owner who was fenced.
    return max(map(decode_entry, records), key=lambda entry: entry.entry, default=None)
