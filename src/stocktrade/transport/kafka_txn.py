"""Transactions of one producer, atomic and with bounded waits.

Owns what the client library lacks for that. It speaks the older transaction protocol, in which the epoch stays the
same from one transaction to the next: an EndTxn that is delayed in the network, and repeated by the client, can
then end the *next* transaction (KAFKA-17754), so that a reader sees half of one. The cure is the client's side of
KIP-890: send EndTxn version 5, after which the broker has raised the epoch, and go on with the producer id and
epoch that its answer carries.

Invariant: `commit` returns only when every record was written and the broker has said that the transaction is
committed. After any other end the producer is of no further use, and is thrown away.
"""

import inspect
import threading
import time
from collections.abc import Collection, Sequence
from functools import cache
from hashlib import sha256
from typing import Any, Final

import kafka
from kafka.coordinator.base import BaseCoordinator
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.producer import transaction_manager as library
from kafka.producer.sender import Sender
from kafka.protocol.producer import EndTxnRequest
from kafka.record.default_records import DefaultRecordBatch
from kafka.serializer import Serializer
from kafka.structs import TopicPartition

from stocktrade.errors import StocktradeError, UsageError
from stocktrade.failpoints import hit
from stocktrade.transport.base import NewRecord
from stocktrade.transport.client import Placed, Transactions, epoch_of
from stocktrade.transport.kafka_client import Connection, commit_failed, discard_producer

KNOWN_VERSIONS: Final = ("3.0.12",)
KNOWN_INTERNALS: Final = frozenset({"e69fd2b9b50e71ac"})
"""Digests of the library's source that the adapter builds on, of the versions that were examined."""

_USED_INTERNALS: Final = (
    library.TransactionManager,
    library.TxnRequestHandler,
    library.EndTxnHandler,
    Sender,
    KafkaNetClient.await_ready,
    KafkaConnectionManager._build_transport,  # noqa: SLF001 - only looked at
    KafkaConnectionManager.wait_for,
    BaseCoordinator.join_group_async,
    BaseCoordinator.stable,
    ConsumerCoordinator.poll,
    ConsumerCoordinator.need_rejoin,
    DefaultRecordBatch,
)
_END_TXN: Final = 5
_HINT: Final = "pip install 'kafka-python[crc32c]==3.0.12'"


_parsing = threading.Lock()


def internals_digest() -> str:
    """A digest of the parts of the client library that this module reaches into."""
    # Python 3.11 fails now and then when two threads parse at once (SystemError), and each opens a log of its own.
    with _parsing:
        return _digest_of(_USED_INTERNALS)


@cache
def _digest_of(internals: tuple[Any, ...]) -> str:
    return sha256("\0".join(inspect.getsource(each) for each in internals).encode()).hexdigest()[:16]


def check_library() -> None:
    """Refuse a client library whose internals are not the ones that the cure was written for.

    Raises:
        UsageError: it is another version, or a changed one.
    """
    version = kafka.__version__
    if version not in KNOWN_VERSIONS:
        known = " or ".join(KNOWN_VERSIONS)
        raise UsageError(
            f"this kafka-python is version {version}; stocktrade needs {known}",
            cause="transactions are made atomic inside the library, which only its known versions allow",
            hint=_HINT,
        )
    try:
        digest = internals_digest()
    except OSError:  # installed without its source: the version must do
        return
    if digest not in KNOWN_INTERNALS:
        raise UsageError(
            f"this kafka-python {version} is not the published one",
            cause=f"the code of its transactions has the digest {digest}",
            hint=_HINT,
        )


_DEFECTIVE: Final = range(30, 34)
"""The highest levels of metadata.version that brokers of Kafka 4.3 (30) and 4.4 (33) know; 4.2 knows 29."""


