"""The embedded log: one SQLite file in a folder, shared by all processes of one machine.

What keeps the promises of the port:

* one transaction per `append` and per `commit`, on disk before it returns (`store`);
* all writers of all processes pass one gate (`gate`), so none starves and places are given out one by one;
* who owns a shard holds the kernel's lock on `shard-N.lock` and a number, the epoch, that each commit compares
  with the one in the file: the lock says whether an owner lives, the epoch alone decides whether it may write;
* whoever waits for records listens to a doorbell (`doorbell`) before it looks for them.

Invariant: no call waits without a limit, whatever other processes do.
"""

import os
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from stocktrade.errors import Occupied, StocktradeError, Unavailable, Unknown, UsageError
from stocktrade.failpoints import hit
from stocktrade.transport.anchor import AnchorFile, encode_anchor
from stocktrade.transport.base import (
    UNBOUNDED,
    Log,
    Member,
    NewRecord,
    Poll,
    Position,
    Reader,
    Record,
    TopicPartition,
    TopicSpec,
    Writer,
)
from stocktrade.transport.database import Database, check_file_system, explained, sqlite_version
from stocktrade.transport.doorbell import Doorbell
from stocktrade.transport.gate import FileLock, Gate, name_of
from stocktrade.transport.store import Store

MAX_PARTITIONS: Final = 1024

_MEMBER_PATIENCE_S: Final = 0.1
"""How often a member that waits for a shard looks whether its owner has died: nothing rings then."""

_CLAIM_PATIENCE_S: Final = 0.02
"""How long `claim` tries: somebody who only looks (`FileLock.is_free`) may be in its way for a moment."""


class SqliteLog(Log):
    """The log in a folder.

    Args:
        folder: where the log is; made, for this user only, when it is missing.
        partitions: into how many partitions the topics of a new log are divided; an existing log keeps its own.
        gate_timeout_s: how long a write waits for the other writers before it gives up, in seconds.

    Raises:
        UsageError: the number of partitions is out of range.
        Unavailable: the folder cannot be used.
        LogDamaged: what is there is not a log of ours, not whole, or of another version.
    """

    def __init__(self, folder: Path, *, partitions: int = 1, gate_timeout_s: float = 5.0) -> None:
        if not 1 <= partitions <= MAX_PARTITIONS:
            raise UsageError(f"a log has 1 to {MAX_PARTITIONS} partitions, not {partitions}")
        self.url = f"sqlite:{folder}"
        self.remote = False
        self._session = _Session(folder, partitions, gate_timeout_s)

    def about(self) -> str:
        """See `Log.about`."""
        return f"a file of SQLite {sqlite_version()}"

    def missing_topics(self, specs: Sequence[TopicSpec]) -> list[str]:
        """See `Log.missing_topics`."""
        return self._session.store.missing_topics(specs)

    def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        """See `Log.ensure_topics`."""
        self._session.store.ensure_topics(specs)

    def partitions(self) -> int:
        """See `Log.partitions`."""
        return self._session.store.partitions

    def anchor(self, shard: int) -> bytes | None:
        """See `Log.anchor`.

        Raises:
            LogDamaged: the file of the anchor is not as it was written.
        """
        path = _anchor_path(self._session.folder, shard)
        with explained(path):
            return AnchorFile(path).read()

    def append(self, records: Sequence[NewRecord]) -> list[Position]:
        """See `Log.append`; here it is atomic."""
        if not records:
            return []
        with self._session.store.transaction():
            positions = self._session.store.insert(records)
        self._session.doorbell.ring()
        return positions

    def reader(self, starts: Mapping[TopicPartition, int | None]) -> Reader:
        """See `Log.reader`."""
        store = self._session.store
        for topic, partition in starts:
            store.topic(topic)
            store.check_partition(partition)
        ends = store.ends(starts)
        return SqliteReader(self._session, {at: ends[at] if start is None else start for at, start in starts.items()})

    def claim(self, shard: int) -> Writer:
        """See `Log.claim`. A shard that this log owns already is claimed anew: its earlier writer is fenced."""
        self._session.store.check_partition(shard)
        return SqliteWriter(self._session, shard)

    def member(self, group: str, topics: Collection[str]) -> Member:
        """See `Log.member`. There is one group whatever its name: who gets the lock of a shard is assigned it."""
        del group
        for topic in topics:
            self._session.store.topic(topic)
        return SqliteMember(self._session, topics)

    def owners(self) -> dict[int, str | None]:
        """See `Log.owners`."""
        with explained(self._session.folder):
            return {shard: self._session.locks.owner(shard) for shard in range(self.partitions())}

    def close(self) -> None:
        """See `Log.close`."""
        self._session.close()


