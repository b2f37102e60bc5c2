"""The log on Kafka passes the contract on a real broker, and does what only it promises."""

import json
import logging
import os
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import confluent_kafka
import kafka
import lz4.frame  # type: ignore[import-untyped]
import pytest
from kafka import TopicPartition as Place
from kafka.record import default_records

from kafka_container import KafkaContainer, free_port
from kcat import kcat, need_kcat

pytest.register_assert_rewrite("contract")

from contract import (  # noqa: E402 - its assertions are rewritten first
    LogContract,
    OpenLog,
    assignment,
    make_topic,
    owning,
    poll_some,
    read_to_end,
    unique,
    values,
)

from stocktrade.errors import Fenced, LogDamaged, StocktradeError, Unavailable, Unknown, UsageError  # noqa: E402
from stocktrade.shard.node import Node  # noqa: E402
from stocktrade.transport import CLIENTS, KAFKA_PYTHON, LIBRDKAFKA, kafka_txn, topics  # noqa: E402
from stocktrade.transport import kafka as adapter  # noqa: E402
from stocktrade.transport.base import UNBOUNDED, Log, Member, NewRecord, Record, TopicSpec, Writer  # noqa: E402
from stocktrade.transport.kafka import KafkaLog  # noqa: E402
from stocktrade.transport.kafka_client import discard_producer  # noqa: E402
from stocktrade.transport.kafka_python import KafkaPython  # noqa: E402
from stocktrade.transport.librdkafka import Librdkafka  # noqa: E402

pytestmark = pytest.mark.kafka


QUICK = {
    "request.timeout.ms": "2000",
    "delivery.timeout.ms": "2500",
    "transaction.timeout.ms": "4000",
}
"""Times for tests in which a broker does not answer."""

NewBroker = Callable[..., KafkaContainer]


class TestKafkaLog(LogContract):
    patience_s = 20.0
    exact_arrival = False
    servers: str
    client = KAFKA_PYTHON

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def broker(cls, kafka_servers: str) -> None:
        cls.servers = kafka_servers

    @classmethod
    def connect(cls, folder: Path, partitions: int) -> Log:
        """Tests share the broker: the names of their topics and groups are their own."""
        del folder
        return KafkaLog(cls.servers, partitions=partitions, client=cls.client)

    def abandon(self, writer: Writer) -> None:
        """Nothing to do: a claim never waits for the owner before it."""

    def test_an_append_that_fails_half_way_does_not_say_that_nothing_was_written(self, open_log: OpenLog) -> None:
        """The first record may be on the log by then, although the second is too large for it."""
        with open_log() as log:
            topic = make_topic(log)
            with pytest.raises(Unknown):
                log.append([NewRecord(topic, None, b"small", 0), NewRecord(topic, None, b"x" * 2_000_000, 0)])


class TestLibrdkafkaLog(TestKafkaLog):
    client = LIBRDKAFKA


@pytest.fixture
def client(request: pytest.FixtureRequest) -> str:
    """What carries the records."""
    return str(getattr(request, "param", KAFKA_PYTHON))


on_both = pytest.mark.parametrize("client", CLIENTS, indirect=True)
"""For what depends on who carries the records."""


@pytest.fixture
def log(kafka_servers: str, client: str) -> Iterator[KafkaLog]:
    """An exchange's log of its own."""
    with KafkaLog(kafka_servers, prefix=f"{unique()}-", client=client) as log:
        yield log


@pytest.fixture
def admin(kafka_servers: str) -> Iterator[Any]:
    client = kafka.KafkaAdminClient(bootstrap_servers=kafka_servers)
    yield client
    client.close()


# Transactions


def current_epoch(writer: Writer) -> int:
    assert isinstance(writer, adapter.KafkaWriter)
    return writer._transactions.epoch


def test_each_commit_raises_the_epoch(log: KafkaLog) -> None:
    """That is what EndTxn version 5 does: a delayed one then cannot end the next transaction."""
    topic = make_topic(log)
    with owning(log) as writer:
        epochs = [current_epoch(writer)]
        for n in range(3):
            writer.commit([NewRecord(topic, None, b"%d" % n, 0)])
            epochs.append(current_epoch(writer))
    assert epochs == list(range(epochs[0], epochs[0] + 4))
    assert values(read_to_end(log.reader({(topic, 0): 0}))) == [b"0", b"1", b"2"]


def test_without_the_cure_the_epoch_stays(kafka_servers: str) -> None:
    with KafkaLog(kafka_servers, prefix=f"{unique()}-", cured=False) as log:
        topic = make_topic(log)
        with owning(log) as writer:
            before = current_epoch(writer)
            writer.commit([NewRecord(topic, None, b"", 0)])
            assert current_epoch(writer) == before


def test_librdkafka_that_is_not_installed_is_told_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    monkeypatch.delitem(sys.modules, "stocktrade.transport.librdkafka", raising=False)
    with pytest.raises(UsageError, match="librdkafka is not installed") as raised:
        KafkaLog("127.0.0.1:1", client=LIBRDKAFKA)
    assert raised.value.hint == "pip install 'stocktrade[fast]'"


