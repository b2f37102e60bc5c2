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
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest

from stocktrade import settings
from stocktrade.keys import single_keys

PATIENCE_S = 30.0


class Screen:
    """A command on a terminal of its own, whose foreground job it is."""

    def __init__(self, home: Path, *arguments: str, program: Sequence[str] = ("-m", "stocktrade")) -> None:
        self.said = ""
        self.home = home
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            # A suite that was started in the background ignores it, and so would whatever it starts.
            signal.signal(signal.SIGQUIT, signal.SIG_DFL)
            environment = {**os.environ, settings.HOME: str(home), "TERM": "xterm-256color"}
            os.execve(sys.executable, [sys.executable, *program, *arguments], environment)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.mode = termios.tcgetattr(self.master)

    def wait_for(self, pattern: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not re.search(pattern, self.said):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.said!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                self.said += os.read(self.master, 65_536).decode(errors="ignore")

    def drain(self) -> None:
        """Take in what is there, and what comes while nothing should."""
        while select.select([self.master], [], [], 1.0)[0]:
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
    with closing(Screen(home, "watch")) as screen:
        screen.wait_for("no trade yet")
        screen.type("\x1b[A\x1bOqp")  # an arrow, and a key of a keypad that is sent as something with a q
        screen.wait_for(r"paused, 0 new(?s:.*)p goes on, q ends")
        screen.said = ""
        ours(home, "sell", "SBI", "60", "-q")
        ours(home, "nse", "--once")
        screen.wait_for("paused, 7 new")  # an offer, its answer, the trade and its legs
        assert "T0-2-1" not in screen.said
        screen.type("p")
        screen.wait_for("T0-2-1")
        screen.type("xq")
        assert screen.end() == 0
        assert termios.tcgetattr(screen.master)[3] == screen.mode[3]


@pytest.mark.slow
def test_the_book_pauses_and_ends(home: Path) -> None:
    """The same for the market depth."""
    with closing(Screen(home, "book", "SBI", "--watch")) as screen:
        screen.wait_for("100")
        screen.type("p")
        screen.wait_for("paused, 0 new")
        ours(home, "sell", "SBI", "60", "-q")
        ours(home, "nse", "--once")
        screen.wait_for("paused, 1 new")
        assert "40" not in screen.said
        screen.type(" ")
        screen.wait_for("40")
        screen.type("q")
        assert screen.end() == 0
        assert termios.tcgetattr(screen.master)[3] == screen.mode[3]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_the_terminal_as_it_was(home: Path, number: signal.Signals) -> None:
    """A clean stop with 0, and the shell echoes what is typed."""
    with closing(Screen(home, "watch")) as screen:
        screen.wait_for("no trade yet")
        os.kill(screen.pid, number)
        assert screen.end() == 0
        assert termios.tcgetattr(screen.master)[3] == screen.mode[3]


ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"

SHELL = """
import os, signal, subprocess, sys, termios

job = subprocess.Popen([sys.executable, "-m", "stocktrade", "watch"], process_group=0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
os.tcsetpgrp(0, job.pid)
os.kill(job.pid, signal.SIGCONT)
while True:
    _, status = os.waitpid(job.pid, os.WUNTRACED)
    os.tcsetpgrp(0, os.getpgrp())
    if not os.WIFSTOPPED(status):
        break
    echoes = bool(termios.tcgetattr(0)[3] & termios.ECHO)
    print(f"stopped, echoes {echoes}", flush=True)
    if input() == "bg":
        os.kill(job.pid, signal.SIGCONT)
        input()
        changed, _ = os.waitpid(job.pid, os.WUNTRACED | os.WNOHANG)
        print("stopped" if changed else "it runs", flush=True)
    os.tcsetpgrp(0, job.pid)
    os.kill(job.pid, signal.SIGCONT)
print(f"ended {os.waitstatus_to_exitcode(status)}", flush=True)
"""
"""As much of a shell as job control needs: it starts `watch`, says when it is stopped, and brings it back."""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGSTOP])
def test_ctrl_z_gives_the_terminal_to_the_shell(home: Path, number: signal.Signals) -> None:
    """Suspended, it leaves the shell its screen and its echo; brought back, it is drawn again and obeys keys.

    SIGSTOP gives nobody the time to tidy up; what comes back is whole all the same.
    """
    with closing(Screen(home, program=["-c", SHELL])) as shell:
        shell.wait_for("no trade yet")
        shell.said = ""
        os.killpg(os.tcgetpgrp(shell.master), number)
        shell.wait_for("stopped, echoes (True|False)")
        if number == signal.SIGTSTP:
            assert LEAVE in shell.said
            assert "echoes True" in shell.said
        shell.type("fg\n")
        shell.wait_for(re.escape(ENTER))
        shell.wait_for("no trade yet")
        shell.type("p")
        shell.wait_for("paused, 0")
        shell.type("q")
        shell.wait_for("ended 0")
        assert shell.end() == 0


@pytest.mark.slow
def test_in_the_background_it_draws_nothing(home: Path) -> None:
    """After Ctrl-Z and `bg` the screen is the shell's, whatever is traded; `fg` shows it."""
    with closing(Screen(home, program=["-c", SHELL])) as shell:
        shell.wait_for("no trade yet")
        os.killpg(os.tcgetpgrp(shell.master), signal.SIGTSTP)
        shell.wait_for("stopped, echoes True")
        shell.type("bg\n")
        ours(home, "sell", "SBI", "60", "-q")
        ours(home, "nse", "--once")
        shell.drain()
        assert shell.said.replace("bg", "").strip() == ""
        shell.type("\n")
        shell.wait_for("it runs")
        shell.wait_for("T0-2-1")
        shell.type("q")
        shell.wait_for("ended 0")
        assert shell.end() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("numbers", "code"),
    [((signal.SIGINT, signal.SIGTERM), 130), ((signal.SIGQUIT,), -signal.SIGQUIT)],
    ids=["twice", "quit"],
)
def test_an_end_at_once_leaves_the_terminal_as_it_was(
    home: Path, numbers: tuple[signal.Signals, ...], code: int
) -> None:
    r"""A second signal and Ctrl-\ do not wait for anything, but the user has his screen and his echo again."""
    with closing(Screen(home, "watch")) as screen:
        screen.wait_for("no trade yet")
        os.kill(screen.pid, signal.SIGSTOP)  # so that both are there before the first is answered
        for number in numbers:
            os.kill(screen.pid, number)
        os.kill(screen.pid, signal.SIGCONT)
        assert screen.end() == code
        assert LEAVE in screen.said
        assert termios.tcgetattr(screen.master)[3] == screen.mode[3]


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


def test_a_key_that_is_typed_before_the_terminal_is_ours_counts() -> None:
    """Whoever types `q` while the program starts need not type it again."""
    child, master = pty.fork()
    if child == 0:
        select.select([0], [], [], PATIENCE_S)  # until it has been typed
        with os.fdopen(0) as stdin, single_keys(stdin) as keys:
            typed = keys.pressed()
        os._exit(0 if "q" in typed else 1)
    os.write(master, b"q\n")
    _, status = os.waitpid(child, 0)
    os.close(master)
    assert os.waitstatus_to_exitcode(status) == 0
