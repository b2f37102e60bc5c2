"""The file of the embedded log: made, recognised, opened; and what its errors mean to a user.

Invariant: a file is written to only after its header says that it is ours and of a version that we know. A file
that is not is left as it is, byte for byte; a missing one appears complete or not at all.
"""

import errno
import os
import sqlite3
import stat
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Final

from stocktrade.errors import LogDamaged, StocktradeError, Unavailable, Unknown, UsageError
from stocktrade.transport.anchor import sync_folder
from stocktrade.transport.gate import Gate, name_of

DAMAGED_HINT: Final = "copy the folder away first; then restore the file (with its -wal) from a backup"

FILE_NAME: Final = "log.db"
APPLICATION_ID: Final = 0x53544B54  # "STKT"
FORMAT_VERSION: Final = 1

_MAGIC: Final = b"SQLite format 3\0"
_HEADER_BYTES: Final = 100
_OLDEST_SQLITE: Final = (3, 37, 0)  # STRICT tables

# `arrival` numbers all records of the log in the order in which they came. `clock` keeps its last value and the
# last time that was stamped, so that neither ever goes back, whatever is deleted and however the wall clock is
# set. `latest` finds the record that a newer one of the same key replaces, in compacted topics only.
_SCHEMA: Final = """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE topics (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        append_time INTEGER NOT NULL,
        compacted INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE clock (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        arrival INTEGER NOT NULL,
        time_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE heads (
        topic INTEGER NOT NULL,
        partition INTEGER NOT NULL,
        next_offset INTEGER NOT NULL,
        PRIMARY KEY (topic, partition)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE records (
        arrival INTEGER PRIMARY KEY,
        topic INTEGER NOT NULL,
        partition INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        time_ms INTEGER NOT NULL,
        key BLOB,
        value BLOB,
        headers BLOB,
        UNIQUE (topic, partition, offset)
    ) STRICT;
    CREATE TABLE latest (
        topic INTEGER NOT NULL,
        partition INTEGER NOT NULL,
        key BLOB NOT NULL,
        arrival INTEGER NOT NULL,
        PRIMARY KEY (topic, partition, key)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE epochs (shard INTEGER PRIMARY KEY, epoch INTEGER NOT NULL) STRICT;
    INSERT INTO clock VALUES (1, 0, 0);
"""


def sqlite_version() -> str:
    """The version of the SQLite that this Python brings."""
    return sqlite3.sqlite_version


class Database:
    """The open file: one connection that writes and one that reads.

    Both are for the thread that made them, and the one that writes only for the holder of the gate.
    `partitions` is what the file says, whatever was asked for.
    """

    def __init__(self, folder: Path, gate: Gate, *, partitions: int, patience_s: float) -> None:
        """Open the file `log.db` in the folder, and make it first where there is none.

        Raises:
            Unavailable: it cannot be reached, or is in use by another program.
            LogDamaged: it is not a log of ours, not whole, or of another version.
        """
        self.path = folder / FILE_NAME
        self._gate = gate
        # SQLite's own way to wait starves writers; ours queue at the gate, so it only meets strangers (an open
        # `sqlite3` shell) and the recovery after a crash.
        self._patience_s = patience_s
        self._identity: tuple[int, int] | None = None
        self._connections: list[sqlite3.Connection] = []
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise Unavailable(
                f"this Python brings SQLite {sqlite3.sqlite_version}, which is too old",
                hint=f"use a Python with SQLite {'.'.join(map(str, _OLDEST_SQLITE))} or later",
            )
        try:
            with explained(self.path):
                if not os.path.lexists(self.path):
                    with gate.held():
                        if not os.path.lexists(self.path):
                            _create(self.path, partitions)
                self._identity = _recognise(self.path, gate)
                self.writing = self._connect("rw")
                self.partitions = _check_content(self.writing, self.path)
                # A no-op, unless somebody has changed the mode by hand.
                if self.writing.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                    with gate.held():
                        self.writing.execute("PRAGMA journal_mode = WAL")
                self.writing.execute("PRAGMA synchronous = FULL")
                self.reading = self._connect("ro")
                self.reading.execute("PRAGMA query_only = ON")
        except BaseException:
            self.close()
            raise

    def check_in_place(self) -> None:
        """Check that the path still names the open file: what is written to a removed one is lost.

        Raises:
            LogDamaged: it was removed or replaced.
        """
        try:
            found = self.path.stat()
        except FileNotFoundError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._identity:
            raise LogDamaged(
                f"{self.path} was removed or replaced while it was in use",
                hint="end every stocktrade process on this folder, put the file back, and start again",
            )

    def close(self) -> None:
        """Close both connections. Safe to call twice."""
        connections, self._connections = self._connections, []
        if connections:
            # The last connection of all processes to close brings the write-ahead log home: a checkpoint, so under
            # the gate if it can be had. Without the gate it is safe as well, for then SQLite locks everybody out.
            try:
                with self._gate.held(timeout_s=min(self._patience_s, 0.5)):
                    _close(connections)
            except Unavailable:
                _close(connections)
        if self._identity is not None:
            _forget(self._identity)
            self._identity = None

    def _connect(self, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=self._patience_s
        )
        self._connections.append(connection)
        return connection


