"""Points in time and on the log, as people write them: the grammar of `--from` and `--until`.

Owns parsing, and the resolution of a parsed point to an offset of a partition. Invariant: what is not in the
grammar is refused with the grammar, never guessed; a time without a zone is a time in India.
"""

import re
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from typing import Final, Literal, NamedTuple

from stocktrade.domain.values import visible
from stocktrade.errors import UsageError
from stocktrade.transport.base import Log

IST: Final = timezone(timedelta(hours=5, minutes=30), "IST")
"""The time zone of the exchange; it has no daylight saving."""

GRAMMAR: Final = "start | end | N | +N | -N | @-10m | @2026-11-23T09:15"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_AGO = re.compile(r"@-(\d{1,9})(s|m|h|d)", re.ASCII)
_UNIT_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_COUNT = re.compile(r"([+-]?)(\d{1,18})", re.ASCII)
_ISO = re.compile(r"@(\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:\d\d)?)?)", re.ASCII)


class Point(NamedTuple):
    """A point on the log.

    `offset`: before the record with that offset. `after_start`, `before_end`: that many records from there.
    `time`: before the first record of that time, in milliseconds since 1970.
    """

    kind: Literal["offset", "after_start", "before_end", "time"]
    value: int


START: Final = Point("after_start", 0)
END: Final = Point("before_end", 0)


def parse_point(text: str, *, now_ms: int) -> Point:
    """The point that `text` names; `now_ms` is what `@-10m` counts back from.

    Raises:
        UsageError: not in the grammar.
    """
    if text == "start":
        return START
    if text == "end":
        return END
    if count := _COUNT.fullmatch(text):
        kind: Literal["offset", "after_start", "before_end"] = "offset"
        if count[1]:
            kind = "after_start" if count[1] == "+" else "before_end"
        return Point(kind, int(count[2]))
    if ago := _AGO.fullmatch(text):
        return Point("time", max(0, now_ms - int(ago[1]) * _UNIT_MS[ago[2]]))
    if iso := _ISO.fullmatch(text):
        try:
            moment = datetime.fromisoformat(iso[1])
        except ValueError:  # the 30th of February
            pass
        else:
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=IST)
            return Point("time", (moment - _EPOCH) // timedelta(milliseconds=1))
    raise UsageError(
        f"not a point on the log: {visible(text, 64)!r}",
        cause="a number counts records: N is an offset, +N counts from the start, -N from the end",
        hint=f"use one of: {GRAMMAR} (a time without a zone is Indian time)",
    )


class Moment(NamedTuple):
    """After an exchange sequence, or before the first input that is later than a time in milliseconds since 1970."""

    seq: int | None = None
    time_ms: int | None = None

    @property
    def is_past(self) -> bool:
        """Whether it is a moment, and not now."""
        return self.seq is not None or self.time_ms is not None


NOW: Final = Moment()


def parse_moment(text: str, *, now_ms: int) -> Moment:
    """A moment as it was typed: an exchange sequence, or a time such as `@-10m` or `@2026-11-23T09:15`.

    Raises:
        UsageError: it is neither.
    """
    try:
        point: Point | None = parse_point(text, now_ms=now_ms)
    except UsageError:
        point = None
    if point is not None and point.kind == "time":
        return Moment(time_ms=point.value)
    if point is not None and point.kind == "offset":
        return Moment(seq=point.value)
    raise UsageError(
        f"--at is no moment: {visible(text, 64)!r}",
        cause="a moment is an exchange sequence or a time",
        hint="for example --at 5, --at @-10m or --at @2026-11-23T09:15 (a time without a zone is Indian time)",
    )


def resolve(point: Point, *, end: int, offset_at: Callable[[int], int], start: int = 0) -> int:
    """The offset of a point in a partition that holds offsets from `start` to before `end`.

    `offset_at` finds the first offset of a time or later; see `offset_of_time`.
    """
    if point.kind == "time":
        return offset_at(point.value)
    if point.kind == "before_end":
        return max(end - point.value, start)
    wanted = point.value if point.kind == "offset" else start + point.value
    return min(max(wanted, start), end)


def offset_of_time(log: Log, topic: str, partition: int, time_ms: int, *, end: int) -> int:
    """The offset of the first record before `end` that is not older than `time_ms`; `end` if there is none.

    A binary search, for the times of a partition rise with its offsets, up to small disorder after a clock was
    set back: whoever needs every record of a time compares the times as well.
    """
    low, high = 0, end
    with closing(log.reader({(topic, partition): 0})) as reader:
        reader.ends()  # or a poll would wait for a record behind the end of the last transaction
        while low < high:
            middle = (low + high) // 2
            reader.seek(topic, partition, middle)
            records = reader.poll(1.0, 1)
            # There may be no record at `middle` (offsets have gaps), then the next one stands for all between.
            if records and records[0].offset < high and records[0].time_ms < time_ms:
                low = records[0].offset + 1
            else:
                high = middle
    return low


def moment(time_ms: int) -> datetime | None:
    """Milliseconds since 1970 as a time in India; None for a stamp that is no date."""
    try:
        return (_EPOCH + timedelta(milliseconds=time_ms)).astimezone(IST)
    except OverflowError:
        return None


def rfc3339(time_ms: int) -> str | None:
    """Milliseconds since 1970 as `2026-11-23T03:45:00.123Z`; None for a stamp that is no date."""
    at = moment(time_ms)
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
