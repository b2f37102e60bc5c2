"""The records of a partition, one after the other, and the outputs of a shard input by input.

Invariant: a partition is read once, forward; what is out of its place is looked for a bounded way ahead.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from stocktrade.transport.base import Log, NewRecord, Reader, Record
from stocktrade.transport.codec import decode_json

PATIENCE_S: Final = 15.0
"""How long a remote log may keep a reader from the end that it has named."""

LOOK_AHEAD: Final = 20_000
"""How many records ahead a missing one is looked for: a new owner writes again what a torn commit left out."""

REMEMBERED: Final = 20_000
"""How many records back one is recognised that comes again."""


class Stream:
    """One partition from its beginning on. `end` is where it ended when the audit began."""

    def __init__(self, log: Log, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self._patience_s = PATIENCE_S if log.remote else 0.0
        self._reader: Reader = log.reader({(topic, partition): 0})
        self.end = self._reader.ends()[topic, partition]
        self._ahead: deque[Record] = deque()
        self._stopped = False

    @property
    def place(self) -> str:
        """The partition, as a finding names it."""
        return f"{self.topic}@{self.partition}"

    def kept_from(self) -> int:
        """The offset before which the log keeps nothing any more."""
        return self._reader.starts().get((self.topic, self.partition), 0)

    @property
    def is_cut(self) -> bool:
        """Whether the log did not give what lies before the end that it named; known once `peek` gave None."""
        return self._reader.position(self.topic, self.partition) < self.end

    def peek(self, ahead: int = 0) -> Record | None:
        """The next record, or the one that many after it; None where the partition ends now."""
        while len(self._ahead) <= ahead:
            if not self._fill():
                return None
        return self._ahead[ahead]

    def pop(self) -> Record:
        """Take the record that `peek` gave."""
        return self._ahead.popleft()

    def remove(self, ahead: int) -> Record:
        """Take the record that `peek(ahead)` gave out of its place."""
        record = self._ahead[ahead]
        del self._ahead[ahead]
        return record

    def _fill(self) -> bool:
        if self._stopped:
            return False
        if records := self._reader.poll(0.0):
            self._ahead.extend(records)
            return True
        deadline = time.monotonic() + self._patience_s
        while self.is_cut and time.monotonic() < deadline:
            if records := self._reader.poll(1.0):
                self._ahead.extend(records)
                return True
        self._stopped = self.is_cut or not self._grew()
        return not self._stopped and self._fill()

    def _grew(self) -> bool:
        """Whether the partition goes on by now: an exchange may be trading."""
        at = (self.topic, self.partition)
        end = self._reader.ends()[at]
        grew = end > self._reader.position(*at)
        if grew:
            self.end = max(self.end, end)
        return grew

    def close(self) -> None:
        """Release the reader."""
        self._reader.close()


class Message:
    """A record of an output topic with its fields."""

    __slots__ = ("fields", "record")

    def __init__(self, record: Record, fields: dict[str, Any]) -> None:
        self.record = record
        self.fields = fields

    @property
    def where(self) -> str:
        """The position of the record."""
        return str(self.record.position)


def fields_of(record: Record) -> dict[str, Any] | None:
    """The fields of a message; None if the bytes are no JSON object."""
    try:
        fields = decode_json(record.value or b"")
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


class BySequence:
    """An output topic of a shard, taken in the order of the exchange sequence.

    Args:
        stream: the topic's partition.
        id_of: what tells a message from any other of its topic.
        on_stray: called with a record that has no place: it is no message, or comes when its input is done, or long
            before. The second argument says how it is wrong; the third whether it was there before with the same
            content.
    """

    def __init__(
        self,
        stream: Stream,
        id_of: Callable[[dict[str, Any]], str],
        on_stray: Callable[[Record, str, bool], None],
    ) -> None:
        self.stream = stream
        self._id_of = id_of
        self._on_stray = on_stray
        self._recent: OrderedDict[str, int] = OrderedDict()

    def take(self, seq: int, expected: Sequence[NewRecord] | None = None) -> list[Message]:
        """What stands on the topic for one exchange sequence, which is higher than that of the last call.

        `expected` is what the journal gives; what of it is not in its place is looked for further on.
        """
        found: list[Message] = []
        while (record := self.stream.peek()) is not None:
            fields = fields_of(record)
            at = None if fields is None else fields.get("seq")
            if fields is None or not isinstance(at, int):
                self.stream.pop()
                self._on_stray(record, "is no message of this topic", False)
                continue
            if at > seq and not self._is_out_of_place(at):
                break
            self.stream.pop()
            if at == seq:
                found.append(self._noted(record, fields))
            else:
                self._stray(record, fields)
        if expected is not None and len(found) < len(expected):
            self._look_ahead(found, [each.value or b"" for each in expected])
        return found

    def skip_before(self, seq: int) -> Iterator[Message]:
        """Pass over what stands at the beginning for earlier exchange sequences."""
        while (record := self.stream.peek()) is not None:
            fields = fields_of(record)
            at = None if fields is None else fields.get("seq")
            if fields is None or not isinstance(at, int) or at >= seq:
                return
            self.stream.pop()
            yield self._noted(record, fields)

    def _is_out_of_place(self, at: int) -> bool:
        """Whether the record after the next one belongs before it."""
        following = self.stream.peek(1)
        if following is None:
            return False
        fields = fields_of(following)
        after = None if fields is None else fields.get("seq")
        return isinstance(after, int) and after < at and not self._is_known(following, fields or {})

    def _look_ahead(self, found: list[Message], expected: list[bytes]) -> None:
        missing = [value for value in expected if value not in [message.record.value for message in found]]
        ahead = 0
        while missing and ahead < LOOK_AHEAD and (record := self.stream.peek(ahead)) is not None:
            if record.value in missing:
                missing.remove(record.value)
                found.append(self._noted(self.stream.remove(ahead), fields_of(record) or {}))
            else:
                ahead += 1
        order = {value: place for place, value in enumerate(expected)}
        found.sort(key=lambda message: order.get(message.record.value or b"", len(order)))

    def _noted(self, record: Record, fields: dict[str, Any]) -> Message:
        self._recent[self._id_of(fields)] = _content(record)
        if len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)
        return Message(record, fields)

    def _is_known(self, record: Record, fields: dict[str, Any]) -> bool:
        return self._recent.get(self._id_of(fields)) == _content(record)

    def _stray(self, record: Record, fields: dict[str, Any]) -> None:
        known = self._is_known(record, fields)
        self._on_stray(record, "is there twice" if known else "stands where the journal has nothing", known)

    def rest(self, until: int) -> Iterator[Record]:
        """Say of what is left before the offset `until` that it has no place."""
        while (record := self.stream.peek()) is not None and record.offset < until:
            self.stream.pop()
            fields = fields_of(record)
            if fields is None:
                self._on_stray(record, "is no message of this topic", False)
            else:
                self._stray(record, fields)
            yield record


def deviations(
    topic: str, source: str, expected: Sequence[NewRecord], found: Sequence[Message]
) -> Iterator[tuple[str, str]]:
    """Where, and how, what stands on a topic for the input at `source` differs from what the journal gives."""
    for due, message in zip(expected, found, strict=False):
        there = message.record
        if (due.key, due.value, due.time_ms, due.headers) != (there.key, there.value, there.time_ms, there.headers):
            yield message.where, f"is not what {source} caused"
    for message in found[len(expected) :]:
        yield message.where, f"{source} did not cause it"
    if len(found) < len(expected):
        yield source, f"{len(expected) - len(found)} records of it are missing on {topic}"


def _content(record: Record) -> int:
    return hash((record.time_ms, record.key, record.value, record.headers))
