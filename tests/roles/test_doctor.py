"""`doctor`: each thing that can be wrong is told by its check, with what mends it; nothing is made or changed."""

import io
import json
import os
import platform
import re
import shutil
import socket
import sqlite3
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

import kafka
import pytest
from rich.console import Console

from conftest import HOW_TO_ENABLE, _do_without, _image_is_usable
from kafka_container import HOST, free_port
from kafka_listeners import ManyListeners
from stocktrade import cli, settings
from stocktrade.errors import ExitCode, Unavailable
from stocktrade.roles import doctor
from stocktrade.roles.doctor import CHECKS, Case, Finding, Flags, State
from stocktrade.shard import journal
from stocktrade.shard import owner as protocol
from stocktrade.shard.node import Node
from stocktrade.shard.owner import Owner
from stocktrade.transport import connect, database, topics
from stocktrade.transport.base import UNBOUNDED, Log, NewRecord
from test_cli_errors import CONTROLS, DAMAGES, log_file, of_a_newer_version, open_folder, text, without_rights

__all__ = ["open_folder"]

ROOT: Final = Path(__file__).parents[2]
AFTER_THE_LOG: Final = ("topics", "exchange", "journal", "lag", "dead letters")
DAY_MS: Final = 24 * 60 * 60 * 1000


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the embedded log; it is not there yet."""
    monkeypatch.setenv(settings.HOME, str(tmp_path / "home"))
    for name in (settings.BOOTSTRAP_SERVERS, settings.COMMAND_CONFIG, cli.DEBUG):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


class Said(NamedTuple):
    """What a check said."""

    state: str
    found: str
    hint: str | None


Findings = dict[str, Said]


@pytest.fixture
def examined(capsys: pytest.CaptureFixture[str]) -> Callable[..., Findings]:
    """Run the command, which must end with the code that its findings call for; what each check said."""

    def run(*flags: str) -> Findings:
        capsys.readouterr()
        code = cli.run(["doctor", "--json", *flags])
        said = capsys.readouterr()
        document = json.loads(said.out)
        assert said.err == ""
        assert said.out.count("\n") == 1
        assert (document["schema"], list(document)) == ("stocktrade.doctor/1", ["schema", "healthy", "checks"])
        findings = {each["check"]: Said(each["state"], each["found"], each["hint"]) for each in document["checks"]}
        failed = any(each.state == "failed" for each in findings.values())
        assert (code, document["healthy"]) == (1, False) if failed else (0, True)
        assert list(findings) == list(CHECKS)
        return findings

    return run


Examined = Callable[..., Findings]


def check_skipped(findings: Findings, *names: str, because_of: str) -> None:
    """These checks, and no other, were not made."""
    assert [name for name, said in findings.items() if said.state == "skipped"] == list(names)
    assert {findings[name] for name in names} == {Said("skipped", f"not looked at: see {because_of}", None)}


def examine(
    log: Callable[[], Log], *, pause: Callable[[], None] = lambda: None, now_ms: Callable[[], int] | None = None
) -> Iterator[tuple[str, Finding]]:
    """The findings on a log that is opened by a function, as they come."""

    def opened(url: str, options: Mapping[str, str], client: str) -> Log:
        del url, options, client
        return log()

    flags = Flags("127.0.0.1:1")  # of Kafka, so that no folder is looked at
    with ExitStack() as stack:
        yield from doctor.examine(Case(flags, {}, now_ms or cli._now_ms, pause, stack, opened))


def order(number: int, topic: str = topics.BUY_ORDERS, partition: int = 0) -> NewRecord:
    message = {"order_id": f"B-{number}", "buyer": "HDFC", "stock_symbol": "SBI", "quantity": 1, "price_per_unit": 885}
    return NewRecord(topic, b"SBIN", json.dumps(message).encode(), partition)


@pytest.fixture
def log(home: Path) -> Iterator[Log]:
    """An embedded log with two shards and all topics."""
    with connect(f"sqlite:{home}", partitions=2) as log:
        log.ensure_topics(topics.SPECS)
        yield log


# --- before the log --------------------------------------------------------------------------------------------


def test_where_nothing_was_made_nothing_is(home: Path, examined: Examined) -> None:
    """A new machine is healthy: it is told how the log will be made, and there is none afterwards, nor a folder."""
    findings = examined()
    assert findings["data folder"].state == "ok"
    assert "not made yet" in findings["data folder"].found
    assert findings["log"].state == "warning"
    assert (findings["log"].hint or "").splitlines()[1:] == ["stocktrade topics create"]
    check_skipped(findings, *AFTER_THE_LOG, because_of="log")
    assert not home.exists()
    home.mkdir()
    assert "writable" in examined()["data folder"].found
    assert list(home.iterdir()) == []


def test_the_versions_are_told(examined: Examined) -> None:
    """Those of everything that a report of a bug should name."""
    found = examined()["versions"]
    assert found.state == "ok"
    for word in ("stocktrade", "typer", "rich", "pydantic", "kafka-python", f"SQLite {sqlite3.sqlite_version}"):
        assert word in found.found
    assert f"Python {platform.python_version()}" in found.found
    assert found.found.endswith(f"{platform.system()} {platform.release()}")


def test_a_python_that_is_too_old_fails(monkeypatch: pytest.MonkeyPatch, examined: Examined) -> None:
    """The oldest one is that of the package; what can be looked at all the same is."""
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert oldest == ">=" + ".".join(map(str, doctor.OLDEST_PYTHON))
    monkeypatch.setattr(doctor, "OLDEST_PYTHON", (99, 0))
    findings = examined()
    assert findings["versions"].state == "failed"
    assert "99.0" in (findings["versions"].hint or "")
    assert findings["settings"].state == "ok"


@pytest.mark.parametrize(
    ("flags", "environ", "origin"),
    [
        (["--bootstrap-server=SERVER"], {}, "--bootstrap-server"),
        (["--command-property=bootstrap.servers=SERVER"], {}, "--command-property bootstrap.servers"),
        ([], {settings.BOOTSTRAP_SERVERS: "SERVER"}, settings.BOOTSTRAP_SERVERS),
        (["--command-config=FILE"], {}, "bootstrap.servers in FILE"),
        ([], {settings.COMMAND_CONFIG: "FILE"}, "bootstrap.servers in FILE"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_who_named_the_servers_is_told_and_a_closed_port_fails(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    examined: Examined,
    flags: list[str],
    environ: dict[str, str],
    origin: str,
) -> None:
    """The flag, the property, the environment or the file; and nobody listens there."""
    server, file = f"{HOST}:{free_port()}", tmp_path / "client.properties"
    file.write_text(f"bootstrap.servers={server}\nclient.id=me\n")

    def filled(text: str) -> str:
        return re.sub(r"\bSERVER\b", server, text).replace("FILE", str(file))

    for name, value in environ.items():
        monkeypatch.setenv(name, filled(value))
    begin = time.monotonic()
    findings = examined(*map(filled, flags))
    assert time.monotonic() - begin < 6
    set_too = "; set: client.id" if "FILE" in origin else ""
    assert findings["settings"] == Said("ok", f"kafka:{server}, from {filled(origin)}{set_too}", None)
    assert findings["log"].state == "failed"
    assert findings["log"].found.startswith(f"no broker listens at {server}: ")
    assert "Connection refused" in findings["log"].found
    check_skipped(findings, *AFTER_THE_LOG, because_of="log")


def test_who_named_the_folder_is_told(home: Path, monkeypatch: pytest.MonkeyPatch, examined: Examined) -> None:
    assert examined()["settings"].found == f"sqlite:{home}, from {settings.HOME}"
    monkeypatch.delenv(settings.HOME)
    monkeypatch.setenv("HOME", str(home))
    assert examined()["settings"].found == f"sqlite:{home}/.stocktrade, by default"


@pytest.mark.parametrize(
    ("content", "flags", "error"),
    [
        ("acks=all\nno.such.option=1", ["-b", "h:1"], "unknown option of Kafka: no.such.option (FILE, line 2)"),
        ("acks=all\nacks=all", ["-b", "h:1"], "FILE, line 2 sets acks again: it stands in line 1 already"),
        ("sasl.password=x\nclient.id=\\u", ["-b", "h:1"], "FILE, line 2: \\u is followed"),
        ("acks=all", [], "--command-config is given, but no Kafka server"),
        (None, ["-b", "h"], "--bootstrap-server is not a list of servers: 'h' is no HOST:PORT"),
        (None, ["-b", "\x1b[2J:1"], "--bootstrap-server is not a list of servers: '\\\\x1b[2J:1' is no HOST:PORT"),
        (None, ["-b", "h:1", "--command-property=acks=0"], "acks (--command-property) cannot be '0'"),
        (None, ["-b", "h:1", "--command-config=/no/such\x1b"], "--command-config '/no/such\\\\x1b' cannot be read: No"),
    ],
)
def test_a_wrong_setting_fails_by_its_name_and_line(
    home: Path, tmp_path: Path, examined: Examined, content: str | None, flags: list[str], error: str
) -> None:
    """Nothing else of the log is looked at, and nothing that was typed steers the terminal."""
    file = tmp_path / "client.properties"
    if content is not None:
        file.write_text(content)
        file.chmod(0o600)
        flags = [*flags, f"--command-config={file}"]
    findings = examined(*flags)
    assert findings["settings"].state == "failed"
    assert findings["settings"].found.startswith(error.replace("FILE", str(file)))
    assert findings["versions"].state == "ok"
    names = ("data folder", "log", *AFTER_THE_LOG)
    assert [findings[name].state for name in names] == ["skipped"] * len(names)
    assert CONTROLS.findall(str(findings)) == []
    assert not home.exists()


# --- the folder and the file -----------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [False, True], ids=["new", "existing"])
def test_a_folder_that_may_not_be_written_fails(tmp_path: Path, open_folder: Path, made: bool) -> None:
    """A read-only folder, and one that may not be made: the folder is named, and nothing appears."""
    home = open_folder / "home"
    if made:
        home.mkdir()
    (home if made else open_folder).chmod(0o555)
    with connect(f"sqlite:{tmp_path / 'warm'}") as log:
        log.ensure_topics(topics.SPECS)
    done = without_rights(home, tmp_path / "warm", "doctor")
    rows = dict(line.split("\t", 1) for line in done.stdout.splitlines())
    assert (done.returncode, done.stderr) == (1, "")
    assert rows["data folder"].startswith(f"failed\tthis user may not write in {home if made else open_folder}\t")
    assert rows["log"] == "skipped\tnot looked at: see data folder\t"
    assert home.exists() == made
    assert not made or list(home.iterdir()) == []


@pytest.mark.parametrize("below", ["", "further"], ids=["itself", "above"])
def test_a_file_in_the_place_of_the_folder_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, examined: Examined, below: str
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    monkeypatch.setenv(settings.HOME, str(file / below))
    findings = examined()
    assert findings["data folder"].state == "failed"
    assert f"Not a directory: '{file}'" in findings["data folder"].found
    assert findings["data folder"].hint == "name a folder, not a file"
    check_skipped(findings, "log", *AFTER_THE_LOG, because_of="data folder")
    assert file.read_text() == "mine"


@pytest.mark.parametrize("name", ["x" * 300, "loop"])
def test_a_path_that_leads_nowhere_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, examined: Examined, name: str
) -> None:
    """A name that is too long for the file system, and a link to itself."""
    if name == "loop":
        (tmp_path / name).symlink_to(tmp_path / name)
    monkeypatch.setenv(settings.HOME, str(tmp_path / name))
    assert examined()["data folder"].state == "failed"


def test_little_space_is_a_warning(home: Path, monkeypatch: pytest.MonkeyPatch, examined: Examined) -> None:
    """Below a limit that no disk has; the checks go on."""
    home.mkdir()
    free = shutil.disk_usage(home).free
    monkeypatch.setattr(doctor, "LITTLE_SPACE_BYTES", free * 2)
    findings = examined()
    assert findings["data folder"].state == "warning"
    assert "MiB free" in findings["data folder"].found
    assert "free some space" in (findings["data folder"].hint or "")
    assert findings["log"].found == f"there is none in {home} yet"


def test_a_network_file_system_fails(home: Path, monkeypatch: pytest.MonkeyPatch, examined: Examined) -> None:
    """The one of this folder, if it were one, is told by its kind, and no log is opened there."""
    home.mkdir()
    device = home.stat().st_dev
    table = Path("/proc/self/mountinfo")
    kind = database.mounted_as(table.read_text(), f"{os.major(device)}:{os.minor(device)}") if table.exists() else ""
    if not kind:
        pytest.skip("this system does not tell")
    monkeypatch.setattr(database, "_NETWORK_FILE_SYSTEMS", frozenset({kind}))
    findings = examined()
    assert findings["data folder"].state == "failed"
    assert f"is on a network file system ({kind})" in findings["data folder"].found


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_file_that_is_no_log_fails(home: Path, examined: Examined, damage: Any) -> None:
    """It is named with what is wrong with it, and left as it is; nothing else is looked at."""
    file = log_file(home)
    damage(file)
    before = file.read_bytes() if file.is_file() else None
    findings = examined()
    assert findings["data folder"].state == "ok"
    assert findings["log"].state == "failed"
    assert str(file) in findings["log"].found
    assert ("made by a newer stocktrade" in findings["log"].found) == (damage is of_a_newer_version)
    check_skipped(findings, *AFTER_THE_LOG, because_of="log")
    assert (file.read_bytes() if file.is_file() else None) == before


def test_beside_a_foreign_file_nothing_appears(home: Path, examined: Examined) -> None:
    """Not even the lock files that opening a log makes."""
    home.mkdir()
    text(home / "log.db")
    assert "is not a SQLite database" in examined()["log"].found
    assert [path.name for path in home.iterdir()] == ["log.db"]


def test_an_end_without_its_beginning_fails(home: Path, examined: Examined) -> None:
    home.mkdir()
    (home / "log.db-wal").write_bytes(b"what is left")
    findings = examined()
    assert findings["log"].state == "failed"
    assert "is missing, but log.db-wal is still there" in findings["log"].found
    assert [path.name for path in home.iterdir()] == ["log.db-wal"]


# --- what is on the log ----------------------------------------------------------------------------------------


def written(home: Path) -> list[tuple[Any, ...]]:
    """Everything that stands in the file of a log."""
    with closing(sqlite3.connect(home / "log.db")) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return [(table, *row) for table in sorted(tables) for row in db.execute(f"SELECT * FROM {table}")]


def test_a_log_without_topics_stays_one(home: Path, examined: Examined) -> None:
    """They are missing, with the command that makes them; they are not made."""
    with connect(f"sqlite:{home}"):
        pass
    before = written(home)
    findings = examined()
    assert findings["log"] == Said("ok", f"a file of SQLite {sqlite3.sqlite_version}", None)
    names = ", ".join(spec.name for spec in topics.SPECS)
    assert findings["topics"][:2] == ("warning", f"missing: {names}")
    assert (findings["topics"].hint or "").splitlines()[1:] == ["stocktrade topics create"]
    check_skipped(findings, "journal", "lag", "dead letters", because_of="topics")
    assert written(home) == before


def test_topics_with_other_settings_fail(home: Path, log: Log, examined: Examined) -> None:
    with closing(sqlite3.connect(home / "log.db")) as db, db:
        db.execute("UPDATE topics SET append_time = 1 WHERE name = 'trades'")
    findings = examined()
    assert findings["topics"].state == "failed"
    assert "the topic trades" in findings["topics"].found
    assert findings["exchange"].state == "warning"
    check_skipped(findings, "journal", "lag", "dead letters", because_of="topics")


def test_a_log_that_nobody_trades_on(home: Path, log: Log, examined: Examined) -> None:
    """No exchange, an empty journal, nothing waits: a warning with the command that starts one."""
    before = written(home)
    findings = examined()
    assert findings["topics"] == Said("ok", "all 9 are there, with 2 partitions each", None)
    assert findings["exchange"][:2] == ("warning", "nobody owns shards 0, 1")
    assert (findings["exchange"].hint or "").splitlines()[1:] == ["stocktrade nse"]
    assert findings["journal"] == Said("ok", "empty: no exchange has run on this log yet", None)
    assert findings["lag"].state == findings["dead letters"].state == "ok"
    log.append([order(1)])
    lag = examined()["lag"]
    assert lag.state == "warning"
    assert lag.found.startswith("shard 0: 1 record, the oldest ")
    assert lag.found.endswith(" old, and no exchange takes them")
    assert (lag.hint or "").splitlines()[1:] == ["stocktrade nse"]
    assert [row for row in written(home) if row[0] in ("topics", "epochs")] == [
        row for row in before if row[0] in ("topics", "epochs")
    ]


def test_an_exchange_that_runs_is_named_with_its_shards(home: Path, log: Log, examined: Examined) -> None:
    """One shard has an owner and one has not, then both have the same."""
    with closing(log.claim(1)):
        said = examined()["exchange"]
        assert said[:2] == ("warning", f"pid {os.getpid()} owns shard 1; nobody owns shard 0")
        with closing(log.claim(0)):
            assert examined()["exchange"] == Said("ok", f"pid {os.getpid()} owns shards 0, 1", None)


def test_the_journal_is_told_with_its_rules_and_snapshot(
    home: Path, log: Log, examined: Examined, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No snapshot; one that is up to date; one with entries after it, far more than the first look back shows."""
    monkeypatch.setattr(protocol, "MAX_BATCH_INPUTS", 1)

    def trade(first: int, count: int, *, to_the_end: bool) -> None:
        log.append([order(number) for number in range(first, first + count)])
        node = Node(log, name="test", now_ms=lambda: 0)
        ends = node.backlog_ends()
        while not node.has_taken(ends):
            node.step(0.1)
        (node.close if to_the_end else node.abandon)()

    trade(0, 3, to_the_end=False)
    assert (
        examined()["journal"].found == "rules 2026.1; shard 0 at entry 3, no snapshot; shard 1 at entry 0, no snapshot"
    )
    trade(3, 2, to_the_end=True)
    found = examined()["journal"].found
    assert "shard 0 at entry 6, its snapshot is up to date" in found
    trade(5, 20, to_the_end=False)
    findings = examined()
    assert "shard 0 at entry 27, 21 after the snapshot" in findings["journal"].found
    # What a snapshot left behind whose writer died hides it from the first look.
    log.append([NewRecord(topics.SNAPSHOTS, b"27:%d" % part, b"[]", 0) for part in range(20)])
    assert examined()["journal"] == findings["journal"]
    assert findings["lag"] == Said("ok", "none: everything on the inputs is in the journal", None)


