"""The file of the views: opened, recognised, thrown away when it is not ours, and how far each view has read.

Invariant: what a view knows and how far it has read change in one transaction.
"""

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple, Self

from stocktrade.errors import Unavailable
from stocktrade.transport.base import Record, TopicPartition

APPLICATION_ID: Final = 0x53545657
"""`STVW`: how SQLite's header says whose file it is."""

FORMAT: Final = 1
"""Rises with every change of the tables: a file of another format is made anew."""

BUSY_S: Final = 60.0
"""How long another command may be reading the log into the same file."""

_TABLES: Final = """
CREATE TABLE place (view TEXT, topic TEXT, partition INTEGER, next INTEGER, at INTEGER, print INTEGER,
  PRIMARY KEY (view, topic, partition)) WITHOUT ROWID;
CREATE TABLE passed_over (view TEXT PRIMARY KEY, records INTEGER) WITHOUT ROWID;
CREATE TABLE balance (owner TEXT, asset TEXT, amount TEXT, PRIMARY KEY (owner, asset)) WITHOUT ROWID;
CREATE TABLE last_trade (shard INTEGER PRIMARY KEY, seq INTEGER, number INTEGER);
CREATE TABLE trade (id INTEGER PRIMARY KEY, shard INTEGER, seq INTEGER, number INTEGER, offset INTEGER, time_ms INTEGER,
  symbol TEXT, quantity INTEGER, price INTEGER, buyer TEXT, buy_order TEXT, seller TEXT, sell_order TEXT, maker TEXT);
CREATE UNIQUE INDEX trade_place ON trade (shard, seq, number);
CREATE TABLE orders (id INTEGER PRIMARY KEY, order_id TEXT, participant TEXT, shard INTEGER, seq INTEGER,
  offset INTEGER, time_ms INTEGER, source TEXT, side TEXT, symbol TEXT, sent TEXT, price INTEGER,
  first_price INTEGER, terms TEXT,
  status TEXT, reason TEXT, detail TEXT, quantity INTEGER, filled INTEGER, cancelled INTEGER, leaves INTEGER,
  leaves_seq INTEGER);
CREATE UNIQUE INDEX order_name ON orders (order_id, participant);
CREATE TABLE answered (shard INTEGER PRIMARY KEY, seq INTEGER);
CREATE TABLE change (order_id TEXT, participant TEXT, shard INTEGER, seq INTEGER, offset INTEGER, time_ms INTEGER,
  kind TEXT, own_id TEXT, accepted INTEGER, quantity INTEGER, price INTEGER, reason TEXT, source TEXT,
  PRIMARY KEY (order_id, participant, shard, seq, kind)) WITHOUT ROWID;
"""
_OF_VIEW: Final = {
    "accounts": ("balance", "last_trade"),
    "history": ("trade", "orders", "change", "answered"),
}
"""The tables of each view."""


class Place(NamedTuple):
    """How far a view has read a partition.

    `next` is the next offset, `at` (-1: none) where the last record stood, `print` tells that record from another.
    """

    next: int = 0
    at: int = -1
    print: int = 0


def print_of(record: Record) -> int:
    """A few bytes that tell a record from another one at its offset."""
    stamp = f"{record.offset}:{record.time_ms}".encode()
    return zlib.crc32(record.value or b"", zlib.crc32(record.key or b"", zlib.crc32(stamp)))


class Store:
    """The views of one log.

    Args:
        folder: where the file is, made when it is missing; None keeps everything in memory.
        url: whose views they are.
    """

    def __init__(self, folder: Path | None, url: str) -> None:
        self._path = None if folder is None else folder / f"{sha256(url.encode()).hexdigest()[:16]}.db"
        self.db = self._opened()

    def _opened(self) -> sqlite3.Connection:
        if self._path is not None:
            # A home that cannot be written, or a file that cannot be mended, costs time only.
            with suppress(OSError, sqlite3.Error):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                for _ in range(2):
                    with suppress(sqlite3.DatabaseError):
                        return _connected(self._path)
                    self._remove()
        return _connected(None)

    def _remove(self) -> None:
        assert self._path is not None
        for ending in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + ending).unlink(missing_ok=True)

    def begin_anew(self) -> None:
        """Throw away what the file holds, because it cannot be read."""
        self.db.close()
        if self._path is not None:
            with suppress(OSError):
                self._remove()
        self.db = self._opened()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One change of the file: what was done until an error or Ctrl-C is kept, as far as it is whole.

        Raises:
            Unavailable: another command has been writing for BUSY_S.
        """
        try:
            self.db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise Unavailable(
                "another stocktrade command is reading the log",
                cause=f"it holds the views of this log for more than {BUSY_S:.0f} s",
                hint="try again when it has ended",
            ) from error
        try:
            yield
        finally:
            self.db.execute("COMMIT")

    @contextmanager
    def batch(self) -> Iterator[None]:
        """A part of a change that is there as a whole or not at all."""
        self.db.execute("SAVEPOINT batch")
        try:
            yield
        except BaseException:
            self.db.execute("ROLLBACK TO batch")
            raise
        finally:
            self.db.execute("RELEASE batch")

    def places(self, view: str) -> dict[TopicPartition, Place]:
        """How far a view has read."""
        rows = self.db.execute("SELECT topic, partition, next, at, print FROM place WHERE view = ?", (view,))
        return {(topic, partition): Place(*place) for topic, partition, *place in rows}

    def move(self, view: str, at: TopicPartition, place: Place) -> None:
        """Note how far a view has read."""
        self.db.execute("INSERT OR REPLACE INTO place VALUES (?, ?, ?, ?, ?, ?)", (view, *at, *place))

    def pass_over(self, view: str, records: int) -> None:
        """Note that records were not what their topic holds."""
        self.db.execute(
            "INSERT INTO passed_over VALUES (?, ?) ON CONFLICT DO UPDATE SET records = records + excluded.records",
            (view, records),
        )

    def passed_over(self, view: str) -> int:
        """How many records of a view's topics were not what these hold."""
        row = self.db.execute("SELECT records FROM passed_over WHERE view = ?", (view,)).fetchone()
        return int(row[0]) if row else 0

    def forget(self, view: str) -> None:
        """Empty a view: it begins anew."""
        for table in _OF_VIEW[view]:
            self.db.execute(f"DELETE FROM {table}")  # noqa: S608 - a name of ours
        for table in ("place", "passed_over"):
            self.db.execute(f"DELETE FROM {table} WHERE view = ?", (view,))  # noqa: S608 - a name of ours

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        self.db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _connected(path: Path | None) -> sqlite3.Connection:
    db = sqlite3.connect(":memory:" if path is None else path, timeout=BUSY_S, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        if not _is_ours(db):
            db.execute("BEGIN IMMEDIATE")
            if not _is_ours(db):  # nobody else has made it meanwhile
                if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise sqlite3.DatabaseError("not a file of views, or one of another format")
                for statement in _TABLES.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {FORMAT}")
            db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db


def _is_ours(db: sqlite3.Connection) -> bool:
    with closing(db.execute("PRAGMA application_id")) as owner, closing(db.execute("PRAGMA user_version")) as version:
        return (owner.fetchone()[0], version.fetchone()[0]) == (APPLICATION_ID, FORMAT)
