"""Records carried by librdkafka, by way of confluent-kafka: the fast client, an optional extra of the package.

It fetches and writes. Groups, questions and topics stay the other library's work (see `client`).

librdkafka ends transactions by the older protocol: an EndTxn that is delayed in the network, and that the client
sends again after its connection broke, could end the next transaction of the same epoch (KAFKA-17754). Here no
transaction follows one whose end may have been sent twice: the client is asked for its log after each commit, and
when a connection was lost the producer is given up. The next owner's epoch refuses whatever is still on its way.

Invariant: a producer that failed once, or lost a connection, commits nothing more.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from operator import methodcaller
from typing import Any, Final

from confluent_kafka import Consumer, IsolationLevel, KafkaException, Producer, libversion
from confluent_kafka import KafkaError as NativeError
from confluent_kafka import TopicPartition as NativePlace
from confluent_kafka import __version__ as binding_version
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # it is not listed there
from kafka import TopicPartition as Place
from kafka import errors as kafka_errors
from kafka.errors import KafkaError

from stocktrade.domain.values import visible
from stocktrade.errors import StocktradeError, Unavailable, Unknown, UsageError
from stocktrade.failpoints import hit
from stocktrade.transport.base import Record
from stocktrade.transport.client import (
    UNREADABLE_MS,
    Appender,
    Client,
    Fetcher,
    Placed,
    Transactions,
    epoch_of,
    headers_of,
)
from stocktrade.transport.kafka_client import (
    FETCH_MAX_WAIT_MS,
    GROUP_EVERY_S,
    MAX_REQUEST_BYTES,
    RETRY_BACKOFF_MS,
    Connection,
    append_failed,
    commit_failed,
)

CLAIM_ATTEMPTS: Final = 3
_SLICE_S: Final = 0.1
"""Longer waits of the library for callbacks go on after a fatal error, and lose it."""

_ASK_S: Final = 1.0
"""How long the library is asked at a time: in between it tells whether the brokers refuse us."""

_FETCH_MAX_WAIT_SINGLE_MS: Final = 100
"""As `FETCH_MAX_WAIT_SINGLE_MS`, but shorter: a reader that seeks waits for the fetch that is under way."""

_UNOBEYED: Final = ("ssl.protocol", "ssl.enabled.protocols")
"""Options that the library has no words for."""

_OF_METADATA: Final = "METADATAUPDATE "
"""Begins what it says when a broker that is asked to write names a leader that is not known: a new one, or none yet."""

_headers: Final = methodcaller("headers")
"""Of a message. With a name that is no text the library returns tuples with holes, fatal to whoever looks into them,
and leaves an error behind. A call from Python itself may go on past that error, this one raises SystemError."""

_PASSING: Final = frozenset(
    {
        NativeError._TRANSPORT,  # noqa: SLF001 - that is how the library names errors of its own
        NativeError._ALL_BROKERS_DOWN,  # noqa: SLF001
        NativeError._RESOLVE,  # noqa: SLF001
        NativeError._TIMED_OUT,  # noqa: SLF001
        NativeError._MAX_POLL_EXCEEDED,  # noqa: SLF001
        # It looks for the coordinator of a group that is not used.
        NativeError.GROUP_AUTHORIZATION_FAILED,
        NativeError.COORDINATOR_NOT_AVAILABLE,
        NativeError.NOT_COORDINATOR,
    }
)
"""What a fetch gets over by itself, or what does not concern it."""

_TRANSLATED: Final[dict[int, type[KafkaError]]] = {
    NativeError._FENCED: kafka_errors.ProducerFencedError,  # noqa: SLF001
    NativeError._TIMED_OUT: kafka_errors.KafkaTimeoutError,  # noqa: SLF001
    NativeError._MSG_TIMED_OUT: kafka_errors.KafkaTimeoutError,  # noqa: SLF001
    NativeError._UNKNOWN_TOPIC: kafka_errors.UnknownTopicOrPartitionError,  # noqa: SLF001
    NativeError._UNKNOWN_PARTITION: kafka_errors.UnknownTopicOrPartitionError,  # noqa: SLF001
}


def _exception(error: Any) -> KafkaError:
    """An error of either library as an exception of the other one, whose meaning is known in one place."""
    if isinstance(error, KafkaError):
        return error
    if isinstance(error, KafkaException):
        error = error.args[0]
    if not isinstance(error, NativeError):
        return kafka_errors.KafkaConnectionError(str(error))
    code = error.code()
    kind = kafka_errors.for_code(code) if code > 0 else _TRANSLATED.get(code, kafka_errors.KafkaConnectionError)
    return kind(error.str())


class Librdkafka(Client):
    """The client.

    Args:
        connection: the cluster.
        prefix: what the names of topics on the cluster begin with.
        cured: False lets a producer go on after it lost a connection: only for a test that shows what happens.

    Raises:
        UsageError: an option of the connection is one that this library cannot obey.
    """

    def __init__(self, connection: Connection, prefix: str, *, cured: bool = True) -> None:
        for name in _UNOBEYED:
            if name in connection.settings.native:
                raise UsageError(
                    f"librdkafka has no option {name}",
                    hint="take the option out, or use --client kafka-python",
                )
        self._connection = connection
        self._prefix = prefix
        self._cured = cured
        self.version = f"librdkafka {libversion()[0]} (confluent-kafka {binding_version})"

    def fetcher(self, starts: Mapping[Place, int]) -> Fetcher:
        """See `Client.fetcher`."""
        return _Fetcher(self._connection, self._prefix, starts, group=None)

    def member_fetcher(self, group: Any) -> Fetcher:
        """See `Client.member_fetcher`. The group's consumer fetches nothing."""
        return _Fetcher(self._connection, self._prefix, {}, group=group)

    def appender(self) -> Appender:
        """See `Client.appender`."""
        return _Appender(self._connection)

    def transactions(self, transactional_id: str, topics: Collection[str]) -> Transactions:
        """See `Client.transactions`."""
        return _Transactions(self._connection, transactional_id, topics, cured=self._cured)


