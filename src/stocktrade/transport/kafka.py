"""The log on a Kafka cluster.

What keeps the promises of the port:

* every reader and member reads committed records only;
* a shard is claimed by its transactional id: the broker raises its epoch, refuses everything of the owner before,
  and ends what that one left open; afterwards the log of the shard is looked at, whether it really ended;
* a commit is one transaction, ended so that a delayed request cannot tear it (`kafka_txn`);
* the consumer group only assigns. Its rebalances are noticed by comparing its generation after each poll, and
  positions are this module's own, so whatever the client does to them has no effect.

`arrival` is the record's time in milliseconds: the broker's clock on topics that it stamps.

Which library carries the records is the choice of whoever opens the log (`client`); the rest is kafka-python's work.

Invariant: nothing above this module knows a client library, and no call waits without a limit.
"""

import itertools
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from heapq import merge
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from kafka import TopicPartition as Place
from kafka.admin import MemberToRemove
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import GroupIdNotFoundError, KafkaError, NonEmptyGroupError
from kafka.structs import MemberState, OffsetAndMetadata

from stocktrade.domain.values import visible
from stocktrade.errors import Hanging, LogDamaged, StocktradeError, Unavailable, UsageError
from stocktrade.transport import CLIENTS, KAFKA_PYTHON, LIBRDKAFKA
from stocktrade.transport import topics as names
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
from stocktrade.transport.client import Appender, Client, Placed, Transactions
from stocktrade.transport.kafka_client import Connection
from stocktrade.transport.kafka_held import HeldBack
from stocktrade.transport.kafka_inputs import Input, ShardInputs
from stocktrade.transport.kafka_options import read_settings
from stocktrade.transport.kafka_topics import Topics
from stocktrade.transport.kafka_txn import check_cluster, check_library, release
from stocktrade.transport.partitioner import partition_for

DEFAULT_PARTITIONS: Final = 4

CLAIM_PATIENCE_S: Final = 5.0
"""How long a claim waits for what its predecessor left open; the broker ends that in milliseconds."""

END_PATIENCE_S: Final = 1.0
"""How long `ends` waits for transactions that are being ended: a commit becomes visible a moment after it returned."""

PROGRESS_EVERY_S: Final = 0.5
_WAITING_FOR_EVERY_S: Final = 2.0
_SLICE_S: Final = 0.1
_REMOVE_WITHIN_S: Final = 10.0
_LOOK_WITHIN_S: Final = 0.5
_LOOK_AGAIN_S: Final = 0.02
"""How long what a look found is waited for before there is another one."""

_LOOK_LATER_S: Final = 1.0
"""The same for a look that no broker answered."""

_METADATA_WITHIN_S: Final = 2.0
_LEAVE_WITHIN_MS: Final = 2_000
_MEMBER_METADATA_MS: Final = 5_000
_MAX_FETCHED_RECORDS: Final = 10_000

_MEMBER: Final = "stocktrade-member"
_CLIENT_ID: Final = re.compile(rf"{_MEMBER}\.(?P<host>[^/]*)\.(?P<pid>\d+)\.\d+")
_numbers = itertools.count(1)


class _Opened:
    """What a log must close with itself."""

    def __init__(self) -> None:
        self.on_close: Callable[[_Opened], None] = _ignore
        self._closed = False

    def close(self) -> None:
        """Safe to call twice."""
        raise NotImplementedError

    def _first_close(self) -> bool:
        if self._closed:
            return False
        self._closed = True
        self.on_close(self)
        return True


_OpenedT = TypeVar("_OpenedT", bound=_Opened)


def _client(name: str) -> Callable[..., Client]:
    # One that is not chosen is not imported, and may not be installed.
    if name == KAFKA_PYTHON:
        from stocktrade.transport.kafka_python import KafkaPython  # noqa: PLC0415

        return KafkaPython
    if name != LIBRDKAFKA:
        raise UsageError(f"there is no client {name!r}", hint=f"use {' or '.join(CLIENTS)}")
    try:
        from stocktrade.transport.librdkafka import Librdkafka  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(
            "librdkafka is not installed", cause=visible(str(error), 200), hint="pip install 'stocktrade[fast]'"
        ) from error
    return Librdkafka


