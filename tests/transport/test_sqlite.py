"""The embedded log passes the contract, and does what only it promises."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

pytest.register_assert_rewrite("contract")

from contract import (  # noqa: E402 - its assertions are rewritten first
    LATER,
    LogContract,
    assignment,
    in_background,
    make_topic,
    owning,
    poll_some,
    poll_until,
    quick_folder,
    read_to_end,
    running,
    values,
)

from stocktrade.errors import Fenced, LogDamaged, Occupied, Unavailable, Unknown, UsageError  # noqa: E402
from stocktrade.transport import anchor, connect, database, sqlite, store  # noqa: E402
from stocktrade.transport.base import UNBOUNDED, Log, NewRecord, Poll, Position, TopicSpec, Writer  # noqa: E402
from stocktrade.transport.doorbell import Doorbell  # noqa: E402
from stocktrade.transport.sqlite import SqliteLog, SqliteWriter  # noqa: E402

ME = f"pid {os.getpid()}"
Damage = Callable[[bytes], bytes]


class TestSqliteLog(LogContract):
    @classmethod
    def connect(cls, folder: Path, partitions: int) -> Log:
        return SqliteLog(folder, partitions=partitions)

    def abandon(self, writer: Writer) -> None:
        assert isinstance(writer, SqliteWriter)
        writer._session.locks._lock(writer.shard).release()


class TestTheContractNotices:
    """A contract that passes whatever the adapter does proves nothing: here a guard is taken away."""

    def test_a_commit_that_is_not_atomic(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class TornWriter(SqliteWriter):
            def commit(self, records: Sequence[NewRecord], *, anchor: bytes | None = None) -> list[Position]:
                positions = []
                for record in records:
                    positions += super().commit([record], anchor=anchor)
                    time.sleep(0.002)
                return positions

        monkeypatch.setattr(sqlite, "SqliteWriter", TornWriter)
        with pytest.raises(AssertionError, match=r"a commit was visible|half of a commit"):
            TestSqliteLog().test_no_torn_commit(lambda: SqliteLog(tmp_path))
        with pytest.raises(AssertionError):
            TestSqliteLog().test_no_aborted_read(lambda: SqliteLog(tmp_path))

    def test_a_missing_look_at_the_epoch(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(store.Store, "check_epoch", lambda *_: None)
        with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
            TestSqliteLog().test_no_zombie_write(lambda: SqliteLog(tmp_path))

    def test_a_horizon_that_ignores_the_limit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Boasting(sqlite.SqliteMember):
            def poll(self, timeout_s: float, max_records: int = 1000) -> Poll:
                poll = super().poll(timeout_s, max_records)
                return poll._replace(horizons=dict.fromkeys(poll.horizons, UNBOUNDED))

        monkeypatch.setattr(sqlite, "SqliteMember", Boasting)
        with pytest.raises(AssertionError):
            TestSqliteLog().test_a_horizon_is_true(lambda: SqliteLog(tmp_path), max_records=3)

    def test_a_reader_that_spins(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def spin(*_: object) -> None:
            """Spend more than it may, however little of the processor there is."""
            end = time.thread_time() + 0.12
            while time.thread_time() < end:
                pass

        monkeypatch.setattr(sqlite._Session, "wait", spin)
        with pytest.raises(AssertionError, match="processor"):
            TestSqliteLog().test_a_reader_at_the_end_wakes_up_on_append_without_busy_waiting(
                lambda: SqliteLog(tmp_path)
            )


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as folder:
        yield folder


@pytest.fixture
def log(folder: Path) -> Iterator[SqliteLog]:
    with SqliteLog(folder, partitions=2) as log:
        yield log


# The folder and the file


def test_connect_opens_a_folder_made_for_this_user_alone(folder: Path) -> None:
    with connect(f"sqlite:{folder}/a/b", partitions=3) as log:
        assert isinstance(log, SqliteLog)
        assert (log.url, log.partitions()) == (f"sqlite:{folder}/a/b", 3)
        assert (folder / "a/b").stat().st_mode & 0o777 == 0o700
    with connect(f"sqlite:{folder}/a/b", partitions=5) as log:
        assert log.partitions() == 3, "an existing log keeps its number of partitions"


@pytest.mark.parametrize("partitions", [0, -1, 1025])
def test_an_impossible_number_of_partitions_is_refused(folder: Path, partitions: int) -> None:
    with pytest.raises(UsageError):
        SqliteLog(folder, partitions=partitions)
    assert not folder.exists()


def test_odd_names_of_folders_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a b", "50%25?mode=memory#x", "ₓ-ü", os.fsdecode(b"not-utf8-\xff"), "."):
        with SqliteLog(Path(name)) as log, SqliteLog(tmp_path / name) as same:
            topic = make_topic(log)
            log.append([NewRecord(topic, None, b"x")])
            assert values(read_to_end(same.reader({(topic, 0): 0}))) == [b"x"]
        assert (tmp_path / name / "log.db").exists()


def test_everything_is_in_one_file_after_the_last_close(log: SqliteLog, folder: Path) -> None:
    topic = make_topic(log)
    log.append([NewRecord(topic, None, b"x")])
    log.close()
    assert not (folder / "log.db-wal").exists()
    (folder / "copy").mkdir()
    (folder / "log.db").rename(folder / "copy/log.db")
    with SqliteLog(folder / "copy") as copy:
        assert values(read_to_end(copy.reader({(topic, 0): 0}))) == [b"x"]


def test_what_has_no_place_on_the_log_is_refused_whole(log: SqliteLog) -> None:
    topic, table = make_topic(log), make_topic(log, compacted=True)
    good = NewRecord(topic, None, b"good")
    for bad in (
        NewRecord("no-such-topic", None, b""),
        NewRecord(topic, None, b"", 2),
        NewRecord(topic, None, b"", -1),
        NewRecord(topic, None, b"", time_ms=2**63),
        NewRecord(topic, None, b"", headers=(("\ud800", b""),)),
        NewRecord(table, None, b"a table needs keys"),
    ):
        with pytest.raises(UsageError):
            log.append([good, bad])
    with pytest.raises(UsageError):
        log.reader({("no-such-topic", 0): 0})
    with pytest.raises(UsageError):
        log.member("group", ["no-such-topic"])
    with pytest.raises(UsageError):
        log.claim(2)
    assert read_to_end(log.reader({(topic, p): 0 for p in range(2)})) == []


# Order and time


def test_offsets_have_no_gaps_and_arrival_is_one_sequence(log: SqliteLog) -> None:
    a, b = make_topic(log), make_topic(log)
    for _ in range(3):
        places = log.append([NewRecord(topic, None, b"", p) for topic in (a, b) for p in range(2)])
    assert places == [Position(topic, p, 2) for topic in (a, b) for p in range(2)]
    records = read_to_end(log.reader({(topic, p): 0 for topic in (a, b) for p in range(2)}))
    assert [record.arrival for record in records] == list(range(1, 13))


def test_compaction_removes_at_once_and_gives_no_number_twice(log: SqliteLog) -> None:
    table = make_topic(log, compacted=True)
    keys = [b"a", b"b", b"a", b"a"]
    log.append([NewRecord(table, key, str(n).encode(), 0) for n, key in enumerate(keys)])
    log.append([NewRecord(table, b"a", None, 0), NewRecord(table, b"a", b"other partition", 1)])
    records = read_to_end(log.reader({(table, 0): 0, (table, 1): 0}))
    assert [(r.offset, r.arrival, r.value) for r in records] == [
        (1, 2, b"1"),
        (4, 5, None),
        (0, 6, b"other partition"),
    ]
    log.append([NewRecord(table, b"a", None, 1)])
    log.append([NewRecord(table, b"b", None, 0)])
    records = read_to_end(log.reader({(table, 0): 3, (table, 1): 0}))
    assert [(r.partition, r.offset, r.arrival) for r in records] == [(0, 4, 5), (1, 1, 7), (0, 5, 8)]


def test_time_never_goes_back_when_the_clock_does(
    log: SqliteLog, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = make_topic(log, append_time=True)
    now = store.wall_clock_ms()
    with SqliteLog(folder) as other:
        for each, clock in ((log, now), (other, now - 3_600_000), (log, now - 5), (other, now + 7)):
            monkeypatch.setattr(store, "wall_clock_ms", lambda clock=clock: clock)
            each.append([NewRecord(topic, None, b"", 0, time_ms=1)])
    times = [record.time_ms for record in read_to_end(log.reader({(topic, 0): 0}))]
    assert times == [now, now, now, now + 7]


def test_a_limited_poll_has_its_horizon_right_after_the_last_record(log: SqliteLog) -> None:
    topic = make_topic(log)
    member = log.member("group", [topic])
    for shard in assignment(member, 2, 5):
        member.start(shard, {topic: 0})
    log.append([NewRecord(topic, None, b"", n % 2) for n in range(5)])
    poll = member.poll(1, max_records=3)
    assert poll.horizons == dict.fromkeys((0, 1), poll.records[-1].arrival + 1)
    assert member.poll(1, max_records=3).horizons == dict.fromkeys((0, 1), UNBOUNDED)


# Owners


def test_a_live_owner_keeps_its_shard(log: SqliteLog, folder: Path) -> None:
    """In one process as between two: the lock is the opened file's."""
    with SqliteLog(folder) as other, owning(log) as writer:
        topic = make_topic(log)
        begin = time.monotonic()
        with pytest.raises(Occupied, match=ME) as caught:
            other.claim(0)
        assert time.monotonic() - begin < 1
        assert caught.value.pid == os.getpid()
        writer.commit([NewRecord(topic, None, b"")])  # the attempt did not fence it
        assert other.owners() == log.owners() == {0: ME, 1: None}
        with owning(other, shard=1):
            assert log.owners() == {0: ME, 1: ME}
    with SqliteLog(folder) as other:
        assert other.owners() == {0: None, 1: None}


