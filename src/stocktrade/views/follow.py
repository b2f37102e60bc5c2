"""How a view follows the log: from where it stood to the end, or to a moment.

Invariant: what a view is given continues what it was given before, record by record; where the log does not, the view
is emptied and begins anew.
"""

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Final, NamedTuple, TypeVar

from stocktrade.errors import UsageError
from stocktrade.ranges import NOW, Moment, bisect
from stocktrade.shard.history import to_the_end
from stocktrade.transport.base import Log, Reader, Record, TopicPartition
from stocktrade.views.store import Place, Store, print_of

BATCH: Final = 20_000
"""How many records are folded at a time."""

Progress = Callable[[int, int], None]
"""Called with how many records were read, of how many."""


def no_progress(done: int, total: int) -> None:
    """Shows nothing."""
    del done, total


class Taken(NamedTuple):
    """What became of records.

    `strange`: how many were not what their topic holds. `held`: the first offset that was not taken, of partitions
    where some were not.
    """

    strange: int = 0
    held: Mapping[TopicPartition, int] = MappingProxyType({})


class View(ABC):
    """A fold over topics into the tables of a store.

    Args:
        store: where it is kept.
        moment: what later inputs caused does not count.

    Attributes:
        held: partitions of which the rest must wait for the next time.
    """

    name: ClassVar[str]
    topics: ClassVar[tuple[str, ...]]
    """The topics it reads, one after the other."""

    def __init__(self, store: Store, moment: Moment) -> None:
        self.store = store
        self.moment = moment
        self.held: set[TopicPartition] = set()

    def begin(self, log: Log) -> Mapping[TopicPartition, Place]:
        """Fill an empty view from something that is faster than its topics; where it is to be continued."""
        del log
        return {}

    @abstractmethod
    def take(self, records: Sequence[Record]) -> Taken:
        """Fold the next records of one topic in, each partition's in order."""


def is_there(log: Log, topic: str) -> bool:
    """Whether the log has a topic; nobody may have used it yet."""
    try:
        with closing(log.reader({(topic, 0): 0})):
            return True
    except UsageError:
        return False


_ViewT = TypeVar("_ViewT", bound=View)


@contextmanager
def ready(
    kind: type[_ViewT], log: Log, folder: Path | None, moment: Moment = NOW, on_progress: Progress = no_progress
) -> Iterator[_ViewT]:
    """A view of the log as it is now, or as it was at a moment.

    Args:
        kind: which view.
        log: the log.
        folder: where views are kept; one of the past is not.
        moment: as of when. What an input caused belongs to the input's exchange sequence and time.
        on_progress: told while the log is read.

    Raises:
        Unavailable: the log cannot be read, or another command is writing to the view.
    """
    with closing(Store(None if moment.is_past else folder, log.url)) as store:
        view = kind(store, moment)
        try:
            _catch_up(view, log, on_progress)
        except sqlite3.DatabaseError:  # somebody has spoiled the file: all of it is on the log
            store.begin_anew()
            _catch_up(view, log, on_progress)
        yield view


def _catch_up(view: View, log: Log, on_progress: Progress) -> None:
    if not is_there(log, view.topics[0]):
        return
    with view.store.writing():
        if not _continued(view, log, on_progress):
            view.store.forget(view.name)
            _continued(view, log, on_progress)


def _continued(view: View, log: Log, on_progress: Progress) -> bool:
    """Read on where the view stands; False when the log does not continue what was read."""
    shards = range(log.partitions())
    view.held.clear()
    for topic in view.topics:
        places = view.store.places(view.name)
        if not places and not view.moment.is_past:
            places = {**view.begin(log)}
        starts = {(topic, shard): max(0, places.get((topic, shard), Place()).at) for shard in shards}
        with closing(log.reader(starts)) as reader:
            if not _read(view, reader, places, on_progress):
                return False
    return True


def _read(view: View, reader: Reader, places: Mapping[TopicPartition, Place], on_progress: Progress) -> bool:
    """Fold what a topic's partitions hold; False when they do not continue what was read."""
    ends = reader.ends()
    kept = reader.starts()
    begun = {at: places.get(at, Place()) for at in ends}
    if any(place.next > ends[at] for at, place in begun.items()):
        return False
    # The last record that was read must still be what it was, unless it is not kept any more.
    unproved = {at: place for at, place in begun.items() if place.at >= kept.get(at, 0) and place.at >= 0}
    total = sum(end - begun[at].next for at, end in ends.items())
    done = 0
    batch: list[Record] = []
    for record in to_the_end(reader, ends=ends, at_a_time=BATCH):
        at = (record.topic, record.partition)
        place = unproved.pop(at, None)
        if place is not None and (record.offset, print_of(record)) != (place.at, place.print):
            return False
        if begun[at].next <= record.offset < ends[at] and at not in view.held:
            batch.append(record)
        if len(batch) == BATCH:
            done += len(batch)
            _fold(view, batch)
            on_progress(done, total)
            batch = []
    if unproved:
        return False
    _fold(view, batch)
    return True


def _fold(view: View, batch: Sequence[Record]) -> None:
    until_ms = view.moment.time_ms
    with view.store.batch():
        taken = view.take([record for record in batch if until_ms is None or record.time_ms <= until_ms])
        if taken.strange:
            view.store.pass_over(view.name, taken.strange)
        view.held |= taken.held.keys()
        last = {}
        for record in batch:
            at = (record.topic, record.partition)
            if record.offset < taken.held.get(at, record.offset + 1):
                last[at] = record
        for at, record in last.items():
            view.store.move(view.name, at, Place(record.offset + 1, record.offset, print_of(record)))


def last_not_after(log: Log, at: TopicPartition, seq: int, seq_of: Callable[[Record], int | None]) -> Record | None:
    """The last record of a partition whose exchange sequence is not above `seq`; None if there is none.

    A binary search, for the sequences of a partition rise with its offsets. `seq_of` gives None for a stranger's
    record.
    """

    def is_before(record: Record) -> bool | None:
        found = seq_of(record)
        return None if found is None else found <= seq

    _, last = bisect(log, at, is_before, near=_NEAR)
    return last


_NEAR: Final = 20
"""How many strangers' records in a row a search looks behind."""