# --- options -------------------------------------------------------------------------------------------------------


class _Heard(logging.Handler):
    """Whether the library had anything to say, and what: it logs the loss of a connection, and reports it nowhere.

    All it says counts as that, but for what is known to be something else.
    """

    def __init__(self) -> None:
        super().__init__()
        self.words = ""

    def emit(self, record: logging.LogRecord) -> None:
        words = record.getMessage()
        if not words.startswith(_OF_METADATA):
            self.words = self.words or visible(words, 200)


class _Refusals:
    """Whether the brokers refuse who we are, or we them: the library goes on trying, and tells it in a callback."""

    def __init__(self) -> None:
        self._error: KafkaError | None = None

    def __call__(self, error: NativeError) -> None:
        code, words = error.code(), error.str()
        if code == NativeError._AUTHENTICATION:  # noqa: SLF001
            self._error = kafka_errors.SaslAuthenticationFailedError(words)
        elif code == NativeError._SSL and "certificate verify failed" in words:  # noqa: SLF001
            self._error = kafka_errors.KafkaConnectionError(words)

    def check(self) -> None:
        """Raise what was told since the last look; the callbacks come with the client's polls."""
        error, self._error = self._error, None
        if error is not None:
            raise error


def _until(producer: Any, refusals: _Refusals, deadline: float, ask: Callable[[float], Any]) -> None:
    """Ask something of the brokers that may take a while, with a look in between at whether they refuse us."""
    while True:
        left_s = deadline - time.monotonic()
        try:
            ask(max(_SLICE_S, min(left_s, _ASK_S)))
        except KafkaException as error:
            producer.poll(0)
            refusals.check()
            if left_s <= 0 or not _is_passing(error):
                raise
            producer.poll(_SLICE_S)
        else:
            return


def _is_passing(error: KafkaException) -> bool:
    said: NativeError = error.args[0]
    return said.retriable() or said.code() in _PASSING


def _logger(handler: logging.Handler) -> logging.Logger:
    logger = logging.Logger("stocktrade.librdkafka")  # noqa: LOG001 - one per client, and none of the program's tree
    logger.addHandler(handler)
    return logger


def _options(connection: Connection, **own: Any) -> dict[str, Any]:
    timeouts = connection.timeouts
    return {
        # Those that are there now: one that is not would be tried again and again, and each failure be heard.
        "bootstrap.servers": ",".join(connection.addresses()),
        "socket.timeout.ms": timeouts.request_ms,
        "socket.connection.setup.timeout.ms": 3_000,
        "socket.keepalive.enable": True,
        "socket.nagle.disable": True,
        "connections.max.idle.ms": 540_000,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        "retry.backoff.ms": RETRY_BACKOFF_MS,
        "retry.backoff.max.ms": 200,
        "allow.auto.create.topics": False,
        "log_level": 6,
        **connection.settings.native,
        **own,
    }