def test_a_failed_claim_keeps_nothing(log: SqliteLog, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise Unavailable("no epoch today")

    with monkeypatch.context() as patch:
        patch.setattr(store.Store, "next_epoch", fail)
        with pytest.raises(Unavailable, match="no epoch"):
            log.claim(0)
    with SqliteLog(folder) as other, owning(other):
        pass


def test_a_member_and_its_writers_share_the_lock(log: SqliteLog, folder: Path) -> None:
    topic = make_topic(log)
    with SqliteLog(folder) as other:
        member = log.member("group", [topic])
        assignment(member, 2, 5)
        log.claim(0).close()  # given up by its writer, still assigned
        assert other.owners() == {0: ME, 1: ME}
        writer = log.claim(0)
        member.close()
        assert other.owners() == {0: ME, 1: None}
        writer.commit([NewRecord(topic, None, b"")])
        writer.close()
        assert other.owners() == {0: None, 1: None}


def test_a_member_says_for_whom_it_waits(log: SqliteLog, folder: Path) -> None:
    topic = make_topic(log)
    with SqliteLog(folder) as other:
        second_of_the_same_log = log.member("group", [topic])
        first, second = log.member("group", [topic]), other.member("group", [topic])
        assert first.poll(5).assigned == {0, 1}
        for waiting in (second, second_of_the_same_log):
            begin = time.monotonic()
            poll = waiting.poll(5)
            assert (poll.assigned, poll.waiting_for) == (frozenset(), {0: ME, 1: ME})
            assert time.monotonic() - begin < 1, "whom it waits for is news"
            with pytest.raises(ValueError, match="not assigned"):
                waiting.start(0, {})
        first.close()
        assert second.poll(5).waiting_for == {}


def test_looking_who_owns_does_not_disturb_a_claim(log: SqliteLog, folder: Path) -> None:
    stop = False

    def look() -> None:
        with SqliteLog(folder) as onlooker:
            while not stop:
                onlooker.owners()

    with in_background(look):
        try:
            for _ in range(100):
                log.claim(0).close()
        finally:
            stop = True


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_keep_its_parents_shard(log: SqliteLog, folder: Path) -> None:
    writer = log.claim(0)
    begin, end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(end)
        os.read(begin, 1)
        os._exit(0)
    try:
        # As if the parent were dead: its descriptor is gone without an unlock.
        log._session.locks._lock(0).close()
        with SqliteLog(folder) as other, owning(other):
            pass
    finally:
        os.close(end)
        os.waitpid(child, 0)
        os.close(begin)
    with pytest.raises(Fenced):
        writer.commit([])


# Anchors


def test_an_anchor_comes_back(log: SqliteLog, folder: Path) -> None:
    topic = make_topic(log)
    with owning(log, shard=1) as writer:
        assert writer.anchor() is None
        for payload in (b"first", b"", b"x" * anchor.MAX_PAYLOAD_BYTES, b"short"):
            writer.commit([NewRecord(topic, None, b"", 1)], anchor=payload)
            assert writer.anchor() == payload
        writer.commit([NewRecord(topic, None, b"", 1)])
    with SqliteLog(folder) as other, owning(other, shard=1) as writer:
        assert writer.anchor() == b"short"
        writer.commit([], anchor=b"alone")
        assert writer.anchor() == b"alone"
        with owning(other, shard=0) as neighbour:
            assert neighbour.anchor() is None


def test_an_anchor_that_is_too_long_is_refused_before_anything_is_written(log: SqliteLog) -> None:
    topic = make_topic(log)
    with owning(log) as writer, pytest.raises(ValueError, match="at most"):
        writer.commit([NewRecord(topic, None, b"")], anchor=b"x" * (anchor.MAX_PAYLOAD_BYTES + 1))
    assert read_to_end(log.reader({(topic, 0): 0})) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda block: block[:-1],
        lambda block: block + b"\0",
        lambda _: bytes(512),
        lambda block: block[:20] + bytes([block[20] ^ 1]) + block[21:],
        lambda block: block[:-1] + bytes([block[-1] ^ 0x80]),
    ],
    ids=["empty", "short", "long", "zeros", "a-bit-of-the-payload", "a-bit-of-the-checksum"],
)
def test_a_damaged_anchor_is_noticed(log: SqliteLog, folder: Path, damage: Damage) -> None:
    with owning(log) as writer:
        writer.commit([], anchor=b"a head of a journal")
    path = folder / "anchor-0"
    path.write_bytes(damage(path.read_bytes()))
    with owning(log) as writer, pytest.raises(LogDamaged, match=str(path)):
        writer.anchor()