@pytest.mark.parametrize("name", ["ssl.protocol", "ssl.enabled.protocols"])
def test_an_option_that_librdkafka_cannot_obey_is_refused(kafka_servers: str, name: str) -> None:
    """An option that is accepted is obeyed: it has no words for the versions of TLS."""
    with KafkaLog(kafka_servers) as log:
        native = {**log._connection.settings.native, name: "TLSv1.3"}
        log._connection.settings = log._connection.settings._replace(native=native)
        with pytest.raises(UsageError, match=f"no option {name}"):
            Librdkafka(log._connection, "")


def test_a_leader_that_is_not_known_yet_is_no_lost_connection(kafka_servers: str) -> None:
    """Both are said in the log of librdkafka alone. Only after a lost connection nothing more is committed."""
    no_leader = "METADATAUPDATE [rdkafka#producer-1] [thrd:main]: Partition new(id)[0]: new leader-1 not found in cache"
    lost = f"FAIL [rdkafka#producer-1] [thrd:{kafka_servers}/1]: {kafka_servers}/1: Disconnected (after 9 ms)"
    with KafkaLog(kafka_servers, prefix=f"{unique()}-", client=LIBRDKAFKA) as log, owning(log) as writer:
        topic = make_topic(log)
        hears = writer._transactions._heard.handle  # type: ignore[attr-defined]
        hears(logging.makeLogRecord({"msg": no_leader}))
        assert len(writer.commit([NewRecord(topic, None, b"", 0)])) == 1
        hears(logging.makeLogRecord({"msg": lost}))
        with pytest.raises(Unavailable, match="a commit was not begun"):
            writer.commit([NewRecord(topic, None, b"", 0)])


@pytest.mark.parametrize("client", [LIBRDKAFKA], indirect=True)
def test_a_topic_that_is_new_to_a_consumer_is_fetched_at_once(log: KafkaLog) -> None:
    """By itself librdkafka asks who leads it when a second has passed since it was made, and once a second."""
    topic = make_topic(log)
    place = Place(log._prefix + topic, 0)
    log.append([NewRecord(topic, None, b"", 0)])
    took_s = []
    for _ in range(3):
        with closing(log._client.fetcher({})) as fetcher:
            fetcher.fetch(0.1, 1)  # it is connected
            begin = time.monotonic()
            fetcher.seek(place, 0)
            while not fetcher.fetch(0.1, 1):
                assert time.monotonic() < begin + 10
            took_s.append(time.monotonic() - begin)
    assert min(took_s) < 0.45


