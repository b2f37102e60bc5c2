"""Faults of an exchange on Kafka: real `nse` processes on a real broker, under load, and an audit at the end.

Each fault is a function: it does one thing to the exchange or its broker and waits until the exchange is whole again.
Before and after it exactly one `nse` owns all shards. Invariant: nothing is waited for without a deadline, and what is
drawn by chance follows from a seed.
"""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from clients import Client
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from processes import PROGRAM, Commands, Process, until

from auditor import Finding, Report, Told, examine
from kafka_container import KafkaContainer
from stocktrade import settings
from stocktrade.transport import KAFKA_PYTHON, topics
from stocktrade.transport.kafka import KafkaLog

ROUNDS: Final = int(os.environ.get("STOCKTRADE_TEST_FAULT_ROUNDS", "1"))
"""So many rounds of all faults."""

SEED: Final = 885
SHARDS: Final = 4
CLIENTS: Final = 3
DEADLINE_S: Final = 60.0

TIMES: Final = {
    "request.timeout.ms": "2000",
    "delivery.timeout.ms": "2500",
    "transaction.timeout.ms": "4000",
    "session.timeout.ms": "2000",
}
"""Short, so that a dead exchange is missed soon; the rest of what the exchange is told is its default."""

REQUEST_TIMEOUT_S: Final = 2.0
TRANSACTION_TIMEOUT_S: Final = 4.0

BROKER: Final = {"KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000", "KAFKA_HEAP_OPTS": "-Xms128m -Xmx384m"}
"""What a broker must allow for that, and what suffices it."""

IN_A_COMMIT: Final = (
    "kafka.commit.sending",
    "kafka.commit.sent",
    "kafka.commit.ending",
    "owner.commit",
    "owner.committed",
)
WHEN_STARTING: Final = ("owner.claimed", "owner.recovered")


