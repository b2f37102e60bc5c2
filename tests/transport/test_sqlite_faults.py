"""The embedded log when things go wrong: dead and stopped processes, torn and foreign files, full disks.

Each fault ends in what was promised: nothing half, nothing acknowledged lost, and an error that says what to do.
"""

import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

pytest.register_assert_rewrite("contract")

from contract import assignment, make_topic, owning, poll_until, quick_folder, read_to_end, running, values  # noqa: E402

from stocktrade.errors import Fenced, LogDamaged, Occupied, StocktradeError, Unavailable  # noqa: E402
from stocktrade.failpoints import VARIABLE  # noqa: E402
from stocktrade.transport import database  # noqa: E402
from stocktrade.transport.base import NewRecord, TopicSpec  # noqa: E402
from stocktrade.transport.database import APPLICATION_ID, FORMAT_VERSION  # noqa: E402
from stocktrade.transport.gate import FileLock  # noqa: E402
from stocktrade.transport.sqlite import SqliteLog  # noqa: E402

Write = Callable[[], object]

PRELUDE = """
import os, sys, time
from pathlib import Path
from stocktrade.errors import StocktradeError
from stocktrade.transport.base import NewRecord
from stocktrade.transport.sqlite import SqliteLog
folder = Path(sys.argv[1])
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as folder:
        yield folder


def everything(log: SqliteLog, topic: str = "t") -> list[bytes | None]:
    return values(read_to_end(log.reader({(topic, p): 0 for p in range(log.partitions())})))


def tell(process: "subprocess.Popen[str]", line: str = "go") -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def wait_until_stopped(process: "subprocess.Popen[str]") -> None:
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


# Dead processes

# Commits twice, the second time a commit that does not fit SQLite's cache: its rows reach the file before it ends.
TWO_COMMITS = (
    PRELUDE
    + """
with SqliteLog(folder) as log:
    writer = log.claim(0)
    writer.commit([NewRecord("t", None, b"first")] * 2, anchor=b"first")
    print("ready", flush=True)
    writer.commit([NewRecord("t", None, b"second" * 1000)] * 1000, anchor=b"second")
    print("done", flush=True)
"""
)


@pytest.mark.parametrize(
    ("place", "count", "anchor"),
    [
        ("sqlite.gate.held=kill@3", 2, b"first"),
        ("sqlite.commit.mid=kill@2", 2, b"first"),
        ("sqlite.commit.before=kill@3", 2, b"first"),
        ("sqlite.commit.after=kill@2", 1002, b"first"),
        ("sqlite.anchor.after=kill@2", 1002, b"second"),
    ],
)
def test_a_kill_in_a_commit_leaves_all_of_it_or_nothing(folder: Path, place: str, count: int, anchor: bytes) -> None:
    with SqliteLog(folder, gate_timeout_s=1) as log:
        log.ensure_topics([TopicSpec("t")])
        with running(TWO_COMMITS, (str(folder),), environment={VARIABLE: place}) as (owner,):
            assert owner.wait(20) == -signal.SIGKILL
        with owning(log) as writer:
            assert len(everything(log)) == count
            assert writer.anchor() == anchor
            (place_of_next,) = writer.commit([NewRecord("t", None, b"next")], anchor=b"next")
            assert place_of_next.offset == count
    with SqliteLog(folder) as log:
        assert len(everything(log)) == count + 1


# Appends pairs for as long as it lives, and prints the offset of each pair that was acknowledged.
CLIENT = (
    PRELUDE
    + """
with SqliteLog(folder) as log:
    print("ready", flush=True)
    for n in range(1_000_000):
        value = f"{os.getpid()}-{n}".encode()
        first, _ = log.append([NewRecord("t", None, value)] * 2)
        print(first.offset, value.decode(), flush=True)
