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
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final, NamedTuple, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import create_connection
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

from stocktrade.domain.values import visible
from stocktrade.errors import Fenced, StocktradeError, Unavailable, Unknown, UsageError
from stocktrade.transport.kafka_options import Settings

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

GROUP_EVERY_S: Final = 0.05
"""How often a member of a group that is in it, and reads, looks whether it still is."""

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


def silence_library() -> None:
    """Keep the client library's log off the terminal: it reports each attempt to reconnect as an error."""
    logger = logging.getLogger("kafka")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
        logger.setLevel(logging.CRITICAL)
        logger.propagate = False


_WHICH_SERVERS: Final = "correct --bootstrap-server or STOCKTRADE_BOOTSTRAP_SERVERS"
_EXPIRED: Final = 10
_OTHER_NAME: Final = (62, 63, 64)
"""OpenSSL's numbers of what can be wrong with a certificate."""


class Failure(NamedTuple):
    """Why a connection ended: to whom it was, whether it had been complete, and the library's exception."""

    server: str
    was_up: bool
    error: BaseException


class NetClient(KafkaNetClient):  # type: ignore[misc]  # the library has no types
    """The library's net client, cured of two hangs, of two leaks, and of its deafness.

    * The library's producer drops a transactional request, and waits for ever for its answer, when the coordinator's
      connection is not ready and `await_ready` says so by an exception; told so by False, it tries again.
    * It waits for ever for the answer to a TLS handshake.
    * A socket that could not be connected, or has something to send, is left to the garbage collector.
    * It drops what a broker says right before it hangs up, and only logs why a connection ended; here that is kept in
      `failure`. While it looks for its first broker it tries a refused password again and again; here a decisive
      failure ends the search.
    """

    def __init__(self, **configs: Any) -> None:
        super().__init__(**{**configs, **_CONNECT})
        self.failure: Failure | None = None
        self._open: list[_Ending] = []
        manager = self._manager
        # Nothing public lies between.
        connect = manager._connect  # noqa: SLF001

        async def build(node: Any, timeout_at: float | None = None) -> Any:
            transport = await _transport(manager, node, timeout_at)
            self._open = [each for each in self._open if each.is_open] + [transport]
            return transport

        async def connect_and_watch(node: Any, connection: Any, **options: Any) -> None:
            def note(error: BaseException) -> None:
                # What the end of the search cuts short says nothing; an attempt before it may have.
                cut_short = isinstance(error, kafka_errors.RequestTimedOutError) or "timed out" in str(error)
                if self.failure is not None and cut_short:
                    return
                self.failure = Failure(f"{node.host}:{node.port}", connection.init_future.succeeded(), error)

            connection.close_future.add_errback(note)
            await connect(node, connection, **options)
            error = connection.init_future.exception
            if error is not None and _is_decisive(error) and not manager.cluster.brokers():
                # The library means to do this by itself, but does not see the error. Later it would be for ever.
                manager._auth_failures[node.node_id] = error  # noqa: SLF001

        manager._build_transport, manager._connect = build, connect_and_watch  # noqa: SLF001

    def close(self, node_id: Any = None) -> None:
        """Close the connection to a node, or all of them and the client."""
        super().close(node_id)
        if node_id is None:
            for transport in self._open:
                transport.drop()

    def await_ready(self, node_id: Any, timeout_ms: float = 30_000) -> bool:
        """Whether the node can be talked to, after waiting for it."""
        try:
            return bool(super().await_ready(node_id, timeout_ms))
        except KafkaError:
            time.sleep(0.02)  # the caller tries again at once
            return False


class _Ending:
    """Ends a connection as the library does not: with what came right before its end, and always.

    A broker that refuses a password says so and hangs up; the library drops what it said. What is still to be sent
    when the client is closed keeps its socket open.
    """

    _sock: Any

    @property
    def is_open(self) -> bool:
        return self._sock is not None

    def drop(self) -> None:
        if self._sock is not None:
            self._sock.close()

    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        received, error = super()._sock_recv()  # type: ignore[misc]  # of the library's class beside it
        return received, None if received else error


