"""Commands of stocktrade as processes of their own, and what they say.

What a process says goes into files. Invariant: nothing is waited for without a deadline, and whoever uses `ending`
leaves no process behind.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

from stocktrade.failpoints import VARIABLE

PROGRAM: Final = (sys.executable, "-m", "stocktrade")
DEADLINE_S: Final = 30.0

Process = subprocess.Popen[bytes]
_T = TypeVar("_T")


def until(found: Callable[[], _T], *, within_s: float = DEADLINE_S, what: str = "what was waited for") -> _T:
    """Look again and again until there is something to see; what is seen then."""
    deadline = time.monotonic() + within_s
    others_turn = threading.Event()
    while not (result := found()):
        assert time.monotonic() < deadline, f"{what} did not come within {within_s:g} s"
        others_turn.wait(0.01)
    return result


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A folder that is in memory where there is such a thing."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    with TemporaryDirectory(dir=memory if usable else None) as folder:
        yield Path(folder)


class Commands:
    """The processes that a test starts.

    Args:
        folder: where the files go in which the processes speak.
        program: what is started.
        environment: the variables of the processes, beside our own.
    """

    def __init__(
        self, folder: Path, *, program: Sequence[str] = PROGRAM, environment: Mapping[str, str] | None = None
    ) -> None:
        self._folder = folder
        self._program = program
        self._environment = dict(environment or {})
        self.processes: list[Process] = []
        self._heard: dict[Process, tuple[int, list[dict[str, Any]]]] = {}

    def start(self, *arguments: str, failpoints: str = "") -> Process:
        """Start a command."""
        environment = os.environ | self._environment | {VARIABLE: failpoints}
        name = self._folder / str(len(self.processes))
        with name.with_suffix(".out").open("wb") as out, name.with_suffix(".err").open("wb") as err:
            process = subprocess.Popen([*self._program, *arguments], env=environment, stdout=out, stderr=err)
        self.processes.append(process)
        return process

    def said(self, process: Process, kind: str = "out") -> str:
        """What a process has said so far on stdout ("out") or stderr ("err")."""
        return self._file(process, kind).read_text(encoding="utf-8")

    def _file(self, process: Process, kind: str) -> Path:
        return self._folder / f"{self.processes.index(process)}.{kind}"

    def events(self, process: Process) -> list[dict[str, Any]]:
        """The lines of JSON that a process has said so far."""
        begin, events = self._heard.setdefault(process, (0, []))
        with self._file(process, "out").open("rb") as out:
            out.seek(begin)
            lines, newline, _ = out.read().rpartition(b"\n")
        events += [json.loads(line) for line in lines.splitlines()]
        self._heard[process] = (begin + len(lines) + len(newline), events)
        return events

    def must_end(self, process: Process, code: int, within_s: float = DEADLINE_S) -> None:
        """Wait for a process, which must end with `code`."""
        assert process.wait(within_s) == code, self.said(process, "err")

    def wait_for(self, process: Process, event: str, *, after: int = 0, within_s: float = DEADLINE_S) -> dict[str, Any]:
        """Wait until a process has said something, after the first `after` lines; what it said."""

        def found() -> list[dict[str, Any]]:
            assert process.poll() is None, self.said(process, "err")
            return [said for said in self.events(process)[after:] if said["event"] == event]

        try:
            return until(found, within_s=within_s, what=event)[0]
        except AssertionError as late:
            late.add_note(f"the process said: {self.said(process)}{self.said(process, 'err')}")
            raise

    @contextmanager
    def ending(self) -> Iterator[None]:
        """After the body, kill what is still there."""
        try:
            yield
        finally:
            for process in self.processes:
                process.kill()
                process.wait(DEADLINE_S)