def check_cluster(connection: Connection) -> list[str]:
    """Refuse a cluster that cannot raise the epoch with each transaction; what else its user should be warned of.

    Raises:
        UsageError: it cannot, or is not told to.
        Unavailable: it does not answer.
    """
    features = connection.ask("the cluster does not say what it can do", connection.admin.describe_features)
    _, level = features.get("transaction.version", {}).get("finalized", (0, 0))
    if level < 2:
        raise UsageError(
            f"the cluster at {connection.servers} has transaction.version {level}; the exchange needs 2",
            cause="without it, a delayed request can tear a transaction apart",
            hint="use Kafka 4.0 or later, and if it was upgraded:\n"
            f"kafka-features.sh --bootstrap-server {connection.servers.partition(',')[0]} "
            "upgrade --feature transaction.version=2",
        )
    warnings = connection.exposures()
    # Brokers do not tell their release, but what they could be upgraded to.
    _, newest = features.get("metadata.version", {}).get("supported", (0, 0))
    if newest in _DEFECTIVE:
        warnings.append(
            "the brokers are Kafka 4.3 or 4.4, and 4.3.0 to 4.4.0 have a defect: when one of them crashes, trades that "
            "were committed can stay invisible, and their shard stops. Kafka 4.2 does not have it"
        )
    return warnings


_RELEASES: Final = {25: "4.0", 27: "4.1", 29: "4.2", 30: "4.3", 33: "4.4"}
"""The highest level of metadata.version that the brokers of a release know."""


def release(connection: Connection) -> str:
    """The release of the cluster's brokers, as `Kafka 4.2`. They do not tell it, but what they could be upgraded to.

    Raises:
        Unavailable: the cluster does not answer.
    """
    features = connection.ask("the cluster does not say what it can do", connection.admin.describe_features)
    _, newest = features.get("metadata.version", {}).get("supported", (0, 0))
    found = _RELEASES.get(newest)
    return f"Kafka {found}" if found else f"Kafka with metadata.version {newest}"


class _EndTxn(library.EndTxnHandler):  # type: ignore[misc]  # the library has no types
    """Ends a transaction by version 5 of the request, and takes over the epoch of the answer."""

    def __init__(self, manager: Any, committed: bool) -> None:
        super().__init__(manager, committed)
        self.request = EndTxnRequest(
            transactional_id=self.transactional_id,
            producer_id=self.producer_id,
            producer_epoch=self.producer_epoch,
            committed=committed,
            min_version=_END_TXN,
            max_version=_END_TXN,
        )

    def handle_response(self, response: Any) -> None:
        # Called with the manager's lock held, when no record is in flight.
        if response.error_code == 0:
            manager = self.transaction_manager
            manager.set_producer_id_and_epoch(library.ProducerIdAndEpoch(response.producer_id, response.producer_epoch))
            manager._sequence_numbers.clear()  # noqa: SLF001 - see check_library
            manager._last_acked_offset.clear()  # noqa: SLF001
        super().handle_response(response)


class _Manager(library.TransactionManager):  # type: ignore[misc]  # the library has no types
    """The library's bookkeeping of a transaction, without its way of going on after a loss."""

    def _supports_epoch_bump(self) -> bool:
        # Otherwise a lost record is followed by a new epoch, and the commit that runs meanwhile succeeds with
        # nothing in it. Saying no makes the loss fatal.
        return False


class _CuredManager(_Manager):
    """The same, with the cure."""

    def _begin_completing_transaction(self, committed: bool) -> Any:
        if self._new_partitions_in_transaction:
            self._enqueue_request(self._add_partitions_to_transaction_handler())
        handler = _EndTxn(self, committed)
        self._enqueue_request(handler)
        return handler.result


