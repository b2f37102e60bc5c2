"""`python sabotaged_kafka.py WORD,WORD nse …`: stocktrade on Kafka with guards off.

So the checks can be seen to fail. Each word in `GUARDS` switches one guard off, each in `FAULTS` lets the client
library do what it should not. Started by `test_kafka_checks`; nothing else of the exchange differs.
"""

import os
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from heapq import heappush
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from uuid import uuid4

from confluent_kafka import KafkaError, KafkaException, Producer
from kafka.cluster import ClusterMetadata

from stocktrade.cli import main
from stocktrade.failpoints import hit
from stocktrade.shard import repair
from stocktrade.shard.owner import Owner
from stocktrade.transport import kafka as adapter
from stocktrade.transport import kafka_txn, librdkafka, topics
from stocktrade.transport.base import NewRecord, Position, Record, Writer
from stocktrade.transport.client import Client, Transactions
from stocktrade.transport.kafka_client import Connection
from stocktrade.transport.kafka_python import KafkaPython
from stocktrade.transport.librdkafka import Librdkafka

LEADERLESS_WHILE: Final = "STOCKTRADE_TEST_LEADERLESS_WHILE"
"""The fault `leaderless` lasts while the file exists that this variable names."""


def _commits_are_not_atomic() -> None:
    """The journal's record in one transaction, what it caused in the next; what is missing is not written again."""
    begin = adapter.KafkaWriter.begin_commit

    def begin_commit(
        self: adapter.KafkaWriter, records: Sequence[NewRecord], *, anchor: bytes | None = None
    ) -> Future[list[Position]]:
        journal = begin(self, records[:1], anchor=anchor)
        if not records[1:]:
            return journal
        journal.exception()
        hit("sabotage.between")
        both: Future[list[Position]] = Future()
        both.set_result(journal.result() + begin(self, records[1:]).result())
        return both

    adapter.KafkaWriter.begin_commit = begin_commit  # type: ignore[method-assign]
    repair.missing = lambda *_: []


def _inputs_are_read_uncommitted() -> None:
    make = Connection.make_consumer
    options = librdkafka._options

    def of_librdkafka(connection: Connection, **own: Any) -> dict[str, Any]:
        if "isolation.level" in own:
            own["isolation.level"] = "read_uncommitted"
        return options(connection, **own)

    def make_consumer(self: Connection, **options: Any) -> Any:
        if options.get("group_id") is not None:
            options["isolation_level"] = "read_uncommitted"
        return make(self, **options)

    Connection.make_consumer = make_consumer  # type: ignore[method-assign]
    librdkafka._options = of_librdkafka


def _nobody_is_fenced() -> None:
    """Every owner has a transactional id of its own; and waits for a commit before it reads its journal back."""
    for client in (KafkaPython, Librdkafka):
        _give_each_owner_an_id(client)
    begin = adapter.KafkaWriter.begin_commit

    def begin_and_wait(
        self: adapter.KafkaWriter, records: Sequence[NewRecord], *, anchor: bytes | None = None
    ) -> Future[list[Position]]:
        commit = begin(self, records, anchor=anchor)
        commit.exception()
        return commit

    adapter.KafkaWriter.begin_commit = begin_and_wait  # type: ignore[method-assign]


def _give_each_owner_an_id(client: Any) -> None:
    transactions = client.transactions

    def unfenced(self: Client, transactional_id: str, topics: Collection[str]) -> Transactions:
        made: Transactions = transactions(self, f"{transactional_id}-{uuid4()}", topics)
        return made

    client.transactions = unfenced


def _offsets_are_not_compared() -> None:
    def offer(self: Owner, records: Iterable[Record]) -> bool:
        for record in records:
            self._expected[record.topic] = record.offset + 1
            heappush(self._waiting, (record.arrival, record.topic, record.offset, record))
        return True

    Owner.offer = offer  # type: ignore[method-assign]