class SqliteReader(Reader):
    """Follows partitions; see `Reader`."""

    def __init__(self, session: "_Session", positions: dict[TopicPartition, int]) -> None:
        self._session = session
        self._positions = positions

    def poll(self, timeout_s: float = 0.0, max_records: int = 1000) -> list[Record]:
        """See `Reader.poll`."""
        deadline = time.monotonic() + timeout_s
        if timeout_s > 0:
            self._session.doorbell.listen()
        while True:
            records = self._session.store.fetch(self._positions, max_records)
            for record in records:
                self._positions[record.topic, record.partition] = record.offset + 1
            left_s = deadline - time.monotonic()
            if records or left_s <= 0:
                return records
            self._session.wait(left_s)

    def position(self, topic: str, partition: int) -> int:
        """See `Reader.position`."""
        return self._positions[topic, partition]

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """See `Reader.seek`."""
        self._positions[topic, partition] = offset

    def ends(self) -> dict[TopicPartition, int]:
        """See `Reader.ends`."""
        return self._session.store.ends(self._positions)

    def close(self) -> None:
        """See `Reader.close`. There is nothing to release: it reads through the log's own connection."""


def _anchor_path(folder: Path, shard: int) -> Path:
    return folder / f"anchor-{shard}"


class SqliteWriter(Writer):
    """Owns a shard and holds its lock until it is closed; see `Writer` and, for making one, `Log.claim`."""

    def __init__(self, session: "_Session", shard: int) -> None:
        self.shard = shard
        self._session = session
        self._anchor_path = _anchor_path(session.folder, shard)
        self._anchor = AnchorFile(self._anchor_path)
        self._over: StocktradeError | None = None
        with ExitStack() as undo:
            self._take_lock()
            undo.callback(self.close)
            with session.store.transaction():
                self.epoch = session.store.next_epoch(shard)
            undo.pop_all()

    def commit(self, records: Sequence[NewRecord], *, anchor: bytes | None = None) -> list[Position]:
        """See `Writer.commit`.

        Raises:
            ValueError: the anchor is too long; nothing was written.
        """
        if self._over is not None:
            raise self._over
        store = self._session.store
        try:
            block = None if anchor is None else encode_anchor(anchor)
            with store.transaction():
                store.check_epoch(self.shard, self.epoch)
                positions = store.insert(records)
            hit("sqlite.commit.after")
            self._session.doorbell.ring()
            if block is not None:
                with explained(self._anchor_path, unknown=True):
                    self._anchor.write(block)
                hit("sqlite.anchor.after")
        except BaseException as error:
            # Its owner's memory may be ahead of the log now, or behind it: only a new claim, which reads, helps.
            self._over = error if isinstance(error, StocktradeError) else Unknown("a commit was interrupted")
            raise
        return positions

    def anchor(self) -> bytes | None:
        """See `Writer.anchor`.

        Raises:
            LogDamaged: the file of the anchor is not as it was written.
        """
        with explained(self._anchor_path):
            return self._anchor.read()

    def close(self) -> None:
        """See `Writer.close`."""
        if self._over is None:
            self._over = Unavailable(f"this writer of shard {self.shard} is closed", hint="claim the shard again")
        self._anchor.close()
        self._session.give_up(self.shard, self)

    def _take_lock(self) -> None:
        deadline = time.monotonic() + _CLAIM_PATIENCE_S
        with explained(self._session.folder):
            while not self._session.locks.acquire(self.shard, self):
                if time.monotonic() >= deadline:
                    pid = self._session.locks.holder(self.shard)
                    raise Occupied(
                        f"shard {self.shard} is owned by {name_of(pid)}",
                        pid=pid,
                        cause="a live process keeps its shard, even while it is stopped",
                        hint="wait until it ends" if pid is None else f"to take over, end it (`kill {pid}`)",
                    )
                time.sleep(0.001)