"""
)


@pytest.mark.slow
def test_kills_at_random_lose_no_acknowledged_record_and_leave_no_half(folder: Path) -> None:
    """However far each of two processes has come when it is killed, a dozen times over."""
    chance = random.Random(9)
    acknowledged: dict[int, str] = {}
    with SqliteLog(folder) as log:
        log.ensure_topics([TopicSpec("t")])
        for number in range(12):
            with running(CLIENT, *[(str(folder),)] * 2) as victims:
                lines = []
                for victim in victims:
                    assert victim.stdout is not None
                    lines += [victim.stdout.readline() for _ in range(chance.randrange(8))]
                    time.sleep(chance.uniform(0, 0.003))  # so that it is anywhere in its next append
                    victim.kill()
                log.append([NewRecord("t", None, f"survivor-{number}".encode())] * 2)
                for victim in victims:
                    assert victim.stdout is not None
                    lines += victim.stdout.read().splitlines(keepends=True)
            pairs = [line.split() for line in lines if line.endswith("\n")]
            acknowledged.update((int(offset), value) for offset, value in pairs)
        records = read_to_end(log.reader({("t", 0): 0}))
    assert [record.offset for record in records] == list(range(len(records)))
    pairs_read = [(a.value, b.value) for a, b in zip(records[::2], records[1::2], strict=True)]
    assert all(first == second for first, second in pairs_read), "half of an append"
    assert len(set(pairs_read)) == len(pairs_read), "an append twice"
    read = {record.offset: (record.value or b"").decode() for record in records}
    assert acknowledged.items() <= read.items()
    assert acknowledged


OWNER = (
    PRELUDE
    + """
with SqliteLog(folder) as log:
    member = log.member("nse", ["t"])
    assert member.poll(5).assigned == {0}
    writer = log.claim(0)
    print("ready", flush=True)
    while True:
        writer.commit([NewRecord("t", None, b"owner")])
        time.sleep(0.001)
"""
)


def test_a_standby_takes_over_within_a_second_of_a_kill(folder: Path) -> None:
    with SqliteLog(folder) as log:
        log.ensure_topics([TopicSpec("t")])
        with running(OWNER, (str(folder),)) as (owner,):
            standby = log.member("nse", ["t"])
            assert standby.poll(5).waiting_for == {0: f"pid {owner.pid}"}
            owner.kill()
            killed_at = time.monotonic()
            assert assignment(standby, 1, 5) == {0}
            with owning(log) as writer:
                writer.commit([NewRecord("t", None, b"standby")])
                assert time.monotonic() - killed_at < 1
            assert everything(log)[-1] == b"standby"


def test_a_stopped_owner_keeps_its_shard(folder: Path) -> None:
    """On one machine taking over is for death only: a stopped process may go on at any instruction."""
    with SqliteLog(folder, gate_timeout_s=1) as log:
        log.ensure_topics([TopicSpec("t")])
        with running(OWNER, (str(folder),)) as (owner,):
            standby = log.member("nse", ["t"])
            standby.poll(1)
            owner.send_signal(signal.SIGSTOP)
            wait_until_stopped(owner)
            assert standby.poll(0.5).assigned == frozenset()
            with pytest.raises(Occupied, match=f"pid {owner.pid}") as caught:
                log.claim(0)
            assert caught.value.pid == owner.pid
            assert log.owners() == {0: f"pid {owner.pid}"}
            owner.send_signal(signal.SIGCONT)
            before = len(everything(log))
            poll_for(lambda: len(everything(log)) > before)
            owner.kill()
            assert assignment(standby, 1, 5) == {0}


def poll_for(condition: Callable[[], bool], within_s: float = 5) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {within_s} s"
        time.sleep(0.005)


# The gate

APPENDER = (
    PRELUDE
    + """
with SqliteLog(folder) as log:
    print("ready", flush=True)
    log.append([NewRecord("t", None, b"stopped")])
    print("done", flush=True)
    sys.stdin.readline()