class Exchanges(Commands):
    """The `nse` processes on a cluster, and the clients that load them.

    Args:
        servers: the cluster.
        folder: where the processes speak.
        group: the group of the exchanges.
        client: what carries the records of the exchanges and of whoever sends orders.
        program: what is started as `stocktrade`.
        times: the timeouts of the exchanges.
        environment: more variables of the exchanges.
    """

    def __init__(
        self,
        servers: str,
        folder: Path,
        *,
        group: str,
        client: str = KAFKA_PYTHON,
        program: Sequence[str] = PROGRAM,
        times: Mapping[str, str] = TIMES,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder, program=program, environment={**(environment or {}), settings.CLIENT: client})
        self.servers = servers
        self._client = client
        self._group = group
        self._times = times
        self.clients = [Client(self.open, f"{group}-{n}", SEED, pause_s=0.05) for n in range(CLIENTS)]
        self._burster = Client(self.open, f"{group}-burst", SEED)

    def open(self) -> KafkaLog:
        """The log, for somebody who sends orders."""
        return KafkaLog(self.servers, settings=TIMES, client=self._client)

    def nse(self, *options: str, failpoints: str = "") -> Process:
        """Start an exchange."""
        properties = [word for name, value in self._times.items() for word in ("--command-property", f"{name}={value}")]
        command = ["nse", "-b", self.servers, "--group", self._group, "--json", *properties, *options]
        return self.start(*command, failpoints=failpoints)

    # --- the load ------------------------------------------------------------------------------------------

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """Have all clients place orders during the body, each of them from before it begins."""
        before = [len(client.told) for client in self.clients]
        with ExitStack() as stack:
            for client in self.clients:
                stack.enter_context(client.placing())

            def begun() -> bool:
                for client in self.clients:
                    client.check()
                return all(len(client.told) > n for client, n in zip(self.clients, before, strict=True))

            until(begun, what="load")
            yield

    def burst(self, count: int) -> None:
        """Put many orders on the log at once, so that a batch is being taken when the next thing happens."""
        with self.open() as log:
            self._burster.send(log, self._burster.orders(count))

    def told(self) -> list[Told]:
        """What all clients were told."""
        return [told for client in (*self.clients, self._burster) for told in client.told]

    # --- what the exchanges say ----------------------------------------------------------------------------

    def owned(self, exchange: Process) -> set[int]:
        """The shards that an exchange owns now, as it says."""
        if exchange.poll() is not None:
            return set()
        owned: set[int] = set()
        for said in self.events(exchange):
            if said["event"] == "owns":
                owned.add(said["shard"])
            elif said["event"] == "gave-up":
                owned.discard(said["shard"])
        return owned

    def wait_until_owned_by(self, *exchanges: Process, within_s: float = DEADLINE_S) -> None:
        """Wait until the exchanges own each shard once, and each of them some."""

        def shared() -> bool:
            for exchange in exchanges:
                assert exchange.poll() is None, self.said(exchange, "err")
            owned = [self.owned(exchange) for exchange in exchanges]
            return all(owned) and sorted(shard for each in owned for shard in each) == list(range(SHARDS))

        until(shared, within_s=within_s, what=f"{len(exchanges)} owners")

    def wait_for_trades(self, exchange: Process, count: int = 5, *, shard: int | None = None) -> None:
        """Wait until an exchange has made some more trades, all in one shard if that is named."""
        prefix = "T" if shard is None else f"T{shard}-"
        before = self._trades(exchange, prefix)

        def more() -> bool:
            assert exchange.poll() is None, self.said(exchange, "err")
            return self._trades(exchange, prefix) >= before + count

        until(more, within_s=DEADLINE_S, what="trades")

    def _trades(self, exchange: Process, prefix: str) -> int:
        return sum(said["event"] == "trade" and said["trade_id"].startswith(prefix) for said in self.events(exchange))

    def torn(self) -> list[dict[str, Any]]:
        """What the owners said of entries that did not count, and of records that had to be written again."""
        return [
            said
            for process in self.processes
            for said in self.events(process)
            if said["event"] == "owns" and (said["ignored_entries"] or said["rewritten"])
        ]

    # --- their ends ----------------------------------------------------------------------------------------

    def stop(self, *exchanges: Process) -> None:
        """End exchanges cleanly."""
        for exchange in exchanges:
            exchange.terminate()
            self.must_end(exchange, 0, DEADLINE_S)

    def freeze(self, exchange: Process) -> None:
        """Stop an exchange for a while (SIGSTOP)."""
        exchange.send_signal(signal.SIGSTOP)
        self.wait_until_frozen(exchange)

    def wait_until_frozen(self, exchange: Process) -> None:
        """Wait until an exchange has stopped itself at its fail point."""
        until(
            lambda: os.waitpid(exchange.pid, os.WUNTRACED | os.WNOHANG)[0],
            within_s=DEADLINE_S,
            what="the fail point",
        )

    def thaw(self, exchange: Process) -> None:
        """Let a stopped exchange go on."""
        exchange.send_signal(signal.SIGCONT)

    def settle(self) -> Report:
        """Take what is left on the log, when no exchange runs any more, and audit it."""
        for _ in range(2):  # forwards are inputs again
            self.must_end(self.nse("--once"), 0, DEADLINE_S)
        # Whatever traded, one client reads what became of it.
        with KafkaLog(self.servers, settings=TIMES) as log:
            report = examine(log, self.told())
        return report._replace(findings=report.findings + hanging(self.servers))


def hanging(servers: str, patience_s: float = 10.0) -> list[Finding]:
    """The partitions of the exchange on which a transaction stays open: committed records end before written ones.

    Plain clients ask the brokers; nothing of the adapter has a part in it.
    """
    names = [spec.name for spec in topics.SPECS]
    with (
        contextlib.closing(KafkaConsumer(bootstrap_servers=servers, isolation_level="read_committed")) as committed,
        contextlib.closing(KafkaConsumer(bootstrap_servers=servers, isolation_level="read_uncommitted")) as written,
    ):
        places = [TopicPartition(name, shard) for name in names for shard in range(SHARDS)]
        deadline = time.monotonic() + patience_s
        while True:
            ends = written.end_offsets(places)
            stable = committed.end_offsets(places)
            held = [place for place in places if stable[place] < ends[place]]
            if not held or time.monotonic() >= deadline:
                break
            time.sleep(0.1)
    return [
        Finding("open transaction", f"{at.topic}@{at.partition}", f"stable to {stable[at]}, written to {ends[at]}")
        for at in held
    ]


