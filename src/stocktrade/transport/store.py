"""The records of the embedded log: how they become rows, and rows records.

Invariant: `arrival` numbers all records in the order in which they became visible, and `offset` those of one
partition, without a gap; both are given out under the gate, in the transaction that inserts the record. So whoever
has seen the log up to one of them will never meet an earlier one.
"""

import heapq
import sqlite3
import struct
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from operator import attrgetter
from typing import Final, NamedTuple

from stocktrade.errors import Fenced, LogDamaged, UsageError
from stocktrade.failpoints import hit
from stocktrade.transport.base import Headers, NewRecord, Position, Record, TopicPartition, TopicSpec
from stocktrade.transport.database import DAMAGED_HINT, Database, explained, whole_number
from stocktrade.transport.gate import Gate
from stocktrade.transport.partitioner import partition_for


class _Topic(NamedTuple):
    id: int
    append_time: bool
    compacted: bool


class Store:
    """Records, topics and epochs in an open database. Everything that it raises is for a user."""

    def __init__(self, database: Database, gate: Gate) -> None:
        self.partitions: Final = database.partitions
        self._database = database
        self._gate = gate
        self._topics: dict[str, _Topic] = {}
        self._seen_version = -1

    # Writing

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A write transaction, committed at the end of the `with` and rolled back on any error.

        Raises:
            Unavailable: the gate is not to be had, or the transaction failed and nothing was written.
            Unknown: the commit failed; what was written may be found on the log later.
            LogDamaged: the file is damaged or gone.
        """
        db = self._database.writing
        with explained(self._database.path), self._gate.held():
            self._database.check_in_place()
            try:
                db.execute("BEGIN IMMEDIATE")
                yield
                hit("sqlite.commit.before")
                with explained(self._database.path, unknown=True):
                    db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # where the disk is full, SQLite has rolled back by itself
                    with suppress(sqlite3.Error):
                        db.execute("ROLLBACK")
                raise

    def insert(self, records: Sequence[NewRecord]) -> list[Position]:
        """Append records. Only within a `transaction`.

        Raises:
            UsageError: a record has no place on this log.
        """
        db = self._database.writing
        arrival, last_ms = map(whole_number, db.execute("SELECT arrival, time_ms FROM clock").fetchone())
        now_ms = max(last_ms, wall_clock_ms())
        heads: dict[tuple[int, int], int] = {}
        rows = []
        replacing = []
        positions = []
        known: dict[str, _Topic] = {}
        for name, key, value, chosen, time_ms, headers in records:
            topic = known.get(name)
            if topic is None:
                topic = known[name] = self.topic(name)
            partition = chosen
            if partition is None:
                partition = 0 if key is None else partition_for(key, self.partitions)
            at = (topic.id, partition)
            offset = heads.get(at)
            if offset is None:
                self.check_partition(partition)
                found = db.execute(_HEAD, at).fetchone()
                offset = 0 if found is None else whole_number(found[0])
            heads[at] = offset + 1
            arrival += 1
            kept_ms = now_ms if topic.append_time or time_ms is None else time_ms
            rows.append((arrival, *at, offset, kept_ms, key, value, _pack(headers) if headers else None))
            positions.append(Position(name, partition, offset))
            if topic.compacted:
                if key is None:
                    raise UsageError(f"a record of {name} needs a key: the topic is compacted")
                replacing.append((*at, key, arrival))
        middle = len(rows) // 2
        try:
            db.executemany(_INSERT, rows[:middle])
            hit("sqlite.commit.mid")
            db.executemany(_INSERT, rows[middle:])
        except OverflowError as error:
            raise UsageError("the time of a record does not fit 64 bits", cause=str(error)) from error
        self._replace(replacing)
        db.executemany(_SET_HEAD, [(*at, offset) for at, offset in heads.items()])
        db.execute("UPDATE clock SET arrival = ?, time_ms = ?", (arrival, now_ms))
        return positions

    def next_epoch(self, shard: int) -> int:
        """Begin the next epoch of a shard: from the commit on, nobody commits in an earlier one.

        Only within a `transaction`.
        """
        self._database.writing.execute(
            "INSERT INTO epochs VALUES (?, 1) ON CONFLICT DO UPDATE SET epoch = epoch + 1", (shard,)
        )
        return self._epoch(shard)

    def check_epoch(self, shard: int, epoch: int) -> None:
        """Check that an epoch is a shard's present one. Only within a `transaction`.

        Raises:
            Fenced: it is not.
        """
        present = self._epoch(shard)
        if present != epoch:
            raise Fenced(
                f"shard {shard} has a newer owner",
                cause=f"this process claimed epoch {epoch}, the log is at epoch {present}",
                hint="nothing was written; only the newer owner goes on",
            )

    def _epoch(self, shard: int) -> int:
        rows = self._database.writing.execute("SELECT epoch FROM epochs WHERE shard = ?", (shard,))
        (epoch,) = rows.fetchone()
        return whole_number(epoch)

    def _replace(self, replacing: Sequence[tuple[int, int, bytes, int]]) -> None:
        """Remove the records that newer ones (topic, partition, key, arrival) replace.

        A tombstone replaces as well, and stays: a reader that saw the value still has to hear that it is gone.
        """
        db = self._database.writing
        for topic, partition, key, arrival in replacing:
            db.execute(
                "DELETE FROM records WHERE arrival ="
                " (SELECT arrival FROM latest WHERE topic = ? AND partition = ? AND key = ?)",
                (topic, partition, key),
            )
            db.execute(
                "INSERT INTO latest VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET arrival = excluded.arrival",
                (topic, partition, key, arrival),
            )

    # Reading

    def fetch(self, positions: Mapping[TopicPartition, int], limit: int) -> list[Record]:
        """The next records from the given offsets on, in the order of their arrival, at most `limit`."""
        db = self._database.reading
        with explained(self._database.path):
            self._seen_version = self._version()  # before looking: what comes meanwhile changes it again
            db.execute("BEGIN")
            cursors: list[sqlite3.Cursor] = []
            try:
                ends = self.ends(positions)
                streams = []
                for at, offset in positions.items():
                    if offset < ends[at]:
                        cursor = db.execute(_SELECT, (self._topics[at[0]].id, at[1], offset))
                        cursors.append(cursor)
                        streams.append(_records(cursor, *at))
                merged = streams[0] if len(streams) == 1 else heapq.merge(*streams, key=attrgetter("arrival"))
                return list(islice(merged, limit))
            finally:
                for cursor in cursors:
                    cursor.close()
                if db.in_transaction:
                    db.execute("COMMIT")

    def ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset after the last record of each partition."""
        with explained(self._database.path):
            rows = self._database.reading.execute("SELECT topic, partition, next_offset FROM heads")
            ends = {(topic, partition): whole_number(end) for topic, partition, end in rows}
        return {at: ends.get((self._topics[at[0]].id, at[1]), 0) for at in partitions}

    def has_changed(self) -> bool:
        """Whether somebody else has committed since the last `fetch`.

        Raises:
            LogDamaged: the file was removed or replaced; nobody could commit to it any more.
        """
        with explained(self._database.path):
            self._database.check_in_place()
            return self._version() != self._seen_version

    def _version(self) -> int:
        """A number that changes with every commit of another connection."""
        (version,) = self._database.reading.execute("PRAGMA data_version").fetchone()
        return int(version)

    # Topics and partitions

    def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Make the topics that are missing; see `Log.ensure_topics`."""
        self._load_topics()
        if not all(spec.name in self._topics for spec in specs):
            with self.transaction():
                self._database.writing.executemany(_ADD_TOPIC, specs)
            self._load_topics()
        self._check_topics(specs)

    def missing_topics(self, specs: Sequence[TopicSpec]) -> list[str]:
        """The topics that are not there; see `Log.missing_topics`."""
        self._load_topics()
        self._check_topics([spec for spec in specs if spec.name in self._topics])
        return [spec.name for spec in specs if spec.name not in self._topics]

    def _check_topics(self, specs: Sequence[TopicSpec]) -> None:
        for name, append_time, compacted in specs:
            topic = self.topic(name)
            if (topic.append_time, topic.compacted) != (append_time, compacted):
                raise UsageError(
                    f"the topic {name} in {self._database.path} has other settings",
                    cause=f"append_time={topic.append_time} compacted={topic.compacted},"
                    f" wanted append_time={append_time} compacted={compacted}",
                    hint="use a folder of its own for each exchange",
                )

    def topic(self, name: str) -> _Topic:
        """A topic by its name.

        Raises:
            UsageError: there is none.
        """
        if name not in self._topics:
            self._load_topics()
        try:
            return self._topics[name]
        except KeyError:
            raise UsageError(
                f"{self._database.path} has no topic {name!r}",
                cause="no exchange and no order has used this log yet",
                hint="start one with `stocktrade nse`; STOCKTRADE_HOME chooses another log",
            ) from None

    def check_partition(self, partition: int) -> None:
        """Check the number of a partition.

        Raises:
            UsageError: it is out of range.
        """
        if not 0 <= partition < self.partitions:
            raise UsageError(
                f"{self._database.path} has the partitions 0 to {self.partitions - 1}, there is no {partition}"
            )

    def _load_topics(self) -> None:
        with explained(self._database.path):
            rows = self._database.reading.execute("SELECT name, id, append_time, compacted FROM topics")
            self._topics.update((name, _Topic(number, bool(time), bool(gone))) for name, number, time, gone in rows)


_INSERT: Final = "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_SELECT: Final = """
    SELECT arrival, offset, time_ms, key, value, headers FROM records
    WHERE topic = ? AND partition = ? AND offset >= ? ORDER BY offset