"""
)


def test_a_stopped_holder_of_the_gate_is_named_and_hangs_nobody(folder: Path) -> None:
    with SqliteLog(folder, gate_timeout_s=0.4) as log:
        log.ensure_topics([TopicSpec("t")])
        log.append([NewRecord("t", None, b"before")])
        with running(APPENDER, (str(folder),), environment={VARIABLE: "sqlite.gate.held=stop"}) as (holder,):
            wait_until_stopped(holder)
            for write in (lambda: log.append([NewRecord("t", None, b"lost")]), lambda: log.claim(0)):
                begin = time.monotonic()
                with pytest.raises(
                    Unavailable, match=rf"^pid {holder.pid} has held the write gate .* 0\.4 s"
                ) as caught:
                    write()
                assert 0.4 <= time.monotonic() - begin < 1.5
                assert f"kill -CONT {holder.pid}" in caught.value.hint
            assert log.owners() == {0: None}, "a claim that failed keeps no lock"
            with SqliteLog(folder, gate_timeout_s=0.1) as other:  # whoever only reads is not concerned
                assert everything(other) == [b"before"]
            holder.send_signal(signal.SIGCONT)
            assert holder.stdout is not None
            assert holder.stdout.readline() == "done\n"
            log.append([NewRecord("t", None, b"after")])
        assert everything(log) == [b"before", b"stopped", b"after"]


def test_a_process_stopped_in_the_queue_is_named(folder: Path) -> None:
    with SqliteLog(folder, gate_timeout_s=0.1) as log:
        queue = FileLock(folder / "queue.lock")
        assert queue.acquire()
        with pytest.raises(Unavailable, match=f"^pid {os.getpid()} has held"):
            log.ensure_topics([TopicSpec("t")])
        queue.close()
        log.ensure_topics([TopicSpec("t")])


# Appends without a pause until the log is full, and prints how many of the records are its own.
GREEDY = (
    PRELUDE
    + """
with SqliteLog(folder) as log:
    print("ready", flush=True)
    sys.stdin.readline()
    count, offset = 0, 0
    while offset < 4_000:
        (place,) = log.append([NewRecord("t", None, b"x")])
        count, offset = count + 1, place.offset
    print(count)
"""
)


@pytest.mark.slow
def test_none_of_eight_greedy_writers_starves(folder: Path) -> None:
    """Each gets a tenth of its share and more. SQLite's own way to wait locked one of eight out for three seconds."""
    with SqliteLog(folder) as log:
        log.ensure_topics([TopicSpec("t")])
        with running(GREEDY, *[(str(folder),)] * 8) as writers:
            for writer in writers:
                tell(writer)
            counts = [int(writer.communicate(timeout=90)[0]) for writer in writers]
        assert len(everything(log)) == sum(counts)
        assert min(counts) >= sum(counts) / len(counts) / 10, counts


STRANGER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("ready", flush=True)
sys.stdin.readline()
"""


def test_a_stranger_who_locks_the_database_is_waited_for_and_named(folder: Path) -> None:
    with SqliteLog(folder, gate_timeout_s=0.2) as log:
        log.ensure_topics([TopicSpec("t")])
        with running(STRANGER, (str(folder / "log.db"),)) as (shell,):
            begin = time.monotonic()
            name = f"pid {shell.pid}" if Path("/proc/locks").exists() else "another program"
            with pytest.raises(Unavailable, match=name):
                log.append([NewRecord("t", None, b"x")])
            assert time.monotonic() - begin < 2
        log.append([NewRecord("t", None, b"y")])
        assert everything(log) == [b"y"]


# Creation

OPENER = (
    PRELUDE
    + """
print("ready", flush=True)
sys.stdin.readline()
with SqliteLog(folder, partitions=int(sys.argv[2])) as log:
    print(log.partitions())
"""
)


def test_processes_that_create_the_log_at_once_agree(folder: Path) -> None:
    with running(OPENER, *((str(folder), str(count)) for count in (1, 2, 3, 4))) as processes:
        for process in processes:
            tell(process)
        answers = [process.communicate(timeout=20)[0] for process in processes]
    with SqliteLog(folder) as log:
        assert answers == [f"{log.partitions()}\n"] * 4


def test_what_a_crashed_creation_left_is_replaced(folder: Path) -> None:
    folder.mkdir()
    (folder / "log.db.new").write_bytes(b"half of a database")
    (folder / "log.db.new-journal").write_bytes(b"its journal")
    with SqliteLog(folder) as log:
        make_topic(log)
    assert not list(folder.glob("log.db.new*"))


def test_a_log_whose_first_part_is_gone_is_not_begun_again(folder: Path) -> None:
    folder.mkdir()
    (folder / "log.db-wal").write_bytes(b"the end of a log")
    with pytest.raises(LogDamaged, match=r"log\.db is missing"):
        SqliteLog(folder)
    assert (folder / "log.db-wal").read_bytes() == b"the end of a log"
    assert not (folder / "log.db").exists()


# Torn and damaged files

COMMITS = 25

MANY_COMMITS = (
    PRELUDE
    + f"""