def test_an_anchor_that_cannot_be_written_leaves_the_outcome_unknown(log: SqliteLog, folder: Path) -> None:
    """The records are on the log by then: whoever says that they are not would send them twice."""
    topic = make_topic(log)
    (folder / "anchor-0").mkdir()
    with owning(log) as writer:
        for _ in range(2):
            with pytest.raises(Unknown, match="anchor-0"):
                writer.commit([NewRecord(topic, None, b"there")], anchor=b"head")
        with pytest.raises(Unavailable):
            writer.anchor()
    assert values(read_to_end(log.reader({(topic, 0): 0}))) == [b"there"]


# Waiting


def test_a_waiting_reader_reacts_in_milliseconds(log: SqliteLog) -> None:
    topic = make_topic(log)
    reader = log.reader({(topic, 0): None})
    delays_ms = []
    with running(LATER, (log.url, topic)) as (client,):
        assert client.stdin is not None
        for _ in range(9):
            client.stdin.write("0.02\n")
            client.stdin.flush()
            (record,) = poll_some(reader, 1, 5)
            delays_ms.append((time.time_ns() - int(record.value or b"0")) / 1e6)
    assert sorted(delays_ms)[4] < 50, delays_ms  # the median: the machine may be busy now and then


def test_waiting_costs_next_to_nothing(log: SqliteLog, folder: Path) -> None:
    topic = make_topic(log)
    reader = log.reader({(topic, p): None for p in range(2)})
    with SqliteLog(folder) as other:
        owner, standby = log.member("group", [topic]), other.member("group", [topic])
        owner.poll(0.1)
        standby.poll(0.1)
        cpu = time.thread_time()  # of this thread alone: others in here are not the log's
        reader.poll(0.8)
        standby.poll(0.8)
        assert time.thread_time() - cpu < 0.03