class KafkaLog(Log):
    """The log of a cluster.

    Args:
        servers: HOST:PORT of one or more brokers, with commas between them.
        partitions: into how many partitions new topics are divided. By default as many as the journal has that is
            there, or four.
        replication: how many copies of a new topic there are; by default one per broker, three at most.
        settings: Kafka's own options of the connection (`security.protocol` …).
        prefix: goes before the names of topics, groups and transactional ids, so that several exchanges can
            share a cluster.
        client: which library carries the records: `kafka-python`, or `librdkafka` where it is installed.
        cured: False leaves transactions to the client library, which can tear them: only for a test that shows it.

    Raises:
        UsageError: an option is wrong, or the client library or the cluster is none that the exchange can use.
        Unavailable: no broker answers.
    """

    def __init__(
        self,
        servers: str,
        *,
        partitions: int | None = None,
        replication: int | None = None,
        settings: Mapping[str, str] | None = None,
        prefix: str = "",
        client: str = KAFKA_PYTHON,
        cured: bool = True,
    ) -> None:
        if partitions is not None and partitions < 1:
            raise UsageError(f"a log has at least one partition, not {partitions}")
        make_client = _client(client)
        check_library()
        self.url = f"kafka:{servers}"
        self.remote = True
        self._connection = Connection(servers, read_settings(settings or {}))
        try:
            self.warnings = check_cluster(self._connection)
            self._client = make_client(self._connection, prefix, cured=cured)
        except BaseException:
            self._connection.close()
            raise
        self.client = self._client.version
        self._topics = Topics(self._connection, replication)
        self._partitions = partitions
        self._prefix = prefix
        self._appender: Appender | None = None
        self._outputs: set[str] = set()
        self._known: dict[str, tuple[str, int]] = {}  # its name on the cluster and its partitions, which never change
        self._opened: list[_Opened] = []

    def about(self) -> str:
        """See `Log.about`."""
        brokers = self._connection.brokers()
        return f"{release(self._connection)}, {brokers} broker{'' if brokers == 1 else 's'}, by {self.client}"

    def missing_topics(self, specs: Sequence[TopicSpec]) -> list[str]:
        """See `Log.missing_topics`."""
        missing = self._topics.missing(
            [spec._replace(name=self._prefix + spec.name) for spec in specs], self.partitions()
        )
        return [name.removeprefix(self._prefix) for name in missing]

    def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        """See `Log.ensure_topics`."""
        self._topics.ensure([spec._replace(name=self._prefix + spec.name) for spec in specs], self.partitions())
        self._outputs.update(spec.name for spec in specs if not spec.append_time)

    def partitions(self) -> int:
        """See `Log.partitions`. What the journal has counts, if nothing was asked for."""
        if self._partitions is None:
            found = self._topics.partitions(self._prefix + names.JOURNAL)
            if found is None:
                return DEFAULT_PARTITIONS  # until somebody makes the topics
            self._partitions = found
        return self._partitions

    def append(self, records: Sequence[NewRecord]) -> list[Position]:
        """See `Log.append`. A producer that failed once is thrown away: the next call has a new one."""
        if not records:
            return []
        placed = self.placed(records)
        if self._appender is None:
            self._appender = self._client.appender()
        try:
            return positions(placed, self._appender.append(placed))
        except BaseException:
            self._drop_appender()
            raise

    def reader(self, starts: Mapping[TopicPartition, int | None]) -> Reader:
        """See `Log.reader`."""
        places = {self._place(topic, partition): start for (topic, partition), start in starts.items()}
        reader = KafkaReader(self._connection, self._client, self._prefix, places)
        return self._keep(reader)

    def claim(self, shard: int) -> Writer:
        """See `Log.claim`. Nobody keeps a shard against a claim: the owner before is fenced."""
        if not 0 <= shard < self.partitions():
            raise UsageError(f"there is no shard {shard}, only 0 to {self.partitions() - 1}")
        self._connection.probe()
        specified = {spec.name for spec in names.SPECS} | self._outputs
        topics = self._topics.find([self._prefix + topic for topic in specified])
        transactional_id = f"{self._prefix}{names.JOURNAL}-{shard}"
        transactions = self._client.transactions(transactional_id, sorted(topics))
        try:
            inputs = {self._prefix + topic for topic in names.INPUTS}
            self._check_resolved(shard, topics - inputs)
            return self._keep(KafkaWriter(self, shard, transactions))
        except BaseException:
            transactions.close()
            raise

    def member(self, group: str, topics: Collection[str]) -> Member:
        """See `Log.member`."""
        for topic in topics:
            self._count(topic)
        return self._keep(KafkaMember(self, self._connection, self._client, self._prefix, group, topics))

    def owners(self) -> dict[int, str | None]:
        """See `Log.owners`. The members of all groups in which exchanges are."""
        return self.owners_but("")

    def owners_but(self, client_id: str) -> dict[int, str | None]:
        """The owners, without the member that has this client id."""
        owners: dict[int, str | None] = dict.fromkeys(range(self.partitions()))
        admin = self._connection.admin

        def groups() -> dict[str, Any]:
            listed = [each["group_id"] for each in admin.list_groups() if each["protocol_type"] == "consumer"]
            ours = [group for group in listed if group.startswith(self._prefix)]
            return dict(admin.describe_groups(ours)) if ours else {}

        for group in self._connection.ask("the groups are not known", groups).values():
            for member in group["members"]:
                identity = _CLIENT_ID.fullmatch(member["client_id"])
                assignment = member["member_assignment"]
                if identity is None or not assignment or member["client_id"] == client_id:
                    continue
                name = visible(f"pid {identity['pid']} on {identity['host']}", 100)
                for topic in assignment["assigned_partitions"]:
                    owners.update(dict.fromkeys(owners.keys() & set(topic["partitions"]), name))
        return owners

    def remove(self, groups: Collection[str]) -> None:
        """Delete the topics of a log with a prefix, and these of its groups; see `transport.remove`."""
        if not self._prefix:
            raise ValueError("only an exchange with a prefix of its own is ever deleted")
        for group in groups:
            self._remove_group(self._prefix + group)
        self._topics.remove([self._prefix + spec.name for spec in names.SPECS])

    def _remove_group(self, group: str) -> None:
        admin = self._connection.admin
        deadline = time.monotonic() + _REMOVE_WITHIN_S

        def members() -> list[MemberToRemove]:
            found = admin.describe_groups([group])[group]["members"]
            return [MemberToRemove(member_id=member["member_id"]) for member in found]

        def answer() -> str:
            return str(admin.delete_groups([group])[group])

        while True:
            # Who was killed would otherwise be waited for until its session times out.
            if there := self._connection.ask(f"the members of {group} are not known", members):
                with suppress(KafkaError):
                    admin.remove_group_members(group, there)
            said = self._connection.ask(f"{group} cannot be deleted", answer)
            if said in ("OK", GroupIdNotFoundError.__name__):
                return
            if said != NonEmptyGroupError.__name__ or time.monotonic() >= deadline:
                raise Unavailable(f"the group {group} cannot be deleted", cause=said, hint="kafka-groups.sh can do it")
            time.sleep(_SLICE_S)

    def close(self) -> None:
        """See `Log.close`."""
        opened, self._opened = self._opened, []
        for each in reversed(opened):
            each.close()
        self._drop_appender()
        self._connection.close()

    # --- for what was opened through this log --------------------------------------------------------------

    def placed(self, records: Sequence[NewRecord]) -> list[Placed]:
        """The records with their topics and partitions on the cluster.

        Raises:
            UsageError: one of them goes where there is no topic or no partition.
        """
        placed = []
        for record in records:
            topic, key, _, partition, _, _ = record
            name, count = self._known.get(topic) or self._know(topic)
            if partition is None:
                partition = 0 if key is None else partition_for(key, count)
            elif not 0 <= partition < count:
                raise _no_partition(topic, partition, count)
            placed.append((record, name, partition))
        return placed

    def _know(self, topic: str) -> tuple[str, int]:
        known = self._known[topic] = (self._prefix + topic, self._count(topic))
        return known

    def forget(self, opened: _Opened) -> None:
        """Something that was opened is closed."""
        with suppress(ValueError):
            self._opened.remove(opened)

    def _keep(self, opened: _OpenedT) -> _OpenedT:
        opened.on_close = self.forget
        self._opened.append(opened)
        return opened

    def _count(self, topic: str) -> int:
        count = self._topics.partitions(self._prefix + topic)
        if count is None:
            raise UsageError(
                f"the cluster at {self._connection.servers} has no topic {self._prefix + topic!r}",
                hint="create the topics: stocktrade topics create",
            )
        return count

    def _place(self, topic: str, partition: int) -> Place:
        name, count = self._known.get(topic) or self._know(topic)
        if not 0 <= partition < count:
            raise _no_partition(topic, partition, count)
        return Place(name, partition)

    def _check_resolved(self, shard: int, topics: Collection[str]) -> None:
        """No transaction may be open on what the shard writes, or its readers would stand still.

        Inputs are left out: participants may have transactions of their own there.
        """
        places = [Place(topic, shard) for topic in sorted(topics) if shard < (self._topics.partitions(topic) or 0)]
        for place, (stable, end) in self._connection.settle(places, CLAIM_PATIENCE_S).items():
            server = self._connection.servers.partition(",")[0]
            raise Hanging(
                f"a transaction is open on {place.topic}, partition {place.partition}: "
                f"committed records end at {stable}, written ones at {end}",
                cause="another producer holds it open, or a broker lost the end of one",
                hint="if it does not end by itself, find and end it:\n"
                f"kafka-transactions.sh --bootstrap-server {server} find-hanging --topic {place.topic} "
                f"--partition {place.partition}\n"
                f"kafka-transactions.sh --bootstrap-server {server} abort --topic {place.topic} "
                f"--partition {place.partition} --start-offset {stable}",
            )

    def _drop_appender(self) -> None:
        appender, self._appender = self._appender, None
        if appender is not None:
            appender.close()