def test_a_journal_that_cannot_be_read_fails(log: Log, examined: Examined) -> None:
    """Where it cannot be read is told; what waits for it is not known, dead letters are."""
    log.append([NewRecord(topics.JOURNAL, b"0", b"not an entry \x1b[2J", 0)])
    findings = examined()
    assert findings["journal"].state == "failed"
    assert findings["journal"].found.startswith("the journal cannot be read at exchange-journal@0:0")
    check_skipped(findings, "lag", because_of="journal")
    assert findings["dead letters"].state == "ok"


def test_rules_that_nobody_knows_fail(log: Log, examined: Examined) -> None:
    with closing(log.claim(0)) as writer:
        value, _ = journal.encode_owner(
            shard=0, head=journal.Head(), epoch=1, rules="1602.1", first_seq=1, next_offsets={}, owner="x", time_ms=0
        )
        writer.commit([NewRecord(topics.JOURNAL, b"0", value, 0)])
    findings = examined()
    assert findings["journal"].state == "failed"
    assert findings["journal"].found.startswith("the journal was written under rules '1602.1'")


def test_of_two_entries_with_one_number_the_first_counts(log: Log, examined: Examined) -> None:
    """As for every reader: the later one is of an owner who was fenced; here its offsets would hide what waits."""
    log.append([order(1)])
    for epoch, taken in ((1, 0), (2, 1)):
        value, _ = journal.encode_owner(
            shard=0,
            head=journal.Head(),
            epoch=epoch,
            rules="2026.1",
            first_seq=1,
            next_offsets={topics.BUY_ORDERS: taken},
            owner="x",
            time_ms=0,
        )
        log.append([NewRecord(topics.JOURNAL, b"0", value, 0)])
    assert examined()["lag"].found.startswith("shard 0: 1 record")