log = SqliteLog(folder)
writer = log.claim(0)
for n in range({COMMITS}):
    writer.commit([NewRecord(topic, None, str(n).encode()) for topic in ("a", "b", "a")], anchor=str(n).encode())
print("ready", flush=True)
sys.stdin.readline()
"""
)


@pytest.fixture(scope="module")
def crashed() -> Iterator[Path]:
    """The folder of a log whose only process was killed: all commits are in its write-ahead log."""
    with quick_folder() as folder:
        with SqliteLog(folder) as log:
            log.ensure_topics([TopicSpec("a"), TopicSpec("b")])
        with running(MANY_COMMITS, (str(folder),)) as (process,):
            process.kill()
            process.wait()
        yield folder


def damaged_copy(crashed: Path, to: Path, damage: Callable[[bytes], bytes]) -> Path:
    to.mkdir()
    for name in ("log.db", "anchor-0"):
        shutil.copy(crashed / name, to / name)
    (to / "log.db-wal").write_bytes(damage((crashed / "log.db-wal").read_bytes()))
    return to


def prefix(size: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:size]


def whole_commits(log: SqliteLog) -> int:
    """How many commits there are; they must be the first ones, and each must be whole."""
    a, b = everything(log, "a"), everything(log, "b")
    assert b == [str(n).encode() for n in range(len(b))]
    assert a == [value for value in b for _ in range(2)]
    return len(b)


def test_a_torn_write_ahead_log_is_a_prefix_of_whole_commits(crashed: Path, tmp_path: Path) -> None:
    size = (crashed / "log.db-wal").stat().st_size
    cuts = sorted({*range(0, size, size // 60), 31, 32, 33, 55, 56, 57, size - 1, size})
    found = []
    for cut in cuts:
        with SqliteLog(damaged_copy(crashed, tmp_path / str(cut), prefix(cut))) as log:
            found.append(whole_commits(log))
            with owning(log) as writer:  # and it goes on from there, knowing by its anchor what it lost
                assert writer.anchor() == str(COMMITS - 1).encode()
                writer.commit([NewRecord(topic, None, str(found[-1]).encode()) for topic in ("a", "b", "a")])
            assert whole_commits(log) == found[-1] + 1
        shutil.rmtree(tmp_path / str(cut))
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, COMMITS)


def test_a_flipped_bit_in_the_write_ahead_log_ends_it_there(crashed: Path, tmp_path: Path) -> None:
    chance = random.Random(68)
    for trial in range(60):

        def flip(wal: bytes) -> bytes:
            return flipped(wal, chance.randrange(len(wal)), chance.randrange(8))

        with SqliteLog(damaged_copy(crashed, tmp_path / str(trial), flip)) as log:
            assert 0 <= whole_commits(log) <= COMMITS
        shutil.rmtree(tmp_path / str(trial))


def flipped(data: bytes, at: int, bit: int = 0) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def use(folder: Path) -> None:
    """Everything that a user may do to a log."""
    with SqliteLog(folder, gate_timeout_s=0.2) as log:
        log.ensure_topics([TopicSpec("a"), TopicSpec("b")])
        log.append([NewRecord("a", b"key", b"value"), NewRecord("b", None, b"x" * 5000)])
        log.reader({("a", 0): 0, ("b", 0): 0}).poll()
        with owning(log) as writer:
            writer.commit([NewRecord("b", b"key", None, headers=(("h", b"v"),))])
        member = log.member("nse", ["a", "b"])
        member.poll(0)
        member.start(0, {})
        member.poll(0)
        log.owners()


@pytest.mark.parametrize("where", ["anywhere", "first page"])
def test_a_flipped_bit_in_the_file_is_an_error_for_the_user_at_worst(crashed: Path, tmp_path: Path, where: str) -> None:
    """SQLite has no checksums there: what it does not notice, the journal's digest does."""
    whole = damaged_copy(crashed, tmp_path / "whole", lambda wal: wal)
    use(whole)
    content = (whole / "log.db").read_bytes()
    chance = random.Random(70)
    for trial in range(60):
        folder = tmp_path / str(trial)
        folder.mkdir()
        at = chance.randrange(len(content) if where == "anywhere" else 4096)
        (folder / "log.db").write_bytes(flipped(content, at, chance.randrange(8)))
        with suppress(StocktradeError):
            use(folder)
        shutil.rmtree(folder)