def test_a_lost_ring_only_delays(log: SqliteLog, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Doorbell, "ring", lambda _: None)
    _one_record_while_waiting(log, folder, within_s=1)


def test_where_sockets_cannot_be_bound_waiting_still_works(
    log: SqliteLog, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log._session.doorbell, "_prefix", "/no/such/folder/")
    _one_record_while_waiting(log, folder, within_s=0.5)
    assert log._session.doorbell._bell is None


@pytest.mark.parametrize("proc", [True, False], ids=["by-proc", "without-proc"])
def test_a_path_too_long_for_a_socket_still_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, proc: bool
) -> None:
    if proc and not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc here")
    if not proc:
        monkeypatch.setattr(Doorbell, "_short_prefix", lambda _: None)
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    with SqliteLog(deep) as log:
        _one_record_while_waiting(log, deep, within_s=0.5)
        assert (log._session.doorbell._bell is not None) == proc


def _one_record_while_waiting(log: SqliteLog, folder: Path, within_s: float) -> None:
    topic = make_topic(log)
    reader = log.reader({(topic, 0): None})
    reader.poll(0.05)
    appended_at = 0.0

    def append() -> None:
        nonlocal appended_at
        with SqliteLog(folder) as other:
            time.sleep(0.1)
            appended_at = time.monotonic()
            other.append([NewRecord(topic, None, b"x")])

    with in_background(append):
        poll_some(reader, 1, 5)
        assert time.monotonic() - appended_at < within_s