"""
_HEAD: Final = "SELECT next_offset FROM heads WHERE topic = ? AND partition = ?"
_SET_HEAD: Final = "INSERT INTO heads VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset"
_ADD_TOPIC: Final = "INSERT INTO topics (name, append_time, compacted) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"


_BYTES: Final = (bytes, type(None))


def wall_clock_ms() -> int:
    """Milliseconds since 1970 (UTC), as the machine believes."""
    return time.time_ns() // 1_000_000


def _records(rows: sqlite3.Cursor, topic: str, partition: int) -> Iterator[Record]:
    for arrival, offset, time_ms, key, value, headers in rows:
        if not (type(offset) is type(time_ms) is int and type(key) in _BYTES and type(value) in _BYTES):
            raise LogDamaged(f"the record {Position(topic, partition, offset)} is damaged", hint=DAMAGED_HINT)
        unpacked = () if headers is None else _unpack(headers)
        yield Record(topic, partition, offset, arrival, time_ms, key, value, unpacked)


def _pack(headers: Headers) -> bytes:
    """Headers as bytes: each name and each value after its length."""
    parts = []
    for name, value in headers:
        try:
            text = name.encode()
        except UnicodeEncodeError as error:
            raise UsageError("the name of a header is not text", cause=str(error)) from error
        parts.append(struct.pack(">II", len(text), len(value)) + text + value)
    return b"".join(parts)


def _unpack(data: bytes) -> Headers:
    headers = []
    at = 0
    try:
        while at < len(data):
            name_length, value_length = struct.unpack_from(">II", data, at)
            middle = at + 8 + name_length
            at = middle + value_length
            headers.append((data[middle - name_length : middle].decode(), data[middle:at]))
    except (struct.error, UnicodeDecodeError, TypeError) as error:
        raise LogDamaged("the headers of a record are damaged", cause=str(error), hint=DAMAGED_HINT) from error
    return tuple(headers)
