"""`dlq`: the inputs that were no orders: listed, looked at, and sent again once they are mended.

Invariant: nothing is sent again by itself, and nothing is ever removed. What was sent again names its dead letter.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Final, NamedTuple, TextIO

from rich.console import Console
from rich.text import Text

from stocktrade import tables
from stocktrade.domain.values import visible
from stocktrade.errors import ExitCode, StocktradeError, UsageError
from stocktrade.lag import records_of
from stocktrade.listing import Column, Form, Listing, json_line, number, time_of, write
from stocktrade.ranges import Point, offset_of_time, resolve, rfc3339
from stocktrade.records import json_line as record_json
from stocktrade.settings import read_bytes
from stocktrade.transport import topics
from stocktrade.transport.base import Log, NewRecord, Position, Record, TopicPartition
from stocktrade.transport.codec import MAX_MESSAGE_BYTES, Dead, decode_input, key_of_symbol

FROM: Final = "__dlq.redrive.from"
"""The header of a record that was sent again: the dead letter."""

TIMES: Final = "__dlq.redrive.count"
"""The header that says the how manieth time it is."""

MOST: Final = 3
"""So often a record may be sent again without --force: what failed three times fails again."""

_POSITION: Final = re.compile(r"(?:([a-z-]{1,40})@)?(\d{1,6}):(\d{1,18})", re.ASCII)


class NoSuchLetter(StocktradeError):
    """No dead letter stands there, or tells of the record that does."""

    exit_code = ExitCode.NO


class NotSent(StocktradeError):
    """The letter was not sent again, for it would come back."""

    exit_code = ExitCode.NO


class Letter(NamedTuple):
    """A dead letter: the record on `dead-letters`, what it says of the input, and how often that was sent again.

    `again`: the record that was made of this letter, if any.
    """

    record: Record
    input: Position | None
    reason: str
    detail: str
    times: int
    again: Position | None


def _preview(letter: Letter) -> str:
    return visible((letter.record.value or b"")[:400].decode(errors="backslashreplace"), 100)


LETTERS: Final = Listing[Letter](
    schema="stocktrade.dead-letter/1",
    columns=(
        Column("position", "dead letter", lambda letter: str(letter.record.position)),
        time_of("time", "time", lambda letter: letter.record.time_ms, rank=2),
        Column("input", "input", lambda letter: str(letter.input or "")),
        Column("reason", "reason", lambda letter: letter.reason, lambda letter: tables.shown(letter.reason)),
        number("redriven", "sent again", lambda letter: letter.times, rank=3),
        Column("again", "as", lambda letter: str(letter.again or ""), rank=4),
        Column("value", "value", _preview, _preview, folds=True, rank=1),
    ),
    document=lambda letter: {
        "position": str(letter.record.position),
        "time": rfc3339(letter.record.time_ms),
        "input": None if letter.input is None else str(letter.input),
        "reason": letter.reason,
        "detail": letter.detail,
        "redriven": letter.times,
        "again": None if letter.again is None else str(letter.again),
        "record": json.loads(record_json(letter.record)),
    },
    empty="no dead letters: every input was an order",
)


def show_all(
    log: Log,
    *,
    start: Point | None,
    until: Point | None,
    last: int | None,
    form: Form,
    console: Console,
    out: TextIO,
) -> ExitCode:
    """List the dead letters of a range, oldest first, the last so many of them.

    Raises:
        Unavailable: the log cannot be read.
    """
    found = list(_letters(log, start, until))
    found.sort(key=lambda record: (record.time_ms, record.position))
    letters = _known(log, found[-last:] if last is not None else found)
    write(LETTERS, letters, form, console=console, out=out)
    return ExitCode.OK


def show(log: Log, place: Position, *, as_json: bool, console: Console, out: TextIO) -> ExitCode:
    """Show one dead letter, whole.

    Raises:
        NoSuchLetter: there is none.
    """
    (letter,) = _known(log, [_letter_at(log, place)])
    value = _bytes_of(log, letter)
    now = _fate(letter.input, value)
    if as_json:
        out.write(json_line(LETTERS.schema, {**LETTERS.document(letter), "now": now}))
        return ExitCode.OK
    lines = [
        ("dead letter", str(letter.record.position)),
        ("time", rfc3339(letter.record.time_ms) or ""),
        ("input", str(letter.input or "unknown")),
        ("why", f"{letter.reason}: {letter.detail}"),
        ("sent again", f"{letter.times} times" if letter.times else "never"),
        *([("as", str(letter.again))] if letter.again else []),
        ("key", (letter.record.key or b"").decode(errors="backslashreplace")),
        *((name, text.decode(errors="backslashreplace")) for name, text in letter.record.headers),
        ("now", now),
        ("value", value.decode(errors="backslashreplace")),
    ]
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        safe = tables.one_line(text)
        if console.is_terminal:
            console.print(Text.assemble((f"{tables.shown(name):{width}}  ", tables.FAINT), safe), soft_wrap=True)
        else:
            out.write(tables.tsv((name, text)) + "\n")
    return ExitCode.OK


class Mail(NamedTuple):
    """How letters are sent again.

    Attributes:
        value: mended bytes to send instead; of one letter only.
        force: also what would come back, and more than MOST times.
        dry_run: say what would be sent, and send nothing.
        confirm: asks whether to go on.
    """

    value: bytes | None
    force: bool
    dry_run: bool
    confirm: Callable[[str], bool]


def redrive(
    log: Log,
    places: Sequence[Position],
    mail: Mail,
    *,
    reason: str | None,
    as_json: bool,
    console: Console,
    out: TextIO,
) -> ExitCode:
    """Send inputs again that were no orders; those of `places`, or, without any, all with a reason not sent again yet.

    Returns:
        OK, or NO when one was not sent.

    Raises:
        NoSuchLetter: there is none at one of the places.
        NotSent: the only one would come back.
    """
    records = [_letter_at(log, place) for place in places] if places else list(_letters(log, None, None))
    letters = _known(log, records)
    if not places:
        letters = [each for each in letters if each.again is None and reason in (None, each.reason)]
    due = []
    refused: list[NotSent] = []
    for letter in letters:
        try:
            due.append((letter, _envelope(log, letter, mail)))
        except NotSent as error:
            refused.append(error)
    if refused and not due and len(letters) == 1:
        raise refused[0]
    for each in refused:
        sys.stderr.write(f"not sent: {each.what}: {each.cause}\n")
    if not due:
        return ExitCode.NO if refused else ExitCode.OK
    if not mail.dry_run and not mail.confirm(f"send {tables.many(len(due), 'record')} again to {log.url}?"):
        return ExitCode.NO
    for letter, record in due:
        position = None if mail.dry_run else log.append([record])[0]
        times = letter.times + 1
        if as_json:
            fields: dict[str, Any] = {
                "origin": str(letter.record.position),
                "to": None if position is None else str(position),
                "topic": record.topic,
                "times": times,
                "sent": position is not None,
            }
            out.write(json_line("stocktrade.redriven/1", fields))
        else:
            cells = (str(letter.record.position), str(position or record.topic), str(times))
            if console.is_terminal:
                mark = ("✓ sent again", tables.GOOD) if position else ("… would be sent", tables.WAITING)
                console.print(Text.assemble(mark, f"  {cells[0]} → {cells[1]}, time {times}"), soft_wrap=True)
            else:
                out.write(tables.tsv(cells) + "\n")
    return ExitCode.NO if refused else ExitCode.OK


def place_from(text: str) -> Position:
    """Where a dead letter, or its input, stands: `0:3`, `dead-letters@0:3` or `buy-orders@0:17`.

    Raises:
        UsageError: it is no place.
    """
    match = _POSITION.fullmatch(text)
    topic = (match[1] or topics.DEAD_LETTERS) if match else ""
    if match is None or topic not in (topics.DEAD_LETTERS, *topics.INPUTS):
        raise UsageError(
            f"not a dead letter's place: {visible(text, 64)!r}",
            cause="a place is SHARD:OFFSET, dead-letters@SHARD:OFFSET, or that of the input",
            hint="see `stocktrade dlq list`",
        )
    return Position(topic, int(match[2]), int(match[3]))


def value_from(path: str | None) -> bytes | None:
    """The mended bytes in a file.

    Raises:
        UsageError: it cannot be read, or is longer than a message may be.
    """
    if path is None:
        return None
    value, _ = read_bytes("--value", path)
    value = value.rstrip(b"\n")
    if len(value) > MAX_MESSAGE_BYTES:
        raise UsageError("--value is too long", cause=f"{len(value)} bytes; a message has {MAX_MESSAGE_BYTES} at most")
    return value


def _letters(log: Log, start: Point | None, until: Point | None) -> Iterator[Record]:
    if topics.DEAD_LETTERS in log.missing_topics(topics.SPECS):
        return
    places: list[TopicPartition] = [(topics.DEAD_LETTERS, shard) for shard in range(log.partitions())]
    with closing(log.reader(dict.fromkeys(places, 0))) as reader:
        starts, ends = reader.starts(), reader.ends()

    def place_of(point: Point, at: TopicPartition) -> int:
        def offset_at(time_ms: int) -> int:
            return offset_of_time(log, *at, time_ms, end=ends[at])

        return resolve(point, end=ends[at], offset_at=offset_at, start=starts.get(at, 0))

    begins = {at: starts.get(at, 0) if start is None else place_of(start, at) for at in places}
    stops = {at: ends[at] if until is None else place_of(until, at) for at in places}
    wanted = {at: begin for at, begin in begins.items() if begin < stops[at]}
    for record in records_of(log, wanted):
        if record.offset < stops[record.topic, record.partition]:
            yield record


def _letter_at(log: Log, place: Position) -> Record:
    """The dead letter at a place, or of the input at it; the newest, if there are several."""
    if place.topic == topics.DEAD_LETTERS:
        found = _record_at(log, place)
    else:
        headers = _input_headers(place)
        found = None
        for record in _letters(log, None, None):
            if headers.items() <= dict(record.headers).items():
                found = record
    if found is None:
        raise NoSuchLetter(
            f"there is no dead letter at {place}", cause=f"none on {log.url}", hint="see `stocktrade dlq list`"
        )
    return found


def _record_at(log: Log, place: Position) -> Record | None:
    if place.topic in log.missing_topics(topics.SPECS) or place.partition >= log.partitions():
        return None
    with closing(log.reader({place[:2]: place.offset})) as reader:
        if place.offset >= reader.ends()[place[:2]]:
            return None
        records = reader.poll(1.0, 1)
    return records[0] if records and records[0].offset == place.offset else None


def _input_headers(place: Position) -> Mapping[str, bytes]:
    parts = zip(("topic", "partition", "offset"), place, strict=True)
    return {f"__dlq.errors.{name}": str(part).encode() for name, part in parts}


def _known(log: Log, records: Sequence[Record]) -> list[Letter]:
    """Dead letters with what is known of them: what they say, and what has become of them."""
    if not records:
        return []
    since = {}
    for topic in topics.INPUTS:
        for shard in range(log.partitions()):
            at = (topic, shard)
            with closing(log.reader({at: None})) as reader:
                end = reader.ends()[at]
            oldest = min(record.time_ms for record in records)
            start = offset_of_time(log, *at, oldest, end=end)
            if start < end:
                since[at] = start
    again = {}
    for record in records_of(log, since):
        for name, value in record.headers:
            if name == FROM:
                again[value] = record.position
    return [_letter(log, record, again.get(str(record.position).encode())) for record in records]


def _letter(log: Log, record: Record, again: Position | None) -> Letter:
    headers = dict(record.headers)
    said = headers.get("__dlq.errors.message", b"").decode(errors="backslashreplace")
    reason, _, detail = said.partition(": ")
    named = [headers.get(f"__dlq.errors.{part}", b"") for part in ("topic", "partition", "offset")]
    place = None
    if named[0].decode(errors="replace") in topics.INPUTS and all(part.isdigit() for part in named[1:]):
        place = Position(named[0].decode(), int(named[1]), int(named[2]))
    original = None if place is None else _record_at(log, place)
    count = dict(original.headers).get(TIMES, b"0") if original is not None else b"0"
    return Letter(record, place, reason, detail, int(count) if count.isdigit() else 0, again)


def _bytes_of(log: Log, letter: Letter) -> bytes:
    """The input's bytes: from its place, for a dead letter holds no more than the beginning of a long one."""
    original = None if letter.input is None else _record_at(log, letter.input)
    return ((letter.record if original is None else original).value) or b""