@on_both
def test_a_backlog_goes_on_without_asking_where_it_ends(log: KafkaLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.ensure_topics(topics.SPECS)
    with closing(log.member(unique(), topics.INPUTS)) as member:
        assert isinstance(member, adapter.KafkaMember)
        assignment(member, log.partitions(), 20)
        log.append([NewRecord(topic, None, b"%d" % n, 0) for n in range(100) for topic in topics.INPUTS])
        member.start(0, {})
        deadline = time.monotonic() + 20
        while not member._inputs[0].lasts_for(90):
            assert time.monotonic() < deadline
            member._fetch(0.1)

        def fail(*_: object, **__: object) -> None:
            pytest.fail("it asked")

        read: list[Record] = []
        with monkeypatch.context() as patch:
            patch.setattr(member._fetcher, "stable_ends", fail)
            for _ in range(9):
                poll = member.poll(1, 10)
                assert poll.records[-1].arrival <= poll.horizons[0]
                read += poll.records
        order = [(record.arrival, record.topic, record.offset) for record in read]
        assert order == sorted(order)
        assert len(read) == 90


@on_both
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_header_whose_name_is_no_text_stops_no_reader(log: KafkaLog, kafka_servers: str, compression: str) -> None:
    """Anybody may send one. One library never gets past it, the other leaves an error behind for the next call."""
    need_kcat()
    topic = make_topic(log)
    for value, name in ((b"one", b"name"), (b"two", b"\xff\xfe"), (b"three", b"name")):
        header = os.fsdecode(name + b"=1")
        to = ("-t", log._prefix + topic, "-p", "0", "-z", compression)
        kcat(kafka_servers, "-P", *to, "-H", header, stdin=value)
    found = read_to_end(log.reader({(topic, 0): 0}))
    assert [(record.value, record.headers) for record in found] == [
        (b"one", (("name", b"1"),)),
        (b"two", ()),
        (b"three", (("name", b"1"),)),
    ]


@on_both
def test_a_batch_that_cannot_be_unpacked_stops_no_reader(
    log: KafkaLog, kafka_servers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brokers do not check the sum at the end of an lz4 frame; both libraries do, and would not go on."""

    def damaged(data: bytes) -> bytes:
        frame: bytes = lz4.frame.compress(data, content_checksum=True)
        return frame[:-1] + bytes([frame[-1] ^ 1])

    topic = make_topic(log)
    log.append([NewRecord(topic, None, b"before", 0)])
    monkeypatch.setattr(default_records, "lz4_encode", damaged)
    producer = kafka.KafkaProducer(bootstrap_servers=kafka_servers, compression_type="lz4", linger_ms=500)
    sent = [producer.send(log._prefix + topic, b"lost" * 100, partition=0) for _ in range(3)]
    assert [each.get(10).offset for each in sent] == [1, 2, 3]
    producer.close()
    log.append([NewRecord(topic, None, b"after", 0)])
    found = read_to_end(log.reader({(topic, 0): 0}))
    assert [(record.offset, record.value) for record in found] == [
        (0, b"before"),
        (1, None),
        (2, None),
        (3, None),
        (4, b"after"),
    ]


@on_both
def test_a_header_without_a_value_has_an_empty_one(log: KafkaLog, kafka_servers: str) -> None:
    """Anybody may send one, and whoever reads headers here asks for their bytes."""
    topic = make_topic(log)
    producer = confluent_kafka.Producer({"bootstrap.servers": kafka_servers})
    producer.produce(log._prefix + topic, b"", partition=0, headers=[("none", None), ("some", b"1")])
    assert producer.flush(10) == 0
    (found,) = read_to_end(log.reader({(topic, 0): 0}))
    assert found.headers == (("none", b""), ("some", b"1"))


@on_both
def test_a_writer_that_failed_leaves_no_thread_behind(kafka_servers: str, client: str) -> None:
    """Of its library, that is: an exchange may lose its shards again and again."""

    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    with KafkaLog(kafka_servers, prefix=f"{unique()}-", client=client) as log:
        topic = make_topic(log)
        with owning(log) as first:
            first.commit([NewRecord(topic, None, b"", 0)])
        log.append([NewRecord(topic, None, b"", 0)])
        before = threads()
        for _ in range(3):
            with owning(log) as writer:
                writer.commit([NewRecord(topic, None, b"", 0)])
                log.claim(0).close()
                with pytest.raises(Fenced):
                    writer.commit([NewRecord(topic, None, b"%d" % n, 0) for n in range(100)])
        deadline = time.monotonic() + 10
        while threads() > before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert threads() <= before


def test_another_version_of_the_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "__version__", "3.0.99")
    with pytest.raises(UsageError, match=r"3\.0\.99"):
        KafkaLog("127.0.0.1:1")


def test_a_changed_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Changed:
        pass

    monkeypatch.setattr(kafka_txn, "_USED_INTERNALS", (Changed,))
    with pytest.raises(UsageError, match="not the published one"):
        KafkaLog("127.0.0.1:1")


def test_the_library_is_examined_once_however_many_threads_open_a_log() -> None:
    """Two threads that parse at once can fail on Python 3.11, and its source stays what it was."""
    kafka_txn._digest_of.cache_clear()
    with ThreadPoolExecutor(8) as threads:
        digests = {each.result() for each in [threads.submit(kafka_txn.internals_digest) for _ in range(32)]}
    assert digests <= kafka_txn.KNOWN_INTERNALS
    assert kafka_txn._digest_of.cache_info().misses == 1


def test_an_open_transaction_on_what_a_shard_writes_is_named(
    log: KafkaLog, kafka_servers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "CLAIM_PATIENCE_S", 0.3)
    log.ensure_topics(topics.SPECS)
    stranger = kafka.KafkaProducer(bootstrap_servers=kafka_servers, transactional_id=unique())
    try:
        stranger.init_transactions()
        stranger.begin_transaction()
        stranger.send(log._prefix + topics.TRADES, b"open", partition=2).get(10)
        with pytest.raises(Unavailable, match=rf"{topics.TRADES}, partition 2") as raised:
            log.claim(2)
        assert "kafka-transactions.sh" in raised.value.hint
        with owning(log, 1):
            pass  # the others are free
        stranger.abort_transaction()
        with owning(log, 2):
            pass
    finally:
        stranger.close(timeout=5)


def test_a_participants_open_transaction_on_an_input_is_no_reason(log: KafkaLog, kafka_servers: str) -> None:
    log.ensure_topics(topics.SPECS)
    participant = kafka.KafkaProducer(bootstrap_servers=kafka_servers, transactional_id=unique())
    try:
        participant.init_transactions()
        participant.begin_transaction()
        participant.send(log._prefix + topics.BUY_ORDERS, b"open", partition=0).get(10)
        with owning(log, 0):
            pass
        participant.abort_transaction()
    finally:
        participant.close(timeout=5)


@on_both
def test_a_lost_shard_is_not_taken_back_in_the_same_generation(log: KafkaLog, kafka_servers: str, client: str) -> None:
    log.ensure_topics(topics.SPECS)
    member = log.member("group", topics.INPUTS)
    assert assignment(member, 4, 20) == {0, 1, 2, 3}
    writer = log.claim(1)
    member.start(1, {})
    with KafkaLog(kafka_servers, prefix=log._prefix, client=client) as other, owning(other, 1):
        with pytest.raises(Fenced):
            writer.commit([NewRecord(topics.TRADES, None, b"", 1)])
        member.lose(1)
        poll = member.poll(0)
        assert (set(poll.assigned), set(poll.lost)) == ({0, 2, 3}, {1})
        second = other.member("group", topics.INPUTS)
        deadline = time.monotonic() + 20
        mine: frozenset[int] = frozenset()
        while len(mine) != 2 and time.monotonic() < deadline:
            mine = member.poll(0.05).assigned
            second.poll(0.05)
        second.close()
    assert assignment(member, 4, 20) == {0, 1, 2, 3}
    assert member.poll(0).lost == frozenset()
    member.close()


@on_both
def test_a_shard_that_was_assigned_anew_meanwhile_is_not_lost(log: KafkaLog, kafka_servers: str, client: str) -> None:
    """A frozen process is back in the group before it meets the owner that replaced it: then it may claim again."""
    log.ensure_topics(topics.SPECS)
    member = log.member("group", topics.INPUTS)
    for shard in assignment(member, 4, 20):
        member.start(shard, {})
    with KafkaLog(kafka_servers, prefix=log._prefix, client=client) as other:
        second = other.member("group", topics.INPUTS)
        deadline = time.monotonic() + 20
        while second.poll(0.05).assigned == frozenset() and time.monotonic() < deadline:
            member.poll(0.05)
        second.close()
    (kept, *_) = sorted(member.poll(0.1).horizons)
    assert assignment(member, 4, 20) == {0, 1, 2, 3}
    member.lose(kept)
    assert kept in member.poll(0.1).assigned
    member.start(kept, {})
    member.lose(kept)
    assert kept not in member.poll(0.1).assigned
    member.close()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_group_settles_although_nobody_waits_in_a_poll(kafka_servers: str, client: str) -> None:
    """A busy member never waits; what it is given comes between two of its polls, and with its generation."""
    prefix = f"{unique()}-"
    between = threading.Event()
    with ExitStack() as stack:
        logs = [stack.enter_context(KafkaLog(kafka_servers, prefix=prefix, client=client)) for _ in range(3)]
        logs[0].ensure_topics(topics.SPECS)
        members = [log.member("group", topics.INPUTS) for log in logs]
        assigned: list[frozenset[int]] = []
        given: dict[tuple[Member, int], set[frozenset[int]]] = defaultdict(set)
        deadline = time.monotonic() + 20
        while sorted(shard for each in assigned for shard in each) != [0, 1, 2, 3] or not all(assigned):
            assert time.monotonic() < deadline, assigned
            assigned = []
            for member in members:
                assigned.append(member.poll(0).assigned)
                given[member, member._generation].add(assigned[-1])  # type: ignore[attr-defined]  # of Kafka's alone
                between.wait(0.02)
        assert [each for each in given.values() if len(each) > 1] == []
        for member in members:
            member.close()


@on_both
def test_a_participants_open_transaction_shows_as_holding_back(log: KafkaLog, kafka_servers: str) -> None:
    """Readers and members of an input say which partition waits, and no more once the transaction is over."""
    log.ensure_topics(topics.SPECS)
    reader = log.reader({(topics.BUY_ORDERS, p): 0 for p in range(4)})
    member = log.member("group", topics.INPUTS)
    for shard in assignment(member, 4, 20):
        member.start(shard, {})
    participant = kafka.KafkaProducer(bootstrap_servers=kafka_servers, transactional_id=unique())
    try:
        participant.init_transactions()
        participant.begin_transaction()
        participant.send(log._prefix + topics.BUY_ORDERS, b"mine", partition=2).get(10)
        log.append([NewRecord(topics.BUY_ORDERS, None, b"another's", 2), NewRecord(topics.BUY_ORDERS, None, b"", 1)])
        held: dict[str, Any] = {}
        deadline = time.monotonic() + 20
        while not (held.get("reader") and held.get("member")) and time.monotonic() < deadline:
            reader.poll(0.05)
            held = {"reader": reader.held_back(), "member": member.poll(0.05).held_back}
        assert {who: set(places) for who, places in held.items()} == {
            "reader": {(topics.BUY_ORDERS, 2)},
            "member": {(topics.BUY_ORDERS, 2)},
        }
        participant.commit_transaction()
        while any(held.values()) and time.monotonic() < deadline:
            reader.poll(0.05)
            held = {"reader": reader.held_back(), "member": member.poll(0.05).held_back}
        assert held == {"reader": {}, "member": {}}
    finally:
        participant.close(timeout=5)
        member.close()


@on_both
def test_a_dead_participants_transaction_holds_back_no_longer_than_its_timeout(
    log: KafkaLog, kafka_servers: str
) -> None:
    """What is behind it is read when its timeout and one look of the broker, a second here, are over."""
    log.ensure_topics(topics.SPECS)
    participant = kafka.KafkaProducer(
        bootstrap_servers=kafka_servers, transactional_id=unique(), transaction_timeout_ms=2_000
    )
    participant.init_transactions()
    participant.begin_transaction()
    participant.send(log._prefix + topics.BUY_ORDERS, b"never committed", partition=0).get(10)
    discard_producer(participant)
    began = time.monotonic()
    log.append([NewRecord(topics.BUY_ORDERS, None, b"behind", 0)])
    reader = log.reader({(topics.BUY_ORDERS, 0): 0})
    found: list[Record] = []
    while not found:
        assert time.monotonic() - began < 2 + 1 + 5, "the timeout, the look, and a slow machine"
        found = reader.poll(0.2)
    assert values(found) == [b"behind"]


# Topics


def test_topics_are_made_as_they_should_be(log: KafkaLog, admin: Any) -> None:
    log.ensure_topics(topics.SPECS)
    log.ensure_topics(topics.SPECS)
    assert log.partitions() == 4
    names = [log._prefix + spec.name for spec in topics.SPECS]
    resources = [kafka.admin.ConfigResource(kafka.admin.ConfigResourceType.TOPIC, name) for name in names]
    found = admin.describe_configs(resources, config_filter="all")["topic"]
    settings = {name[len(log._prefix) :]: {k: v["value"] for k, v in each.items()} for name, each in found.items()}
    for name, values_ in settings.items():
        assert values_["message.timestamp.type"] == ("LogAppendTime" if name in topics.INPUTS else "CreateTime"), name
        assert values_["cleanup.policy"] == ("compact" if name == topics.SNAPSHOTS else "delete"), name
        assert values_["min.insync.replicas"] == "1"
        if name != topics.SNAPSHOTS:
            assert values_["retention.ms"] == values_["retention.bytes"] == "-1"


def test_topics_with_other_settings_are_refused_with_what_mends_them(log: KafkaLog, admin: Any) -> None:
    """As a broker makes them by itself: one partition, the producer's time, a week of retention."""
    topic = unique()
    admin.create_topics({log._prefix + topic: {"num_partitions": 1}}, wait_for_metadata=True)
    with pytest.raises(UsageError) as raised:
        log.ensure_topics([TopicSpec(topic, append_time=True)])
    error = raised.value
    for difference in ("has 1 partitions, not 4", "message.timestamp.type=CreateTime", "retention.ms=604800000"):
        assert difference in error.cause
    assert f"--topic {log._prefix}{topic} --alter --partitions 4" in error.hint
    assert "--alter --add-config message.timestamp.type=LogAppendTime,retention.ms=-1" in error.hint

    resource = kafka.admin.ConfigResource(
        kafka.admin.ConfigResourceType.TOPIC,
        log._prefix + topic,
        configs={"message.timestamp.type": "LogAppendTime", "retention.ms": "-1"},
    )
    admin.alter_configs([resource])
    admin.create_partitions({log._prefix + topic: 4})
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:  # until all of the broker knows
        with suppress(UsageError):
            log.ensure_topics([TopicSpec(topic, append_time=True)])
            break
        time.sleep(0.1)
    log.ensure_topics([TopicSpec(topic, append_time=True)])


def test_the_settings_of_a_topic_are_asked_for_until_the_broker_tells_them(log: KafkaLog, admin: Any) -> None:
    """One broker of several hears of a new topic later than another; until then it tells nothing about it."""
    topic = log._prefix + unique()
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(log._topics.settings, [topic])
        time.sleep(0.2)  # no condition to wait for: the broker has been asked, and knew nothing
        assert not asked.done()
        admin.create_topics({topic: {"num_partitions": 1, "configs": {"cleanup.policy": "compact"}}})
        assert asked.result(timeout=10)[topic]["cleanup.policy"] == "compact"


def test_a_new_log_keeps_the_number_of_partitions_that_is_there(kafka_servers: str) -> None:
    prefix = f"{unique()}-"
    with KafkaLog(kafka_servers, prefix=prefix, partitions=2) as first:
        first.ensure_topics(topics.SPECS)
    with KafkaLog(kafka_servers, prefix=prefix) as second:
        assert second.partitions() == 2
        second.ensure_topics(topics.SPECS)
    with (
        KafkaLog(kafka_servers, prefix=prefix, partitions=3) as third,
        pytest.raises(UsageError, match="2 partitions, not 3") as raised,
    ):
        third.ensure_topics(topics.SPECS)
    assert "leave --partitions out" in raised.value.hint


def test_unknown_topics_partitions_and_options_are_refused(log: KafkaLog, kafka_servers: str) -> None:
    topic = make_topic(log)
    for record in (NewRecord(unique(), None, b""), NewRecord(topic, None, b"", 4)):
        with pytest.raises(UsageError):
            log.append([record])
    with pytest.raises(UsageError):
        log.append([NewRecord(topic, None, b"x" * 2_000_000)])
    with pytest.raises(UsageError):
        log.claim(4)
    with pytest.raises(UsageError, match=r"no\.such\.option"):
        KafkaLog(kafka_servers, settings={"no.such.option": "1"})


# Brokers that are away


def test_no_broker_is_said_within_six_seconds() -> None:
    servers = f"127.0.0.1:{free_port()}"
    begin = time.monotonic()
    with pytest.raises(Unavailable, match=servers):
        KafkaLog(servers)
    assert time.monotonic() - begin < 6


@pytest.mark.slow
def test_a_broker_that_does_not_answer_is_said_within_six_seconds(new_broker: NewBroker) -> None:
    broker = new_broker()
    broker.pause_broker()
    begin = time.monotonic()
    with pytest.raises(Unavailable, match=broker.bootstrap_servers):
        KafkaLog(broker.bootstrap_servers)
    assert time.monotonic() - begin < 6
    broker.unpause_broker()


@pytest.mark.slow
def test_the_address_that_a_broker_advertises_is_named(new_broker: NewBroker) -> None:
    advertised = f"127.0.0.1:{free_port()}"
    broker = new_broker(KAFKA_ADVERTISED_LISTENERS=f"PLAINTEXT://{advertised}")
    begin = time.monotonic()
    with pytest.raises(Unavailable, match=broker.bootstrap_servers) as raised:
        KafkaLog(broker.bootstrap_servers)
    assert time.monotonic() - begin < 6
    assert advertised in raised.value.cause


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["pause", "kill", "stop"])
@on_both
def test_a_commit_during_which_the_broker_goes_away_is_there_once_or_not_at_all(
    new_broker: NewBroker, fault: str, client: str
) -> None:
    """The owner recovers, looks, and writes what is missing: nothing is lost, nothing is there twice."""
    broker = new_broker()
    with KafkaLog(broker.bootstrap_servers, settings=QUICK, prefix=f"{unique()}-", client=client) as log:
        topic = make_topic(log)
        writer = log.claim(0)
        writer.commit([NewRecord(topic, None, b"0", 0)])
        away = {"pause": broker.pause_broker, "kill": broker.kill_broker, "stop": broker.stop_broker}[fault]
        timer = threading.Timer(0.15, away)
        timer.start()
        number = 1
        begin = time.monotonic()
        failure: StocktradeError | None = None
        while failure is None:
            assert time.monotonic() < begin + 20
            begun = time.monotonic()
            try:
                writer.commit([NewRecord(topic, None, b"%d" % number, 0), NewRecord(topic, None, b"+", 0)])
                number += 1
            except Unavailable as error:
                failure = error
        assert time.monotonic() - begun < 8  # transaction timeout, closing the producer
        with pytest.raises(Unavailable):
            log.append([NewRecord(topic, None, b"not now")])
        timer.join()
        time.sleep(1)
        broker.unpause_broker() if fault == "pause" else broker.start_broker()

        writer = claim_within(log, 20)
        found = [value for value in values(read_to_end(log.reader({(topic, 0): 0}))) if value != b"not now"]
        done = int([value for value in found if value != b"+"][-1] or b"")
        assert done in (number - 1, number)
        while done < 200:
            done += 1
            writer.commit([NewRecord(topic, None, b"%d" % done, 0), NewRecord(topic, None, b"+", 0)])
        found = [value for value in values(read_to_end(log.reader({(topic, 0): 0}))) if value != b"not now"]
        assert found == [b"0", *(value for n in range(1, 201) for value in (b"%d" % n, b"+"))]


def claim_within(log: Log, patience_s: float) -> Writer:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return log.claim(0)
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@pytest.mark.slow
@on_both
def test_readers_and_members_go_on_when_the_broker_is_back(new_broker: NewBroker, client: str) -> None:
    broker = new_broker()
    with KafkaLog(broker.bootstrap_servers, settings=QUICK, prefix=f"{unique()}-", client=client) as log:
        log.ensure_topics(topics.SPECS)
        reader = log.reader({(topics.BUY_ORDERS, p): 0 for p in range(4)})
        member = log.member("group", topics.INPUTS)
        for shard in assignment(member, 4, 20):
            member.start(shard, {})
        log.append([NewRecord(topics.BUY_ORDERS, b"k", b"before")])
        broker.kill_broker()
        seen: Counter[bytes | None] = Counter()
        away = time.monotonic()
        for _ in range(10):
            seen.update(record.value for record in member.poll(0.1).records)
            reader.poll(0.1)
        assert time.monotonic() - away < 5
        broker.start_broker()
        begin = time.monotonic()
        while True:  # the first ones may still find the old connection
            try:
                log.append([NewRecord(topics.BUY_ORDERS, b"k", b"after")])
                break
            except Unknown:
                assert time.monotonic() - begin < 20
        while b"after" not in seen and time.monotonic() - begin < 30:
            poll = member.poll(0.1)
            seen.update(record.value for record in poll.records)
            for shard in poll.assigned - poll.horizons.keys():  # it was evicted, and is back
                member.start(shard, {})
        assert {b"before", b"after"} <= seen.keys()
        assert b"after" in values(read_to_end(log.reader({(topics.BUY_ORDERS, p): 0 for p in range(4)})))
        member.close()


# An exchange


SEED_BUY = b'{"order_id":"b1","buyer":"HDFC","stock_symbol":"SBI","quantity":100,"price_per_unit":885.0}'
SEED_SELL = b'{"offer_id":"s1","seller":"SELLER","stock_symbol":"SBI","quantity":100}'


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Running:
    """An exchange in a thread of its own, as another process would be."""

    def __init__(self, log: Log, name: str, **options: Any) -> None:
        self._node = Node(log, name=name, now_ms=now_ms, **options)
        self.lost: list[tuple[int, StocktradeError | None]] = []
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self.lost += self._node.step(0.1).lost.items()
        except Exception as error:  # noqa: BLE001 - raised again where somebody looks
            self._error = error

    @property
    def shards(self) -> list[int]:
        if self._error is not None:
            raise self._error
        return sorted(self._node.owners)

    def failure(self, patience_s: float) -> Exception | None:
        """What ended it, within so many seconds."""
        self._thread.join(patience_s)
        return self._error

    def end(self, *, cleanly: bool = True) -> None:
        self._stop.set()
        self._thread.join(30)
        self._node.close() if cleanly else self._node.abandon()


def own_all(exchanges: list[Running], patience_s: float = 30) -> None:
    """Wait until together they own each shard once, and each of them some."""
    deadline = time.monotonic() + patience_s
    while True:
        owned = [exchange.shards for exchange in exchanges]
        if sorted(shard for shards in owned for shard in shards) == [0, 1, 2, 3] and all(owned):
            return
        assert time.monotonic() < deadline, owned
        time.sleep(0.02)


def everything(log: Log, topic: str) -> list[Record]:
    return read_to_end(log.reader({(topic, p): 0 for p in range(log.partitions())}))


@on_both
def test_the_seeds_trade_gives_the_seeds_messages(log: KafkaLog, kafka_servers: str, client: str) -> None:
    exchange = Running(log, "test")
    with KafkaLog(kafka_servers, prefix=log._prefix, client=client) as participant:
        own_all([exchange])
        participant.append([NewRecord(topics.BUY_ORDERS, b"SBIN", SEED_BUY)])
        participant.append([NewRecord(topics.SELL_OFFERS, b"SBIN", SEED_SELL)])
        reader = participant.reader({(topics.CASH_MOVEMENTS, p): 0 for p in range(4)})
        assert poll_some(reader, 10, 20)
        demat, cash = (
            [json.loads(record.value or b"") for record in everything(participant, topic)]
            for topic in (topics.DEMAT_TRANSFERS, topics.CASH_MOVEMENTS)
        )
    exchange.end()
    (received,) = [message for message in demat if message["to_entity"] == "HDFC"]
    (paid,) = [message for message in cash if message["to_entity"] == "HDFC"]
    assert {field: received[field] for field in ("from_entity", "stock_symbol", "quantity", "order_id")} == {
        "from_entity": "NSE",
        "stock_symbol": "SBI",
        "quantity": 100,
        "order_id": "b1",
    }
    assert {field: paid[field] for field in ("from_entity", "amount", "order_id", "description")} == {
        "from_entity": "NSE",
        "amount": 88500.0,
        "order_id": "b1",
        "description": "Payment for 100 SBI stocks @ ₹885",
    }
    assert len(demat) == len(cash) == 2


@pytest.mark.slow
@on_both
def test_shards_move_between_exchanges_without_loss_or_duplicates(
    log: KafkaLog, kafka_servers: str, client: str
) -> None:
    """Two share the shards, one is abandoned without a word, a third joins: every order has one outcome.

    With the first and third on librdkafka the second is not, so that they take over from each other.
    """
    symbols = [f"SYM{n}" for n in range(12)]
    sent = 0

    def order(participant: Log) -> None:
        nonlocal sent
        for symbol in symbols:
            value = b'{"order_id":"o%d","buyer":"HDFC","stock_symbol":"%s","quantity":1,"price_per_unit":885.0}' % (
                sent,
                symbol.encode(),
            )
            participant.append([NewRecord(topics.BUY_ORDERS, symbol.encode(), value)])
            sent += 1

    logs = [KafkaLog(kafka_servers, prefix=log._prefix, client=each) for each in (KAFKA_PYTHON, client, LIBRDKAFKA)]
    participant = logs[2]
    first = Running(log, "first")
    own_all([first])
    order(participant)
    second = Running(logs[0], "second")
    order(participant)
    own_all([first, second])
    order(participant)
    first.end(cleanly=False)  # without snapshots, as after an error
    order(participant)
    own_all([second])
    third = Running(logs[1], "third")
    order(participant)
    own_all([second, third])
    order(participant)
    deadline = time.monotonic() + 30
    outcomes: list[Any] = []
    while len(outcomes) < sent and time.monotonic() < deadline:
        outcomes = [json.loads(record.value or b"") for record in everything(participant, topics.ORDER_EVENTS)]
    second.end()
    third.end()
    for each in logs:
        each.close()
    assert Counter(outcome["order_id"] for outcome in outcomes) == Counter(f"o{n}" for n in range(sent))
    per_shard: dict[int, list[int]] = defaultdict(list)
    for outcome in outcomes:
        per_shard[outcome["shard"]].append(outcome["seq"])
    for seqs in per_shard.values():
        assert seqs == list(range(1, len(seqs) + 1))


@on_both
def test_an_exchange_that_is_fenced_on_one_shard_trades_on_with_the_others(
    log: KafkaLog, kafka_servers: str, client: str
) -> None:
    """It gives up that shard alone, and has it again when the group assigns it anew."""
    node = Running(log, "one")
    own_all([node])
    with KafkaLog(kafka_servers, prefix=log._prefix, client=client) as other, owning(other, 2) as writer:
        for partition in range(4):
            other.append([NewRecord(topics.BUY_ORDERS, None, b"no order", partition)])
        assert len(wait_for(other, topics.DEAD_LETTERS, 3)) == 3
        writer.commit([NewRecord(topics.ORDER_EVENTS, None, b"", 2)])
        assert [(shard, type(why)) for shard, why in node.lost] == [(2, Fenced)]
        assert node.shards == [0, 1, 3]
        second = Running(other, "two")
        own_all([node, second])
        second.end()
        own_all([node])
    assert len(wait_for(log, topics.DEAD_LETTERS, 4)) == 4
    node.end()


def wait_for(log: Log, topic: str, count: int, patience_s: float = 20) -> list[Record]:
    """The records of a topic, once there are so many."""
    deadline = time.monotonic() + patience_s
    while len(found := everything(log, topic)) < count:
        assert time.monotonic() < deadline, found
    return found


@on_both
def test_an_exchange_outside_of_the_group_makes_the_other_one_stop(
    log: KafkaLog, kafka_servers: str, monkeypatch: pytest.MonkeyPatch, client: str
) -> None:
    """Doubled by a wrong --group, one of the two ends with Fenced; it does not take the shards back for ever."""
    monkeypatch.setattr("stocktrade.shard.node.LOST_PATIENCE_S", 1.0)
    node = Running(log, "one")
    own_all([node])
    with KafkaLog(kafka_servers, prefix=log._prefix, client=client) as other:
        second = Running(other, "two", group="another")
        own_all([second])
        assert isinstance(node.failure(20), Fenced)
        second.end()
    node.end(cleanly=False)


@contextmanager
def given_a_trade(broker: KafkaContainer, client: str) -> Iterator[tuple[Running, KafkaLog]]:
    """An exchange that outlasts its broker and was just sent an order and an offer that trade; and who sent them."""
    with (
        KafkaLog(broker.bootstrap_servers, settings=QUICK, client=client) as log,
        KafkaLog(broker.bootstrap_servers, client=client) as participant,
    ):
        node = Running(log, "one", outlasts_outages=True)
        own_all([node])
        participant.append(
            [NewRecord(topics.BUY_ORDERS, b"SBIN", SEED_BUY), NewRecord(topics.SELL_OFFERS, b"", SEED_SELL)]
        )
        yield node, participant


@pytest.mark.slow
@on_both
def test_an_exchange_outlasts_its_broker(new_broker: NewBroker, client: str) -> None:
    """Killed in the middle of its work, it goes on by itself when the broker is back, and takes each order once."""
    broker = new_broker()
    with given_a_trade(broker, client) as (node, participant):
        broker.kill_broker()
        broker.start_broker()
        assert len(wait_for(participant, topics.TRADES, 1, 30)) == 1
        own_all([node])
        node.end()
        assert [len(everything(participant, topic)) for topic in topics.OUTPUTS] == [2, 1, 2, 2]


@pytest.mark.slow
@on_both
def test_an_idle_exchange_whose_broker_was_away_ends_cleanly(new_broker: NewBroker, client: str) -> None:
    """Nothing was under way, so nothing is unknown: a producer that lost its connection is no error at the end."""
    broker = new_broker()
    with given_a_trade(broker, client) as (node, participant):
        assert len(wait_for(participant, topics.TRADES, 1, 30)) == 1
        broker.kill_broker()
        broker.start_broker()
        node.end()
        assert [len(everything(participant, topic)) for topic in topics.OUTPUTS] == [2, 1, 2, 2]


def test_the_lag_shows_in_the_group(log: KafkaLog, admin: Any) -> None:
    log.ensure_topics(topics.SPECS)
    member = log.member("nse", topics.INPUTS)
    for shard in assignment(member, 4, 20):
        member.start(shard, {})
    place = log.append([NewRecord(topics.BUY_ORDERS, None, b"", 3)])[0]
    member.note_progress(3, {topics.BUY_ORDERS: place.offset + 1})
    member.close()
    group = log._prefix + "nse"
    offsets = admin.list_group_offsets([group])[group]
    assert offsets[kafka.TopicPartition(log._prefix + topics.BUY_ORDERS, 3)].offset == place.offset + 1


@on_both
def test_a_horizon_reaches_to_the_head_of_the_other_topic(log: KafkaLog) -> None:
    log.ensure_topics(topics.SPECS)
    for n in range(30):
        log.append([NewRecord(topics.INPUTS[n % 2], None, b"%d" % n, 0)])
        time.sleep(0.002)
    member = log.member("nse", topics.INPUTS)
    for shard in assignment(member, 4, 20):
        member.start(shard, {})
    found: list[Record] = []
    deadline = time.monotonic() + 20
    horizon = 0
    while horizon != UNBOUNDED and time.monotonic() < deadline:
        poll = member.poll(0.1, max_records=4)
        # What comes after a horizon was said does not belong before it.
        assert all(record.arrival >= horizon for record in poll.records)
        found += poll.records
        horizon = poll.horizons[0]
    found.sort(key=lambda record: record.arrival)
    assert [record.value for record in found] == [b"%d" % n for n in range(30)]
    member.close()


@on_both
@pytest.mark.parametrize("while_it_runs", [False, True])
def test_an_input_that_was_made_anew_stops_the_exchange(
    log: KafkaLog, admin: Any, monkeypatch: pytest.MonkeyPatch, while_it_runs: bool
) -> None:
    """New orders have offsets there that count as taken: they would be confirmed, and never traded."""
    monkeypatch.setattr("stocktrade.transport.kafka_inputs.SHORT_PATIENCE_S", 1.0)
    log.ensure_topics(topics.SPECS)
    topic = log._prefix + topics.BUY_ORDERS
    node = Node(log, name="first", now_ms=now_ms)
    log.append([NewRecord(topics.BUY_ORDERS, b"SBIN", b"{}", 0) for _ in range(5)])
    while sum(owner.exchange.seq + owner.committed[topics.BUY_ORDERS] for owner in node.owners.values()) < 5:
        node.step(0.1)
    if not while_it_runs:
        node.close()
    admin.delete_topics([topic])
    deadline = time.monotonic() + 20
    while topic in admin.list_topics():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with KafkaLog(log.url.removeprefix("kafka:"), prefix=log._prefix, partitions=log.partitions()) as other:
        other.ensure_topics(topics.SPECS)
        other.append([NewRecord(topics.BUY_ORDERS, b"SBIN", b"{}", 0)])
    if not while_it_runs:
        node = Node(log, name="second", now_ms=now_ms)

    def go_on() -> None:
        while time.monotonic() < deadline + 20:
            node.step(0.1)

    with pytest.raises(LogDamaged, match=r"buy-orders@0 ends before what was taken from it"):
        go_on()
    node.abandon()


def test_a_broken_fence_is_noticed(log: KafkaLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a transactional id of its own each time, nobody is fenced: the contract's test must not pass then."""
    real = KafkaPython.transactions

    def unfenced(self: KafkaPython, transactional_id: str, *args: Any) -> Any:
        return real(self, transactional_id + unique(), *args)

    monkeypatch.setattr(KafkaPython, "transactions", unfenced)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        TestKafkaLog().test_no_zombie_write(lambda: KafkaLog(log.url.partition(":")[2], partitions=1))
