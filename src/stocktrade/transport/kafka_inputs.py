"""The inputs of a started shard, one partition of each topic: what was fetched of them, and in which order it goes on.

Two topics have no order between them but the time at which the brokers took each record. So a record may go on as soon
as nothing that arrived before it can still come, which is known from later records of every topic, or from a look:
where the partitions end now. What was fetched before the question arrived before the answer, and so did whatever goes
before it: when everything up to these ends has been fetched, nothing before it is missing.

Invariant: what is still to be delivered of a shard did not arrive before its horizon.
"""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from kafka import TopicPartition as Place

from stocktrade.errors import LogDamaged
from stocktrade.transport.base import UNBOUNDED, Record

SHORT_PATIENCE_S: Final = 5.0
"""How long a partition may end before what was taken from it: a leader that is new knows its end a moment later."""

_MAX_BUFFERED_BYTES: Final = 4 * 1024 * 1024
_MAX_BUFFERED_RECORDS: Final = 10_000


class Input:
    """One partition: where it stands, and what was fetched of it and not delivered."""

    def __init__(self, place: Place, position: int) -> None:
        self.place = place
        self.position = position  # of the next record to fetch
        self.newest = 0  # the latest arrival of what was fetched: a later one never arrived before it
        self.waiting: deque[Record] = deque()
        self.went_back = False
        self.paused = False
        self._waiting_bytes = 0
        self._end = -1  # where the partition ended at the last look
        self.promised = 0  # up to that end there is everything that arrived before this
        self._complete = 0  # everything that arrived before this was fetched
        self._short_since: float | None = None  # it ended before the position

    def take(self, records: Iterable[Record]) -> None:
        """What was fetched. A record that comes again was delivered, or the partition is another one: `went_back`."""
        for record in records:
            if record.offset < self.position:
                self.went_back = True
                continue
            self.waiting.append(record)
            self._waiting_bytes += len(record.value or b"") + 100
            self.newest = max(self.newest, record.arrival)
            self.position = record.offset + 1
        self._complete = max(self._complete, self.newest)
        self.go_to(self.position)

    def go_to(self, position: int) -> None:
        """Everything before the position was fetched."""
        self.position = max(self.position, position)
        if self.position >= self._end:
            self._complete = max(self._complete, self.promised)

    def look(self, end: int, promised: int) -> None:
        """Note where the partition ends, and that what comes after it arrived no earlier than `promised`."""
        self._end, self.promised = end, promised
        self.go_to(self.position)

    def check_length(self) -> None:
        """Orders that come to a partition that was made anew, or lost its tail, have offsets that count as taken.

        Raises:
            LogDamaged: it has for some seconds ended before what was taken from it.
        """
        if self.position <= self._end:
            self._short_since = None
            return
        now = time.monotonic()
        if self._short_since is None:
            self._short_since = now
        if now - self._short_since >= SHORT_PATIENCE_S:
            raise LogDamaged(
                f"{self.place.topic}@{self.place.partition} ends before what was taken from it",
                cause=f"it ends at {self._end}, and everything before {self.position} is in the journal: the cluster "
                "lost records, or the topic was made anew",
                hint="restore the topic from a copy; what was sent to it since would not be traded",
            )

    def pop_before(self, arrival: int, place: Place, most: int) -> list[Record]:
        """What waits up to where another input goes first, whose head came at `arrival`."""
        last = arrival if self.place < place else arrival - 1
        popped: list[Record] = []
        while self.waiting and len(popped) < most and self.waiting[0].arrival <= last:
            popped.append(self.waiting.popleft())
        self._waiting_bytes -= sum([len(record.value or b"") + 100 for record in popped])
        return popped

    @property
    def is_behind(self) -> bool:
        """Whether there is more than was fetched."""
        return self.position < self._end and not self.waiting

    @property
    def is_at_end(self) -> bool:
        """Whether what was there at the last look was delivered, and nothing beyond it was fetched."""
        return self.position == self._end and not self.waiting

    @property
    def horizon(self) -> int:
        """Whatever is still to be delivered of this partition did not arrive before this."""
        return self.waiting[0].arrival if self.waiting else self._complete

    @property
    def is_full(self) -> bool:
        """Whether it is to be paused until some of it is delivered."""
        return self._waiting_bytes > _MAX_BUFFERED_BYTES or len(self.waiting) > _MAX_BUFFERED_RECORDS


class ShardInputs:
    """The inputs of one shard.

    Args:
        starts: each partition with the offset of the next record to fetch.
    """

    def __init__(self, starts: Mapping[Place, int]) -> None:
        self.inputs = [Input(place, offset) for place, offset in starts.items()]

    @property
    def is_waiting(self) -> bool:
        """Whether something was fetched that is not delivered."""
        return any(each.waiting for each in self.inputs)

    def lasts_for(self, records: int) -> bool:
        """Whether that many can be delivered before the next poll, and the order of those is known without a look."""
        return all(len(each.waiting) > records for each in self.inputs)

    @property
    def wants_a_look(self) -> bool:
        """Whether something was fetched since the last look at one of them."""
        newest = self._newest
        return any(each.promised <= newest for each in self.inputs)

    def look(self, ends: Mapping[Place, int]) -> None:
        """Note where the partitions end; after what was fetched so far the brokers were asked.

        Raises:
            LogDamaged: one of them has for some seconds ended before what was taken from it.
        """
        promised = self._newest + 1
        for each in self.inputs:
            each.look(ends[each.place], promised)
            each.check_length()

    @property
    def _newest(self) -> int:
        return max([each.newest for each in self.inputs])

    @property
    def horizon(self) -> int:
        """As of `Poll.horizons`."""
        if all(each.is_at_end for each in self.inputs):
            return UNBOUNDED
        return min([each.horizon for each in self.inputs])

    def pop(self, most: int) -> list[Record]:
        """What was fetched, in the order of arrival."""
        popped: list[Record] = []
        while len(popped) < most and self.is_waiting:
            # The one that is first, as long as it is.
            first, *others = sorted(
                (each for each in self.inputs if each.waiting), key=lambda each: (each.waiting[0].arrival, each.place)
            )
            until = (others[0].waiting[0].arrival, others[0].place) if others else (UNBOUNDED + 1, first.place)
            popped += first.pop_before(*until, most - len(popped))
        return popped
