"""The journal of a shard: a chain of entries, each carrying the digest of the one before.

Invariant: an entry counts only if its number is the next one and its `prev` is its predecessor's digest. Every
reader ignores any other in the same way, so all of them see one history even if a log let a second writer in.
The digest of an entry covers the entry before, the entry itself and the outputs it caused; it is not keyed, so
it shows damage and accidents, not a forger who rewrites everything after a point.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from json.encoder import encode_basestring as _quote
from typing import Final, NamedTuple

from pydantic import ValidationError

from stocktrade.domain.messages import JournalRecord
from stocktrade.errors import JournalBroken
from stocktrade.transport.base import NewRecord, Record

FORMAT: Final = 1
GENESIS: Final = "0" * 64
"""The `prev` of a journal's first entry."""


class Head(NamedTuple):
    """Where a journal stands: the number of its last entry and that entry's digest."""

    entry: int = -1
    digest: str = GENESIS


class InputLine(NamedTuple):
    """One input of an entry, ready to be written; see `domain.messages.JournalInput`."""

    topic: str
    offset: int
    time_ms: int
    kind: str
    text: str | None = None
    sha256: str | None = None
    reason: str | None = None


def digest_of(prev: str, body: bytes, outputs: Sequence[NewRecord]) -> str:
    """The digest of an entry: over `prev`, its bytes without the digest, and topic, key and value of its outputs.

    Outputs here are what the exchange says (events, trades, legs): their bytes hold no NUL, which separates them.
    """
    chain = sha256(prev.encode())
    chain.update(body)
    chain.update(b"\0".join([part for o in outputs for part in (o.topic.encode(), o.key or b"", o.value or b"")]))
    return chain.hexdigest()


def _with_digest(body: bytes, digest: str) -> bytes:
    return body[:-1] + b',"digest":"' + digest.encode() + b'"}'


_DIGEST_BYTES: Final = len(_with_digest(b"}", GENESIS))


def body_of(value: bytes) -> bytes:
    """The bytes that an entry's digest covers: the entry without its last field."""
    return value[:-_DIGEST_BYTES] + b"}" if len(value) > _DIGEST_BYTES else value


def encode_owner(
    *,
    shard: int,
    head: Head,
    epoch: int,
    rules: str,
    instruments: str | None = None,
    first_seq: int,
    next_offsets: Mapping[str, int],
    owner: str,
    time_ms: int,
) -> tuple[bytes, Head]:
    """The entry with which an owner begins, and the head after it. `time_ms` is for the reader of history.

    The first entry of a journal holds the instruments file, so that nobody needs more than the log to replay it.
    """
    body = _body("owner", shard, head, epoch, rules, first_seq, next_offsets)
    body += f',"owner":{_quote(owner)},"time_ms":{time_ms}'
    if instruments is not None and head == Head():
        body += f',"instruments":{_quote(instruments)}'
    body += "}"
    return _sealed(body.encode(), head, ())


def encode_batch(
    *,
    shard: int,
    head: Head,
    epoch: int,
    rules: str,
    first_seq: int,
    next_offsets: Mapping[str, int],
    inputs: Sequence[InputLine],
    outputs: Sequence[NewRecord],
) -> tuple[bytes, Head]:
    """The entry of a batch of inputs and what they caused, and the head after it."""
    lines = ",".join([_encode_input(line) for line in inputs])
    body = f'{_body("batch", shard, head, epoch, rules, first_seq, next_offsets)},"inputs":[{lines}]}}'
    return _sealed(body.encode(), head, outputs)


def _body(
    kind: str, shard: int, head: Head, epoch: int, rules: str, first_seq: int, next_offsets: Mapping[str, int]
) -> str:
    return (
        f'{{"v":{FORMAT},"kind":"{kind}","shard":{shard},"entry":{head.entry + 1},"epoch":{epoch},'
        f'"rules":{_quote(rules)},"prev":"{head.digest}","first_seq":{first_seq},'
        f'"next_offsets":{json.dumps(dict(sorted(next_offsets.items())), separators=(",", ":"))}'
    )


def _encode_input(line: InputLine) -> str:
    head = f'{{"topic":"{line.topic}","offset":{line.offset},"time_ms":{line.time_ms},"kind":"{line.kind}"'
    if line.text is not None:
        return f'{head},"text":{_quote(line.text)}}}'
    reason = f',"reason":"{line.reason}"' if line.reason else ""
    return f'{head},"sha256":"{line.sha256}"{reason}}}'


def _sealed(body: bytes, head: Head, outputs: Sequence[NewRecord]) -> tuple[bytes, Head]:
    digest = digest_of(head.digest, body, outputs)
    return _with_digest(body, digest), Head(head.entry + 1, digest)


def decode_entry(record: Record) -> JournalRecord:
    """An entry as it stands on the log.

    Raises:
        JournalBroken: the record is no entry of this version; its position is named.
    """
    version = None
    try:
        fields = json.loads(record.value or b"")
        version = fields.get("v") if isinstance(fields, dict) else None
        return JournalRecord.model_validate(fields)
    except (ValueError, ValidationError, RecursionError) as error:
        newer = isinstance(version, int) and version > FORMAT
        raise JournalBroken(
            f"the journal cannot be read at {record.position}",
            cause=f"the entry is of format {version}, this version knows {FORMAT}" if newer else "not an entry",
            hint="install the newer stocktrade" if newer else "restore the log from a copy; nothing was written",
        ) from error


def follows(entry: JournalRecord, head: Head) -> bool:
    """Whether an entry is the next one of the chain; any other does not count."""
    return entry.entry == head.entry + 1 and entry.prev == head.digest
