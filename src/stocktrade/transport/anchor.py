"""A shard's anchor: a few bytes in a file of their own, beside the log, that say how far the log had come.

A database that lost its end still looks whole. Its owner therefore writes the head of its journal here after each
commit, and refuses to start on a log that is behind its anchor.

Invariant: the file holds one payload with its checksum, or does not exist. It is made by a rename and then
overwritten in place in one write of one disk sector, so a crash leaves the older payload or the newer one.
"""

import errno
import os
import struct
import zlib
from pathlib import Path
from typing import Final

from stocktrade.errors import LogDamaged

_MAGIC: Final = b"stkanch1"
_SIZE: Final = 512
_HEAD: Final = struct.Struct(">8sH")
_CHECKSUM: Final = struct.Struct(">I")

MAX_PAYLOAD_BYTES: Final = _SIZE - _HEAD.size - _CHECKSUM.size

# macOS has no fdatasync; an overwrite in place has no metadata worth a full fsync where there is one.
_flush = getattr(os, "fdatasync", os.fsync)


def encode_anchor(payload: bytes) -> bytes:
    """The content of an anchor's file.

    Raises:
        ValueError: the payload is longer than `MAX_PAYLOAD_BYTES`.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"an anchor has at most {MAX_PAYLOAD_BYTES} bytes, not {len(payload)}")
    body = (_HEAD.pack(_MAGIC, len(payload)) + payload).ljust(_SIZE - _CHECKSUM.size, b"\0")
    return body + _CHECKSUM.pack(zlib.crc32(body))


class AnchorFile:
    """The anchor of one shard. Written by the shard's owner only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def read(self) -> bytes | None:
        """The payload, or None where none was ever written.

        Raises:
            LogDamaged: the file is not as it was written.
            OSError: it cannot be read.
        """
        try:
            block = self._path.read_bytes()
        except FileNotFoundError:
            return None
        body = block[: -_CHECKSUM.size]
        if len(block) != _SIZE or _CHECKSUM.pack(zlib.crc32(body)) != block[-_CHECKSUM.size :]:
            raise self._damaged("its length or its checksum is wrong")
        magic, length = _HEAD.unpack_from(body)
        if magic != _MAGIC or length > MAX_PAYLOAD_BYTES:
            raise self._damaged("it was not written by this version of stocktrade")
        return body[_HEAD.size : _HEAD.size + length]

    def write(self, block: bytes) -> None:
        """Replace the payload by an encoded one (`encode_anchor`); on disk when it returns.

        Raises:
            OSError: it cannot be written.
        """
        if self._file < 0:
            self._file = self._create(block)
        else:
            _write_whole(self._file, block)
            _flush(self._file)

    def close(self) -> None:
        """Release the file. Safe to call twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _create(self, block: bytes) -> int:
        """Put the block in the file's place as a new file, and keep it open."""
        made = self._path.with_name(self._path.name + ".new")
        file = os.open(made, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            _write_whole(file, block)
            os.fsync(file)
            made.rename(self._path)
            sync_folder(self._path.parent)
        except BaseException:
            os.close(file)
            raise
        return file

    def _damaged(self, cause: str) -> LogDamaged:
        return LogDamaged(
            f"the anchor {self._path} is damaged",
            cause=cause,
            hint="restore it; or check the log with `stocktrade audit` and, if that is whole, move this file away",
        )


def _write_whole(file: int, block: bytes) -> None:
    """Write at the beginning of a file. A short write means that the disk or a quota is full."""
    if os.pwrite(file, block, 0) != len(block):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def sync_folder(folder: Path) -> None:
    """Make names that were created or renamed in a folder durable.

    Raises:
        OSError: the folder cannot be synced.
    """
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
