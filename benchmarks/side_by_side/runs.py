"""Runs programs, each in a process of its own on topics of its own: once to the end, or killed in the middle.

Invariant: what a run put on the log is taken off again, and its processes are ended, whatever happens.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

from side_by_side.judge import Verdict, judge
from side_by_side.programs import Program
from side_by_side.work import ENDLESS, fill, open_log
from stocktrade.transport import LIBRDKAFKA, topics
from stocktrade.transport.base import Log
from stocktrade.transport.kafka import KafkaLog

DEADLINE_S: Final = 180.0
QUIET_S: Final = 8.0
"""A program that was started again is done when it wrote nothing for so long; it writes at least every second."""
LOOK_S: Final = 0.02
IDLE_S: Final = 30.0
"""How long a program that was started again may take until it writes; after that there was nothing left for it."""


class Python(NamedTuple):
    """The interpreters: ours, and that of the environment in which the peers are installed."""

    ours: str = sys.executable
    peers: str = sys.executable

    def of(self, program: Program) -> str:
        """The one that a program needs."""
        return self.peers if program.peer else self.ours


@contextmanager
def _filled(where: str, orders: int) -> Iterator[tuple[Log, str]]:
    prefix = f"{uuid4().hex[:8]}-"
    with open_log(where, prefix, LIBRDKAFKA) as log:
        try:
            fill(log, orders)
            yield log, prefix
        finally:
            if isinstance(log, KafkaLog):
                with suppress(Exception):  # the broker goes away with it, or keeps what is small
                    admin = log._connection.admin  # noqa: SLF001 - no command of ours deletes topics
                    admin.delete_topics([name for name in admin.list_topics() if name.startswith(prefix)])


def _command(program: Program, python: Python, where: str, prefix: str, orders: int) -> list[str]:
    return [python.of(program), "-m", "side_by_side.programs", program.name, where, prefix, str(orders)]


def once(program: Program, where: str, orders: int, python: Python) -> dict[str, Any]:
    """One run to the end: `orders_per_s`, the `versions` of what it used, and the `verdict` on what it wrote.

    Raises:
        RuntimeError: the program failed.
        TimeoutError: it took too long.
    """
    with _filled(where, orders) as (log, prefix):
        command = _command(program, python, where, prefix, orders)
        try:
            done = subprocess.run(command, capture_output=True, cwd=_FOLDER, timeout=DEADLINE_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"{program.name} took more than {DEADLINE_S:g} s") from error
        if done.returncode:
            raise RuntimeError(f"{program.name} ended with {done.returncode}:\n{done.stderr.decode()[-4000:]}")
        said = json.loads(done.stdout.splitlines()[-1])
        verdict = judge(log, orders, writes_all=program.writes_all)
    return {
        "orders_per_s": orders / said["seconds"],
        "versions": said["versions"],
        "verdict": verdict._asdict(),
    }


_FOLDER: Final = Path(__file__).parents[1]


@contextmanager
def _process(program: Program, python: Python, where: str, prefix: str) -> Iterator["subprocess.Popen[bytes]"]:
    command = _command(program, python, where, prefix, ENDLESS)
    with subprocess.Popen(command, cwd=_FOLDER, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def killed(program: Program, where: str, orders: int, python: Python) -> dict[str, Any]:
    """Killed (`kill -9`) when a part of its outputs is written, and started again: the `verdict` when it is quiet.

    `written_at_kill` of `rupees_due` records of one topic, committed or not, tell whether it was in the middle.

    Raises:
        RuntimeError: the program ended by itself.
        TimeoutError: it does not get on.
    """
    with _filled(where, orders) as (log, prefix):
        # A quarter of the legs of both sides, or of the buyers' where no others are written: programs that write
        # seldom are further by then.
        part = orders // 4 if program.writes_all else orders // 8
        starts = {(topics.CASH_MOVEMENTS, partition): 0 for partition in range(log.partitions())}
        with closing(log.reader(starts)) as reader:

            def written() -> int:
                return sum(reader.written_ends().values())

            with _process(program, python, where, prefix) as process:
                _until(lambda: written() >= part, process)
            at_kill = written()
            with _process(program, python, where, prefix) as process:
                count, since = written(), time.monotonic()
                while time.monotonic() - since < (IDLE_S if count == at_kill else QUIET_S):
                    time.sleep(LOOK_S)
                    if (now := written()) != count:
                        count, since = now, time.monotonic()
        verdict = judge(log, orders, writes_all=program.writes_all)
    due = orders if program.writes_all else orders // 2
    return {"verdict": verdict._asdict(), "written_at_kill": at_kill, "rupees_due": due}


def _until(condition: Any, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if process.poll() is not None:
            raise RuntimeError(f"the program ended with {process.returncode}")
        if time.monotonic() > deadline:
            raise TimeoutError("the program does not get on")
        time.sleep(LOOK_S)


def verdict_of(result: dict[str, Any]) -> Verdict:
    """The verdict in a result."""
    return Verdict(**result["verdict"])
