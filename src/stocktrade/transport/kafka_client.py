"""The connection to a Kafka cluster: how its clients are configured, made and thrown away, and what errors mean.

Owns every option that matters (none is left to a default of the client library), the check that a broker can be
reached before a client is made, and the translation of the library's exceptions into those of the port.

Invariant: nothing waits without a limit, a client that could not be made leaves no thread behind, and no message
of an error carries a secret.
"""

import logging
import os
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient

from stocktrade.domain.values import visible
from stocktrade.errors import StocktradeError, Unavailable, UsageError

_T = TypeVar("_T")

PROBE_TIMEOUT_S: Final = 2.0
BOOTSTRAP_TIMEOUT_MS: Final = 3_500
"""With the probes of the addresses before and after it, an answer comes within 6 s."""

SOCKET_OPTIONS: Final = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
]
FETCH_MAX_WAIT_MS: Final = 20
"""How long a broker holds a fetch that finds nothing. While one partition has records, the others wait for this."""

FETCH_MAX_WAIT_SINGLE_MS: Final = 500
"""The same for a reader of one partition, which keeps nobody waiting: a quiet one costs next to nothing."""

RETRY_BACKOFF_MS: Final = 5
MAX_REQUEST_BYTES: Final = 1024 * 1024
_RECONNECT: Final = {"reconnect_backoff_ms": 50, "reconnect_backoff_max_ms": 1_000}
_CONNECT: Final = {
    # Not among the options of the public classes: only the net client takes them.
    "socket_connection_setup_timeout_ms": 3_000,
    "socket_connection_setup_timeout_max_ms": 5_000,
}

_FENCED: Final = (
    kafka_errors.ProducerFencedError,
    kafka_errors.InvalidProducerEpochError,
    # A coordinator that ended the transaction itself: its time was over, or somebody else's claim ended it.
    kafka_errors.InvalidTxnStateError,
)


class Timeouts(NamedTuple):
    """The times that must stand in one order: request < delivery < transaction."""

    request_ms: int = 10_000
    delivery_ms: int = 12_000
    transaction_ms: int = 15_000
    session_ms: int = 6_000  # the least that brokers allow unless they are told otherwise
    max_poll_interval_ms: int = 60_000


class Settings(NamedTuple):
    """What a user may set about the connection, in the client library's words."""

    client: dict[str, Any]
    timeouts: Timeouts


# Kafka's own name of an option -> the library's. The rest of what is known is handled by name below.
_PLAIN_SETTINGS: Final = {
    "security.protocol": "security_protocol",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
    "sasl.kerberos.service.name": "sasl_kerberos_service_name",
}
_SSL_SETTINGS: Final = (
    "ssl.truststore.location",
    "ssl.keystore.location",
    "ssl.key.password",
    "ssl.endpoint.identification.algorithm",
)
_TIME_SETTINGS: Final = {
    "request.timeout.ms": "request_ms",
    "delivery.timeout.ms": "delivery_ms",
    "transaction.timeout.ms": "transaction_ms",
    "session.timeout.ms": "session_ms",
    "max.poll.interval.ms": "max_poll_interval_ms",
}
_JAAS: Final = re.compile(r'(username|password)\s*=\s*"((?:[^"\\]|\\.)*)"')


def read_settings(settings: Mapping[str, str]) -> Settings:
    """Kafka's options (`security.protocol` …) in the words of the client library.

    Raises:
        UsageError: an option is not known, or its value is none.
    """
    client: dict[str, Any] = {}
    times: dict[str, int] = {}
    tls: dict[str, str] = {}
    for name, value in settings.items():
        if name in _PLAIN_SETTINGS:
            client[_PLAIN_SETTINGS[name]] = value
        elif name in _TIME_SETTINGS:
            if not value.isascii() or not value.isdigit() or not 0 < int(value) <= 900_000:
                raise UsageError(f"{name} is not a number of milliseconds from 1 to 900000")
            times[_TIME_SETTINGS[name]] = int(value)
        elif name in _SSL_SETTINGS:
            tls[name] = value
        elif name == "sasl.jaas.config":
            found = {key: re.sub(r"\\(.)", r"\1", text) for key, text in _JAAS.findall(value)}
            client |= {f"sasl_plain_{key}": text for key, text in found.items()}
        else:
            known = sorted([*_PLAIN_SETTINGS, *_TIME_SETTINGS, *_SSL_SETTINGS, "sasl.jaas.config"])
            raise UsageError(
                f"unknown option of Kafka {visible(name, 80)!r}", hint=f"these are known: {', '.join(known)}"
            )
    protocol = client.get("security_protocol", "PLAINTEXT")
    if protocol not in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"):
        raise UsageError(
            f"security.protocol {visible(protocol, 40)!r} is none",
            hint="use PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL",
        )
    if protocol.endswith("SSL"):
        client["ssl_context"] = _ssl_context(tls)
        client["ssl_check_hostname"] = tls.get("ssl.endpoint.identification.algorithm") != ""
    timeouts = Timeouts(**times)
    if not timeouts.request_ms < timeouts.delivery_ms < timeouts.transaction_ms:
        raise UsageError(
            "the timeouts must rise: request.timeout.ms < delivery.timeout.ms < transaction.timeout.ms",
            cause=f"they are {timeouts.request_ms}, {timeouts.delivery_ms}, {timeouts.transaction_ms}",
        )
    return Settings(client, timeouts)


