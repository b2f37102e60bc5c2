"""Records carried by kafka-python, the client that the package installs.

Invariant: a producer that failed once is thrown away, and no record that a broker took stops a reader.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import kafka
from kafka import TopicPartition as Place
from kafka.errors import KafkaError
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecord, DefaultRecordBatch
from kafka.record.util import decode_varint

from stocktrade.transport.base import Record
from stocktrade.transport.client import (
    UNREADABLE_MS,
    Appender,
    Client,
    Fetcher,
    Placed,
    Transactions,
    headers_of,
)
from stocktrade.transport.kafka_client import (
    FETCH_MAX_WAIT_MS,
    FETCH_MAX_WAIT_SINGLE_MS,
    Connection,
    append_failed,
    discard_producer,
)
from stocktrade.transport.kafka_txn import CuredTransactions, NullableValue, know, send

_LEAVE_WITHIN_MS: Final = 2_000


class _Name(bytearray):
    """Part of a batch, which is text whatever it holds."""

    def decode(self, *_: Any) -> str:
        return super().decode(errors="replace")


class _Buffer(bytearray):
    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        return _Name(found) if isinstance(at, slice) else found


class ReadableBatch(DefaultRecordBatch):  # type: ignore[misc] # a class of an untyped library
    """Records as the library reads them; those that it cannot read without what it cannot read.

    A record with a header whose name is no text comes without headers, each of a batch that cannot be unpacked without
    anything (see `UNREADABLE_MS`). Brokers take both from anybody, and the library never gets past them.
    """

    _buffer: Any
    _pos: int
    _next_record_index: int
    _decompressed: bool
    _cannot_be_unpacked = False

    def _maybe_uncompress(self) -> None:
        try:
            super()._maybe_uncompress()
        except KafkaError:  # the library for it is not installed
            raise
        except Exception:  # noqa: BLE001 - each library for it has errors of its own
            self._cannot_be_unpacked = self._decompressed = True

    def __next__(self) -> Any:
        if not self._cannot_be_unpacked:
            return super().__next__()
        if self._next_record_index >= self.records_count:
            raise StopIteration
        offset = self.base_offset + self._next_record_index
        self._next_record_index += 1
        return DefaultRecord(0, offset, UNREADABLE_MS, self.timestamp_type, None, None, [])

    next = __next__

    def _read_msg(self, *args: Any) -> Any:
        batch, position = self._buffer, self._pos
        try:
            return super()._read_msg(*args)
        except UnicodeDecodeError:
            length, begin = decode_varint(batch, position)
            end = begin + length
            self._buffer, self._pos = _Buffer(batch[position:end]), 0  # of a batch it may be one of many
            try:
                record = super()._read_msg(*args)
            finally:
                self._buffer, self._pos = batch, end
            record._headers = []  # noqa: SLF001 - it has no other way
            return record


memory_records.DefaultRecordBatch = ReadableBatch


class KafkaPython(Client):
    """The client.

    Args:
        connection: the cluster.
        prefix: what the names of topics on the cluster begin with.
        cured: False leaves transactions to the library, which can tear them: only for a test that shows it.
    """

    def __init__(self, connection: Connection, prefix: str, *, cured: bool = True) -> None:
        self._connection = connection
        self._prefix = prefix
        self._cured = cured
        self.version = f"kafka-python {kafka.__version__}"

    def fetcher(self, starts: Mapping[Place, int]) -> Fetcher:
        """See `Client.fetcher`."""
        wait_ms = FETCH_MAX_WAIT_SINGLE_MS if len(starts) == 1 else FETCH_MAX_WAIT_MS
        consumer = self._connection.make_consumer(group_id=None, fetch_max_wait_ms=wait_ms)
        consumer.assign(list(starts))
        fetcher = _Fetcher(self._connection, consumer, self._prefix, closes=True)
        for place, offset in starts.items():
            fetcher.seek(place, offset)
        return fetcher

    def member_fetcher(self, group: Any) -> Fetcher:
        """See `Client.member_fetcher`. The group's consumer fetches, too."""
        self._connection.prepare_looks()
        return _Fetcher(self._connection, group, self._prefix, closes=False)

    def appender(self) -> Appender:
        """See `Client.appender`."""
        return _Appender(self._connection)

    def transactions(self, transactional_id: str, topics: Collection[str]) -> Transactions:
        """See `Client.transactions`."""
        return CuredTransactions(self._connection, transactional_id, topics, cured=self._cured)


class _Fetcher(Fetcher):
    def __init__(self, connection: Connection, consumer: Any, prefix: str, *, closes: bool) -> None:
        self._connection = connection
        self._consumer = consumer
        self._prefix_length = len(prefix)
        self._closes = closes

    def fetch(self, timeout_s: float, max_records: int) -> Mapping[Place, Sequence[Record]]:
        try:
            batches = self._consumer.poll(timeout_ms=timeout_s * 1000, max_records=max_records)
        except KafkaError as error:
            what = "the log cannot be read" if self._closes else "the inputs cannot be read"
            raise self._connection.translated(error, what) from error
        return {place: [self._record(each) for each in batch] for place, batch in batches.items()}

    def _record(self, each: Any) -> Record:
        return Record(
            each.topic[self._prefix_length :],
            each.partition,
            each.offset,
            each.timestamp,
            each.timestamp,
            each.key,
            each.value,
            headers_of(each.headers),
        )

    def seek(self, place: Place, offset: int) -> None:
        self._consumer.seek(place, offset)
        self._consumer.resume(place)

    def pause(self, place: Place) -> None:
        if place in (self._consumer.assignment() or ()):  # another's is not fetched anyway
            self._consumer.pause(place)

    def position(self, place: Place) -> int:
        return self._consumer.position(place, timeout_ms=0) or 0

    def written_end(self, place: Place) -> int | None:
        end: int | None = self._consumer.highwater(place)
        return end

    def stable_ends(self, places: Collection[Place], *, within_s: float) -> Mapping[Place, int]:
        return self._connection.stable_ends(places, within_s=within_s)

    def close(self) -> None:
        if self._closes:
            self._consumer.close(autocommit=False, timeout_ms=_LEAVE_WITHIN_MS)


class _Appender(Appender):
    def __init__(self, connection: Connection) -> None:
        connection.probe()
        self._connection = connection
        self._producer = connection.make_producer(value_serializer=NullableValue())

    def append(self, placed: Sequence[Placed]) -> list[int]:
        connection = self._connection
        deadline = time.monotonic() + connection.timeouts.delivery_ms / 1000 + 1
        sent: list[Any] = []
        try:
            know(self._producer, {topic for _, topic, _ in placed})
            for record, topic, partition in placed:
                sent.append(send(self._producer, record, topic, partition))
            return [int(future.get(max(0.0, deadline - time.monotonic())).offset) for future in sent]
        except (KafkaError, ValueError) as error:
            raise append_failed(connection, error, sent=len(sent), asked=len(placed)) from error

    def close(self) -> None:
        discard_producer(self._producer)
