"""`dlq`: the inputs that were no orders: listed, looked at, and sent again once they are mended.

Invariant: nothing is sent again by itself, and nothing is ever removed. What was sent again names its dead letter.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from hashlib import sha256
from typing import Any, Final, NamedTuple, TextIO

from rich.console import Console
from rich.text import Text

from stocktrade import tables
from stocktrade.domain.facts import Instruction
from stocktrade.domain.values import visible
from stocktrade.errors import ExitCode, StocktradeError, UsageError
from stocktrade.lag import records_of
from stocktrade.listing import Column, Form, Listing, json_line, number, time_of, write
from stocktrade.progress import bar
from stocktrade.ranges import Point, offset_of_time, rfc3339
from stocktrade.records import json_line as record_json
from stocktrade.settings import read_bytes
from stocktrade.spans import span_of
from stocktrade.transport import topics
from stocktrade.transport.base import Log, NewRecord, Position, Record
from stocktrade.transport.codec import MAX_MESSAGE_BYTES, Dead, decode_input, key_of_symbol

FROM: Final = "__dlq.redrive.from"
"""The header of a record that was sent again: the dead letter."""

ORIGIN: Final = "__dlq.redrive.origin"
"""The header that names the input that came first, of all that were sent again since."""

TIMES: Final = "__dlq.redrive.count"
"""The header that says the how manieth time it is for that input."""

MOST: Final = 3
"""So often a record may be sent again without --force: what failed three times fails again."""

_POSITION: Final = re.compile(r"(?:([a-z-]{1,40})@)?(\d{1,6}):(\d{1,18})", re.ASCII)

_DIGEST: Final = "stocktrade.sha256"
"""The exchange gives it to a dead letter that holds no more than the beginning of its input."""


class NoSuchLetter(StocktradeError):
    """No dead letter stands there, or tells of the record that does."""

    exit_code = ExitCode.NO


class NotSent(StocktradeError):
    """The letter was not sent again, for it would come back."""

    exit_code = ExitCode.NO


class Letter(NamedTuple):
    """A dead letter: the record on `dead-letters`, and what it says of the input.

    `origin`: the input that came first, if this one had been sent again. `times`: how often that was sent again by
    now. `again`: the last record that was made of this letter, if any.
    """

    record: Record
    input: Position | None
    reason: str
    detail: str
    origin: str
    times: int
    again: Position | None


def _preview(letter: Letter) -> str:
    return visible((letter.record.value or b"")[:400].decode(errors="backslashreplace"), 100)


def _key(letter: Letter) -> str:
    return (letter.record.key or b"").decode(errors="backslashreplace")


LETTERS: Final = Listing[Letter](
    schema="stocktrade.dead-letter/1",
    columns=(
        Column("position", "dead letter", lambda letter: str(letter.record.position)),
        time_of("time", "time", lambda letter: letter.record.time_ms, rank=2),
        Column("input", "input", lambda letter: str(letter.input or "")),
        Column("reason", "reason", lambda letter: letter.reason, lambda letter: tables.shown(letter.reason)),
        number("redriven", "sent again", lambda letter: letter.times, rank=3),
        Column("again", "as", lambda letter: str(letter.again or ""), rank=4),
        Column("key", "key", _key, lambda letter: tables.shown(_key(letter)), folds=True, rank=5),
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
    progress: Console,
    out: TextIO,
) -> ExitCode:
    """List the dead letters of a range, oldest first, the last so many of them; `progress` is for stderr.

    Raises:
        Unavailable: the log cannot be read.
    """
    found = sorted(_letters(log, start, until, last=last), key=lambda record: (record.time_ms, record.position))
    letters = _known(log, found[-last:] if last is not None else found, progress)
    write(LETTERS, letters, form, console=console, out=out)
    return ExitCode.OK


def show(log: Log, place: Position, *, as_json: bool, console: Console, progress: Console, out: TextIO) -> ExitCode:
    """Show one dead letter, whole; `progress` is for stderr.

    Raises:
        NoSuchLetter: there is none.
    """
    (letter,) = _known(log, [_letter_at(log, place)], progress)
    value, whole = _value_of(log, letter)
    now = _fate(letter, value) if whole else "unknown: no more than its beginning is kept"
    if as_json:
        out.write(json_line(LETTERS.schema, {**LETTERS.document(letter), "now": now}))
        return ExitCode.OK
    lines = [
        ("dead letter", str(letter.record.position)),
        ("time", rfc3339(letter.record.time_ms) or ""),
        ("input", str(letter.input or "unknown")),
        ("why", f"{letter.reason}: {letter.detail}"),
        ("sent again", tables.many(letter.times, "time") if letter.times else "never"),
        *([("as", str(letter.again))] if letter.again else []),
        ("key", _key(letter)),
        *((name, text.decode(errors="backslashreplace")) for name, text in letter.record.headers),
        ("now", now),
        ("value", (value or b"").decode(errors="backslashreplace")),
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
    progress: Console,
    out: TextIO,
) -> ExitCode:
    """Send inputs again that were no orders; those of `places`, or, without any, all with a reason not sent again yet.

    `progress` is for stderr.

    Returns:
        OK, or NO when one was not sent.

    Raises:
        NoSuchLetter: there is none at one of the places.
        NotSent: the only one would come back.
    """
    if places:
        # One letter has several names, and is sent once.
        named = {record.position: record for record in _letters_at(log, places)}
        letters = _known(log, list(named.values()), progress)
    else:
        waiting = [each for each in _known(log, list(_letters(log)), progress) if each.again is None]
        letters = [each for each in waiting if reason in (None, each.reason)]
        if not letters:
            _tell_reasons(waiting, reason)
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
    """The mended bytes in a file, or on standard input (`-`).

    Raises:
        UsageError: it cannot be read, or is longer than a message may be.
    """
    if path is None:
        return None
    value = sys.stdin.buffer.read(MAX_MESSAGE_BYTES + 2) if path == "-" else read_bytes("--value", path)[0]
    value = value.rstrip(b"\n")
    if len(value) > MAX_MESSAGE_BYTES:
        raise UsageError("--value is too long", cause=f"a message has {MAX_MESSAGE_BYTES} bytes at most")
    return value


def _letters(
    log: Log,
    start: Point | None = None,
    until: Point | None = None,
    *,
    last: int | None = None,
    shards: Collection[int] | None = None,
) -> Iterator[Record]:
    if topics.DEAD_LETTERS in log.missing_topics(topics.SPECS):
        return
    span = span_of(log, topics.DEAD_LETTERS, start=start, until=until, last=last, shards=shards)
    yield from filter(span.holds, records_of(log, span.starts, stops=span.stops))


def _letters_at(log: Log, places: Iterable[Position]) -> Iterator[Record]:
    for place in places:
        yield _letter_at(log, place)


def _letter_at(log: Log, place: Position) -> Record:
    """The dead letter at a place, or of the input at it; the newest, if there are several."""
    found = None
    if place.topic == topics.DEAD_LETTERS:
        found = _record_at(log, place)
    elif place.partition < log.partitions():
        headers = _input_headers(place)
        for record in _letters(log, shards=[place.partition]):
            if headers.items() <= dict(record.headers).items():
                found = record
    if found is None:
        raise NoSuchLetter(
            f"there is no dead letter at {place}", cause=f"none on {log.url}", hint="see `stocktrade dlq list`"
        )
    return found


def _tell_reasons(waiting: Sequence[Letter], reason: str | None) -> None:
    counts = Counter(letter.reason for letter in waiting)
    there = ", ".join(f"{tables.shown(each)} ({count})" for each, count in sorted(counts.items()))
    which = "" if reason is None else f" with the reason {tables.shown(reason)}"
    sys.stderr.write(f"nothing to send: no dead letter{which} waits{f'; there are {there}' if there else ''}\n")


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


class _Sent(NamedTuple):
    """What a record that was sent again says of itself."""

    letter: str
    origin: str
    times: int


def _sent_since(log: Log, time_ms: int, progress: Console) -> dict[Position, _Sent]:
    """The inputs from a time on that are dead letters sent again."""
    places = [(topic, shard) for topic in topics.INPUTS for shard in range(log.partitions())]
    with closing(log.reader(dict.fromkeys(places, 0))) as reader:
        ends = reader.ends()
    starts = {at: offset_of_time(log, *at, time_ms, end=end) for at, end in ends.items() if end}
    starts = {at: start for at, start in starts.items() if start < ends[at]}
    total = sum(ends[at] - start for at, start in starts.items())
    found = {}
    with bar(progress, "reading", "inputs") as shown:
        for done, record in enumerate(records_of(log, starts)):
            if done % _SHOWN_EVERY == 0:
                shown(done, total)
            headers = dict(record.headers)
            if FROM in headers and ORIGIN in headers:
                letter, origin = (headers[name].decode(errors="backslashreplace") for name in (FROM, ORIGIN))
                found[record.position] = _Sent(letter, origin, _number(headers.get(TIMES, b"")) or 0)
    return found


_SHOWN_EVERY: Final = 1_000


def _number(digits: bytes) -> int | None:
    """A number in a header, where anything may stand."""
    return int(digits) if digits.isdigit() and len(digits) <= _MAX_DIGITS else None


_MAX_DIGITS: Final = 18


def _known(log: Log, records: Sequence[Record], progress: Console) -> list[Letter]:
    """Dead letters with what is known of them: what they say, and what has become of them.

    How often an input was sent again stands on the inputs alone, so these are read since the oldest of the letters.
    """
    if not records:
        return []
    sent = _sent_since(log, min(record.time_ms for record in records), progress)
    times: dict[str, int] = {}
    again: dict[str, tuple[int, Position]] = {}
    for position, each in sent.items():
        times[each.origin] = max(each.times, times.get(each.origin, 0))
        again[each.letter] = max((each.times, position), again.get(each.letter, (0, position)))
    letters = []
    for record in records:
        headers = dict(record.headers)
        said = headers.get("__dlq.errors.message", b"").decode(errors="backslashreplace")
        reason, _, detail = said.partition(": ")
        place = _input_of(headers)
        origin = sent[place].origin if place in sent else str(place or "")
        sent_as = again.get(str(record.position))
        letters.append(
            Letter(record, place, reason, detail, origin, times.get(origin, 0), sent_as[1] if sent_as else None)
        )
    return letters


def _input_of(headers: Mapping[str, bytes]) -> Position | None:
    topic, *numbers = (headers.get(f"__dlq.errors.{part}", b"") for part in ("topic", "partition", "offset"))
    partition, offset = map(_number, numbers)
    if partition is None or offset is None:
        return None
    return next((Position(name, partition, offset) for name in topics.INPUTS if name.encode() == topic), None)


def _value_of(log: Log, letter: Letter) -> tuple[bytes | None, bool]:
    """The input's bytes, and whether these are all. A dead letter holds no more than the beginning of a long input."""
    digest = dict(letter.record.headers).get(_DIGEST)
    if digest is None:
        return letter.record.value, True
    original = None if letter.input is None else _record_at(log, letter.input)
    if original is None or sha256(original.value or b"").hexdigest().encode() != digest:
        return letter.record.value, False
    return original.value, True