def _made(kind: Any, connection: Connection, heard: logging.Handler, refusals: _Refusals, **own: Any) -> Any:
    """A client of the library.

    Raises:
        UsageError: it cannot use one of the options.
    """
    try:
        return kind(_options(connection, error_cb=refusals, **own), logger=_logger(heard))
    except KafkaException as error:
        raise UsageError(
            "librdkafka cannot use the options of the connection",
            cause=visible(error.args[0].str(), 300),
            hint="correct them, or use --client kafka-python",
        ) from error


def _producer(connection: Connection, heard: logging.Handler, refusals: _Refusals, **own: Any) -> Any:
    timeouts = connection.timeouts
    return _made(
        Producer,
        connection,
        heard,
        refusals,
        **{
            "acks": "all",
            "enable.idempotence": True,
            "max.in.flight.requests.per.connection": 5,
            # What is handed over together goes together, and nothing waits for more.
            "linger.ms": 0.2,
            "batch.size": 256 * 1024,
            "message.max.bytes": MAX_REQUEST_BYTES,
            "queue.buffering.max.messages": 1_000_000,
            "delivery.timeout.ms": timeouts.delivery_ms,
            **own,
        },
    )


# --- reading -------------------------------------------------------------------------------------------------------


class _Fetcher(Fetcher):
    """Partitions are assigned when they are sent to a place, and taken away when they are paused."""

    def __init__(self, connection: Connection, prefix: str, starts: Mapping[Place, int], group: Any) -> None:
        self._connection = connection
        self._prefix_length = len(prefix)
        self._group = group
        self._what = "the log cannot be read" if group is None else "the inputs cannot be read"
        self._from: dict[Place, int] = dict(starts)
        self._reached: dict[Place, int] = dict(starts)
        self._topics = {place.topic for place in starts}
        self._closed = False
        self._asking: Any = None
        self._group_at = 0.0
        self._refusals = _Refusals()
        is_single = group is None and len(starts) == 1
        self._consumer: Any = _made(
            Consumer,
            connection,
            logging.NullHandler(),
            self._refusals,
            **{
                "group.id": "stocktrade-none",  # it must have one, and never joins it
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,  # how it tells that it has passed the end of a transaction
                "check.crcs": True,
                "fetch.min.bytes": 1,
                "fetch.wait.max.ms": _FETCH_MAX_WAIT_SINGLE_MS if is_single else FETCH_MAX_WAIT_MS,
                "fetch.queue.backoff.ms": 5,
                "fetch.error.backoff.ms": 50,
                "max.partition.fetch.bytes": MAX_REQUEST_BYTES,
                "queued.min.messages": 20_000,
                "queued.max.messages.kbytes": 16 * 1024,
            },
        )
        self._consumer.assign([NativePlace(place.topic, place.partition, offset) for place, offset in starts.items()])

    def fetch(self, timeout_s: float, max_records: int) -> Mapping[Place, Sequence[Record]]:
        try:
            if self._group is not None:
                # While it is given nothing, there is nothing to wait for but the group.
                idle = not self._from or self._group.group_metadata().generation_id < 0
                if idle or time.monotonic() >= self._group_at:
                    self._group.poll(timeout_ms=timeout_s * 1000 if idle else 0, max_records=1)
                    self._group_at = time.monotonic() + GROUP_EVERY_S
                if idle:
                    timeout_s = 0.0
            # Asked for several it would wait until it has them all.
            messages: list[Any] = self._consumer.consume(max_records, 0)
            if not messages and timeout_s > 0:
                first = self._consumer.poll(timeout_s)
                messages = [] if first is None else [first, *self._consumer.consume(max_records, 0)]
            self._refusals.check()
        except (KafkaException, KafkaError) as error:
            raise self._connection.translated(_exception(error), self._what) from error
        batches: dict[Place, list[Record]] = {}
        cannot_be_unpacked: dict[Place, int] = {}  # with the first offset of its batch
        for message in messages:
            place = Place(message.topic(), message.partition())
            problem = message.error()
            offset = message.offset()
            if place in cannot_be_unpacked:
                pass  # it comes again
            elif problem is not None and problem.code() == NativeError._BAD_COMPRESSION:  # noqa: SLF001
                cannot_be_unpacked[place] = offset
            elif problem is not None:
                self._take_error(place, problem, offset)
            # What lies before is left over from an earlier place, but a member is to see when a partition begins anew.
            elif place in self._from and (self._group is not None or offset >= self._from[place]):
                try:
                    record = self._record(message, offset)
                except SystemError:  # it has a header whose name is no text
                    record = self._record(message, offset, named=False)
                batches.setdefault(place, []).append(record)
        for place, batch in batches.items():
            self._reached[place] = max(self._reached[place], batch[-1].offset + 1)
        for place, offset in cannot_be_unpacked.items():
            if place in self._from:
                batches.setdefault(place, []).append(self._step_over(place, offset))
        return batches

    def _record(self, message: Any, offset: int, *, named: bool = True) -> Record:
        _, time_ms = message.timestamp()
        return Record(
            message.topic()[self._prefix_length :],
            message.partition(),
            offset,
            time_ms,
            time_ms,
            message.key(),
            message.value(),
            headers_of(_headers(message)) if named else (),
        )

    def _step_over(self, place: Place, first: int) -> Record:
        """The record that comes next, of which nothing can be read: the library does not go past its batch.

        The one after it is asked for anew. If it is of the same batch, that is told again.
        """
        offset = max(self._reached[place], first)
        self.seek(place, offset + 1)
        topic = place.topic[self._prefix_length :]
        return Record(topic, place.partition, offset, UNREADABLE_MS, UNREADABLE_MS, None, None, ())

    def _take_error(self, place: Place, error: Any, offset: int | None) -> None:
        code = error.code()
        if code == NativeError._PARTITION_EOF:  # noqa: SLF001
            if offset is not None and place in self._from:
                self._reached[place] = max(self._reached[place], offset)
        elif code not in _PASSING:
            raise self._connection.translated(_exception(error), self._what)

    def seek(self, place: Place, offset: int) -> None:
        self.pause(place)
        self._from[place] = self._reached[place] = offset
        self._consumer.incremental_assign([NativePlace(place.topic, place.partition, offset)])
        if place.topic not in self._topics:
            # When it connects, the library asks who leads the topics that it is to fetch. Of one that comes later it
            # asks in rounds, a second apart; this makes it ask.
            self._topics.add(place.topic)
            with suppress(KafkaException):  # nobody answers now: it goes on asking
                self._topics |= self._consumer.list_topics(timeout=_ASK_S).topics.keys()

    def pause(self, place: Place) -> None:
        if self._group is not None and place in (self._group.assignment() or ()):
            self._group.pause(place)
        if self._from.pop(place, None) is not None:
            self._consumer.incremental_unassign([NativePlace(place.topic, place.partition)])

    def position(self, place: Place) -> int:
        return self._reached.get(place, 0)

    def written_end(self, place: Place) -> int | None:
        try:
            _, end = self._consumer.get_watermark_offsets(NativePlace(place.topic, place.partition), cached=True)
        except KafkaException:
            return None
        return int(end) if end >= 0 else None

    def stable_ends(self, places: Collection[Place], *, within_s: float) -> Mapping[Place, int]:
        # Here and not by the other library, which takes three times the processor's time: it is asked with every poll
        # that brought something.
        if self._asking is None:
            self._asking = _made(AdminClient, self._connection, logging.NullHandler(), self._refusals)
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = {NativePlace(place.topic, place.partition): latest for place in places}
        committed = IsolationLevel.READ_COMMITTED
        answers = self._asking.list_offsets(asked, isolation_level=committed, request_timeout=within_s)
        what = "the ends of the partitions are not known"
        try:
            ends = {Place(at.topic, at.partition): int(answer.result().offset) for at, answer in answers.items()}
        except KafkaException as error:
            raise self._connection.translated(_exception(error), what) from error
        # Where a partition's leader just went away there is no error, and no offset.
        if unknown := [place for place, end in ends.items() if end < 0]:
            raise Unavailable(what, cause=f"no answer for {unknown[0].topic}@{unknown[0].partition}")
        return ends

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._asking = None  # its threads end with the object
            self._consumer.close()


