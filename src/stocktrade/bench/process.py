"""The processes of a bench, as seen by who started them.

Invariant: none outlives the bench. Each is ended by its own process object, and ends by itself when its standard input
does, so also when whoever started it is killed.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from stocktrade.errors import ExitCode, StocktradeError, Unavailable

END_WITHIN_S: Final = 5.0
PATIENCE_S: Final = 60.0
"""How long a process may say nothing new while something is waited for."""

_LOOK_EVERY_S: Final = 0.1
Said = Mapping[str, Any]


class Worker:
    """A process that works for the bench.

    Args:
        task: what it is to do, see `bench.worker`; it is not among its arguments, for it may hold a password.
    """

    def __init__(self, task: Mapping[str, Any]) -> None:
        self.began = time.monotonic()
        self.name = str(task["task"])
        self._said: dict[str, Any] = {}
        self._heard = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "stocktrade.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("STOCKTRADE_DEBUG") else subprocess.DEVNULL,
            process_group=0,  # Ctrl-C is for the bench, which ends the others in their order
        )
        self.pid = self._process.pid
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.tell(task)

    @property
    def said(self) -> Said:
        """All that it has said, the newest of each kind.

        Raises:
            StocktradeError: it has failed.
        """
        with self._heard:
            said = dict(self._said)
        if "error" in said:
            error = StocktradeError(said["error"], cause=said["cause"], hint=said["hint"])
            error.exit_code = ExitCode(said["exit_code"])
            raise error
        return said

    def tell(self, message: Mapping[str, Any]) -> None:
        """Tell it something. One that has ended is not told."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def wait_for(
        self, done: Callable[[Said], bool], stop: Callable[[], bool], heard: Callable[[Said], None] | None = None
    ) -> Said:
        """Wait until it has said what is waited for; what it has said by then.

        Args:
            done: whether it has.
            stop: whether the bench shall end.
            heard: told what it has said, now and then.

        Raises:
            KeyboardInterrupt: `stop`.
            StocktradeError: it has failed, ended, or said nothing new for PATIENCE_S seconds.
        """
        said: Said = {}
        deadline = time.monotonic() + PATIENCE_S
        while True:
            before, said = said, self.check()
            if heard is not None:
                heard(said)
            if done(said):
                return said
            if said != before:
                deadline = time.monotonic() + PATIENCE_S
            elif time.monotonic() >= deadline:
                raise Unavailable(
                    f"the {self.name} of the bench has stood still for {PATIENCE_S:.0f} s", hint="try again"
                )
            raise_if(stop)
            with self._heard:
                if self._said == said:
                    self._heard.wait(_LOOK_EVERY_S)

    def check(self) -> Said:
        """What it has said, if it is well.

        Raises:
            StocktradeError: it has failed, or ended without having been asked to.
        """
        if self._process.poll() is not None:
            self._listener.join(END_WITHIN_S)  # its last words
        said = self.said
        if (code := self._process.poll()) is not None and "done" not in said:
            how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with {code}"
            raise Unavailable(
                f"the {self.name} of the bench ended {how}",
                hint="somebody or the system has ended it, for want of memory perhaps; try again",
            )
        return said

    def end(self) -> None:
        """Let it end as it likes, and kill it if it does not. Safe to call twice."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._finish()

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would. Safe to call twice."""
        self._process.kill()
        self._process.wait()
        self._finish()

    def _finish(self) -> None:
        self._listener.join(END_WITHIN_S)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with suppress(ValueError):
                news = json.loads(line)
                with self._heard:
                    self._said.update(news)
                    self._heard.notify_all()
        with self._heard:
            self._heard.notify_all()


class Crew:
    """The workers of a bench: all of them are ended with the block, the last one first."""

    def __init__(self) -> None:
        self._workers: list[Worker] = []

    def start(self, task: Mapping[str, Any]) -> Worker:
        """Start another worker."""
        self._workers.append(Worker(task))
        return self._workers[-1]

    def kill(self) -> None:
        """End all of them at once."""
        _each(Worker.kill, self._workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _each(Worker.end, reversed(self._workers))


def _each(end: Callable[[Worker], None], workers: Iterable[Worker]) -> None:
    for worker in list(workers):
        end(worker)


def raise_if(stop: Callable[[], bool]) -> None:
    """End a bench that was asked to end.

    Raises:
        KeyboardInterrupt: it was.
    """
    if stop():
        raise KeyboardInterrupt