class SqliteMember(Member):
    """Takes every shard whose lock it can get, and waits for the others; see `Member`."""

    def __init__(self, session: "_Session", topics: Collection[str]) -> None:
        self._session = session
        self._topics = tuple(topics)
        self._assigned: frozenset[int] = frozenset()
        self._waiting_for: dict[int, str] = {}
        self._started: set[int] = set()
        self._positions: dict[TopicPartition, int] = {}

    def poll(self, timeout_s: float, max_records: int = 1000) -> Poll:
        """See `Member.poll`. A change in whom it waits for ends the waiting, too."""
        deadline = time.monotonic() + timeout_s
        if timeout_s > 0:
            self._session.doorbell.listen()
        while True:
            changed = self._take_locks()
            records = self._session.store.fetch(self._positions, max_records)
            for record in records:
                self._positions[record.topic, record.partition] = record.offset + 1
            left_s = deadline - time.monotonic()
            if records or changed or left_s <= 0:
                # Records come in the order of their arrival across all shards: where the limit has cut them off,
                # nothing that is still to come arrived before the last of them.
                horizon = UNBOUNDED if len(records) < max_records else records[-1].arrival + 1
                horizons = dict.fromkeys(self._started, horizon)
                return Poll(records, horizons, self._assigned, dict(self._waiting_for))
            self._session.wait(min(left_s, _MEMBER_PATIENCE_S) if self._waiting_for else left_s)

    def start(self, shard: int, offsets: Mapping[str, int]) -> None:
        """See `Member.start`. A topic without an offset starts at its beginning.

        Raises:
            ValueError: the shard is not assigned to this member.
        """
        if shard not in self._assigned:
            raise ValueError(f"shard {shard} is not assigned to this member")
        self._started.add(shard)
        self._positions.update({(topic, shard): offsets.get(topic, 0) for topic in self._topics})

    def stop(self, shard: int) -> None:
        """See `Member.stop`. The shard stays assigned."""
        self._started.discard(shard)
        self._positions = {at: offset for at, offset in self._positions.items() if at[1] != shard}

    def lose(self, shard: int) -> None:
        """See `Member.lose`. The lock goes, too: whoever gets it is the one to whom the shard is assigned."""
        self.stop(shard)
        self._session.give_up(shard, self)
        self._assigned -= {shard}

    def note_progress(self, shard: int, offsets: Mapping[str, int]) -> None:
        """See `Member.note_progress`. Nobody's tools look into this log, so there is nothing to tell."""

    def close(self) -> None:
        """See `Member.close`. The lock of a shard that still has a writer is released when that is closed."""
        for shard in self._assigned:
            self._session.give_up(shard, self)
        self._assigned = frozenset()
        self._started.clear()
        self._positions.clear()

    def _take_locks(self) -> bool:
        """Try for every shard that is not assigned yet; whether the assignment or the waiting changed."""
        before = (self._assigned, self._waiting_for)
        locks = self._session.locks
        missing = [shard for shard in range(self._session.store.partitions) if shard not in self._assigned]
        if missing:
            with explained(self._session.folder):
                got = {shard for shard in missing if locks.acquire(shard, self)}
                self._assigned |= got
                self._waiting_for = {shard: name_of(locks.holder(shard)) for shard in missing if shard not in got}
        return (self._assigned, self._waiting_for) != before


_Owner = SqliteWriter | SqliteMember


class _ShardLocks:
    """The locks of the shards that one log holds. A member and the writers that it makes share one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locks: dict[int, FileLock] = {}
        self._users: dict[int, set[_Owner]] = {}

    def acquire(self, shard: int, user: _Owner) -> bool:
        """Hold a shard's lock for one more user; False if another log holds it, or another member of this log."""
        lock = self._lock(shard)
        users = self._users[shard]
        if isinstance(user, SqliteMember) and any(isinstance(other, SqliteMember) for other in users - {user}):
            return False
        if not lock.held and not lock.acquire():
            return False
        users.add(user)
        return True

    def release(self, shard: int, user: _Owner) -> bool:
        """End one user's hold on a shard's lock; whether that set the lock free. Safe to call twice."""
        users = self._users.get(shard, set())
        users.discard(user)
        if users or shard not in self._locks or not self._locks[shard].held:
            return False
        self._locks[shard].release()
        return True

    def holder(self, shard: int) -> int | None:
        """The process that took a shard's lock last."""
        return self._lock(shard).holder()

    def owner(self, shard: int) -> str | None:
        """Who holds a shard's lock now; None if nobody does."""
        lock = self._lock(shard)
        return None if not lock.held and lock.is_free() else name_of(lock.holder())

    def users(self) -> list[_Owner]:
        """Everybody who holds a lock through this log."""
        return [user for users in self._users.values() for user in users]

    def close(self) -> None:
        """Release all locks. Safe to call twice."""
        for lock in self._locks.values():
            lock.close()
        self._locks.clear()

    def _lock(self, shard: int) -> FileLock:
        lock = self._locks.get(shard)
        if lock is None:
            lock = self._locks[shard] = FileLock(self._folder / f"shard-{shard}.lock")
            self._users[shard] = set()
        return lock


class _Session:
    """What a log and everything that was opened through it share."""

    def __init__(self, folder: Path, partitions: int, gate_timeout_s: float) -> None:
        self.folder: Final = Path(os.path.abspath(folder))  # noqa: PTH100 - Path.resolve would follow links
        bells = self.folder / "bells"
        with ExitStack() as resources, explained(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_file_system(self.folder)
            bells.mkdir(exist_ok=True)
            self.locks: Final = _ShardLocks(self.folder)
            resources.callback(self.locks.close)
            gate = Gate(self.folder, gate_timeout_s)
            resources.callback(gate.close)
            self.doorbell: Final = Doorbell(bells)
            resources.callback(self.doorbell.close)
            database = Database(self.folder, gate, partitions=partitions, patience_s=gate_timeout_s)
            resources.callback(database.close)
            self.store: Final = Store(database, gate)
            self._resources = resources.pop_all()

    def wait(self, seconds: float) -> None:
        """Sleep until there may be something new since the last look, at most `seconds`."""
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            if self.doorbell.wait(min(left_s, self.doorbell.patience_s)) or self.store.has_changed():
                return

    def give_up(self, shard: int, owner: _Owner) -> None:
        """End a hold on a shard, and if nobody else here has one, wake whoever stands by."""
        if self.locks.release(shard, owner):
            self.doorbell.ring()

    def close(self) -> None:
        """Release everything. Safe to call twice."""
        for user in self.locks.users():
            user.close()
        self._resources.close()