class CuredTransactions(Transactions):
    """See `Transactions`. A producer that failed is thrown away.

    Args:
        connection: the cluster.
        transactional_id: whose transactions.
        topics: what will be written to: fetching their metadata now keeps it out of the first commit.
        cured: False leaves the library's own, torn way of ending a transaction: only for a test that shows it.

    Raises:
        Unavailable: what the one before left open could not be ended in time.
    """

    def __init__(
        self, connection: Connection, transactional_id: str, topics: Collection[str] = (), *, cured: bool = True
    ) -> None:
        super().__init__()
        self._connection = connection
        timeouts = connection.timeouts
        self._producer = connection.make_producer(
            transactional_id=transactional_id,
            transaction_timeout_ms=timeouts.transaction_ms,
            max_block_ms=timeouts.transaction_ms,
            value_serializer=NullableValue(),
        )
        self._manager = self._producer._transaction_manager  # noqa: SLF001 - see check_library
        # Nothing was asked of it yet, and the subclass adds no state.
        self._manager.__class__ = _CuredManager if cured else _Manager
        try:
            self._producer.init_transactions()
            know(self._producer, topics)
        except KafkaError as error:
            discard_producer(self._producer)
            raise connection.translated(error, f"{transactional_id} cannot be taken over") from error
        except BaseException:
            discard_producer(self._producer)
            raise

    @property
    def epoch(self) -> int:
        """See `Transactions.epoch`."""
        current = self._manager.producer_id_and_epoch
        return epoch_of(int(current.producer_id), int(current.epoch))

    def _commit(self, records: Sequence[Placed]) -> list[int]:
        deadline = time.monotonic() + self._connection.timeouts.transaction_ms / 1000
        futures = []
        try:
            self._manager.begin_transaction()
            # All at once, before the sender's thread sees the first: one request instead of several.
            with self._manager._lock:  # noqa: SLF001 - see check_library
                for partition in {TopicPartition(topic, partition) for _, topic, partition in records}:
                    self._manager.maybe_add_partition_to_transaction(partition)
            futures = [send(self._producer, *record) for record in records]
            hit("kafka.commit.sending")
            # A commit is no proof that the records were written: each of them has to be asked.
            offsets = [int(future.get(max(0.0, deadline - time.monotonic())).offset) for future in futures]
        except (KafkaError, ValueError) as error:
            raise self._failed(error, futures, decided=False) from error
        hit("kafka.commit.sent")
        try:
            result = self._manager.begin_commit()
            self._producer._sender.wakeup()  # noqa: SLF001 - as commit_transaction does
            hit("kafka.commit.ending")
            left_ms = max(1_000.0, (deadline - time.monotonic()) * 1000)
            if not result.wait(left_ms):
                raise KafkaTimeoutError(f"no answer to the commit within {left_ms / 1000:.1f} s")
        except KafkaError as error:
            raise self._failed(error, futures, decided=True) from error
        return offsets

    def _failed(self, error: BaseException, futures: Sequence[Any], *, decided: bool) -> StocktradeError:
        """What a failure means. The class of the exception alone does not say: the manager knows the first one."""
        others = [self._manager.last_error, *(future.exception for future in futures if future.failed())]
        return commit_failed(self._connection, error, others, decided=decided)

    def _discard(self) -> None:
        discard_producer(self._producer)


_NOTHING: Final = object()


class NullableValue(Serializer):  # type: ignore[misc]  # the library has no types
    """Lets a record have neither key nor value, which the library's `send` refuses."""

    def serialize(self, topic: str, headers: Any, data: Any) -> Any:
        """The bytes of a value."""
        del topic, headers
        return None if data is _NOTHING else data


def know(producer: Any, topics: Collection[str]) -> None:
    """Have a producer fetch the metadata of topics, all at once: one by one it takes 0.1 s each."""
    for topic in topics:
        producer._sender.add_topic(topic)  # noqa: SLF001 - see check_library
    for topic in topics:
        producer.partitions_for(topic)


def send(producer: Any, record: NewRecord, topic: str, partition: int) -> Any:
    """Hand a record to a producer that was made with `NullableValue`; the future of its place."""
    nothing = record.key is None and record.value is None
    return producer.send(
        topic,
        _NOTHING if nothing else record.value,
        record.key,
        list(record.headers),
        partition,
        record.time_ms,
    )