def _decoded(letter: Letter, value: bytes | None) -> Instruction | Dead:
    return decode_input(letter.input.topic if letter.input else topics.BUY_ORDERS, value)


def _fate(letter: Letter, value: bytes | None) -> str:
    """What the exchange would say to bytes now, as far as it can be told without its books."""
    decoded = _decoded(letter, value)
    if isinstance(decoded, Dead):
        return f"{decoded.reason}: {decoded.detail}"
    return "an order" if decoded.refusal is None else f"an order, rejected as {decoded.refusal}"


def _envelope(log: Log, letter: Letter, mail: Mail) -> NewRecord:
    """The record that would be sent.

    Raises:
        NotSent: it would come back, or has come back too often.
    """
    where = str(letter.record.position)
    if letter.input is None:
        raise NotSent(f"{where} does not say where its input stood", cause="it is not a dead letter of this exchange")
    if letter.times >= MOST and not mail.force:
        raise NotSent(
            f"{where} has been sent again {letter.times} times",
            cause="what came back so often comes back again",
            hint=f"look at it with `stocktrade dlq show {where}`; --force sends it once more",
        )
    if letter.again is not None and not mail.force:
        raise NotSent(
            f"{where} was sent again before, as {letter.again}",
            cause="twice would be two messages",
            hint="--force sends it once more",
        )
    value, whole = (mail.value, True) if mail.value is not None else _value_of(log, letter)
    if not whole:
        raise NotSent(
            f"{where} holds no more than the beginning of its input",
            cause=f"the log keeps {letter.input} no longer",
            hint=f"send a whole one: stocktrade dlq redrive {where} --value FILE",
        )
    decoded = _decoded(letter, value)
    if isinstance(decoded, Dead) and not mail.force:
        raise NotSent(
            f"{where} would come back",
            cause=f"{decoded.reason}: {decoded.detail}",
            hint=f"mend it and send that: stocktrade dlq redrive {where} --value FILE",
        )
    symbol = "" if isinstance(decoded, Dead) else decoded.symbol
    key = key_of_symbol(symbol) if symbol else letter.record.key
    headers = {FROM: where, ORIGIN: letter.origin, TIMES: str(letter.times + 1)}
    return NewRecord(
        letter.input.topic, key, value, headers=tuple((name, text.encode()) for name, text in headers.items())
    )
