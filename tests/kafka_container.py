"""Real Kafka brokers for tests: one KRaft node in a container of `apache/kafka`, or an image like it; or three.

Owns the brokers' life: create, stop, kill, pause and bring back. Invariant: once a broker has started,
`bootstrap_servers` never changes, so that clients find it again after each of these.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from docker.errors import APIError  # type: ignore[import-untyped, unused-ignore]
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

IMAGE_VARIABLE = "STOCKTRADE_TEST_KAFKA_IMAGE"
DEFAULT_IMAGE = "apache/kafka:4.2.2"
HOST = "127.0.0.1"

# Below the range from which systems pick the ports of outgoing connections: while the broker is down, a
# client that keeps trying could otherwise be given the broker's own port, connect to itself and keep it out.
PORTS = range(20_000, 32_000)

# For brokers that live for a minute: what would make them fast later makes them slow to start, by nearly half of the
# processor's time. Not for measuring.
QUICK_START = {"KAFKA_JVM_PERFORMANCE_OPTS": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"}

READY_WITHIN_S = 60.0
STOP_WITHIN_S = 30
_PORT_TRIES = 3


class KafkaContainer(DockerContainer):
    """One broker, reached at `bootstrap_servers`; topics are made by hand, never by being named.

    `start` creates it and `stop` removes it, as everywhere in testcontainers; `stop_broker` and the others
    leave the container and its data in place. Whatever starts the broker returns once it answers.

    Args:
        image: The image; by default the one named by STOCKTRADE_TEST_KAFKA_IMAGE, or else apache/kafka.
        transaction_cleanup_interval_ms: How often the broker looks for transactions past their time-out;
            short, so that what a dead producer left open does not hold up readers for Kafka's own 10 s more.
        env: KAFKA_* variables that replace or add to the ones set here.
        ready_within_s: How long a start may take before it fails.
        on_host: Listen on this machine itself, without Docker's proxy, which takes a quarter of a core when many
            small requests go through it: for measuring.
    """

    def __init__(
        self,
        image: str | None = None,
        *,
        transaction_cleanup_interval_ms: int = 1_000,
        env: Mapping[str, str] | None = None,
        ready_within_s: float = READY_WITHIN_S,
        on_host: bool = False,
    ) -> None:
        super().__init__(image or os.environ.get(IMAGE_VARIABLE) or DEFAULT_IMAGE, env=dict(env or {}))
        self._transaction_cleanup_interval_ms = transaction_cleanup_interval_ms
        self._ready_within_s = ready_within_s
        self._on_host = on_host
        self._port = free_port()
        if on_host:
            self.with_kwargs(network_mode="host")

    @property
    def bootstrap_servers(self) -> str:
        """HOST:PORT of the broker, while it runs and while it is down."""
        return f"{HOST}:{self._port}"

    def start(self) -> Self:
        """Create the container and wait until the broker answers; leave nothing behind on failure."""
        asked = dict(self.env)
        for tries_left in reversed(range(_PORT_TRIES)):
            self.env = self._broker_env() | asked
            if not self._on_host:
                self.ports = {f"{self._port}/tcp": (HOST, self._port)}  # type: ignore[dict-item]
            try:
                super().start()
                self._wait_until_ready()
            except APIError as error:
                if self._container is None:
                    raise RuntimeError(
                        f"no container could be made of image {self.image}: {error}. If it is neither here "
                        "nor to be pulled, build one with 'python tests/kafka_image.py' and name it in "
                        f"{IMAGE_VARIABLE}."
                    ) from error
                self._discard()
                # Another process may take the port between our look and the start.
                if not tries_left or not _says_port_taken(error):
                    raise
                self._port = free_port()
            except BaseException:
                self._discard()
                raise
            else:
                break
        return self

    def stop_broker(self, within_s: int = STOP_WITHIN_S) -> None:
        """Shut the broker down cleanly (SIGTERM); its data stays."""
        self.get_wrapped_container().stop(timeout=within_s)

    def start_broker(self) -> None:
        """Bring a stopped or killed broker back at the same address, and wait until it answers."""
        self.get_wrapped_container().start()
        self._wait_until_ready()

    def kill_broker(self) -> None:
        """End the broker without a word (SIGKILL); what it had handed to the kernel stays, synced or not."""
        container = self.get_wrapped_container()
        container.kill()
        container.wait(timeout=STOP_WITHIN_S)

    def pause_broker(self) -> None:
        """Freeze the broker: its connections stay open and nothing answers."""
        self.get_wrapped_container().pause()

    def unpause_broker(self) -> None:
        """Let a frozen broker go on, and wait until it answers.

        After a freeze longer than its session the broker may go out of service once more for a moment;
        clients retry.
        """
        self.get_wrapped_container().unpause()
        self._wait_until_ready()

    def _broker_env(self) -> dict[str, str]:
        # One port number inside and outside, so that the one advertised address is right for clients and for
        # the broker's own connections to itself, by which it ends transactions.
        port = self._port
        # Inside a container all of its network is ours; on the machine others may have the usual port.
        address, controller = (HOST, free_port()) if self._on_host else ("0.0.0.0", 9093)
        return {
            "CLUSTER_ID": "c3RvY2t0cmFkZS10ZXN0cw",
            "KAFKA_NODE_ID": "1",
            "KAFKA_PROCESS_ROLES": "broker,controller",
            "KAFKA_LISTENERS": f"PLAINTEXT://{address}:{port},CONTROLLER://127.0.0.1:{controller}",
            "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{HOST}:{port}",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "KAFKA_INTER_BROKER_LISTENER_NAME": "PLAINTEXT",
            "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": f"1@127.0.0.1:{controller}",
            "KAFKA_LOG_DIRS": "/var/lib/kafka/data",
            "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
            "KAFKA_DEFAULT_REPLICATION_FACTOR": "1",
            "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
            "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
            "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
            "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": "1",
            # Instead of 50 each: every partition is opened again, and after a kill recovered, at each start.
            "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
            "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS": "4",
            # A killed broker is let back in only when the session of its former life is over: 9 s if unset.
            "KAFKA_BROKER_SESSION_TIMEOUT_MS": "3000",
            "KAFKA_BROKER_HEARTBEAT_INTERVAL_MS": "500",
            "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
            "KAFKA_TRANSACTION_ABORT_TIMED_OUT_TRANSACTION_CLEANUP_INTERVAL_MS": str(
                self._transaction_cleanup_interval_ms
            ),
        }

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self._ready_within_s
        container = self.get_wrapped_container()
        while not broker_answers(HOST, self._port):
            container.reload()
            if container.status != "running":
                raise RuntimeError(f"the broker ended while starting; its last words:\n{self._last_words()}")
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"no broker answers at {self.bootstrap_servers} within {self._ready_within_s:g} s; "
                    f"its last words:\n{self._last_words()}"
                )
            time.sleep(0.05)

    def _last_words(self) -> str:
        words: bytes = self.get_wrapped_container().logs(tail=30)
        return words.decode(errors="replace")

    def _discard(self) -> None:
        if self._container is not None:
            self._container.remove(force=True, v=True)
            self._container = None


class KafkaCluster:
    """Three brokers, each a controller, too: topics have three copies, and a write counts when two have it.

    They talk to each other on a network of their own. `start` begins and `stop` removes all of it.

    Args:
        env: KAFKA_* variables of every broker, beside the ones set here.
    """

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self._network = Network()
        self.brokers = {number: _Member(number, self._network, env or {}) for number in (1, 2, 3)}

    @property
    def bootstrap_servers(self) -> str:
        """HOST:PORT of each broker, with commas between them."""
        return ",".join(broker.bootstrap_servers for broker in self.brokers.values())

    def start(self) -> Self:
        """Start the brokers, which wait for each other; leave nothing behind on failure."""
        self._network.create()
        try:
            with ThreadPoolExecutor() as pool:
                for started in [pool.submit(broker.start) for broker in self.brokers.values()]:
                    started.result()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Remove the brokers and their network."""
        for broker in self.brokers.values():
            broker.stop()
        self._network.remove()


