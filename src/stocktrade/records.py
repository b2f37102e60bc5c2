"""Records as text: one line of JSON that keeps every byte, or a row for people.

Invariant: what is written steers no terminal and stays on its line.
"""

import base64
import json

from stocktrade.ranges import rfc3339
from stocktrade.tables import RecordRow, printable_json
from stocktrade.transport import topics
from stocktrade.transport.base import Record
from stocktrade.transport.codec import decode_json


def json_line(record: Record) -> str:
    """A record as one line of JSON (`stocktrade.record/1`).

    A value that is a JSON object stands in it as it is, number for number; any other bytes as {"base64": …}.
    """
    return (
        f'{{"schema":"stocktrade.record/1","topic":{_json(record.topic)},"partition":{record.partition},'
        f'"offset":{record.offset},"time":{_json(rfc3339(record.time_ms))},"key":{_json_bytes(record.key)},'
        f'"headers":[{",".join([_json_header(name, value) for name, value in record.headers])}],'
        f'"value":{_json_value(record.value)}}}'
    )


def _json(value: object) -> str:
    return printable_json(json.dumps(value, ensure_ascii=False))


def _json_bytes(value: bytes | None) -> str:
    try:
        return _json(None if value is None else value.decode())
    except UnicodeDecodeError:
        return _json_base64(value or b"")


def _json_header(name: str, value: bytes) -> str:
    return f'{{"key":{_json(name)},"value":{_json_bytes(value)}}}'


def _json_base64(value: bytes) -> str:
    return f'{{"base64":"{base64.b64encode(value).decode()}"}}'


def _json_value(value: bytes | None) -> str:
    if value is None:
        return "null"
    try:
        fields = decode_json(value)
        if b"NaN" in value or b"Infinity" in value:  # they pass the decoder and are no JSON
            json.loads(value, parse_constant=_refuse)
    except ValueError:
        return _json_base64(value)
    # An object that looks like our wrapping is wrapped itself.
    plain = isinstance(fields, dict) and fields.keys() != {"base64"}
    return printable_json(value.decode()) if plain else _json_base64(value)


def _refuse(constant: str) -> object:
    raise ValueError(constant)


def row_of(record: Record, limit: int | None = None) -> RecordRow:
    """A record as a row for people; `limit`: so many characters of key and value will be shown."""
    most = None if limit is None else 4 * limit  # no character is longer than four bytes
    key, value = ((part or b"")[:most].decode(errors="backslashreplace") for part in (record.key, record.value))
    if record.topic == topics.DEAD_LETTERS:
        why = dict(record.headers).get("__dlq.errors.message", b"")[:most].decode(errors="backslashreplace")
        value = f"{why}: {value}"
    return RecordRow(record.time_ms, str(record.position), key, value)