# Files that are not ours


def foreign_database(path: Path, application_id: int = 0, version: int = 0, schema: str = "CREATE TABLE t (x)") -> None:
    connection = sqlite3.connect(path)
    connection.executescript(f"PRAGMA application_id = {application_id}; PRAGMA user_version = {version}; {schema}")
    connection.close()


def patched(at: int, data: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(data)

    return damage


def cut_to(size: int) -> Callable[[Path], None]:
    """Cut a file to a size, or by one if that is negative."""
    return lambda path: os.truncate(path, size if size > 0 else path.stat().st_size + size)


ALIEN = "is not a log of stocktrade"
BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), ALIEN),
    "random": (lambda path: path.write_bytes(random.Random(1).randbytes(9_000)), ALIEN),
    "short-text": (lambda path: path.write_text("hello"), ALIEN),
    "header-of-99-bytes": (cut_to(99), ALIEN),
    "cut-in-the-header": (cut_to(16), ALIEN),
    "cut-after-the-header": (cut_to(100), "is damaged"),
    "one-page": (cut_to(4096), "is damaged"),
    "last-page-missing": (cut_to(-4096), "is damaged"),
    "last-byte-missing": (cut_to(-1), "is damaged"),
    "another-program": (lambda path: foreign_database(fresh(path)), ALIEN),
    "another-application-id": (patched(68, b"\x0f\x05\x51\x12"), ALIEN),
    "newer-version": (patched(60, (FORMAT_VERSION + 1).to_bytes(4, "big")), "was made by a newer stocktrade"),
    "version-of-no-one": (patched(60, bytes(4)), ALIEN),
    "our-id-but-no-tables": (lambda path: foreign_database(fresh(path), APPLICATION_ID, FORMAT_VERSION), ALIEN),
    "zeros-in-the-schema": (patched(100, bytes(3_900)), "is damaged|" + ALIEN),
    "folder": (lambda path: fresh(path).mkdir(), ALIEN),
    "dangling-link": (lambda path: fresh(path).symlink_to("nowhere"), "cannot be used"),
    "pipe": (lambda path: os.mkfifo(fresh(path)), ALIEN),
}


def fresh(path: Path) -> Path:
    path.unlink()
    return path


@pytest.mark.parametrize("bad", BAD_FILES)
def test_a_file_that_is_not_ours_is_refused_and_left_alone(folder: Path, bad: str) -> None:
    with SqliteLog(folder) as log:
        topic = make_topic(log)
        log.append([NewRecord(topic, None, b"x" * 1000)] * 20)
    path = folder / "log.db"
    damage, message = BAD_FILES[bad]
    damage(path)
    before = path.read_bytes() if path.is_file() else None
    for _ in range(2):
        with pytest.raises((LogDamaged, Unavailable), match=message) as caught:
            SqliteLog(folder)
        assert str(path) in caught.value.what
        assert caught.value.hint
    assert (path.read_bytes() if path.is_file() else None) == before
    assert {entry.name for entry in folder.iterdir()} == {"bells", "gate.lock", "queue.lock", "log.db"}