def test_a_log_that_lost_its_end_fails(home: Path, tmp_path: Path, examined: Examined) -> None:
    """The file is an older one than its anchor."""
    log_file(home)
    older = (home / "log.db").read_bytes()
    assert cli.run(["nse", "--once"]) == 0
    (home / "log.db").write_bytes(older)
    findings = examined()
    assert findings["journal"].state == "failed"
    assert findings["journal"].found == (
        "the log has lost the end of shard 0's journal: entry 1 was committed, and there is none"
    )


def test_an_exchange_that_does_not_keep_up_is_a_warning(home: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Growing, standing still, shrinking; and, though more is there than before, all of the first look taken."""
    monkeypatch.setattr(protocol, "MAX_BATCH_INPUTS", 2)
    owner = Owner(log, 0, name="test", now_ms=lambda: 0)
    inputs = log.reader({(topics.BUY_ORDERS, 0): 0})
    log.append([order(number) for number in range(5)])

    def take(count: int) -> None:
        for _ in range(count):
            owner.offer(inputs.poll(0.0, max_records=2))
            owner.commit_ready(UNBOUNDED)

    def lag(pause: Callable[[], None]) -> Finding:
        return dict(examine(lambda: connect(f"sqlite:{home}"), pause=pause))["lag"]

    def more() -> None:
        log.append([order(5)])

    growing = lag(more)
    assert growing.state is State.WARNING
    assert growing.found.startswith("shard 0: 5 records, the oldest ")
    assert growing.found.endswith(", growing")
    assert growing.hint == doctor._SLOW_EXCHANGE
    still = lag(lambda: None)
    assert (still.state, still.found.rpartition(", ")[2]) == (State.WARNING, "standing still")
    shrinking = lag(lambda: take(1))
    assert (shrinking.state, shrinking.found.rpartition(", ")[2]) == (State.OK, "shrinking")
    assert shrinking.found.startswith("shard 0: 6 records")

    def take_and_more() -> None:
        take(2)
        log.append([order(number) for number in range(10, 20)])

    busy = lag(take_and_more)
    assert (busy.state, busy.found.rpartition(", ")[2]) == (State.OK, "and the exchange takes them")
    owner.abandon()


def test_without_a_lag_or_an_owner_there_is_no_second_look(home: Path, log: Log) -> None:
    def never() -> None:
        raise AssertionError

    def lag() -> State:
        return dict(examine(lambda: connect(f"sqlite:{home}"), pause=never))["lag"].state

    with closing(log.claim(0)):
        assert lag() is State.OK
    log.append([order(1)])
    assert lag() is State.WARNING


def test_a_long_lag_is_counted_by_offsets(log: Log, monkeypatch: pytest.MonkeyPatch, examined: Examined) -> None:
    """What is beyond the records that are looked at one by one counts, too."""
    monkeypatch.setattr(doctor, "COUNTED", 2)
    log.append([order(number) for number in range(5)])
    log.append([order(number, partition=1) for number in range(3)])
    found = examined()["lag"].found.split("; ")
    assert [each.partition(", ")[0] for each in found] == ["shard 0: 5 records", "shard 1: 3 records"]


def test_dead_letters_are_counted(home: Path, log: Log, monkeypatch: pytest.MonkeyPatch, examined: Examined) -> None:
    """How many, and how many of the last day; with the command that shows them."""
    log.append([NewRecord(topics.BUY_ORDERS, None, b"no order", shard) for shard in (0, 0, 1)])
    assert cli.run(["nse", "--once"]) == 0
    said = examined()["dead letters"]
    assert said[:2] == ("warning", "3, 3 of the last 24 h")
    assert (said.hint or "").splitlines()[1:] == ["stocktrade dlq list"]
    later = cli._now_ms() + DAY_MS + 1
    monkeypatch.setattr(cli, "_now_ms", lambda: later)
    assert examined()["dead letters"].found == "3, 0 of the last 24 h"
    monkeypatch.setattr(doctor, "COUNTED", 1)
    assert examined()["dead letters"].found == "about 3, 0 of the last 24 h"


# --- how it is said --------------------------------------------------------------------------------------------


def test_in_a_pipe_there_is_a_row_for_each_check(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Check, state, what was found, what to do; without a line break or an escape in it."""
    assert cli.run(["doctor"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == list(CHECKS)
    assert {len(row) for row in rows} == {4}
    assert rows[3] == [
        "log",
        "warning",
        f"there is none in {home} yet",
        "the first `nse`, `buy` or `sell` makes it, or: stocktrade topics create",
    ]


def drawn(home: Path, *, width: int, bootstrap_server: str | None = None) -> tuple[ExitCode, list[str]]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system=None, width=width, markup=False)
    code = doctor.run(
        Flags(bootstrap_server),
        environ={settings.HOME: str(home)},
        as_json=False,
        console=console,
        out=out,
        now_ms=cli._now_ms,
    )
    return code, [line.rstrip() for line in out.getvalue().splitlines()]


def test_on_a_terminal_a_command_that_mends_stands_whole_on_its_own_line(home: Path, log: Log) -> None:
    """However narrow the screen is; each check has its mark, and the last line says how it ended."""
    code, lines = drawn(home, width=30)
    assert [line.strip() for line in lines if "stocktrade nse" in line] == ["stocktrade nse"]
    assert [line[0] for line in lines if line[:2].strip() and line[2:3] != " "] == [*"✓✓✓✓✓!✓✓✓", "✓"]
    assert (code, lines[-1]) == (ExitCode.OK, "✓ healthy, 1 warning")
    code, lines = drawn(home, width=80, bootstrap_server="h")
    assert (code, lines[-1]) == (ExitCode.NO, "✗ 1 check failed")
    assert [line.split()[:2] for line in lines if line[:3] in ("✗ s", "- l")] == [
        ["✗", "settings"],
        ["-", "log"],
        ["-", "lag"],
    ]


def test_the_name_of_a_folder_steers_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In none of the three forms."""
    home = tmp_path / "\x1b[2J[red]\u202e"
    monkeypatch.setenv(settings.HOME, str(home))
    assert cli.run(["doctor"]) == 0
    rows = capsys.readouterr().out.replace("\t", "")
    assert cli.run(["doctor", "--json"]) == 0
    assert CONTROLS.findall(rows + capsys.readouterr().out + "\n".join(drawn(home, width=200)[1])) == []
    assert "\\x1b[2J[red]\\u202e" in rows


# --- on Kafka --------------------------------------------------------------------------------------------------


@contextmanager
def listening(answer: bytes | None) -> Iterator[str]:
    """Somebody who answers every question with the same bytes and hangs up; with None he just hangs up."""
    with socket.create_server((HOST, 0), backlog=50) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # the test is over
                    return
                with connection:
                    if answer is not None:
                        connection.recv(65_536)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"{HOST}:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SERVER is no Kafka broker: its answer begins with b'SSH-'"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "SERVER is no Kafka broker: its answer begins with b'HTTP'"),
        (None, "SERVER cannot be talked to: "),
    ],
    ids=["ssh", "web", "hangs up"],
)
def test_a_port_of_another_program_fails(examined: Examined, answer: bytes | None, error: str) -> None:
    """Soon, and with what came instead of a broker's answer."""
    with listening(answer) as server:
        begin = time.monotonic()
        findings = examined("-b", server)
        assert time.monotonic() - begin < 6
    assert findings["log"].state == "failed"
    assert findings["log"].found.startswith(error.replace("SERVER", server))
    assert "--bootstrap-server" in (findings["log"].hint or "")
    check_skipped(findings, *AFTER_THE_LOG, because_of="log")


@pytest.mark.parametrize(
    ("properties", "timeout"), [((), str(doctor.REQUEST_MS)), (("request.timeout.ms=8000",), "8000")], ids=["", "own"]
)
def test_a_broker_has_less_time_to_answer_than_usual_unless_the_user_says_so(
    properties: tuple[str, ...], timeout: str
) -> None:
    """A log that goes away in between would otherwise hold the answer up for ten seconds."""
    given: list[Mapping[str, str]] = []

    def note(url: str, options: Mapping[str, str], client: str) -> Log:
        assert client == "kafka-python"
        given.append(options)
        raise Unavailable(url)

    flags = Flags("127.0.0.1:1", None, properties)
    with ExitStack() as stack:
        findings = dict(doctor.examine(Case(flags, {}, cli._now_ms, lambda: None, stack, note)))
    assert findings["log"] == Finding(State.FAILED, "kafka:127.0.0.1:1")
    assert given == [{"request.timeout.ms": timeout}]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManyListeners]:
    """One broker; one of its listeners advertises an address where nobody is."""
    if not _image_is_usable():
        _do_without(HOW_TO_ENABLE)
    with ManyListeners(tmp_path_factory.mktemp("certificates")) as broker:
        yield broker


NewLog = Callable[..., Log]


@pytest.fixture
def on_kafka(broker: ManyListeners) -> Iterator[NewLog]:
    """Opens the log of an exchange of its own, as another process would."""
    from stocktrade.transport.kafka import KafkaLog

    prefix = f"{uuid4().hex[:8]}-"
    with ExitStack() as opened:

        def open_log(**options: Any) -> Log:
            return opened.enter_context(
                KafkaLog(broker.bootstrap_servers, **{"partitions": 2, **options}, prefix=prefix)
            )

        yield open_log


def owning_all(log: Log) -> Node:
    """An exchange that owns every shard."""
    node = Node(log, name="test", now_ms=lambda: 0)
    deadline = time.monotonic() + 20
    while len(node.owners) < log.partitions():
        node.step(0.1)
        assert time.monotonic() < deadline
    return node


@pytest.mark.kafka
def test_an_address_that_nobody_reaches_fails(broker: ManyListeners, examined: Examined) -> None:
    """The broker answers and sends its clients elsewhere: where, and which setting of the broker says so."""
    server = broker.server("LOST")
    begin = time.monotonic()
    findings = examined("-b", server)
    assert time.monotonic() - begin < 6
    assert findings["log"].state == "failed"
    assert findings["log"].found.startswith(f"the broker at {server} answers, but not at the address")
    assert broker.lost_address in findings["log"].found
    assert "advertised.listeners" in (findings["log"].hint or "")


@pytest.mark.kafka
def test_a_cluster_without_topics_stays_one(broker: ManyListeners, examined: Examined) -> None:
    """Release and number of brokers are told; topics are missing, with the command that makes them, and not made."""
    for _ in range(2):
        findings = examined("-b", broker.bootstrap_servers)
        assert findings["data folder"].state == "ok"
        assert findings["log"] == Said("ok", f"Kafka 4.2, 1 broker, by kafka-python {kafka.__version__}", None)
        assert findings["topics"].state == "warning"
        assert findings["topics"].found.startswith("missing: buy-orders, ")
        assert (findings["topics"].hint or "").splitlines()[1:] == ["stocktrade topics create"]
        assert findings["exchange"][:2] == ("warning", "nobody owns shards 0, 1, 2, 3")
        check_skipped(findings, "journal", "lag", "dead letters", because_of="topics")


@pytest.mark.kafka
def test_some_missing_topics_are_named(on_kafka: NewLog) -> None:
    log = on_kafka()
    log.ensure_topics([spec for spec in topics.SPECS if spec.name not in (topics.TRADES, topics.SNAPSHOTS)])
    found = dict(examine(on_kafka))["topics"]
    assert (found.state, found.found) == (State.WARNING, "missing: trades, exchange-snapshots")
    log.ensure_topics(topics.SPECS)
    assert dict(examine(on_kafka))["topics"].found == "all 9 are there, with 2 partitions each"


@pytest.mark.kafka
def test_a_topic_with_other_settings_fails_with_what_mends_it(
    broker: ManyListeners, on_kafka: NewLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A week of retention, and one partition too few: each with its command, on a line of its own."""
    import kafka
    from kafka.admin import ConfigResource, ConfigResourceType

    log = on_kafka()
    log.ensure_topics([spec for spec in topics.SPECS if spec.name != topics.TRADES])
    on_kafka(partitions=1).ensure_topics([spec for spec in topics.SPECS if spec.name == topics.TRADES])
    prefix = log._prefix  # type: ignore[attr-defined]  # only KafkaLog has one
    week = ConfigResource(ConfigResourceType.TOPIC, prefix + topics.BUY_ORDERS, {"retention.ms": "604800000"})
    with closing(kafka.KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)) as admin:
        admin.alter_configs([week])
    findings = dict(examine(on_kafka))
    assert findings["topics"].state is State.FAILED
    assert f"{prefix}buy-orders has retention.ms=604800000, not -1" in findings["topics"].found
    assert f"{prefix}trades has 1 partitions, not 2" in findings["topics"].found
    commands = findings["topics"].hint.splitlines()[1:]
    assert [command.partition(" ")[0] for command in commands] == ["kafka-configs.sh", "kafka-topics.sh"]
    assert findings["journal"].state is State.SKIPPED


@pytest.mark.kafka
def test_no_exchange_and_then_one(on_kafka: NewLog) -> None:
    """Nobody owns a shard: a warning. Somebody does, and takes what was there: nothing waits, the journal is told."""
    log = on_kafka()
    log.ensure_topics(topics.SPECS)
    log.append([order(number) for number in range(3)])
    findings = dict(examine(on_kafka))
    assert findings["exchange"] == Finding(State.WARNING, "nobody owns shards 0, 1", doctor._AN_EXCHANGE)
    assert findings["lag"].found.startswith("shard 0: 3 records, ")
    node = owning_all(log)
    ends = node.backlog_ends()
    while not node.has_taken(ends):
        node.step(0.1)
    findings = dict(examine(on_kafka))
    assert {name: each.state for name, each in findings.items() if each.state is not State.OK} == {}
    assert f"pid {os.getpid()} on " in findings["exchange"].found
    assert findings["exchange"].found.endswith(" owns shards 0, 1")
    assert findings["lag"].found == "none: everything on the inputs is in the journal"
    assert "shard 0 at entry 1, no snapshot; shard 1 at entry 0, no snapshot" in findings["journal"].found
    node.close()
    assert "shard 0 at entry 1, its snapshot is up to date" in dict(examine(on_kafka))["journal"].found


@pytest.mark.kafka
def test_a_growing_lag_is_a_warning(on_kafka: NewLog) -> None:
    """The owner lives and takes nothing, while orders come; then it takes them."""
    log = on_kafka()
    node = owning_all(log)
    log.append([order(1)])

    def more() -> None:
        log.append([order(number) for number in range(2, 4)])

    lag = dict(examine(on_kafka, pause=more))["lag"]
    assert lag.state is State.WARNING
    assert lag.found.startswith("shard 0: 1 record, the oldest ")
    assert lag.found.endswith(", growing")

    def take() -> None:
        ends = node.backlog_ends()
        while not node.has_taken(ends):
            node.step(0.1)

    lag = dict(examine(on_kafka, pause=take))["lag"]
    assert (lag.state, lag.found.rpartition(", ")[2]) == (State.OK, "and the exchange takes them")
    node.abandon()


@pytest.mark.kafka
def test_an_input_that_an_open_transaction_holds_back_is_named(broker: ManyListeners, on_kafka: NewLog) -> None:
    """Somebody's transaction hides an order: the partition is named, with the command that finds who it is."""
    import kafka

    from stocktrade.transport.kafka_client import discard_producer

    log = on_kafka()
    log.ensure_topics(topics.SPECS)
    topic = log._prefix + topics.SELL_OFFERS  # type: ignore[attr-defined]  # only KafkaLog has one
    stranger = kafka.KafkaProducer(bootstrap_servers=broker.bootstrap_servers, transactional_id=uuid4().hex)
    try:
        stranger.init_transactions()
        stranger.begin_transaction()
        stranger.send(topic, b"hidden", partition=1).get(10)
        lag = dict(examine(on_kafka))["lag"]
        assert (lag.state, lag.found) == (State.WARNING, "sell-offers@1 is held back by an open transaction")
        assert "kafka-transactions.sh" in lag.hint.splitlines()[1]
        stranger.abort_transaction()
        assert dict(examine(on_kafka))["lag"].state is State.OK
    finally:
        discard_producer(stranger)


@pytest.mark.kafka
def test_dead_letters_on_kafka_are_counted_without_the_ends_of_transactions(on_kafka: NewLog) -> None:
    log = on_kafka()
    node = owning_all(log)
    for shard in (0, 0, 1):
        log.append([NewRecord(topics.BUY_ORDERS, None, b"no order", shard)])
        ends = node.backlog_ends()
        while not node.has_taken(ends):
            node.step(0.1)
    node.close()
    findings = dict(examine(on_kafka))
    assert (findings["dead letters"].state, findings["dead letters"].found) == (
        State.WARNING,
        "3, 3 of the last 24 h",
    )
    later = cli._now_ms() + DAY_MS + 1
    assert dict(examine(on_kafka, now_ms=lambda: later))["dead letters"].found == "3, 0 of the last 24 h"


@pytest.mark.kafka
def test_a_broker_that_goes_away_in_between_is_waited_for_once(broker: ManyListeners, on_kafka: NewLog) -> None:
    """The check that meets it fails, and those after it are skipped; it is all over soon."""
    settings_of_doctor = {"request.timeout.ms": str(doctor.REQUEST_MS)}
    on_kafka().ensure_topics(topics.SPECS)
    findings = examine(lambda: on_kafka(settings=settings_of_doctor))
    seen: dict[str, Finding] = {}
    try:
        begin = 0.0
        for name, finding in findings:
            seen[name] = finding
            if name == "log":
                broker.pause_broker()
                begin = time.monotonic()
        assert time.monotonic() - begin < 8
    finally:
        broker.unpause_broker()
    assert seen["topics"].state is State.FAILED
    assert [seen[name].state for name in AFTER_THE_LOG[1:]] == [State.SKIPPED] * 4