class _TcpTransport(_Ending, KafkaTCPTransport):  # type: ignore[misc]  # the library has no types
    """The library's connection without TLS."""


class _TlsTransport(_Ending, KafkaSSLTransport):  # type: ignore[misc]  # the library has no types
    """The library's connection by TLS, whose handshake ends in time."""

    async def shake_hands(self, timeout_at: float | None) -> None:
        while True:
            try:
                self._sock.do_handshake()
            except ssl.SSLWantReadError:
                await self._net.wait_read(self._sock, timeout_at=timeout_at)
            except ssl.SSLWantWriteError:
                await self._net.wait_write(self._sock, timeout_at=timeout_at)
            else:
                return


async def _transport(manager: Any, node: Any, timeout_at: float | None) -> _Ending:
    """A connection, as the library's own function makes it."""
    config, net = manager.config, manager._net  # noqa: SLF001
    try:
        sock = await create_connection(net, node.host, node.port, config["socket_options"], timeout_at=timeout_at)
    except BaseException as error:
        _close_sockets(error)
        raise
    if not manager.ssl_enabled:
        return _TcpTransport(net, sock, host=node.host)
    transport = _TlsTransport(net, sock, host=node.host, ssl_context=config["ssl_context"])
    try:
        await transport.shake_hands(timeout_at)
    except BaseException as error:  # also when the client is closed meanwhile
        transport.abort(error)
        if isinstance(error, Exception):
            raise kafka_errors.KafkaConnectionError(f"no TLS: {error}") from error
        raise
    return transport


def _reason(error: BaseException) -> BaseException:
    """What is behind an exception of the library, where that says more."""
    behind = error.__cause__ or (error.args[0] if error.args else None)
    return behind if isinstance(error, kafka_errors.KafkaConnectionError) and isinstance(behind, OSError) else error


def _words(error: BaseException) -> str:
    """An exception's message, without numbers and names of classes."""
    for words in (getattr(error, "verify_message", None), getattr(error, "strerror", None), *error.args):
        if isinstance(words, str) and words:
            return re.sub(r" \(_ssl\.c:\d+\)$", "", words)
    return str(error)


