"""Snapshots of a shard: its whole state at one journal entry, in parts, so that recovery need not replay it all.

Invariant: a snapshot is used only if its manifest (written last) is there, the checksum over all its parts is
right, and the journal holds at its place the entry with its digest. Otherwise the one before it is used, or none:
a snapshot saves time and is never needed.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from typing import Any, Final

from pydantic import ValidationError

from stocktrade.domain.messages import SnapshotManifest
from stocktrade.transport import topics
from stocktrade.transport.base import NewRecord, Record

FORMAT: Final = 1
PART_BYTES: Final = 256 * 1024
"""About how large a part is; far below any log's limit on one record."""


def _key(entry: int, part: int | str) -> bytes:
    return f"{entry}:{part}".encode()


def encode_parts(
    rows: Iterable[list[Any]], *, entry: int, shard: int, manifest: Callable[[int, str], SnapshotManifest]
) -> Iterator[NewRecord]:
    """The records of a snapshot, one at a time so that trading can go on between them; the manifest is last.

    `manifest` is called with the number of parts and the checksum once these are known.
    """
    checksum = sha256()
    number = 0
    lines: list[str] = []
    size = 0
    dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
    for row in rows:
        line = dumps(row)
        lines.append(line)
        size += len(line)
        if size >= PART_BYTES:
            yield _part(lines, entry, number, shard, checksum.update)
            number, lines, size = number + 1, [], 0
    if lines:
        yield _part(lines, entry, number, shard, checksum.update)
        number += 1
    sealed = manifest(number, checksum.hexdigest()).model_dump_json().encode()
    yield NewRecord(topics.SNAPSHOTS, _key(entry, "manifest"), sealed, shard)


def _part(lines: list[str], entry: int, number: int, shard: int, update: Callable[[bytes], None]) -> NewRecord:
    value = f"[{','.join(lines)}]".encode()
    update(value)
    return NewRecord(topics.SNAPSHOTS, _key(entry, number), value, shard)


def tombstones(manifest: SnapshotManifest) -> list[NewRecord]:
    """The records that remove a snapshot: its manifest first, so that it is never half there."""
    keys = [_key(manifest.entry, "manifest"), *(_key(manifest.entry, part) for part in range(manifest.parts))]
    return [NewRecord(topics.SNAPSHOTS, key, None, manifest.shard) for key in keys]


class Snapshots:
    """What the snapshot topic of one shard holds, by key; fed with its records in order."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}

    def feed(self, records: Iterable[Record]) -> None:
        """Take in records of the snapshot topic."""
        for record in records:
            if record.key is None:
                continue
            if record.value is None:
                self._values.pop(record.key, None)
            else:
                self._values[record.key] = record.value

    def manifests(self) -> list[SnapshotManifest]:
        """The manifests that can be read, newest first; one of another format is passed over."""
        found = []
        for key, value in self._values.items():
            if key.endswith(b":manifest"):
                try:
                    found.append(SnapshotManifest.model_validate_json(value))
                except ValidationError:
                    continue
        return sorted(found, key=lambda manifest: manifest.entry, reverse=True)

    def unreadable(self) -> list[bytes]:
        """The keys of what should be a manifest, and is none of this format."""
        known = {_key(manifest.entry, "manifest") for manifest in self.manifests()}
        return [key for key in self._values if key.endswith(b":manifest") and key not in known]

    def leftovers(self) -> list[bytes]:
        """The keys of parts whose manifest never came: their writer died, and nobody will read them."""
        whole = {key.partition(b":")[0] for key in self._values if key.endswith(b":manifest")}
        return [key for key in self._values if key.partition(b":")[0] not in whole]

    def is_whole(self, manifest: SnapshotManifest) -> bool:
        """Whether all parts of a snapshot are there, as they were written."""
        checksum = sha256()
        for part in range(manifest.parts):
            checksum.update(self._values.get(_key(manifest.entry, part), b""))
        return checksum.hexdigest() == manifest.checksum

    def rows(self, manifest: SnapshotManifest) -> list[list[Any]] | None:
        """The state of a snapshot, or None when it is not whole."""
        checksum = sha256()
        rows: list[list[Any]] = []
        for part in range(manifest.parts):
            value = self._values.get(_key(manifest.entry, part))
            if value is None:
                return None
            checksum.update(value)
            rows.extend(json.loads(value))
        return rows if checksum.hexdigest() == manifest.checksum else None
