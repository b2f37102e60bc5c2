"""A log in memory that behaves as Kafka does, its ugly parts included; every chance comes from one seed.

What it models: offsets with gaps (transaction markers, aborted records), the last stable offset, epochs that fence,
transactions left open by a crash, answers that are lost, late and doubled requests to end a transaction (under both
versions of the protocol), produce requests that were written though nobody heard of it, and a group whose members
are told of their shards late, twice, or wrongly. Invariant: with all faults off it keeps the promises of the port.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from later import Begun
from stocktrade.errors import Fenced, Unavailable, Unknown, UsageError
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
from stocktrade.transport.partitioner import partition_for

FIRST_MS: Final = 1_790_000_000_000


class Crash(BaseException):
    """A process dies here, as by `kill -9`: nothing of it runs any more."""


@dataclass(eq=False)
class Transaction:
    """A transaction; its records are visible once it is committed, and those of later ones not before it has ended."""

    state: str = "open"
    touched: set[TopicPartition] = field(default_factory=set)


@dataclass(slots=True)
class Entry:
    """One offset of a partition: a record, or (without one) a marker."""

    record: Record | None
    transaction: Transaction | None


@dataclass
class Faults:
    """How often things go wrong, each a share of the occasions; `is_v2`: the newer version of transactions."""

    lost_request: float = 0.0
    lost_answer: float = 0.0
    doubled_end: float = 0.0
    unheard_produce: float = 0.0
    short_poll: float = 0.0
    lost_place: float = 0.0
    is_v2: bool = True


class Cluster:
    """The brokers: partitions, transactions, epochs, and requests that are still on their way."""

    def __init__(self, chance: random.Random, partitions: int) -> None:
        self.chance = chance
        self.count = partitions
        self.faults = Faults()
        self.partitions: dict[TopicPartition, list[Entry]] = {}
        self.epochs: dict[int, int] = {}
        self.open: dict[int, Transaction | None] = {}
        self.late: list[tuple[int, int]] = []
        self.arrival = 0
        self.now_ms = FIRST_MS
        self.fences = True
        self.isolates = True

    def happens(self, share: float) -> bool:
        """Whether a fault strikes now."""
        return share > 0 and self.chance.random() < share

    def entries(self, topic: str, partition: int) -> list[Entry]:
        """What is in a partition."""
        return self.partitions.setdefault((topic, partition), [])

    def write(self, new: NewRecord, transaction: Transaction | None) -> Position:
        """Append a record."""
        partition = new.partition
        if partition is None:
            partition = 0 if new.key is None else partition_for(new.key, self.count)
        entries = self.entries(new.topic, partition)
        self.arrival += 1
        self.now_ms += self.chance.randrange(3)
        stamped = new.topic in ("buy-orders", "sell-offers") or new.time_ms is None
        time_ms = self.now_ms if stamped else new.time_ms
        assert time_ms is not None
        position = Position(new.topic, partition, len(entries))
        entries.append(Entry(Record(*position, self.now_ms, time_ms, new.key, new.value, new.headers), transaction))
        if transaction is not None:
            transaction.touched.add((new.topic, partition))
        return position

    def end_transaction(self, shard: int, state: str) -> None:
        """Commit or abort what is open for a shard, with a marker in each partition that it touched."""
        transaction = self.open.get(shard)
        if transaction is None or transaction.state != "open":
            return
        transaction.state = state
        for topic, partition in sorted(transaction.touched):
            self.entries(topic, partition).append(Entry(None, None))
        self.open[shard] = None

    def last_stable(self, topic: str, partition: int) -> int:
        """The offset before which everything is decided."""
        entries = self.entries(topic, partition)
        if self.isolates:
            for offset, entry in enumerate(entries):
                if entry.transaction is not None and entry.transaction.state == "open":
                    return offset
        return len(entries)

    def deliver_late(self) -> bool:
        """Let one late request arrive: it ends what is open now, if its epoch still counts."""
        if not self.late:
            return False
        shard, epoch = self.late.pop(self.chance.randrange(len(self.late)))
        # With the newer version each transaction has an epoch of its own, so a late request is never the next one's.
        if not self.faults.is_v2 and self.epochs.get(shard) == epoch:
            self.end_transaction(shard, "committed")
        return True


class SimulatedReader(Reader):
    """Reads what is decided, in bites of any size."""

    def __init__(self, cluster: Cluster, starts: Mapping[TopicPartition, int]) -> None:
        self._cluster = cluster
        self._positions = dict(starts)

    def poll(self, timeout_s: float = 0.0, max_records: int = 1000) -> list[Record]:
        del timeout_s
        cluster = self._cluster
        most = cluster.chance.randrange(1, 4) if cluster.happens(cluster.faults.short_poll) else max_records
        records: list[Record] = []
        for (topic, partition), start in self._positions.items():
            stable = cluster.last_stable(topic, partition)
            entries = cluster.entries(topic, partition)
            place = start
            while place < stable and len(records) < most:
                entry = entries[place]
                place += 1
                state = entry.transaction.state if entry.transaction is not None else "committed"
                if entry.record is not None and (state == "committed" or not cluster.isolates):
                    records.append(entry.record)
            self._positions[topic, partition] = place
        records.sort(key=lambda record: (record.arrival, record.topic, record.offset))
        return records

    def position(self, topic: str, partition: int) -> int:
        return self._positions[topic, partition]

    def ends(self) -> dict[TopicPartition, int]:
        return {at: self._cluster.last_stable(*at) for at in self._positions}

    def seek(self, topic: str, partition: int, offset: int) -> None:
        self._positions[topic, partition] = offset

    def close(self) -> None:
        self._positions = {}


class SimulatedWriter(Writer):
    """A transactional producer."""

    def __init__(self, log: "SimulatedLog", shard: int, epoch: int) -> None:
        self.shard = shard
        self.epoch = epoch
        self._log = log
        self._is_dead = False
        self._begun = Begun(self.commit, self._may_go_on)

    def _may_go_on(self) -> None:
        if self._begun and self._log.cluster.chance.random() < 0.4:
            self._begun.go_on()

    def begin_commit(self, records: Sequence[NewRecord], *, anchor: bytes | None = None) -> Future[list[Position]]:
        """It goes on by chance when somebody looks, and at the latest when somebody waits."""
        return self._begun.begin(records, anchor=anchor)

    def _check(self) -> None:
        cluster = self._log.cluster
        if cluster.fences and cluster.epochs[self.shard] != self.epoch:
            self._is_dead = True
            raise Fenced(f"epoch {self.epoch} of shard {self.shard} is over")

    def commit(self, records: Sequence[NewRecord], *, anchor: bytes | None = None) -> list[Position]:
        del anchor
        cluster, faults = self._log.cluster, self._log.cluster.faults
        if self._is_dead:
            raise Unavailable("the producer is dead")
        self._check()
        positions = []
        for record in records:
            self._log.step("send")
            self._check()
            if cluster.open.get(self.shard) is None:
                cluster.open[self.shard] = Transaction()
            if cluster.happens(faults.lost_request / 8):
                self._is_dead = True
                raise Unavailable("a produce request was lost")
            positions.append(cluster.write(record, cluster.open[self.shard]))
            if cluster.happens(faults.unheard_produce / 8):
                self._is_dead = True
                raise Unavailable("a produce request was not answered")
            if cluster.happens(0.1):
                cluster.deliver_late()
        self._log.step("end")
        self._check()
        if cluster.happens(faults.lost_request):
            self._is_dead = True
            raise Unknown("the request to commit was lost")
        cluster.end_transaction(self.shard, "committed")
        if cluster.happens(faults.doubled_end):
            cluster.late.append((self.shard, self.epoch))
        if cluster.happens(faults.lost_answer):
            self._is_dead = True
            raise Unknown("the commit was not answered")
        self._log.step("committed")
        return positions

    def anchor(self) -> bytes | None:
        return None

    def close(self) -> None:
        if not self._is_dead:
            self._may_go_on()  # what is on its way may still arrive
        self._is_dead = True


class SimulatedMember(Member):
    """A member of the group; what it is assigned is what `SimulatedLog.assigned` says."""

    def __init__(self, log: "SimulatedLog", topics: Collection[str]) -> None:
        self._log = log
        self._topics = sorted(topics)
        self._started: dict[int, SimulatedReader] = {}
        self._lost: dict[int, int] = {}
        self._started_in: dict[int, int] = {}
        self._sought: set[TopicPartition] = set()

    def poll(self, timeout_s: float, max_records: int = 1000) -> Poll:
        del timeout_s
        cluster = self._log.cluster
        records: list[Record] = []
        horizons: dict[int, int] = {}
        for shard, reader in self._started.items():
            if cluster.happens(cluster.faults.lost_place):
                at = (cluster.chance.choice(self._topics), shard)
                # Not after a seek, until something came from there: the one position that a client must keep.
                if at not in self._sought:
                    reader.seek(*at, cluster.chance.randrange(cluster.last_stable(*at) + 1))
            records += reader.poll(0.0, max_records)
            horizons[shard] = UNBOUNDED if reader.caught_up(reader.ends()) else 0
        self._sought -= {(record.topic, record.partition) for record in records}
        generation = self._log.generation
        self._lost = {shard: at for shard, at in self._lost.items() if at == generation}
        assigned = frozenset(self._log.assigned - self._lost.keys())
        return Poll(records, horizons, assigned, {}, frozenset(self._lost))

    def start(self, shard: int, offsets: Mapping[str, int]) -> None:
        starts = {(topic, shard): offsets[topic] for topic in self._topics}
        self._started[shard] = SimulatedReader(self._log.cluster, starts)
        self._started_in[shard] = self._log.generation
        self._sought |= starts.keys()

    def stop(self, shard: int) -> None:
        self._started.pop(shard, None)

    def lose(self, shard: int) -> None:
        self.stop(shard)
        if self._started_in.get(shard, self._log.generation) == self._log.generation:
            self._lost[shard] = self._log.generation

    def note_progress(self, shard: int, offsets: Mapping[str, int]) -> None:
        """The standard tools are not simulated."""

    def close(self) -> None:
        self._started = {}


class SimulatedLog(Log):
    """One process's connection to the cluster."""

    remote = True
    url = "kafka:simulated"

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.assigned: set[int] = set()
        self.generation = 0
        self.steps_left: int | None = None

    def step(self, name: str) -> None:
        """A place where the process may die."""
        del name
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left <= 0:
                raise Crash

    def about(self) -> str:
        return "a model"

    def missing_topics(self, specs: Sequence[TopicSpec]) -> list[str]:
        del specs
        return []

    def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        for spec in specs:
            for partition in range(self.cluster.count):
                self.cluster.entries(spec.name, partition)

    def partitions(self) -> int:
        return self.cluster.count

    def append(self, records: Sequence[NewRecord]) -> list[Position]:
        cluster, faults = self.cluster, self.cluster.faults
        positions = []
        for record in records:
            if cluster.happens(faults.lost_request):
                raise Unavailable("the record was not written")
            positions.append(cluster.write(record, None))
            if cluster.happens(faults.lost_answer):
                raise Unknown("the record was not acknowledged")
        return positions

    def reader(self, starts: Mapping[TopicPartition, int | None]) -> Reader:
        for topic, partition in starts:
            if (topic, partition) not in self.cluster.partitions:
                raise UsageError(f"no topic {topic}")
        places = {at: self.cluster.last_stable(*at) if start is None else start for at, start in starts.items()}
        return SimulatedReader(self.cluster, places)

    def claim(self, shard: int) -> Writer:
        self.step("claim")
        if self.cluster.happens(self.cluster.faults.lost_request):
            raise Unavailable("no broker answered the claim")
        self.cluster.epochs[shard] = self.cluster.epochs.get(shard, 0) + 1
        self.cluster.end_transaction(shard, "aborted")
        self.step("claimed")
        return SimulatedWriter(self, shard, self.cluster.epochs[shard])

    def member(self, group: str, topics: Collection[str]) -> Member:
        del group
        return SimulatedMember(self, topics)

    def owners(self) -> dict[int, str | None]:
        return dict.fromkeys(range(self.cluster.count))

    def close(self) -> None:
        """There is nothing to release."""