WAITING_READER = """
import sys
from stocktrade.transport import connect

with connect(sys.argv[1]) as log:
    reader = log.reader({(sys.argv[2], 0): None})
    reader.poll(0.01)
    print("ready", flush=True)
    while True:
        reader.poll(10)
"""


@pytest.fixture
def bells(log: SqliteLog, folder: Path) -> Path:
    if log._session.doorbell._prefix is None:
        pytest.skip("the path is too long for a socket, and this system has no other name for it")
    return folder / "bells"


def test_the_bell_of_a_dead_reader_is_removed(log: SqliteLog, bells: Path) -> None:
    topic = make_topic(log)
    with running(WAITING_READER, (log.url, topic)) as (reader,):
        assert len(list(bells.iterdir())) == 1
        log.append([NewRecord(topic, None, b"")])
        assert len(list(bells.iterdir())) == 1
        reader.kill()
        reader.wait()
    log.append([NewRecord(topic, None, b"")])
    assert list(bells.iterdir()) == []


def test_a_stopped_reader_holds_nobody_up(log: SqliteLog) -> None:
    """Its bell fills up, and whoever rings it goes on."""
    topic = make_topic(log)
    with running(WAITING_READER, (log.url, topic)) as (reader,):
        reader.send_signal(signal.SIGSTOP)
        os.waitpid(reader.pid, os.WUNTRACED)
        begin = time.monotonic()
        for _ in range(1_000):
            log._session.doorbell.ring()
        log.append([NewRecord(topic, None, b"")])
        assert time.monotonic() - begin < 2


def test_a_bell_is_taken_down_with_its_log(log: SqliteLog, bells: Path) -> None:
    topic = make_topic(log)
    log.reader({(topic, 0): 0}).poll(0.01)
    assert len(list(bells.iterdir())) == 1
    log.close()
    assert list(bells.iterdir()) == []


def test_a_folder_of_bells_that_is_gone_disturbs_nobody(log: SqliteLog, folder: Path) -> None:
    topic = make_topic(log)
    (folder / "bells").rmdir()
    log.append([NewRecord(topic, None, b"")])
    reader = log.reader({(topic, 0): 0})
    assert len(poll_some(reader, 1, 5)) == 1
    assert reader.poll(0.05) == []


# One process, several instances


def test_closing_one_instance_leaves_the_others_their_locks(log: SqliteLog, folder: Path) -> None:
    """POSIX takes a process's locks on a file when it closes any descriptor of it; SQLite relies on them.

    Without them the other process would believe that it is the last one, and remove the write-ahead log that this
    one goes on writing to.
    """
    topic = make_topic(log)
    log.append([NewRecord(topic, None, b"1")])
    SqliteLog(folder).close()
    with running(LATER, (log.url, topic)) as (client,):
        client.communicate("0\n", timeout=10)
    log.append([NewRecord(topic, None, b"3")])
    with SqliteLog(folder) as other:
        found = values(read_to_end(other.reader({(topic, 0): 0})))
    assert (found[0], len(found), found[2]) == (b"1", 3, b"3")


def test_topics_made_by_another_instance_are_found(log: SqliteLog, folder: Path) -> None:
    with SqliteLog(folder) as other:
        topic = make_topic(other)
        log.append([NewRecord(topic, None, b"x")])
        other.ensure_topics([TopicSpec("later")])
        assert log.reader({("later", 0): None}).poll() == []


# Where it may be


def test_a_network_file_system_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "mounted_as", lambda *_: "nfs4")
    with pytest.raises(Unavailable, match="network file system"):
        SqliteLog(folder)
    assert not (folder / "log.db").exists()


def test_the_type_of_a_file_system_is_read_from_mountinfo() -> None:
    table = (
        "22 27 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n"
        "31 27 0:45 /export /home/me/shared\\040folder rw,relatime - nfs4 server:/export rw,vers=4.2\n"
    )
    assert database.mounted_as(table, "0:45") == "nfs4"
    assert database.mounted_as(table, "0:20") == "sysfs"
    assert database.mounted_as(table, "8:1") == ""


def test_a_poll_that_waits_for_a_shard_ends_when_it_gets_it(log: SqliteLog, folder: Path) -> None:
    topic = make_topic(log)
    owner = log.member("group", [topic])
    owner.poll(1)
    with SqliteLog(folder) as other:
        standby = other.member("group", [topic])
        standby.poll(1)
        owner.close()
        begin = time.monotonic()
        poll = poll_until(standby, lambda polls: bool(polls[-1].assigned), 5)[-1]
        assert time.monotonic() - begin < 0.5
        assert poll.assigned == {0, 1}
