"""Keys on a real terminal: `p` pauses `watch` and `book --watch`, `q` ends them, and the terminal is left as it was."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

import pytest

from stocktrade import settings
from stocktrade.keys import single_keys

PATIENCE_S = 30.0


class Screen:
    """A command on a terminal of its own, whose foreground job it is."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.said = ""
        self.home = home
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            environment = {**os.environ, settings.HOME: str(home), "TERM": "xterm-256color"}
            os.execve(sys.executable, [sys.executable, "-m", "stocktrade", *arguments], environment)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.mode = termios.tcgetattr(self.master)

    def wait_for(self, pattern: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not re.search(pattern, self.said):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.said!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                self.said += os.read(self.master, 65_536).decode(errors="ignore")

    def type(self, keys: str) -> None:
        self.said = ""
        os.write(self.master, keys.encode())

    def end(self) -> int:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if select.select([self.master], [], [], 0.1)[0]:
                with suppress(OSError):
                    self.said += os.read(self.master, 65_536).decode(errors="ignore")
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"it does not end: {self.said!r}")

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.master)


def ours(home: Path, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "stocktrade", *arguments],
        env={**os.environ, settings.HOME: str(home)},
        check=True,
        capture_output=True,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A log with one bid in the book."""
    ours(tmp_path, "buy", "SBI", "100", "885", "-q")
    ours(tmp_path, "nse", "--once")
    return tmp_path


@pytest.mark.slow
def test_watch_pauses_and_ends(home: Path) -> None:
    """While it is paused nothing is drawn, whatever happens; then everything is there."""
    screen = Screen(home, "watch")
    try:
        screen.wait_for("no trade yet")
        screen.type("p")
        screen.wait_for("paused: p goes on, q ends")
        screen.said = ""
        ours(home, "sell", "SBI", "60", "-q")
        ours(home, "nse", "--once")
        screen.type("p")
        screen.wait_for("T0-2-1")
        screen.type("x\x1b[Aq")
        assert screen.end() == 0
        assert termios.tcgetattr(screen.master)[3] == screen.mode[3]
    finally:
        screen.close()


@pytest.mark.slow
def test_the_book_pauses_and_ends(home: Path) -> None:
    """The same for the market depth."""
    screen = Screen(home, "book", "SBI", "--watch")
    try:
        screen.wait_for("100")
        screen.type("p")
        ours(home, "sell", "SBI", "60", "-q")
        ours(home, "nse", "--once")
        screen.type(" ")
        screen.wait_for("40")
        screen.type("q")
        assert screen.end() == 0
        assert termios.tcgetattr(screen.master)[3] == screen.mode[3]
    finally:
        screen.close()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_the_terminal_as_it_was(home: Path, number: signal.Signals) -> None:
    """A clean stop with 0, and the shell echoes what is typed."""
    screen = Screen(home, "watch")
    try:
        screen.wait_for("no trade yet")
        os.kill(screen.pid, number)
        assert screen.end() == 0
        assert termios.tcgetattr(screen.master)[3] == screen.mode[3]
    finally:
        screen.close()


def test_without_a_terminal_there_are_no_keys() -> None:
    """In a pipe, with stdin closed, or in the background nothing is read."""
    with Path(os.devnull).open() as nothing, single_keys(nothing) as keys:
        assert keys.pressed() == ""
    with single_keys(None) as keys:
        assert keys.pressed() == ""
    master, slave = pty.openpty()  # a terminal, and not ours
    try:
        mode = termios.tcgetattr(slave)
        with os.fdopen(slave, closefd=False) as stdin, single_keys(stdin) as keys:
            os.write(master, b"q")
            assert keys.pressed() == ""
            assert termios.tcgetattr(slave) == mode
    finally:
        os.close(master)
        os.close(slave)
