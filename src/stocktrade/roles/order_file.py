"""Files of orders, one a line, as `watch --json` writes them and as people do.

Owns the grammar of a line. Invariant: the bytes of a message are given on as they stand in the file, so that a number
means what its writer wrote; a line that is no input is said to be none, with its number, and never stops the others.
"""

import base64
import binascii
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from json import JSONDecoder
from typing import BinaryIO, Final, NamedTuple

from stocktrade.transport import topics

MAX_LINE_BYTES: Final = 1024 * 1024
"""A longer line is no input. A message may have 16 KiB."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SPACE: Final = " \t\r\n"
_raw_decode: Final = JSONDecoder().raw_decode


class Input(NamedTuple):
    """A line that is an input: a message for one of the two topics, and what the line says of its place.

    `time_ms` is in milliseconds since 1970; None where the line has no time, as `partition` and `offset`.
    """

    line: int
    topic: str
    value: bytes
    partition: int | None = None
    offset: int | None = None
    time_ms: int | None = None


class Skipped(NamedTuple):
    """A line that is a record of another topic of the exchange."""

    line: int


class Bad(NamedTuple):
    """A line that is nothing of the kind, and why."""

    line: int
    why: str


class _Raw(NamedTuple):
    """A value of a JSON object: as it was read, and as it stands there."""

    value: object
    text: str


def read(file: BinaryIO) -> Iterator[tuple[Input | Skipped | Bad, int]]:
    """Each line that is not empty or a comment, and how many bytes were read up to its end."""
    number = done = 0
    while data := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        done += len(data)
        if len(data) > MAX_LINE_BYTES:
            while data and not data.endswith(b"\n"):
                data = file.readline(MAX_LINE_BYTES)
                done += len(data)
            yield Bad(number, f"longer than {MAX_LINE_BYTES} bytes"), done
            continue
        if number == 1:
            data = data.removeprefix(b"\xef\xbb\xbf")
        try:
            text = data.decode().strip(_SPACE)
        except UnicodeDecodeError:
            yield Bad(number, "not UTF-8"), done
            continue
        if text and not text.startswith("#"):
            yield _line(number, text), done


def _line(number: int, text: str) -> Input | Skipped | Bad:
    try:
        members = _members(text)
    except (ValueError, RecursionError):
        return Bad(number, "not a JSON object with each name once")
    topic = members.get("topic")
    if topic is None:
        return _bare(number, text, members)
    if topic.value not in topics.INPUTS:
        known = {spec.name for spec in topics.SPECS}
        if isinstance(topic.value, str) and topic.value in known:
            return Skipped(number)
        return Bad(number, f"no such topic; orders go to {' or '.join(topics.INPUTS)}")
    if "value" not in members:
        return Bad(number, "has a topic and no value")
    try:
        value = _bytes_of(members["value"])
        place = [_number(members.get(name)) for name in ("partition", "offset")]
        time_ms = _time(members.get("time"))
    except ValueError as error:
        return Bad(number, str(error))
    return Input(number, str(topic.value), value, place[0], place[1], time_ms)


def _bare(number: int, text: str, members: dict[str, _Raw]) -> Input | Bad:
    """A message by itself; its fields say for which topic it is."""
    buys = "order_id" in members and "buyer" in members
    sells = "offer_id" in members and "seller" in members
    if buys == sells:
        return Bad(number, "neither a buyer with an order_id nor a seller with an offer_id")
    return Input(number, topics.BUY_ORDERS if buys else topics.SELL_OFFERS, text.encode())


def _members(text: str) -> dict[str, _Raw]:
    """The members of the object that `text` is, each with its own text."""
    members: dict[str, _Raw] = {}
    place = _skip(text, 0)
    if text[place : place + 1] != "{":
        raise ValueError("not an object")
    place = _skip(text, place + 1)
    while text[place : place + 1] != "}":
        if text[place : place + 1] != '"':
            raise ValueError("no name")
        name, place = _raw_decode(text, place)
        if name in members:
            raise ValueError("a name twice")
        place = _skip(text, place)
        if text[place : place + 1] != ":":
            raise ValueError("no colon")
        begin = _skip(text, place + 1)
        value, place = _raw_decode(text, begin)
        members[name] = _Raw(value, text[begin:place])
        place = _skip(text, place)
        if text[place : place + 1] == ",":
            place = _skip(text, place + 1)
        elif text[place : place + 1] != "}":
            raise ValueError("no comma")
    if _skip(text, place + 1) != len(text):
        raise ValueError("more than an object")
    return members


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in _SPACE:
        place += 1
    return place


def _bytes_of(raw: _Raw) -> bytes:
    """The bytes of a record: those of its JSON, a text that holds JSON, or Base64 of anything."""
    value = raw.value
    if value is None:
        return b""
    if isinstance(value, str):
        return value.encode(errors="surrogatepass")
    if isinstance(value, dict) and value.keys() == {"base64"} and isinstance(value["base64"], str):
        try:
            return base64.b64decode(value["base64"], validate=True)
        except binascii.Error as error:
            raise ValueError("the value is no Base64") from error
    return raw.text.encode(errors="surrogatepass")


def _number(raw: _Raw | None) -> int | None:
    if raw is None or raw.value is None:
        return None
    if isinstance(raw.value, bool) or not isinstance(raw.value, int) or not 0 <= raw.value < 2**63:
        raise ValueError("partition and offset are whole numbers")
    return raw.value


def _time(raw: _Raw | None) -> int | None:
    if raw is None or raw.value is None:
        return None
    try:
        moment = datetime.fromisoformat(str(raw.value))
    except ValueError as error:
        raise ValueError("time is no RFC 3339 time") from error
    if moment.tzinfo is None:
        raise ValueError("time has no zone")
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def as_text(value: object) -> str:
    """JSON as every line has it: no spaces, no escapes beyond those that JSON needs."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