# --- writing -------------------------------------------------------------------------------------------------------


class _Batch:
    """Records handed to a producer together, and what became of them.

    It does not keep the producer: what a producer is to call back keeps the batch, so neither would ever go, and the
    producer's threads with them.
    """

    def __init__(self) -> None:
        self._offsets: dict[tuple[str, int], deque[int]] = {}
        self._placed: Sequence[Placed] = ()
        self.sent = self._written = 0
        self.errors: list[KafkaError] = []

    def send(self, producer: Any, placed: Sequence[Placed], deadline: float) -> None:
        """Hand all of them over."""
        self._placed = placed
        produce = producer.produce
        notes: dict[tuple[str, int], Callable[[Any, Any], None]] = {}
        for (_, key, value, _, time_ms, headers), topic, partition in placed:
            # One for each partition: it tells what it wrote in the order in which that was sent.
            note = notes.get((topic, partition))
            if note is None:
                note = notes[topic, partition] = self._note(topic, partition)
            while True:
                try:
                    if headers:
                        produce(topic, value, key, partition, note, timestamp=time_ms or 0, headers=list(headers))
                    else:
                        produce(topic, value, key, partition, note, timestamp=time_ms or 0)
                    self.sent += 1
                    break
                except BufferError:  # its queue is full: let some of it go
                    if time.monotonic() >= deadline:
                        raise kafka_errors.KafkaTimeoutError("the producer's queue stays full") from None
                    producer.poll(0.01)
                except KafkaException as error:
                    raise _why_refused(producer, error) from error

    def _note(self, topic: str, partition: int) -> Callable[[Any, Any], None]:
        offsets = self._offsets[topic, partition] = deque()

        def note(error: Any, message: Any) -> None:
            offset = None if error is not None else message.offset()
            if error is not None:
                self.errors.append(_exception(error))
            elif offset is None or offset < 0:
                # A broker that took it for a copy says no more than that.
                self.errors.append(KafkaError("a broker had a record already, and did not say where"))
            else:
                self._written += 1
                offsets.append(offset)

        return note

    def written(self, producer: Any, deadline: float) -> list[int]:
        """Wait until all of them are written; their offsets. Raises what became of the first that was not."""
        # Not by `flush`: what it calls back to does not get over a producer that was fenced meanwhile.
        while self._written < self.sent and not self.errors:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise kafka_errors.KafkaTimeoutError("a record was not confirmed in time")
            producer.poll(min(left_s, _SLICE_S))
        if self.errors:
            raise self.errors[0]
        return self.offsets()

    @property
    def is_written(self) -> bool:
        """Whether all of them are."""
        return self._written == self.sent == len(self._placed)

    def offsets(self) -> list[int]:
        """Where they are, once they are written."""
        return [self._offsets[topic, partition].popleft() for _, topic, partition in self._placed]