def _shards_are_claimed_after_they_are_read() -> None:
    claim = adapter.KafkaLog.claim

    class Late(Writer):
        """Claims when it is to commit for the first time."""

        def __init__(self, log: adapter.KafkaLog, shard: int) -> None:
            self._log = log
            self.shard = shard
            self._writer: Writer | None = None

        def commit(self, records: Sequence[NewRecord], *, anchor: bytes | None = None) -> list[Position]:
            if self._writer is None:
                self._writer = claim(self._log, self.shard)
            return self._writer.commit(records, anchor=anchor)

        def anchor(self) -> bytes | None:
            return None

        def close(self) -> None:
            if self._writer is not None:
                self._writer.close()

    def claim_late(self: adapter.KafkaLog, shard: int) -> Writer:
        return Late(self, shard)

    adapter.KafkaLog.claim = claim_late  # type: ignore[method-assign]


def _futures_are_not_checked() -> None:
    """Whatever became of a record counts as written."""
    send = kafka_txn.send

    class Trusting:
        def __init__(self, future: Any) -> None:
            self._future = future

        def get(self, timeout: float) -> Any:
            try:
                return self._future.get(timeout)
            except Exception:  # noqa: BLE001 - that is the point
                return SimpleNamespace(offset=0)

        def failed(self) -> bool:
            return False

    kafka_txn.send = lambda *arguments: Trusting(send(*arguments))
    _Producer.trusts = True


def _records_are_handed_over_twice() -> None:
    """As by a consumer that has gone back to an old position in a rebalance."""
    deliver = adapter.KafkaMember._deliver

    def twice(self: adapter.KafkaMember, max_records: int) -> list[Record]:
        records = deliver(self, max_records)
        return records + records

    adapter.KafkaMember._deliver = twice  # type: ignore[method-assign]


class _Producer(Producer):
    """librdkafka's: it may lose what it is told to produce, and may say of anything that it was written."""

    trusts = False
    leaderless_while: Path | None = None
    lost: Final[list[Callable[[Any, Any], None]]] = []

    def produce(  # type: ignore[override]  # as it is called here
        self, topic: str, value: Any, key: Any, partition: int, heard: Callable[[Any, Any], None], **more: Any
    ) -> None:
        if topic == topics.TRADES and self.leaderless_while is not None and self.leaderless_while.exists():
            self.lost.append(heard)
            return
        super().produce(topic, value, key, partition, heard, **more)

    def commit_transaction(self, timeout: float = -1) -> None:
        error = None if self.trusts else KafkaError(KafkaError._MSG_TIMED_OUT)
        has_lost = bool(self.lost)
        while self.lost:
            self.lost.pop()(error, SimpleNamespace(offset=lambda: 0))
        if has_lost and not self.trusts:  # as the library does
            raise KafkaException(KafkaError(KafkaError._INCONSISTENT))
        super().commit_transaction(timeout)


def _trades_have_no_leader() -> None:
    """As long as a file exists: what is sent to that topic fails when its time is over, on librdkafka at once."""
    lasting = _Producer.leaderless_while = Path(os.environ[LEADERLESS_WHILE])
    leader_for_partition = ClusterMetadata.leader_for_partition
    partitions_for_broker = ClusterMetadata.partitions_for_broker

    def is_leaderless(partition: Any) -> bool:
        return partition.topic == topics.TRADES and lasting.exists()

    def leader(self: Any, partition: Any) -> Any:
        return -1 if is_leaderless(partition) else leader_for_partition(self, partition)

    def led_by(self: Any, broker: Any) -> Any:
        return {each for each in partitions_for_broker(self, broker) or () if not is_leaderless(each)}

    ClusterMetadata.leader_for_partition = leader
    ClusterMetadata.partitions_for_broker = led_by


GUARDS: Final[dict[str, Callable[[], None]]] = {
    "atomic": _commits_are_not_atomic,
    "committed": _inputs_are_read_uncommitted,
    "fence": _nobody_is_fenced,
    "offsets": _offsets_are_not_compared,
    "claim": _shards_are_claimed_after_they_are_read,
    "futures": _futures_are_not_checked,
}
FAULTS: Final[dict[str, Callable[[], None]]] = {
    "twice": _records_are_handed_over_twice,
    "leaderless": _trades_have_no_leader,
}

if __name__ == "__main__":
    librdkafka.Producer = _Producer  # type: ignore[attr-defined]  # it is the library's
    for word in filter(None, sys.argv.pop(1).split(",")):
        (GUARDS | FAULTS)[word]()
    main()