def _ssl_context(tls: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.get("ssl.truststore.location"))
        if keystore := tls.get("ssl.keystore.location"):
            context.load_cert_chain(keystore, password=tls.get("ssl.key.password"))
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            "the certificates of the connection cannot be loaded",
            cause=visible(str(error), 200),
            hint="ssl.truststore.location and ssl.keystore.location name files in PEM format",
        ) from error
    context.check_hostname = tls.get("ssl.endpoint.identification.algorithm") != ""
    return context


class _Heard(logging.Handler):
    """Keeps what the client library logged last: some of its errors say their cause only there."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.words: deque[str] = deque(maxlen=20)

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(Exception):
            self.words.append(record.getMessage())


_heard = _Heard()


def silence_library() -> None:
    """Keep the client library's log off the terminal: it reports each attempt to reconnect as an error."""
    logger = logging.getLogger("kafka")
    if _heard not in logger.handlers:
        logger.addHandler(_heard)
        logger.setLevel(logging.WARNING)
        logger.propagate = False


def _refused_credentials() -> str:
    """What a broker said about the credentials, if it refused them."""
    for words in reversed(_heard.words):
        if "authentication" in words.lower() or "sasl" in words.lower() or "certificate" in words.lower():
            return words
    return ""


class NetClient(KafkaNetClient):  # type: ignore[misc]  # the library has no types
    """The library's net client, cured of a hang and of a leak.

    The library's producer drops a transactional request, and waits for ever for its answer, when the coordinator's
    connection is not ready and `await_ready` says so by an exception; told so by False, it tries again.
    A socket that could not be connected is left to the garbage collector, once a second while a broker is away.
    """

    def __init__(self, **configs: Any) -> None:
        super().__init__(**{**configs, **_CONNECT})
        connect = self._manager._build_transport  # noqa: SLF001 - nothing public lies between

        async def connect_or_close(*args: Any, **options: Any) -> Any:
            try:
                return await connect(*args, **options)
            except Exception as error:
                _close_sockets(error)
                raise

        self._manager._build_transport = connect_or_close  # noqa: SLF001

    def await_ready(self, node_id: Any, timeout_ms: float = 30_000) -> bool:
        """Whether the node can be talked to, after waiting for it."""
        try:
            return bool(super().await_ready(node_id, timeout_ms))
        except KafkaError:
            time.sleep(0.02)  # the caller tries again at once
            return False


def _close_sockets(error: BaseException) -> None:
    """Close the sockets that the functions held through which an exception passed."""
    trace = error.__traceback__
    while trace is not None:
        held = trace.tb_frame.f_locals.get("sock")
        if isinstance(held, socket.socket):
            held.close()
        trace = trace.tb_next