def _is_decisive(error: BaseException) -> bool:
    """Whether a second attempt would end in the same way."""
    reason = _reason(error)
    if isinstance(reason, ssl.SSLError):
        return isinstance(reason, ssl.SSLCertVerificationError) or "ALERT" in (reason.reason or "")
    return isinstance(
        reason,
        (
            kafka_errors.SaslAuthenticationFailedError,
            kafka_errors.UnsupportedSaslMechanismError,
            kafka_errors.IllegalSaslStateError,
            kafka_errors.InvalidReceiveError,
        ),
    )


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
            failures = [each.failure for each in begun if each.failure is not None]
            for each in begun:
                with suppress(Exception):
                    each.close()
            no_connection = isinstance(error, (kafka_errors.KafkaTimeoutError, kafka_errors.KafkaConnectionError))
            if failures and (no_connection or _is_decisive(error)):
                raise self._refused(failures[-1]) from error
            raise self.translated(error, "no broker answers") from error

    def make_consumer(self, **options: Any) -> Any:
        """A consumer of committed records only, whose offsets are ours to keep."""
        consumer = self.make(
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
        _keep_joins(consumer)
        _spare_coordinator(consumer)
        return consumer

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
            # The library asks whoever was the coordinator of a group or a transactional id when it first needed one,
            # for ever; another broker is, once that one went away.
            self.admin._manager.cluster._coordinators.clear()  # noqa: SLF001 - nothing public forgets
            try:
                return question()
            except (KafkaError, OSError) as error:
                missing = isinstance(error, kafka_errors.UnknownTopicOrPartitionError)
                retry = isinstance(error, (kafka_errors.RetriableError, kafka_errors.UnknownBrokerIdError, OSError))
                if not retry or missing or time.monotonic() >= deadline:
                    raise self.translated(error, what) from error
            time.sleep(0.02)

    def brokers(self) -> int:
        """How many brokers the cluster has now."""
        return len(self.ask("the cluster does not describe itself", self.admin.describe_cluster)["brokers"])

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

        def look() -> Any:
            try:
                # The library's method needs a list.
                return self._looking.end_offsets(list(partitions), timeout_ms=int(within_s * 1000))
            except KeyError as error:  # it has not all answers, after a connection broke
                raise kafka_errors.KafkaConnectionError(f"no answer for {error}") from error

        ends = self.ask("the ends of the partitions are not known", look, within_s=within_s)
        return {partition: ends[partition] for partition in partitions}

    def written_ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The high watermark of each partition: what is written, in open transactions too."""
        return self._offsets(partitions, OffsetSpec.LATEST, "ends")

    def kept_from(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset of each partition that is kept."""
        return self._offsets(partitions, OffsetSpec.EARLIEST, "beginnings")

    def _offsets(self, partitions: Collection[TopicPartition], which: Any, name: str) -> dict[TopicPartition, int]:
        found = self.ask(
            f"the {name} of the partitions are not known",
            lambda: self.admin.list_partition_offsets(dict.fromkeys(partitions, which)),
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
            if (reason := _cannot_connect(*_host_and_port(server))) is None:
                return
            reasons.append(f"{server}: {reason}")
        raise Unavailable(
            f"no broker listens at {self.servers}",
            cause="; ".join(reasons[:5]),
            hint=f"start the broker, or {_WHICH_SERVERS}",
        )

    def addresses(self) -> list[str]:
        """The addresses of the brokers that are there, HOST:PORT each, as far as the cluster has told them."""
        return [f"{host}:{port}" for host, port in self._advertised()] or self.servers.split(",")

    def _advertised(self) -> list[tuple[str, int]]:
        # What it learned when it connected: to ask anew would need the addresses that are in question.
        brokers = self.admin._manager.cluster.brokers()  # noqa: SLF001
        return [(broker.host, broker.port) for broker in brokers]

    def _probe_advertised(self) -> None:
        reasons = []
        for host, port in self._advertised():
            if (reason := _cannot_connect(host, port)) is None:
                return
            reasons.append(f"{host}:{port}: {reason}")
        raise Unavailable(
            f"the broker at {self.servers} answers, but not at the address that it advertises",
            cause="; ".join(visible(reason, 200) for reason in reasons[:5]) or "it advertises none",
            hint="set advertised.listeners of the broker to an address that this machine can reach",
        )

    def exposures(self) -> list[str]:
        """What others on the network could do to this connection, a sentence each; none on this machine itself."""
        client = self.settings.client
        abroad = [server for server in self.servers.split(",") if not _is_this_machine(_host_and_port(server)[0])]
        if not abroad:
            return []
        protocol = client["security_protocol"]
        if not protocol.endswith("SSL"):
            what = "read the password and change orders" if protocol.startswith("SASL_") else "read and change orders"
            return [f"the connection to {abroad[0]} is not encrypted ({protocol}): others on its way can {what}"]
        if not client["ssl_context"].check_hostname:
            what = "anybody with a certificate of that authority can pretend to be the broker"
            return [
                f"who answers at {abroad[0]} is not checked (ssl.endpoint.identification.algorithm is empty): {what}"
            ]
        return []

    def _refused(self, failure: Failure) -> Unavailable:
        """Why somebody who listens cannot be talked to: whether it is a broker, and one that takes us."""
        server, protocol = failure.server, self.settings.client["security_protocol"]
        reason = _reason(failure.error)
        said = visible(_words(reason), 300)
        if isinstance(reason, kafka_errors.SaslAuthenticationFailedError):
            return Unavailable(
                f"{server} refuses the credentials",
                cause=said.removeprefix("SaslAuthenticationFailedError: "),
                hint="check sasl.mechanism, the user's name and the password in the file of --command-config",
            )
        if isinstance(reason, kafka_errors.UnsupportedSaslMechanismError):
            return Unavailable(
                f"{server} does not take SASL {self.settings.client['sasl_mechanism']}",
                cause="the broker has not enabled this mechanism",
                hint="set sasl.mechanism to one that it has",
            )
        if isinstance(reason, kafka_errors.IllegalSaslStateError):
            return Unavailable(
                f"{server} takes no password",
                cause=f"security.protocol is {protocol}, and this listener does without SASL",
                hint=f"set it to {protocol.removeprefix('SASL_')} without sasl options, or use another listener's port",
            )
        if isinstance(reason, ssl.SSLCertVerificationError):
            mend = "name the authority that signed it by ssl.truststore.location, a file in PEM format"
            if reason.verify_code == _EXPIRED:
                mend = "the broker needs a new one"
            elif reason.verify_code in _OTHER_NAME:
                mend = "use a name of the broker that stands in its certificate"
            return Unavailable(f"the certificate of {server} is not accepted", cause=said, hint=mend)
        if isinstance(reason, ssl.SSLError) and "ALERT" in (reason.reason or ""):
            return Unavailable(
                f"{server} does not accept our certificate",
                cause=visible(reason.reason, 100),
                hint="name a certificate that the broker trusts, with its key, by ssl.keystore.location, a PEM file",
            )
        if isinstance(reason, kafka_errors.InvalidReceiveError):
            # What should have been the length of an answer is its first four bytes.
            length = re.search(r"-?\d+", said)
            begin = (int(length[0]) % 2**32).to_bytes(4, "big") if length else b""
            if begin.startswith(b"\x15\x03"):
                return Unavailable(
                    f"{server} speaks TLS",
                    cause=f"security.protocol is {protocol}",
                    hint="set it to SSL, or to SASL_SSL where a password is needed",
                )
            return Unavailable(
                f"{server} is no Kafka broker", cause=f"its answer begins with {begin!r}", hint=_WHICH_SERVERS
            )
        if protocol.endswith("SSL") and not failure.was_up and isinstance(reason, (OSError, ConnectionError)):
            return Unavailable(
                f"{server} does not speak TLS",
                cause=f"security.protocol is {protocol}, and the handshake ended with: {said}",
                hint="set security.protocol to that of this listener, or use another listener's port",
            )
        if failure.was_up and not protocol.startswith("SASL_"):
            return Unavailable(
                f"{server} hangs up",
                cause=f"security.protocol is {protocol}, and a listener that wants a password does so",
                hint="set security.protocol to that of this listener: SASL_PLAINTEXT or SASL_SSL",
            )
        if "time" in said.lower():
            return Unavailable(
                f"{server} does not answer",
                cause=f"nothing came within {BOOTSTRAP_TIMEOUT_MS / 1000:.1f} s",
                hint=f"is it a Kafka broker, and its listener one for {protocol}? If so, it may help to try again",
            )
        return Unavailable(f"{server} cannot be talked to", cause=said, hint=_WHICH_SERVERS)

    def translated(self, error: BaseException, what: str) -> StocktradeError:
        """An exception of the client library in the words of the port, for something that changed nothing."""
        if isinstance(error, StocktradeError):
            return error
        cause = visible(f"{type(error).__name__}: {error}", 300)
        if is_forbidden(error):
            return UsageError(
                f"{what}: this user has not the right",
                cause=cause,
                hint="ask for the rights, or connect as another",
            )
        if _is_decisive(error):
            return self._refused(Failure(self.servers, was_up=False, error=error))
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


def _host_and_port(server: str) -> tuple[str, int]:
    host, _, port = server.rpartition(":")
    return host.strip("[]"), int(port)


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _cannot_connect(host: str, port: int) -> str | None:
    """Why nothing can be reached at an address; None when something can."""
    try:
        socket.create_connection((host, port), timeout=PROBE_TIMEOUT_S).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


class _Kept:
    """A join of a group that is done, and looks to the library like one that it still waits for."""

    is_done = False

    def __init__(self, join: Any) -> None:
        self._join = join
        self.add_callback = join.add_callback
        self.add_errback = join.add_errback

    def __await__(self) -> Any:
        return self._join.__await__()


def _keep_joins(consumer: Any) -> None:
    """Have a member of a group take what its joining brought, also when that came between two polls.

    The library throws it away and joins anew. Polls that do not wait, of a member that is busy, then never end a
    rebalance: the group goes from one to the next.
    """
    coordinator = consumer._coordinator  # noqa: SLF001 - nothing public lies between
    join_group = coordinator.join_group_async

    async def join_and_keep(timeout_ms: float | None = None) -> Any:
        join = coordinator._join_task  # noqa: SLF001
        # In any other state something has come to nothing meanwhile.
        if join is not None and join.is_done and join.succeeded() and coordinator.rebalance_in_progress():
            coordinator._join_task = _Kept(join)  # noqa: SLF001
        return await join_group(timeout_ms)

    coordinator.join_group_async = join_and_keep


def _spare_coordinator(consumer: Any) -> None:
    """Have a member of a group look after its membership now and then, not with each poll: heartbeats go by themselves.

    The library hands each look to another thread and waits for it, which takes as long as a small fetch.
    """
    coordinator = consumer._coordinator  # noqa: SLF001 - nothing public lies between
    poll, due = coordinator.poll, 0.0

    def poll_when_due(timeout_ms: float | None = None) -> Any:
        nonlocal due
        if time.monotonic() < due and coordinator.stable() and not coordinator.need_rejoin():
            return True
        polled = poll(timeout_ms=timeout_ms)
        due = time.monotonic() + GROUP_EVERY_S
        return polled

    coordinator.poll = poll_when_due


def is_fencing(errors: Iterable[BaseException | None]) -> bool:
    """Whether one of the errors says that a newer owner has the transactional id."""
    return any(isinstance(error, _FENCED) for error in errors)


def is_forbidden(error: BaseException) -> bool:
    """Whether a broker refused something for want of a right; it was not done then."""
    # Of its producer's first question the library keeps the answer in words only.
    return isinstance(error, kafka_errors.AuthorizationError) or "AuthorizationFailedError" in str(error)


def append_failed(connection: Connection, error: BaseException, *, sent: int, asked: int) -> StocktradeError:
    """What the failure of an append means.

    Args:
        connection: the cluster.
        error: what ended it.
        sent: how many records were handed over before it.
        asked: of how many.
    """
    # A single record that was refused was not written; of several, others may have been.
    if not sent or (asked == 1 and is_forbidden(error)):
        return connection.translated(error, "the records were not sent")
    return Unknown(
        f"{connection.servers} did not confirm what was sent",
        cause=visible(f"{type(error).__name__}: {error}", 300),
        hint="sending the same again is safe",
    )


def commit_failed(
    connection: Connection, error: BaseException, others: Iterable[BaseException | None], *, decided: bool
) -> StocktradeError:
    """What the failure of a commit means.

    Args:
        connection: the cluster.
        error: what ended it.
        others: whatever else the client knows: what ended it is not always what says why.
        decided: whether the brokers were asked to commit; otherwise nothing was written.
    """
    errors = [each for each in (error, *others) if each is not None]
    cause = "; ".join(dict.fromkeys(f"{type(each).__name__}: {each}" for each in errors))[:400]
    if is_fencing(errors):
        return Fenced(
            "this exchange no longer owns its shard",
            cause=f"the broker refuses its epoch: {cause}",
            hint="another owner took it over, or this one was stopped for longer than the transaction timeout",
        )
    if not decided:
        translated = connection.translated(error, "a commit failed; nothing was written")
        translated.cause = cause
        return translated
    return Unknown("the broker did not say whether a commit was written", cause=cause, hint="recover from the log")


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