def test_a_file_removed_while_in_use_is_noticed(folder: Path) -> None:
    """Commits to a removed file succeed for SQLite, and are gone with it."""
    with SqliteLog(folder) as log, SqliteLog(folder) as waiting:
        topic = make_topic(log)
        reader = waiting.reader({(topic, 0): 0})
        writer = log.claim(0)
        (folder / "log.db").rename(folder / "elsewhere")
        writes: list[Write] = [lambda: log.append([NewRecord(topic, None, b"")]), lambda: writer.commit([])]
        for write in writes:
            with pytest.raises(LogDamaged, match="removed or replaced"):
                write()
        with pytest.raises(LogDamaged, match="removed or replaced"):
            reader.poll(5)


def test_a_journal_mode_changed_by_hand_is_set_right(folder: Path) -> None:
    with SqliteLog(folder) as log:
        topic = make_topic(log)
    connection = sqlite3.connect(folder / "log.db")
    assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    connection.close()
    with SqliteLog(folder) as log:
        log.append([NewRecord(topic, None, b"x")])
        assert (folder / "log.db-wal").exists()


# Folders that cannot be used

# As root nothing is forbidden, so the process becomes somebody else first.
AS_NOBODY = (
    PRELUDE
    + """
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    with SqliteLog(folder) as log:
        log.ensure_topics([])
        log.append([NewRecord("t", None, b"x")])
    print("ready")
except StocktradeError as error:
    print("ready")
    print(type(error).__name__, error.what, "|", error.cause, "|", error.hint)
"""
)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that everybody may enter: pytest's own are for this user alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("case", ["nothing-there", "empty", "with-a-log", "no-right-to-enter"])
def test_a_folder_without_rights_is_an_error_for_the_user(public_folder: Path, case: str) -> None:
    folder = public_folder / "log"
    if case == "with-a-log":
        with SqliteLog(folder) as log:
            log.ensure_topics([TopicSpec("t")])
    elif case != "nothing-there":
        folder.mkdir()
    if folder.exists():
        folder.chmod(0 if case == "no-right-to-enter" else 0o555)
    public_folder.chmod(0o555)
    try:
        with running(AS_NOBODY, (str(folder),)) as (process,):
            assert process.stdout is not None
            answer = process.stdout.read()
    finally:
        public_folder.chmod(0o755)
        if folder.exists():
            folder.chmod(0o755)
    assert answer.startswith("Unavailable "), answer
    assert str(folder) in answer
    assert "this user needs the right to read and write" in answer


@pytest.mark.parametrize("case", ["is-a-file", "below-a-file", "long-name", "no-such-system"])
def test_a_path_that_is_no_folder_is_an_error_for_the_user(tmp_path: Path, case: str) -> None:
    (tmp_path / "file").write_text("mine")
    path = {
        "is-a-file": tmp_path / "file",
        "below-a-file": tmp_path / "file" / "log",
        "long-name": tmp_path / ("n" * 300),
        "no-such-system": Path("/dev/null/log"),
    }[case]
    with pytest.raises(Unavailable, match="cannot be used") as caught:
        SqliteLog(path)
    assert caught.value.hint
    assert (tmp_path / "file").read_text() == "mine"


# Full disks


def test_a_full_database_takes_nothing_and_loses_nothing(folder: Path) -> None:
    with SqliteLog(folder) as log:
        log.ensure_topics([TopicSpec("t")])
        log.append([NewRecord("t", None, b"before")])
        connection = log._session.store._database.writing
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 20}")
        large = [NewRecord("t", None, b"x" * 10_000)] * 20
        writer = log.claim(0)
        writes: list[Write] = [
            lambda: log.append(large),
            lambda: writer.commit(large, anchor=b"lost"),
            lambda: writer.commit([]),
        ]
        for write in writes:
            with pytest.raises(Unavailable, match="no space left") as caught:
                write()
            assert "free some space" in caught.value.hint
        assert everything(log) == [b"before"]
        assert writer.anchor() is None
        writer.close()
        connection.execute("PRAGMA max_page_count = 1000000")
        with owning(log) as writer:
            writer.commit(large, anchor=b"kept")
        assert len(everything(log)) == 21