def _fate(place: Position | None, value: bytes) -> str:
    """What the exchange would say to bytes now."""
    decoded = decode_input(place.topic if place else topics.BUY_ORDERS, value)
    return f"{decoded.reason}: {decoded.detail}" if isinstance(decoded, Dead) else "an order"


def _envelope(log: Log, letter: Letter, mail: Mail) -> NewRecord:
    """The record that would be sent.

    Raises:
        NotSent: it would come back, or has come back too often.
    """
    where = str(letter.record.position)
    if letter.input is None:
        raise NotSent(f"{where} does not say where its input stood", cause="it is not a dead letter of this exchange")
    if letter.again is not None and not mail.force:
        raise NotSent(
            f"{where} was sent again before, as {letter.again}",
            cause="twice would be two messages",
            hint="--force sends it once more",
        )
    if letter.times >= MOST and not mail.force:
        raise NotSent(
            f"{where} has been sent again {letter.times} times",
            cause="it came back each time",
            hint=f"look at it with `stocktrade dlq show {where}`; --force sends it once more",
        )
    value = _bytes_of(log, letter) if mail.value is None else mail.value
    decoded = decode_input(letter.input.topic, value)
    if isinstance(decoded, Dead) and not mail.force:
        raise NotSent(
            f"{where} would come back",
            cause=f"{decoded.reason}: {decoded.detail}",
            hint=f"mend it and send that: stocktrade dlq redrive {where} --value FILE",
        )
    key = letter.record.key if isinstance(decoded, Dead) else key_of_symbol(decoded.symbol)
    headers = ((FROM, where.encode()), (TIMES, str(letter.times + 1).encode()))
    return NewRecord(letter.input.topic, key, value, headers=headers)
