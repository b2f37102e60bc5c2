"""What a commit left undone: records that the journal says were written, and that the log does not hold.

A log that keeps its promise never tears a commit, and then there is nothing to do. Where one did all the same, the
journal decides: what it holds happened, so what is missing of it is written again, with the same bytes.

Invariant: a record that is there is not written again.
"""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from typing import Final

from stocktrade.shard.history import to_the_end
from stocktrade.transport.base import Log, NewRecord, Record, TopicPartition

CHECKED_ENTRIES: Final = 8
"""How many of the journal's last batches are compared with the log: only an owner's last commits can be torn, since
it ends with the first one that fails."""

CLOCKS_APART_MS: Final = 60_000
"""How far the clocks of two brokers, and so the times of records that were written together, may lie apart."""

_SLACK: Final = 64


def missing(log: Log, written: Sequence[NewRecord], since_ms: int) -> list[NewRecord]:
    """Those of `written`, in their order, that the log does not hold.

    The ends of their partitions are read, from further and further back until each record was met or must have been.

    Args:
        log: where to look.
        written: records with their partitions.
        since_ms: none of them was written before this time, in milliseconds since 1970.
    """
    lacking: dict[TopicPartition, set[_Identity]] = defaultdict(set)
    for record in written:
        lacking[_place(record)].add(_identity(record))
    if not lacking:
        return []
    with closing(log.reader(dict.fromkeys(lacking))) as reader:
        ends = reader.ends()
    open_places = set(lacking)
    back = 2 * len(written) + _SLACK
    while open_places:
        starts = {at: max(0, ends[at] - back) for at in open_places}
        oldest_ms = _take_what_is_there(log, starts, ends, lacking)
        open_places = {
            at
            for at, start in starts.items()
            if lacking[at] and start > 0 and oldest_ms.get(at, since_ms) >= since_ms - CLOCKS_APART_MS
        }
        back *= 4
    return [record for record in written if _identity(record) in lacking[_place(record)]]


_Identity = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]


def _place(record: NewRecord) -> TopicPartition:
    assert record.partition is not None
    return record.topic, record.partition


def _identity(record: NewRecord | Record) -> _Identity:
    return record.key, record.value, record.headers


def _take_what_is_there(
    log: Log,
    starts: dict[TopicPartition, int],
    ends: dict[TopicPartition, int],
    lacking: dict[TopicPartition, set[_Identity]],
) -> dict[TopicPartition, int]:
    """Read to the ends, and take out of `lacking` what comes; the time of each partition's first record."""
    oldest_ms: dict[TopicPartition, int] = {}
    ends = {at: ends[at] for at in starts}
    with closing(log.reader(starts)) as reader:
        for record in to_the_end(reader, ends=ends):
            at = (record.topic, record.partition)
            oldest_ms.setdefault(at, record.time_ms)
            lacking[at].discard(_identity(record))
    return oldest_ms