def make_topics(exchanges: Exchanges) -> None:
    """Begin with empty topics, whatever an exchange before has left on the broker."""
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=exchanges.servers)) as admin:
        names = {spec.name for spec in topics.SPECS}
        if there := names & set(admin.list_topics()):
            admin.delete_topics(sorted(there))
            until(lambda: not names & set(admin.list_topics()), what="the topics' end")
    with exchanges.open() as log:
        log.ensure_topics(topics.SPECS)


# --- faults ----------------------------------------------------------------------------------------------------


class Venue:
    """What a fault is done to: the exchanges, of which `owner` owns all shards, and their broker."""

    def __init__(self, exchanges: Exchanges, broker: KafkaContainer, chance: random.Random) -> None:
        self.exchanges = exchanges
        self.broker = broker
        self.chance = chance
        self.owner = exchanges.nse()
        self._places: list[str] = []
        exchanges.wait_until_owned_by(self.owner)

    def next_place(self) -> str:
        """A fail point to die at; all have their turn."""
        if not self._places:
            self._places = [*IN_A_COMMIT, self.chance.choice(WHEN_STARTING)]
            self.chance.shuffle(self._places)
        return self._places.pop()

    def share_with(self, *, failpoints: str = "") -> Process:
        """Start a second exchange beside the owner."""
        return self.exchanges.nse(failpoints=failpoints)

    def some(self, least: int = 3, most: int = 25) -> int:
        """At which time of passing a fail point: at the first ones an owner enters, later it trades."""
        return self.chance.randint(least, most)


Fault = Callable[[Venue], None]


def killed_inside(venue: Venue) -> None:
    """An exchange kills itself at a fail point, most of these in the middle of a transaction; the other goes on."""
    place = venue.next_place()
    count = venue.some(1, 2) if place in WHEN_STARTING else venue.some(1, 20)
    dying = venue.share_with(failpoints=f"{place}=kill@{count}")
    venue.exchanges.must_end(dying, -signal.SIGKILL, DEADLINE_S)
    venue.exchanges.wait_until_owned_by(venue.owner)
    venue.exchanges.wait_for_trades(venue.owner)


def killed_outside(venue: Venue) -> None:
    """The only exchange is killed at a random moment, and another is started."""
    venue.exchanges.wait_for_trades(venue.owner, venue.some(1, 10))
    venue.owner.kill()
    venue.exchanges.must_end(venue.owner, -signal.SIGKILL)
    venue.owner = venue.exchanges.nse()
    venue.exchanges.wait_until_owned_by(venue.owner)
    venue.exchanges.wait_for_trades(venue.owner)


def frozen_inside(venue: Venue) -> None:
    """An exchange is stopped inside a transaction, replaced, and goes on after the transaction's time was over.

    What it had begun is refused; it trades again when the group gives it shards again, in the end alone.
    """
    exchanges = venue.exchanges
    place = venue.chance.choice(IN_A_COMMIT[:4])
    zombie = venue.share_with(failpoints=f"{place}=stop@{venue.some()}")
    exchanges.wait_until_frozen(zombie)
    began = time.monotonic()
    exchanges.wait_until_owned_by(venue.owner)
    _until_the_transaction_is_over(began)
    exchanges.thaw(zombie)
    exchanges.wait_for(zombie, "gave-up", within_s=DEADLINE_S)
    exchanges.wait_until_owned_by(venue.owner, zombie)
    exchanges.stop(venue.owner)
    venue.owner = zombie
    exchanges.wait_until_owned_by(venue.owner)