class Connection:
    """What all clients of one log share: addresses, options, and one client for questions.

    Questions (metadata, offsets, groups) go over connections of their own: a broker answers the requests of one
    connection in turn, and a fetch that waits for records would hold them up.

    Args:
        servers: HOST:PORT, several with commas between them.
        settings: what the user set.

    Raises:
        Unavailable: no broker answers, or not at the address that it advertises.
    """

    def __init__(self, servers: str, settings: Settings) -> None:
        silence_library()
        self.servers = servers
        self.settings = settings
        self.timeouts = settings.timeouts
        _heard.words.clear()
        self.probe()
        self.admin: Any = self.make(KafkaAdminClient, retry_backoff_ms=RETRY_BACKOFF_MS * 4)
        self._looking: Any = None
        try:
            self._probe_advertised()
        except BaseException:
            self.close()
            raise

    # --- making clients ------------------------------------------------------------------------------------

    def make(self, client: type[Any], **options: Any) -> Any:
        """Make a client; when that fails, what it had begun is closed.

        Raises:
            Unavailable: no broker answers.
        """
        begun: list[NetClient] = []

        def net_client(**configs: Any) -> NetClient:
            begun.append(NetClient(**configs))
            return begun[-1]

        config: dict[str, Any] = {
            "bootstrap_servers": self.servers.split(","),
            "bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS,
            "client_id": f"stocktrade-{os.getpid()}",
            "request_timeout_ms": self.timeouts.request_ms,
            "connections_max_idle_ms": 540_000,
            "metadata_max_age_ms": 60_000,
            "retry_backoff_ms": RETRY_BACKOFF_MS,
            "socket_options": SOCKET_OPTIONS,
            "kafka_client": net_client,
            **_RECONNECT,
            **self.settings.client,
            **options,
        }
        try:
            return client(**config)
        except (KafkaError, OSError, ValueError, AssertionError) as error:
            for each in begun:
                with suppress(Exception):
                    each.close()
            raise self.translated(error, "no broker answers") from error

    def make_consumer(self, **options: Any) -> Any:
        """A consumer of committed records only, whose offsets are ours to keep."""
        return self.make(
            KafkaConsumer,
            **{
                "isolation_level": "read_committed",
                "enable_auto_commit": False,
                # Another word would raise before one can seek; where a reader stands is compared by ourselves.
                "auto_offset_reset": "earliest",
                "allow_auto_create_topics": False,
                "check_crcs": True,
                "fetch_min_bytes": 1,
                "fetch_max_wait_ms": FETCH_MAX_WAIT_MS,
                "max_partition_fetch_bytes": MAX_REQUEST_BYTES,
                "metrics_enabled": False,
                **options,
            },
        )

    def make_producer(self, **options: Any) -> Any:
        """An idempotent producer; with `transactional_id` a transactional one."""
        return self.make(
            KafkaProducer,
            **{
                "acks": "all",
                "enable_idempotence": True,
                "retries": 2**31 - 1,  # what ends the retries is the delivery timeout
                "max_in_flight_requests_per_connection": 5,
                "linger_ms": 0,
                # One batch is in flight per partition, so it had better be a large one.
                "batch_size": 256 * 1024,
                "max_request_size": MAX_REQUEST_BYTES,
                "max_block_ms": self.timeouts.delivery_ms,
                "delivery_timeout_ms": self.timeouts.delivery_ms,
                "allow_auto_create_topics": False,
                "metrics_enabled": False,
                **options,
            },
        )

    # --- questions -----------------------------------------------------------------------------------------

    def ask(self, what: str, question: Callable[[], _T], *, within_s: float | None = None) -> _T:
        """The answer to a question that changes nothing, asked again while the cluster has no answer.

        Raises:
            Unavailable: there was none in time (by default the request timeout); `what` is what failed.
            UsageError: this user may not ask.
        """
        deadline = time.monotonic() + (self.timeouts.request_ms / 1000 if within_s is None else within_s)
        while True:
            try:
                return question()
            except (KafkaError, OSError) as error:
                missing = isinstance(error, kafka_errors.UnknownTopicOrPartitionError)
                retry = isinstance(error, (kafka_errors.RetriableError, kafka_errors.UnknownBrokerIdError, OSError))
                if not retry or missing or time.monotonic() >= deadline:
                    raise self.translated(error, what) from error
            time.sleep(0.02)

    def prepare_looks(self) -> None:
        """Make the client of `stable_ends`, which takes long when the brokers are away."""
        if self._looking is None:
            self._looking = self.make_consumer(group_id=None)

    def stable_ends(self, partitions: Collection[TopicPartition], *, within_s: float) -> dict[TopicPartition, int]:
        """The last stable offset of each partition: what a reader of committed records can reach now.

        Raises:
            Unavailable: no answer within the time.
        """
        self.prepare_looks()
        # The library's method needs a list, and raises when it has not all answers in time.
        ends = self.ask(
            "the ends of the partitions are not known",
            lambda: self._looking.end_offsets(list(partitions), timeout_ms=int(within_s * 1000)),
            within_s=within_s,
        )
        return {partition: ends[partition] for partition in partitions}

    def written_ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The high watermark of each partition: what is written, in open transactions too."""
        found = self.ask(
            "the ends of the partitions are not known",
            lambda: self.admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST)),
        )
        return {partition: found[partition].offset for partition in partitions}

    def settle(
        self, partitions: Collection[TopicPartition], patience_s: float
    ) -> dict[TopicPartition, tuple[int, int]]:
        """Wait until no transaction is open on what is written now; the (stable, written) ends of those that stay."""
        if not partitions:
            return {}
        written = self.written_ends(partitions)
        deadline = time.monotonic() + patience_s
        pause_s = 0.001
        while True:
            stable = self.stable_ends(partitions, within_s=self.timeouts.request_ms / 1000)
            held = {at: (stable[at], end) for at, end in written.items() if stable[at] < end}
            if not held or time.monotonic() >= deadline:
                return held
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.05)

    # --- errors --------------------------------------------------------------------------------------------

    def probe(self) -> None:
        """Look whether anybody listens at one of the addresses given.

        Raises:
            Unavailable: nobody does.
        """
        reasons = []
        for server in self.servers.split(","):
            host, _, port = server.rpartition(":")
            if (reason := _cannot_connect(host.strip("[]"), int(port))) is None:
                return
            reasons.append(f"{server}: {reason}")
        raise Unavailable(
            f"no broker listens at {self.servers}",
            cause="; ".join(reasons[:5]),
            hint="start the broker, or correct --bootstrap-server / STOCKTRADE_BOOTSTRAP_SERVERS",
        )

    def _probe_advertised(self) -> None:
        # What it learned when it connected: to ask anew would need the addresses that are in question.
        brokers = self.admin._manager.cluster.brokers()  # noqa: SLF001
        advertised = [(broker.host, broker.port) for broker in brokers]
        reasons = []
        for host, port in advertised:
            if (reason := _cannot_connect(host, port)) is None:
                return
            reasons.append(f"{host}:{port}: {reason}")
        raise Unavailable(
            f"the broker at {self.servers} answers, but not at the address that it advertises",
            cause="; ".join(visible(reason, 200) for reason in reasons[:5]) or "it advertises none",
            hint="set advertised.listeners of the broker to an address that this machine can reach",
        )

    def translated(self, error: BaseException, what: str) -> StocktradeError:
        """An exception of the client library in the words of the port, for something that changed nothing."""
        if isinstance(error, StocktradeError):
            return error
        cause = visible(f"{type(error).__name__}: {error}", 300)
        if isinstance(error, kafka_errors.AuthorizationError):
            return UsageError(
                f"{what}: this user has not the right",
                cause=cause,
                hint="ask for the rights, or connect as another",
            )
        if isinstance(error, kafka_errors.SaslAuthenticationFailedError) or (
            isinstance(error, kafka_errors.KafkaTimeoutError) and (cause := _refused_credentials() or cause) != cause
        ):
            return UsageError(
                f"{self.servers} refuses the credentials",
                cause=visible(cause, 300),
                hint="check security.protocol, sasl.mechanism, the user's name and the password",
            )
        if isinstance(error, (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)):
            return UsageError(what, cause=cause, hint="send smaller records")
        if isinstance(error, kafka_errors.UnknownTopicOrPartitionError):
            return UsageError(what, cause=cause, hint="create the topics: stocktrade topics create")
        return Unavailable(f"{what} ({self.servers})", cause=cause, hint="it may help to try again")

    def close(self) -> None:
        """Close the clients for questions. Safe to call twice."""
        looking, self._looking = self._looking, None
        for client in (looking, self.admin):
            if client is not None:
                with suppress(Exception):
                    client.close()


def _cannot_connect(host: str, port: int) -> str | None:
    """Why nothing can be reached at an address; None when something can."""
    try:
        socket.create_connection((host, port), timeout=PROBE_TIMEOUT_S).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def is_fencing(errors: Iterable[BaseException | None]) -> bool:
    """Whether one of the errors says that a newer owner has the transactional id."""
    return any(isinstance(error, _FENCED) for error in errors)


def discard_producer(producer: Any, *, patience_s: float = 2.0) -> None:
    """Throw a producer away at once, whatever it has pending.

    Its own `close` waits for pending records, raises and leaves its thread running.
    """
    sender = producer._sender  # noqa: SLF001 - there is no public way to end it
    sender.force_close()
    sender.join(patience_s)
    with suppress(Exception):
        producer.close(timeout=0)
    producer._closed = True  # noqa: SLF001 - or its __del__ would wait for what is pending
