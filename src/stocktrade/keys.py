"""Single keys typed on a terminal, without Enter, while something is shown there.

Invariant: the terminal is as it was when the block ends, however it ends; nobody but the foreground job of a terminal
reads from it or changes it.
"""

import os
import select
import signal
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final, TextIO


class Keys:
    """The keys of one terminal, or none."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def pressed(self) -> str:
        """The keys that were pressed since the last question; it never waits."""
        if self._descriptor is None or not _in_foreground(self._descriptor):
            return ""
        typed = b""
        with suppress(OSError):
            while select.select([self._descriptor], [], [], 0)[0] and (some := os.read(self._descriptor, 1024)):
                typed += some
        return typed.decode(errors="ignore")


NO_KEYS: Final = Keys(None)
"""Nobody types."""


@contextmanager
def single_keys(stdin: TextIO | None) -> Iterator[Keys]:
    """Within the block keys come one by one, if `stdin` is a terminal and this process is in its foreground."""
    try:
        descriptor = stdin.fileno() if stdin is not None and stdin.isatty() else None
    except (OSError, ValueError):  # closed, or not a file of the system
        descriptor = None
    if descriptor is None or not _in_foreground(descriptor):
        yield NO_KEYS
        return
    before = termios.tcgetattr(descriptor)

    def again(_signal: int = 0, _frame: FrameType | None = None) -> None:
        # After Ctrl-Z and `fg` the shell has given the terminal its own mode.
        if _in_foreground(descriptor):
            tty.setcbreak(descriptor)

    handler = signal.signal(signal.SIGCONT, again)
    try:
        tty.setcbreak(descriptor)
        yield Keys(descriptor)
    finally:
        signal.signal(signal.SIGCONT, handler)
        if _in_foreground(descriptor):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _in_foreground(descriptor: int) -> bool:
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:  # not our controlling terminal
        return False