def _why_refused(producer: Any, error: KafkaException) -> KafkaError:
    """Why a producer takes no record: after a fatal error it says no more than that it had one, and a poll what."""
    if error.args[0].code() == NativeError._FATAL:  # noqa: SLF001
        try:
            producer.poll(_SLICE_S)
        except KafkaException as fatal:
            return _exception(fatal)
    return _exception(error)


def _purge(producer: Any) -> None:
    """Have a producer drop whatever it has pending; its threads end with the object."""
    with suppress(KafkaException):
        producer.purge(in_queue=True, in_flight=True, blocking=False)


class _Appender(Appender):
    def __init__(self, connection: Connection) -> None:
        connection.probe()
        self._connection = connection
        refusals = _Refusals()
        self._producer: Any = _producer(
            connection,
            logging.NullHandler(),
            refusals,
            **{
                # A partition that has not heard of a producer takes any first batch. When the first one is refused, as
                # while a leader is new, and the second is under way already, the first is taken for a copy from then
                # on: the library calls it written, and it is lost.
                "max.in.flight.requests.per.connection": 1,
            },
        )
        deadline = time.monotonic() + connection.timeouts.request_ms / 1000
        try:
            # It takes records, and keeps them for as long as it can, whether or not anybody is there.
            _until(self._producer, refusals, deadline, lambda left_s: self._producer.list_topics(timeout=left_s))
        except (KafkaException, KafkaError) as error:
            raise connection.translated(_exception(error), "the records were not sent") from error

    def append(self, placed: Sequence[Placed]) -> list[int]:
        deadline = time.monotonic() + self._connection.timeouts.delivery_ms / 1000 + 1
        batch = _Batch()
        try:
            batch.send(self._producer, placed, deadline)
            return batch.written(self._producer, deadline)
        except (KafkaException, KafkaError) as error:
            raise append_failed(self._connection, _exception(error), sent=batch.sent, asked=len(placed)) from error

    def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            _purge(producer)