def _close(connections: list[sqlite3.Connection]) -> None:
    for connection in reversed(connections):
        with suppress(sqlite3.Error):  # nothing is pending: what was promised was committed before
            connection.close()


def _create(path: Path, partitions: int) -> None:
    """Make an empty log at the path, whole or not at all. Only for the holder of the gate."""
    _check_leftover(path)
    made = path.with_name(path.name + ".new")
    for remains in (made, made.with_name(made.name + "-journal"), made.with_name(made.name + "-wal")):
        remains.unlink(missing_ok=True)  # of somebody who died at this point
    with closing(sqlite3.connect(made, isolation_level=None)) as connection:
        connection.executescript(_SCHEMA)
        connection.execute("INSERT INTO meta VALUES ('partitions', ?)", (partitions,))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        connection.execute("PRAGMA journal_mode = WAL")
    made.rename(path)  # overwrites nothing: the caller looked, and everybody who creates holds the gate
    sync_folder(path.parent)


def _check_leftover(path: Path) -> None:
    leftover = path.with_name(path.name + "-wal")
    if _bytes_in(leftover):
        raise LogDamaged(
            f"{path} is missing, but {leftover.name} is still there",
            cause="the end of a log without its beginning",
            hint="put the file back; to begin a new log, use another folder",
        )


# The kernel drops all of a process's POSIX locks on a file as soon as the process closes any descriptor of it, and
# SQLite's locks are of that kind. So the header is read only while this process has the file open nowhere else.
_files_guard = threading.Lock()
_open_files: Counter[tuple[int, int]] = Counter()


def _recognise(path: Path, gate: Gate) -> tuple[int, int]:
    """Check a file's header and length, and count it as open; its device and inode.

    Raises:
        LogDamaged: it is not a log of ours, or not all of it is there.
    """
    with _files_guard:
        found = path.stat()
        identity = (found.st_dev, found.st_ino)
        if not _open_files[identity]:
            _check_kind(path, found)
            if _is_cut_off(path):
                with gate.held():  # so that nobody's checkpoint is half done
                    if _is_cut_off(path):
                        raise _damaged(path, "its end is missing")
        _open_files[identity] += 1
        return identity


def is_made(path: Path) -> bool:
    """Whether there is a log at a path; only its header is looked at, and nothing is opened or made.

    Raises:
        LogDamaged: there is something else.
        Unavailable: it cannot be looked at.
    """
    with explained(path), _files_guard:
        if not os.path.lexists(path):
            _check_leftover(path)
            return False
        found = path.stat()
        if not _open_files[found.st_dev, found.st_ino]:
            _check_kind(path, found)
        return True