def frozen_outside(venue: Venue) -> None:
    """The owner is stopped wherever it is, or idle, replaced, and goes on as one of two."""
    exchanges = venue.exchanges
    second = venue.share_with()
    exchanges.wait_until_owned_by(venue.owner, second)
    exchanges.freeze(venue.owner)
    began = time.monotonic()
    until(lambda: len(exchanges.owned(second)) == SHARDS, within_s=DEADLINE_S, what="the take-over")
    _until_the_transaction_is_over(began)
    exchanges.thaw(venue.owner)
    exchanges.wait_for(venue.owner, "gave-up", within_s=DEADLINE_S)
    exchanges.wait_until_owned_by(venue.owner, second)
    exchanges.stop(second)
    exchanges.wait_until_owned_by(venue.owner)


def _until_the_transaction_is_over(began: float) -> None:
    until(lambda: time.monotonic() > began + TRANSACTION_TIMEOUT_S + 1, what="the end of the time")


def broker_stopped(venue: Venue) -> None:
    """The broker is shut down and started again; the exchange waits for it and goes on."""
    _broker_away(venue, venue.broker.stop_broker, venue.broker.start_broker)


def broker_killed(venue: Venue) -> None:
    """The broker is killed and started again; the exchange waits for it and goes on."""
    _broker_away(venue, venue.broker.kill_broker, venue.broker.start_broker)


def broker_paused(venue: Venue) -> None:
    """The broker answers nobody for longer than a request may take; the exchange waits for it and goes on."""
    _broker_away(venue, venue.broker.pause_broker, venue.broker.unpause_broker)


def _broker_away(venue: Venue, take_away: Callable[[], None], bring_back: Callable[[], None]) -> None:
    exchanges, heard = venue.exchanges, len(venue.exchanges.events(venue.owner))
    exchanges.burst(2_000)  # so that it is in the middle of something
    take_away()
    began = time.monotonic()

    def noticed() -> bool:
        return any(said["event"] == "waits-for-the-log" for said in exchanges.events(venue.owner)[heard:])

    # An exchange that has committed all it knew of has nothing to ask of a broker that is silent.
    until(lambda: noticed() or time.monotonic() > began + 3 * REQUEST_TIMEOUT_S, within_s=DEADLINE_S)
    was_noticed = noticed()
    bring_back()
    if was_noticed:
        exchanges.wait_for(venue.owner, "log-is-back", after=heard, within_s=DEADLINE_S)
    exchanges.wait_until_owned_by(venue.owner)
    venue.exchanges.wait_for_trades(venue.owner)


def broker_paused_in_a_commit(venue: Venue) -> None:
    """The broker freezes when everything of a transaction is written but its end, for longer than a request may take.

    Then the end arrives late and more than once, and the exchange cannot know what became of its commit.
    """
    exchanges = venue.exchanges
    committing = venue.share_with(failpoints=f"kafka.commit.sent=stop@{venue.some()}")
    exchanges.wait_until_frozen(committing)
    venue.broker.pause_broker()
    exchanges.thaw(committing)
    exchanges.wait_for(committing, "waits-for-the-log", within_s=DEADLINE_S)
    venue.broker.unpause_broker()
    exchanges.wait_until_owned_by(venue.owner, committing)
    exchanges.wait_for_trades(committing)
    exchanges.stop(committing)
    exchanges.wait_until_owned_by(venue.owner)


def members_come_and_go(venue: Venue) -> None:
    """Two exchanges share the shards, then three, then one: one is stopped and one killed, each while it is busy."""
    exchanges = venue.exchanges
    exchanges.burst(500)
    second = venue.share_with()
    exchanges.wait_until_owned_by(venue.owner, second)
    exchanges.burst(500)
    third = venue.share_with()
    exchanges.wait_until_owned_by(venue.owner, second, third)
    exchanges.burst(500)
    exchanges.stop(second)
    exchanges.wait_until_owned_by(venue.owner, third)
    exchanges.burst(500)
    venue.owner.kill()
    exchanges.must_end(venue.owner, -signal.SIGKILL)
    exchanges.wait_until_owned_by(third)
    exchanges.wait_for_trades(third)
    venue.owner = third


FAULTS: Final[tuple[Fault, ...]] = (
    killed_inside,
    killed_outside,
    frozen_inside,
    frozen_outside,
    broker_stopped,
    broker_killed,
    broker_paused,
    broker_paused_in_a_commit,
    members_come_and_go,
)