class _Transactions(Transactions):
    def __init__(
        self, connection: Connection, transactional_id: str, topics: Collection[str] = (), *, cured: bool = True
    ) -> None:
        del topics  # it fetches the metadata of all at once
        super().__init__()
        self._connection = connection
        self._transactional_id = transactional_id
        self._cured = cured
        deadline = time.monotonic() + connection.timeouts.transaction_ms / 1000
        for _ in range(CLAIM_ATTEMPTS):
            self._heard = _Heard()
            self._producer: Any = None
            try:
                self._producer = self._claimed(deadline)
            except (KafkaException, KafkaError) as error:
                raise connection.translated(_exception(error), f"{transactional_id} cannot be taken over") from error
            if not self._lost_connection():
                break
            # What it says a second time it may keep to itself, so it would not be heard.
            _purge(self._producer)
        else:
            raise Unavailable(
                f"{transactional_id} cannot be taken over",
                cause=f"connections break: {self._heard.words}",
                hint="it may help to try again",
            )
        self._epoch = self._known_epoch()

    def _claimed(self, deadline: float) -> Any:
        timeouts = self._connection.timeouts
        refusals = _Refusals()
        producer = _producer(
            self._connection,
            self._heard,
            refusals,
            **{
                "transactional.id": self._transactional_id,
                "transaction.timeout.ms": timeouts.transaction_ms,
                # A commit ends the waiting, so this only keeps a large one from going out in crumbs.
                "linger.ms": 50,
            },
        )
        try:
            # In this order: what wants the coordinator before there is a connection is tried again half a second later.
            _until(producer, refusals, deadline, lambda left_s: producer.list_topics(timeout=left_s))
            _until(producer, refusals, deadline, producer.init_transactions)
            producer.poll(0)
        except BaseException:
            _purge(producer)
            raise
        return producer

    def _lost_connection(self) -> bool:
        return self._cured and bool(self._heard.words)

    def _known_epoch(self) -> int:
        """The library does not tell it; the coordinator does."""
        found = self._connection.ask(
            "the epoch of a shard is not known",
            lambda: self._connection.admin.describe_transactions([self._transactional_id]),
        )[self._transactional_id]
        return epoch_of(int(found.producer_id), int(found.producer_epoch))

    @property
    def epoch(self) -> int:
        return self._epoch

    def _commit(self, records: Sequence[Placed]) -> list[int]:
        producer = self._producer
        batch = _Batch()
        deadline = time.monotonic() + self._connection.timeouts.transaction_ms / 1000
        try:
            producer.poll(0)
            if self._lost_connection():
                raise Unavailable(
                    "a commit was not begun",
                    cause=f"a connection broke: {self._heard.words}",
                    hint="recover from the log",
                )
            producer.begin_transaction()
            batch.send(producer, records, deadline)
        except (KafkaException, KafkaError) as error:
            raise self._failed(error, batch, decided=False) from error
        for place in ("kafka.commit.sending", "kafka.commit.sent", "kafka.commit.ending"):
            hit(place)
        try:
            # It waits until all is written, with no lingering, and asks for the end only then: a record that was not
            # written fails it.
            producer.commit_transaction(max(1.0, deadline - time.monotonic()))
            producer.poll(0)
        except (KafkaException, SystemError) as error:  # SystemError: a fatal one that came in a callback
            raise self._failed(error, batch, decided=batch.is_written) from error
        if not batch.is_written:
            raise self._failed(KafkaError("a record was not confirmed"), batch, decided=True)
        if self._lost_connection():
            raise Unknown(
                "a connection broke in a commit, so its end may have been sent twice",
                cause=self._heard.words,
                hint="recover from the log",
            )
        return batch.offsets()

    def _failed(self, error: BaseException, batch: _Batch, *, decided: bool) -> StocktradeError:
        return commit_failed(self._connection, _exception(error), batch.errors, decided=decided)

    def _discard(self) -> None:
        producer, self._producer = self._producer, None
        _purge(producer)