def _check_kind(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _foreign(path, "it is not a regular file")
    _check_header(path, _header(path))


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEADER_BYTES)


def _bytes_in(path: Path) -> int:
    """The size of a file that another process may take away at any moment: 0 if there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _is_cut_off(path: Path) -> bool:
    """Whether a file is shorter than its header says. SQLite would read what is missing of a page as zeros."""
    wal = path.with_name(path.name + "-wal")
    if _bytes_in(wal):
        return False  # what is missing may still come from there
    header = _header(path)
    page_bytes = int.from_bytes(header[16:18], "big")
    page_bytes = 65_536 if page_bytes == 1 else page_bytes
    return path.stat().st_size < page_bytes * int.from_bytes(header[28:32], "big")


def _forget(identity: tuple[int, int]) -> None:
    with _files_guard:
        _open_files[identity] -= 1


def _check_header(path: Path, header: bytes) -> None:
    if not header:
        raise _foreign(path, "it is empty")
    if header[: len(_MAGIC)] != _MAGIC[: len(header)]:
        raise _foreign(path, "it is not a SQLite database")
    if len(header) < _HEADER_BYTES:
        raise _foreign(path, "it is cut off within its first 100 bytes")
    version = int.from_bytes(header[60:64], "big")
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise _foreign(path, "it is a database of another program")
    if version > FORMAT_VERSION:
        raise LogDamaged(
            f"{path} was made by a newer stocktrade",
            cause=f"its format is version {version}, this stocktrade knows up to {FORMAT_VERSION}",
            hint="upgrade stocktrade",
        )
    if version < FORMAT_VERSION:
        raise _foreign(path, f"its format is version {version}, which no stocktrade ever wrote")


def _check_content(connection: sqlite3.Connection, path: Path) -> int:
    """Check that the tables are those of this version; the number of partitions."""
    if _tables(connection) != _expected_tables():
        raise _foreign(path, "its tables are not those of a log")
    row = connection.execute("SELECT value FROM meta, clock WHERE name = 'partitions'").fetchone()
    if row is None:
        raise _foreign(path, "its first rows are missing")
    return whole_number(row[0])


def _tables(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    return set(connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'"))


@cache
def _expected_tables() -> set[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_SCHEMA)
        return _tables(connection)


def whole_number(value: object) -> int:
    """An integer from a row. SQLite checks the type of a value when it is written, not when it is read.

    Raises:
        LogDamaged: it is something else.
    """
    if type(value) is not int:
        raise LogDamaged("a number in the log is damaged", cause=f"{value!r} is none", hint=DAMAGED_HINT)
    return value


def _foreign(path: Path, cause: str) -> LogDamaged:
    return LogDamaged(
        f"{path} is not a log of stocktrade",
        cause=cause,
        hint="nothing was changed. Name another folder, or restore the file from a backup",
    )


def _damaged(path: Path, cause: str) -> LogDamaged:
    return LogDamaged(f"{path} is damaged", cause=cause, hint=DAMAGED_HINT)


@contextmanager
def explained(path: Path, *, unknown: bool = False) -> Iterator[None]:
    """Turn what SQLite and the operating system raise in the body into errors for a user.

    Args:
        path: the file or folder that is worked on.
        unknown: what fails in the body may have happened all the same.

    Raises:
        StocktradeError: see `explain`.
    """
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise  # a mistake in this program, not an event
    except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
        raise explain(error, path, unknown=unknown) from error


def explain(
    error: sqlite3.Error | OSError | UnicodeDecodeError, path: Path, *, unknown: bool = False
) -> StocktradeError:
    """What an error of SQLite or of the operating system means to a user.

    Args:
        error: what was raised.
        path: the file or folder that was worked on.
        unknown: what failed may have happened all the same.

    Returns:
        LogDamaged where the file is at fault, UsageError for a record that SQLite cannot hold, else Unavailable
        (or Unknown).
    """
    if isinstance(error, OSError):
        return _explain_system(error, path, unknown=unknown)
    # Without a code it is text that is not UTF-8, in a row or in a message about the schema.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    cause = f"{error} ({getattr(error, 'sqlite_errorname', 'text that is not UTF-8')})"
    match code & 0xFF:
        case sqlite3.SQLITE_FULL:
            # SQLite has rolled back; the commit frame is the last thing that it writes.
            return Unavailable(
                f"no space left for {path}",
                cause=cause,
                hint="free some space on that disk and try again; nothing was written, nothing older is lost",
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Unavailable(
                f"{name_of(_writer_of(path), 'another program')} keeps {path} locked",
                cause=cause,
                hint="close the program that has the file open (a `sqlite3` shell, a backup), then try again",
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CONSTRAINT | sqlite3.SQLITE_MISMATCH:
            return _damaged(path, cause)
        case sqlite3.SQLITE_TOOBIG:
            return UsageError("a record is too large for the log", cause=cause)
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return Unavailable(
                f"{path} cannot be opened for writing",
                cause=cause,
                hint="the file, its -wal and -shm and their folder must be writable by this user",
            )
    kind = Unknown if unknown else Unavailable
    return kind(f"{path} cannot be read or written", cause=cause, hint="look at the disk, then try again")


_SYSTEM_HINTS: Final = {
    errno.EACCES: "this user needs the right to read and write in that folder",
    errno.EPERM: "this user needs the right to read and write in that folder",
    errno.EROFS: "the file system is mounted read-only: name another folder",
    errno.ENOTDIR: "name a folder, not a file",
    errno.EEXIST: "name a folder, not a file",
    errno.ENOSPC: "free some space on that disk and try again",
    errno.EDQUOT: "free some of your quota on that disk and try again",
    errno.ENAMETOOLONG: "name a folder with a shorter path",
    errno.EMFILE: "raise the limit on open files (`ulimit -n`)",
}


def _explain_system(error: OSError, path: Path, *, unknown: bool) -> StocktradeError:
    kind = Unknown if unknown else Unavailable
    hint = _SYSTEM_HINTS.get(error.errno or 0, "look at the disk, then try again")
    return kind(f"{path} cannot be used", cause=str(error), hint=hint)


def _writer_of(path: Path) -> int | None:
    """Which process holds SQLite's own write lock; None where the system does not tell."""
    # The lock is on byte 120 of the -shm file (SQLite's documentation of the WAL index), which must not be opened
    # to ask: see `_open_files`. A line is like `7: POSIX  ADVISORY  WRITE 1234 fe:00:56 120 120`.
    try:
        inode = path.with_name(path.name + "-shm").stat().st_ino
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()
            if fields[3] == "WRITE" and fields[5].endswith(f":{inode}") and fields[6] == "120":
                return int(fields[4])
    except (OSError, ValueError, IndexError):
        pass
    return None


_NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "fuse.glusterfs", "lustre"}
)


def check_file_system(folder: Path) -> None:
    """Check that a folder is not on a network file system: there neither locks nor shared memory can be relied on.

    Only Linux tells; elsewhere everything passes.

    Raises:
        Unavailable: it is on one.
    """
    try:
        device = folder.stat().st_dev
        table = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    kind = mounted_as(table, f"{os.major(device)}:{os.minor(device)}")
    if kind in _NETWORK_FILE_SYSTEMS:
        raise Unavailable(
            f"{folder} is on a network file system ({kind})",
            cause="SQLite's write-ahead log and the kernel's locks need a local disk",
            hint="name a folder on a local disk",
        )


def mounted_as(table: str, device: str) -> str:
    """The type of the file system of a device (`major:minor`) in Linux's mountinfo, "" where it is not listed."""
    for line in table.splitlines():
        mount, _, file_system = line.partition(" - ")
        if mount.split()[2:3] == [device]:
            return file_system.split(" ", 1)[0]
    return ""
