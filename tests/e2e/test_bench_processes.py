"""`bench` as processes: whatever ends it, its folder, its topics and its processes are gone; and a stall shows."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
from processes import Commands, Process, until

from stocktrade import settings
from stocktrade.bench import scratch
from stocktrade.errors import StocktradeError
from stocktrade.transport import connect, topics
from stocktrade.transport.base import Log
from test_cli_errors import check_lines

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks at processes by /proc")]

LONG: Final = ("bench", "--json", "--orders", "0", "--rate", "100", "--seconds", "600")
"""Nothing but latency, for longer than any test lasts."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def commands(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Commands]:
    for name in (settings.BOOTSTRAP_SERVERS, settings.COMMAND_CONFIG):
        monkeypatch.delenv(name, raising=False)
    commands = Commands(tmp_path, environment={settings.HOME: str(home)})
    with commands.ending():
        yield commands


def children_of(process: Process) -> list[int]:
    """The processes that a process has started and that are still there, in the order of their start."""
    try:
        return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def folder_of(home: Path) -> Path | None:
    """The folder of the one bench that runs."""
    folders = list((home / scratch.FOLDER).iterdir()) if (home / scratch.FOLDER).exists() else []
    return folders[0] if folders and (folders[0] / "log.db").exists() else None


def answers_on(log: Log) -> int:
    """How many orders the exchange has answered."""
    with closing(log.reader({(topics.ORDER_EVENTS, p): 0 for p in range(log.partitions())})) as reader:
        return sum(reader.ends().values())


def trading(commands: Commands, home: Path, *more: str, answers: int = 50) -> tuple[Process, Path, list[int]]:
    """A bench on the embedded log that has begun to send: its process, its folder, its exchange and its sender."""
    bench = commands.start(*LONG, *more)
    folder = until(lambda: bench.poll() is not None or folder_of(home), what="the folder")
    assert isinstance(folder, Path), commands.said(bench, "err")
    with connect(f"sqlite:{folder}") as log:
        until(lambda: not log.missing_topics(topics.SPECS), what="the topics")
        until(lambda: answers_on(log) >= answers, what="the answers")
    children = children_of(bench)
    assert len(children) == 2
    return bench, folder, children


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_ends_it_with_130_and_nothing_is_left(commands: Commands, home: Path, number: int) -> None:
    """Neither the folder, nor the home that it made for it, nor a process; and no traceback, and no result."""
    bench, _, children = trading(commands, home)
    bench.send_signal(number)
    commands.must_end(bench, 130)
    assert not home.exists()
    assert [pid for pid in children if is_there(pid)] == []
    assert commands.said(bench) == ""
    assert commands.said(bench, "err").splitlines()[1:] == []


def test_a_second_ctrl_c_ends_it_at_once_and_says_what_is_left(commands: Commands, home: Path) -> None:
    """Its processes are gone even then."""
    bench, folder, children = trading(commands, home)
    os.kill(children[0], signal.SIGSTOP)  # so that it cannot end by itself in a hurry
    bench.send_signal(signal.SIGINT)
    until(lambda: not is_there(children[1]), what="the end of the sender")
    bench.send_signal(signal.SIGINT)
    commands.must_end(bench, 130)
    until(lambda: not any(map(is_there, children)), what="the end of the processes")
    assert commands.said(bench, "err").splitlines()[1:] == [f"warning: what it made is still there: sqlite:{folder}"]


def test_its_processes_do_not_outlive_a_bench_that_is_killed(commands: Commands, home: Path) -> None:
    """They end when their standard input does. Its folder stays, and is removed by a later one."""
    bench, folder, children = trading(commands, home)
    bench.kill()
    bench.wait()
    until(lambda: not any(map(is_there, children)), what="the end of the processes")
    assert folder.exists()
    os.utime(folder, (0, 0))
    again = commands.start("bench", "--orders", "20", "--seconds", "0")
    commands.must_end(again, 0)
    assert list(home.iterdir()) == [home / scratch.FOLDER] or not home.exists()
    assert not folder.exists()