class _Member(KafkaContainer):
    """One broker of a cluster."""

    def __init__(self, number: int, network: Network, env: Mapping[str, str]) -> None:
        super().__init__(env={**QUICK_START, **env})
        self._number = number
        self.with_network(network)
        self.with_network_aliases(f"kafka-{number}")

    def _broker_env(self) -> dict[str, str]:
        copies = ("OFFSETS_TOPIC", "TRANSACTION_STATE_LOG", "SHARE_COORDINATOR_STATE_TOPIC")
        return {
            **super()._broker_env(),
            **{f"KAFKA_{topic}_REPLICATION_FACTOR": "3" for topic in copies},
            **{f"KAFKA_{topic}_MIN_ISR": "2" for topic in copies[1:]},
            "KAFKA_DEFAULT_REPLICATION_FACTOR": "3",
            "KAFKA_NODE_ID": str(self._number),
            "KAFKA_LISTENERS": f"PLAINTEXT://0.0.0.0:{self._port},INTERNAL://0.0.0.0:9092,CONTROLLER://0.0.0.0:9093",
            "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{HOST}:{self._port},INTERNAL://kafka-{self._number}:9092",
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "KAFKA_INTER_BROKER_LISTENER_NAME": "INTERNAL",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": ",".join(f"{n}@kafka-{n}:9093" for n in (1, 2, 3)),
        }


def broker_answers(host: str, port: int, timeout_s: float = 1.0) -> bool:
    """Tell whether a broker answers a Metadata request and counts itself as able to serve.

    A connection alone proves nothing: Docker's own proxy accepts it before the broker listens.
    """
    # Metadata, version 1, no client id, no topics.
    request = struct.pack(">hhihi", 3, 1, 1, -1, 0)
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as answer:
                header = answer.read(12)
    except OSError:
        return False
    if len(header) < 12:
        return False
    # Size, the number of our request, then the brokers: a broker that is not ready for clients is not listed.
    _, correlation, brokers = struct.unpack(">iii", header)
    return bool(correlation == 1 and brokers > 0)


def free_port() -> int:
    """Return a port of PORTS that nobody listens on now."""
    for port in random.sample(PORTS, 100):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # As Docker binds it: connections that are only fading out do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port found between {PORTS.start} and {PORTS.stop}")


def _says_port_taken(error: APIError) -> bool:
    text = str(error).lower()
    return "port is already allocated" in text or "address already in use" in text