class KafkaReader(_Opened, Reader):
    """Follows partitions; see `Reader`."""

    def __init__(self, connection: Connection, client: Client, prefix: str, starts: Mapping[Place, int | None]) -> None:
        super().__init__()
        self._connection = connection
        self._prefix = prefix
        at_end = [place for place, start in starts.items() if start is None]
        ends = connection.stable_ends(at_end, within_s=connection.timeouts.request_ms / 1000) if at_end else {}
        self._positions = {place: ends[place] if start is None else start for place, start in starts.items()}
        self._ends: dict[Place, int] = {}
        self._fetcher = client.fetcher(self._positions)
        self._holder = HeldBack(self._fetcher)

    def poll(self, timeout_s: float = 0.0, max_records: int = 1000) -> list[Record]:
        """See `Reader.poll`. It also returns when it has passed a transaction's end up to what `ends` has said.

        Raises:
            LogDamaged: the log ends before the place that this reader had reached.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            behind = self._is_behind()
            left_s = max(0.0, deadline - time.monotonic())
            # The consumer waits on while it passes the ends of transactions, which are no records.
            batches = self._fetcher.fetch(min(left_s, _SLICE_S / 4 if behind else left_s), max_records)
            records = list(_in_order(self._taken(batches)))
            if records or (behind and not self._is_behind()) or time.monotonic() >= deadline:
                return records

    def _taken(self, batches: Mapping[Place, Sequence[Record]]) -> Iterator[Sequence[Record]]:
        for place, batch in batches.items():
            if batch[0].offset < self._positions[place]:
                raise LogDamaged(
                    f"{place.topic}@{place.partition} has no record {self._positions[place]} any more",
                    cause=f"the log goes on at {batch[0].offset}",
                    hint="the cluster lost records, or the topic was made anew",
                )
            self._positions[place] = batch[-1].offset + 1
            yield batch

    def _is_behind(self) -> bool:
        return any(self._reached(place) < end for place, end in self._ends.items())

    def _reached(self, place: Place) -> int:
        """The position, with the ends of transactions that were passed."""
        if self._closed:
            return self._positions[place]
        return max(self._positions[place], self._fetcher.position(place))

    def position(self, topic: str, partition: int) -> int:
        """See `Reader.position`."""
        return self._reached(Place(self._prefix + topic, partition))

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """See `Reader.seek`."""
        place = Place(self._prefix + topic, partition)
        self._positions[place] = offset
        self._fetcher.seek(place, offset)

    def ends(self) -> dict[TopicPartition, int]:
        """See `Reader.ends`. What is committed but not visible yet is waited for, and counts."""
        connection = self._connection
        connection.settle(self._positions, END_PATIENCE_S)
        self._ends = connection.stable_ends(self._positions, within_s=connection.timeouts.request_ms / 1000)
        return {(place.topic[len(self._prefix) :], place.partition): end for place, end in self._ends.items()}

    def written_ends(self) -> dict[TopicPartition, int]:
        """See `Reader.written_ends`."""
        ends = self._connection.written_ends(self._positions)
        return {(place.topic[len(self._prefix) :], place.partition): end for place, end in ends.items()}

    def starts(self) -> dict[TopicPartition, int]:
        """See `Reader.starts`."""
        starts = self._connection.kept_from(self._positions)
        return {(place.topic[len(self._prefix) :], place.partition): start for place, start in starts.items()}

    def held_back(self) -> dict[TopicPartition, float]:
        """See `Reader.held_back`."""
        if self._closed:
            return {}
        held = self._holder.look(lambda: {place: self._reached(place) for place in self._positions})
        return {(place.topic[len(self._prefix) :], place.partition): seconds for place, seconds in held.items()}

    def close(self) -> None:
        """See `Reader.close`."""
        if self._first_close():
            self._fetcher.close()


class KafkaWriter(_Opened, Writer):
    """Owns a shard; see `Writer` and, for making one, `Log.claim`."""

    def __init__(self, log: KafkaLog, shard: int, transactions: Transactions) -> None:
        super().__init__()
        self.shard = shard
        self.epoch = transactions.epoch
        self._log = log
        self._transactions = transactions
        self._begun: SimpleQueue[tuple[Future[list[Position]], Sequence[NewRecord]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def commit(self, records: Sequence[NewRecord], *, anchor: bytes | None = None) -> list[Position]:
        """See `Writer.commit`. Readers see it a moment after this returns, when the brokers wrote its end.

        An anchor is not kept: what a quorum of brokers took is not lost by one of them.
        """
        return self.begin_commit(records, anchor=anchor).result()

    def begin_commit(self, records: Sequence[NewRecord], *, anchor: bytes | None = None) -> Future[list[Position]]:
        """See `Writer.begin_commit`."""
        del anchor
        commit: Future[list[Position]] = Future()
        if self._closed:
            self._do(commit, records)
            return commit
        self._begun.put((commit, records))
        if self._thread is None:
            # A commit that a broker does not answer must not keep the process from ending.
            self._thread = threading.Thread(target=self._do_all, name=f"commits-{self.shard}", daemon=True)
            self._thread.start()
        return commit

    def _do_all(self) -> None:
        while (begun := self._begun.get()) is not None:
            self._do(*begun)

    def _do(self, commit: Future[list[Position]], records: Sequence[NewRecord]) -> None:
        try:
            placed = self._log.placed(records)
            commit.set_result(positions(placed, self._transactions.commit(placed)))
        except BaseException as error:  # noqa: BLE001 - whoever asks for the result is to see it
            self._transactions.close()
            commit.set_exception(error)

    def anchor(self) -> bytes | None:
        """See `Writer.anchor`: none."""
        return None

    def close(self) -> None:
        """See `Writer.close`."""
        if self._first_close():
            self._begun.put(None)
            self._transactions.close()


def positions(placed: Sequence[Placed], offsets: Sequence[int]) -> list[Position]:
    """Where records came to stand."""
    return [
        Position(record.topic, partition, offset)
        for (record, _, partition), offset in zip(placed, offsets, strict=True)
    ]


class KafkaMember(_Opened, Member):
    """A member of the consumer group; see `Member`."""

    def __init__(
        self,
        log: KafkaLog,
        connection: Connection,
        client: Client,
        prefix: str,
        group: str,
        topics: Collection[str],
    ) -> None:
        super().__init__()
        self._log = log
        self._connection = connection
        self._prefix = prefix
        self._topics = tuple(sorted(topics))
        timeouts = connection.timeouts
        self._group = prefix + group
        self._host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:60]
        self._client_id = f"{_MEMBER}.{self._host}.{os.getpid()}.{next(_numbers)}"
        self._consumer = connection.make_consumer(
            group_id=self._group,
            client_id=self._client_id,
            # The one assignor that gives a member the same numbers of all topics.
            partition_assignment_strategy=[RangePartitionAssignor],
            session_timeout_ms=timeouts.session_ms,
            heartbeat_interval_ms=timeouts.session_ms // 4,
            max_poll_interval_ms=timeouts.max_poll_interval_ms,
            metadata_max_age_ms=_MEMBER_METADATA_MS,
        )
        self._remove_dead()
        self._consumer.subscribe([prefix + topic for topic in self._topics])
        self._wait_for_metadata()
        self._generation = -1
        self._assigned: frozenset[int] = frozenset()
        self._started_in: dict[int, int] = {}  # the generation in which each started shard was started
        self._lost: set[int] = set()
        self._inputs: dict[int, ShardInputs] = {}
        self._horizons: dict[int, int] = {}  # as the last poll told them
        self._unsettled: set[int] = set()  # shards that are to be looked at again
        self._look_at = self._look_again_at = 0.0
        self._progress: dict[Place, Any] = {}
        self._progress_at = 0.0
        self._waiting_for: dict[int, str] = {}
        self._waiting_for_at = 0.0
        self._turn = 0
        self._fetcher = client.member_fetcher(self._consumer)
        self._holder = HeldBack(self._fetcher)

    def _wait_for_metadata(self) -> None:
        """Know the topics before joining: who leads the group without knowing them assigns them to nobody.

        The library loses the wish for a topic's metadata when a request is on its way; it is repeated here, and
        `_MEMBER_METADATA_MS` heals what remains.
        """
        cluster = self._consumer._cluster  # noqa: SLF001 - its public question waits without a limit
        deadline = time.monotonic() + _METADATA_WITHIN_S
        asked = 0
        while any(cluster.partitions_for_topic(self._prefix + topic) is None for topic in self._topics):
            if time.monotonic() >= deadline:
                return
            if asked % 20 == 19:
                cluster.request_update()
            asked += 1
            time.sleep(0.005)

    def _remove_dead(self) -> None:
        """Have the group forget the members whose processes died on this machine.

        It would wait for them until their sessions time out, and an exchange that is started again with it. Whoever
        is removed by mistake (another machine of the same name) joins again; safety never depends on the group.
        """
        admin = self._connection.admin
        with suppress(KafkaError):
            members = admin.describe_groups([self._group])[self._group]["members"]
            identities = [(member["member_id"], _CLIENT_ID.fullmatch(member["client_id"])) for member in members]
            dead = [
                MemberToRemove(member_id=member_id)
                for member_id, identity in identities
                if identity is not None and identity["host"] == self._host and not _is_alive(int(identity["pid"]))
            ]
            if dead:
                admin.remove_group_members(self._group, dead)

    # --- poll ----------------------------------------------------------------------------------------------

    def poll(self, timeout_s: float, max_records: int = 1000) -> Poll:
        """See `Member.poll`.

        A horizon holds for what was visible: a record whose transaction was open meanwhile has an older time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            slice_s = _LOOK_AGAIN_S if self._unsettled else _SLICE_S
            changed = self._fetch(0.0 if self._is_waiting() else min(left_s, slice_s))
            if self._is_worth_a_look(max_records):
                self._look()
            if self._is_waiting() or changed or self._has_risen() or time.monotonic() >= deadline:
                break
        self._send_progress()
        records = self._deliver(max_records)
        horizons = self._horizons = {shard: inputs.horizon for shard, inputs in self._inputs.items()}
        self._unsettled = {
            shard
            for shard, inputs in self._inputs.items()
            if horizons[shard] != UNBOUNDED and not inputs.lasts_for(max_records)
        }
        assigned = self._assigned - self._lost
        lost = frozenset(self._lost & self._assigned)
        return Poll(records, horizons, assigned, self._others(assigned), lost, self._held_back())

    def _is_waiting(self) -> bool:
        return any(inputs.is_waiting for inputs in self._inputs.values())

    def _has_risen(self) -> bool:
        return any(inputs.horizon > self._horizons.get(shard, 0) for shard, inputs in self._inputs.items())

    def _is_worth_a_look(self, max_records: int) -> bool:
        """Whether something was fetched since the last look, or what that one found does not come.

        Of a shard with a backlog there is no need: what is delivered comes before what waits.
        """
        now = time.monotonic()
        if now < self._look_at:
            return False
        if any(inputs.wants_a_look and not inputs.lasts_for(max_records) for inputs in self._inputs.values()):
            return True
        return bool(self._unsettled) and now >= self._look_again_at

    def _fetch(self, timeout_s: float) -> bool:
        """One round of the consumer; whether the assignment changed in it."""
        for each in self._each():
            if each.is_full != each.paused:
                each.paused = each.is_full
                self._go_on(each)
        batches = self._fetcher.fetch(timeout_s, _MAX_FETCHED_RECORDS)
        if self._take_assignment():
            return True  # what came may be from positions that are not ours; it is fetched again
        for each in self._each():
            each.take(batches.get(each.place, ()))
            if each.went_back:
                each.went_back = False
                self._look_soon(each)
        return False

    def _each(self) -> list[Input]:
        return [each for inputs in self._inputs.values() for each in inputs.inputs]

    def _look_soon(self, each: Input) -> None:
        self._unsettled.add(each.place.partition)
        self._look_again_at = 0.0

    def _take_assignment(self) -> bool:
        """Compare generation and assignment with the ones before. Data, not a callback: this is the main loop."""
        places = self._consumer.assignment() or set()
        group = self._consumer.group_metadata()
        shards = {place.partition for place in places}
        assigned = frozenset(
            shard for shard in shards if all(Place(self._prefix + t, shard) in places for t in self._topics)
        )
        generation = group.generation_id
        # Not in the group now, or in it and not told yet what it is given: what it had may still be there, but it is
        # no part of the new generation.
        if generation < 0 or group.state is not MemberState.STABLE:
            generation, assigned = self._generation, assigned & self._assigned
        if generation == self._generation and assigned == self._assigned:
            return False
        if generation != self._generation:
            self._lost.clear()
        self._generation = generation
        self._assigned = assigned
        self._waiting_for_at = 0.0
        for shard in [shard for shard in self._inputs if shard not in assigned]:
            self.stop(shard)
        # A rebalance forgets what was paused, and puts positions back to what the group has noted.
        for place in places:
            if place.partition not in self._inputs:
                self._fetcher.pause(place)
        for each in self._each():
            self._go_on(each)
        return True

    def _go_on(self, each: Input) -> None:
        if each.paused:
            self._fetcher.pause(each.place)
        else:
            self._fetcher.seek(each.place, each.position)

    def _look(self) -> None:
        """Ask where the inputs of the started shards end now.

        Raises:
            LogDamaged: one of them has for some seconds ended before what was taken from it.
        """
        places = [each.place for each in self._each()]
        if not places:
            return
        try:
            ends = self._fetcher.stable_ends(places, within_s=_LOOK_WITHIN_S)
        except StocktradeError:
            self._look_at = time.monotonic() + _LOOK_LATER_S  # the brokers are away, and will be back
            return
        for inputs in self._inputs.values():
            inputs.look(ends)
        for each in self._each():
            if each.is_behind:
                # Transactions' ends and aborted records take offsets: the consumer passes them silently.
                each.go_to(self._fetcher.position(each.place))
        self._look_again_at = time.monotonic() + _LOOK_AGAIN_S

    def _deliver(self, max_records: int) -> list[Record]:
        """What was fetched, of each shard in the order of arrival; the shards take turns at being first."""
        records: list[Record] = []
        shards = sorted(self._inputs)
        self._turn += 1
        for i in range(len(shards)):
            records += self._inputs[shards[(i + self._turn) % len(shards)]].pop(max_records - len(records))
        return records

    def _held_back(self) -> dict[TopicPartition, float]:
        def positions() -> dict[Place, int]:
            empty = [each for each in self._each() if not each.waiting]
            found = {each.place: self._fetcher.position(each.place) for each in empty}
            # One that stands before what was taken may be on a partition that was made anew.
            for each in empty:
                if found[each.place] < each.position:
                    self._look_soon(each)
            return found

        held = self._holder.look(positions)
        return {(place.topic[len(self._prefix) :], place.partition): seconds for place, seconds in held.items()}

    # --- ownership -----------------------------------------------------------------------------------------

    def _others(self, assigned: frozenset[int]) -> dict[int, str]:
        now = time.monotonic()
        if len(assigned) == self._log.partitions():
            return {}
        if now >= self._waiting_for_at:
            self._waiting_for_at = now + _WAITING_FOR_EVERY_S
            self._remove_dead()
            with suppress(StocktradeError):
                self._waiting_for = {
                    shard: owner for shard, owner in self._log.owners_but(self._client_id).items() if owner is not None
                }
        return {shard: owner for shard, owner in self._waiting_for.items() if shard not in assigned}

    def start(self, shard: int, offsets: Mapping[str, int]) -> None:
        """See `Member.start`. A topic without an offset starts at its beginning.

        Raises:
            ValueError: the shard is not assigned to this member.
        """
        if shard not in self._assigned:
            raise ValueError(f"shard {shard} is not assigned to this member")
        self._started_in.setdefault(shard, self._generation)
        inputs = ShardInputs({Place(self._prefix + topic, shard): offsets.get(topic, 0) for topic in self._topics})
        self._inputs[shard] = inputs
        self._horizons.pop(shard, None)
        for each in inputs.inputs:
            self._go_on(each)

    def stop(self, shard: int) -> None:
        """See `Member.stop`. The shard stays assigned."""
        self._started_in.pop(shard, None)
        if (inputs := self._inputs.pop(shard, None)) is not None:
            for each in inputs.inputs:
                self._fetcher.pause(each.place)
                self._progress.pop(each.place, None)

    def lose(self, shard: int) -> None:
        """See `Member.lose`. It is assigned anew by the next generation of the group.

        Which may have come already: a frozen process is replaced, and back in the group before it meets the new owner.
        """
        started_in = self._started_in.get(shard, self._generation)  # or it was met while the shard was claimed
        self.stop(shard)
        if started_in == self._generation:
            self._lost.add(shard)

    def note_progress(self, shard: int, offsets: Mapping[str, int]) -> None:
        """See `Member.note_progress`. Sent with a later poll, not more often than is of use."""
        for topic, offset in offsets.items():
            self._progress[Place(self._prefix + topic, shard)] = OffsetAndMetadata(offset, "", -1)

    def _send_progress(self) -> None:
        now = time.monotonic()
        if self._progress and now - self._progress_at >= PROGRESS_EVERY_S:
            self._progress_at = now
            progress, self._progress = self._progress, {}
            with suppress(KafkaError):
                self._consumer.commit_async(progress, callback=_ignore)

    def close(self) -> None:
        """See `Member.close`."""
        if self._first_close():
            if self._progress:
                with suppress(KafkaError):
                    self._consumer.commit(self._progress, timeout_ms=_LEAVE_WITHIN_MS)
            self._fetcher.close()
            self._consumer.close(autocommit=False, timeout_ms=_LEAVE_WITHIN_MS)
            self._inputs.clear()
            self._assigned = frozenset()


def _no_partition(topic: str, partition: int, count: int) -> UsageError:
    return UsageError(f"{topic} has the partitions 0 to {count - 1}, there is no {partition}")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def _ignore(*_: Any) -> None:
    """A group commit is for onlookers: whether it succeeded changes nothing."""


def _in_order(batches: Iterable[Sequence[Record]]) -> Iterable[Record]:
    """Batches merged by arrival; a partition's own order stays, whatever its times are."""
    return merge(*batches, key=lambda record: record.arrival)