@pytest.mark.parametrize("place", [0, 1], ids=["exchange", "sender"])
def test_a_process_that_dies_ends_it_with_3(commands: Commands, home: Path, place: int) -> None:
    """Which one, and how; nothing is left."""
    bench, _, children = trading(commands, home)
    os.kill(children[place], signal.SIGKILL)
    commands.must_end(bench, 3)
    error = json.loads(commands.said(bench, "err").splitlines()[-1])
    assert error["error"] == f"the {('exchange', 'sender')[place]} of the bench ended by signal SIGKILL"
    assert not home.exists()
    assert [pid for pid in children if is_there(pid)] == []


@pytest.mark.parametrize("place", [0, 1], ids=["exchange", "sender"])
def test_a_stall_shows_in_the_figures_whoever_stalls(commands: Commands, home: Path, place: int) -> None:
    """An order that could not even be sent in time has waited since it was meant to be sent.

    A loop that sends the next order after the last answer would have one slow order in such a second; here there are as
    many as should have been sent in it.
    """
    stall_s = 1.0
    # Beyond the warm-up of 2 s: 200 orders are sent by then.
    bench, _, children = trading(commands, home, "--seconds", "4", answers=260)
    began = time.monotonic()
    os.kill(children[place], signal.SIGSTOP)
    threading.Event().wait(stall_s)  # time itself is what is measured
    os.kill(children[place], signal.SIGCONT)
    stalled_ms = (time.monotonic() - began) * 1000
    commands.must_end(bench, 0)
    latency = json.loads(commands.said(bench))["latency"]
    # It was stopped between two orders, 10 ms apart, of which every third or so trades at once.
    assert latency["max_ms"] >= stalled_ms - 100
    # Of 4 s one was lost: the orders of it waited half of it on average, a quarter of all.
    assert latency["p90_ms"] >= stalled_ms / 3
    assert latency["unsettled"] == 0
    if place == 1:
        assert latency["sender"]["behind_max_ms"] >= stalled_ms - 100


# --- Kafka -----------------------------------------------------------------------------------------------------


def ours_on(servers: str, prefix: str) -> set[str]:
    """The topics and groups of a prefix that are on a broker."""
    import kafka

    client = kafka.KafkaAdminClient(bootstrap_servers=servers)
    try:
        groups = {group["group_id"] for group in client.list_groups()}
        return {name for name in {*client.list_topics()} | groups if name.startswith(prefix)}
    finally:
        client.close()


def trading_on_kafka(commands: Commands, servers: str, client: str) -> tuple[Process, str, list[int]]:
    prefix = f"{uuid4().hex[:8]}-"
    bench = commands.start(*LONG, "-b", servers, "--client", client, "--topic-prefix", prefix)

    def answers() -> bool:
        assert bench.poll() is None, commands.said(bench, "err")
        try:
            with connect(f"kafka:{servers}", prefix=prefix) as log:
                return answers_on(log) >= 20
        except StocktradeError:
            return False  # its topics are not there yet

    until(answers, within_s=60, what="the answers")
    return bench, prefix, children_of(bench)


@pytest.mark.kafka
@pytest.mark.parametrize("client", ["kafka-python", "librdkafka"])
def test_on_kafka_ctrl_c_leaves_no_topic_no_group_and_no_process(
    commands: Commands, kafka_servers: str, client: str
) -> None:
    bench, prefix, children = trading_on_kafka(commands, kafka_servers, client)
    assert len(ours_on(kafka_servers, prefix)) == 10
    bench.send_signal(signal.SIGINT)
    commands.must_end(bench, 130)
    assert ours_on(kafka_servers, prefix) == set()
    assert [pid for pid in children if is_there(pid)] == []
    assert commands.said(bench, "err").splitlines()[1:] == []


@pytest.mark.kafka
def test_when_the_broker_dies_it_ends_with_3_and_names_what_it_could_not_delete(
    commands: Commands, new_broker: Callable[..., Any]
) -> None:
    """With the command that does it, once the broker is back."""
    broker = new_broker()
    bench, prefix, children = trading_on_kafka(commands, broker.bootstrap_servers, "kafka-python")
    broker.kill_broker()
    commands.must_end(bench, 3, within_s=90)
    said = commands.said(bench, "err").splitlines()
    assert said[1].startswith(f"warning: the topics that begin with {prefix} could not all be removed")
    assert f"--delete --topic '{prefix.replace('-', chr(92) + '-')}.*'" in "\n".join(said)
    check_lines("error: " + json.loads(said[-1])["error"], about="")
    assert [pid for pid in children if is_there(pid)] == []