def test_a_limit_on_the_size_of_files_takes_nothing_and_loses_nothing(folder: Path) -> None:
    with SqliteLog(folder) as log:
        log.ensure_topics([TopicSpec("t")])
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
        try:
            acknowledged = until_unavailable(lambda: log.append([NewRecord("t", None, b"x" * 10_000)]))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert len(everything(log)) == acknowledged > 0
        log.append([NewRecord("t", None, b"after")])
        assert len(everything(log)) == acknowledged + 1


def until_unavailable(write: Callable[[], object]) -> int:
    """How often something can be written before it is refused."""
    for count in range(1000):
        try:
            write()
        except Unavailable:
            return count
    raise AssertionError("there was space for everything")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if (
        sys.platform != "linux"
        or os.geteuid() != 0
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("a small disk can be mounted by root only")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_takes_nothing_and_loses_nothing(tiny_disk: Path) -> None:
    folder = tiny_disk / "log"
    ballast = tiny_disk / "ballast"
    with SqliteLog(folder) as log:
        log.ensure_topics([TopicSpec("t")])
        ballast.write_bytes(bytes(500_000))
        with owning(log) as writer:
            acknowledged = until_unavailable(
                lambda: writer.commit([NewRecord("t", None, b"x" * 5_000)] * 2, anchor=b"head")
            )
            with pytest.raises(Unavailable, match="no space left"):
                writer.commit([])
        assert len(everything(log)) == 2 * acknowledged > 0
        with owning(log) as writer:
            assert writer.anchor() == b"head"
        ballast.unlink()
        with owning(log) as writer:
            writer.commit([NewRecord("t", None, b"after")], anchor=b"after")
        assert len(everything(log)) == 2 * acknowledged + 1
        (tiny_disk / "more").write_bytes(bytes(100_000))
    with SqliteLog(folder) as log:
        assert len(everything(log)) == 2 * acknowledged + 1


def test_no_space_to_create_the_log_leaves_none(tiny_disk: Path) -> None:
    with suppress(OSError), (tiny_disk / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(Unavailable):
        SqliteLog(tiny_disk / "log")
    (tiny_disk / "ballast").unlink()
    with SqliteLog(tiny_disk / "log") as log:
        make_topic(log)


# What SQLite says


@pytest.mark.parametrize(
    ("name", "kind", "unknown_kind"),
    [
        ("SQLITE_FULL", "Unavailable", "Unavailable"),
        ("SQLITE_IOERR_FSYNC", "Unavailable", "Unknown"),
        ("SQLITE_IOERR_WRITE", "Unavailable", "Unknown"),
        ("SQLITE_NOMEM", "Unavailable", "Unknown"),
        ("SQLITE_CANTOPEN", "Unavailable", "Unavailable"),
        ("SQLITE_READONLY_DBMOVED", "Unavailable", "Unavailable"),
        ("SQLITE_BUSY_RECOVERY", "Unavailable", "Unavailable"),
        ("SQLITE_CORRUPT_INDEX", "LogDamaged", "LogDamaged"),
        ("SQLITE_NOTADB", "LogDamaged", "LogDamaged"),
        ("SQLITE_CONSTRAINT_UNIQUE", "LogDamaged", "LogDamaged"),
        ("SQLITE_TOOBIG", "UsageError", "UsageError"),
    ],
)
def test_each_error_of_sqlite_has_a_meaning(name: str, kind: str, unknown_kind: str, tmp_path: Path) -> None:
    error = sqlite3.OperationalError("it failed")
    error.sqlite_errorcode = getattr(sqlite3, name)
    error.sqlite_errorname = name
    for unknown, expected in ((False, kind), (True, unknown_kind)):
        meaning = database.explain(error, tmp_path / "log.db", unknown=unknown)
        assert type(meaning).__name__ == expected
        assert name in meaning.cause


def test_a_fenced_writer_is_told_so_whatever_else_is_wrong(folder: Path) -> None:
    with SqliteLog(folder) as log:
        topic = make_topic(log)
        zombie = log.claim(0)
        with owning(log):
            for records in ([], [NewRecord(topic, None, b"")], [NewRecord("no-such-topic", None, b"")]):
                with pytest.raises(Fenced):
                    zombie.commit(records)
        poll_until(log.member("nse", [topic]), lambda polls: polls[-1].assigned == {0}, 5)
