"""Single keys typed on a terminal, without Enter, and the terminal itself: lent while it is ours, given back.

Invariant: the terminal is as it was when the block ends, however it ends, and whenever the process is suspended;
nobody but the foreground job of a terminal reads from it or changes it.
"""

import os
import re
import select
import signal
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final, TextIO

# An arrow or a function key comes as several bytes, some of which look like letters.
_SEQUENCE: Final = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.|.)?", re.DOTALL)

_ENDING: Final = (signal.SIGTSTP, signal.SIGQUIT, signal.SIGHUP)
"""What suspends or ends the process at once, unless somebody has said otherwise."""


def _nothing() -> None:
    pass


class Keys:
    """The keys of one terminal, or of none (None).

    Attributes:
        leave: Called before the terminal goes to somebody else, maybe in the middle of anything: it must not fail.
        back: Called when it is ours again; the same holds.
        is_away: Whether the terminal is somebody else's now. Nothing should be drawn then.
    """

    def __init__(self, descriptor: int | None) -> None:
        self.leave: Callable[[], None] = _nothing
        self.back: Callable[[], None] = _nothing
        self.is_away = True
        self._descriptor = descriptor
        self._mode: list[Any] | None = None
        self.take()

    def pressed(self) -> str:
        """The keys that were pressed since the last question; it never waits."""
        if self.is_away:
            self.take()  # brought to the foreground without having been stopped, nobody tells
        if self._descriptor is None or not _in_foreground(self._descriptor):
            return ""
        typed = b""
        with suppress(OSError):
            while select.select([self._descriptor], [], [], 0)[0] and (some := os.read(self._descriptor, 1024)):
                typed += some
        return _SEQUENCE.sub(b"", typed).decode(errors="ignore")

    def take(self) -> None:
        """Have keys come one by one, if the terminal may be had. Safe to call twice."""
        if self._descriptor is not None:
            if not _in_foreground(self._descriptor):
                return
            with suppress(termios.error):
                self._mode = self._mode or termios.tcgetattr(self._descriptor)
                # After Ctrl-Z and `fg` the shell has given the terminal its own mode.
                tty.setcbreak(self._descriptor, termios.TCSADRAIN)
        if self.is_away:
            self.is_away = False
            self.back()

    def give_back(self) -> None:
        """Leave the terminal as it was. Safe to call twice."""
        if not self.is_away:
            self.is_away = True
            self.leave()
        if self._descriptor is not None and self._mode is not None and _in_foreground(self._descriptor):
            with suppress(termios.error):
                termios.tcsetattr(self._descriptor, termios.TCSANOW, self._mode)


NO_KEYS: Final = Keys(None)
"""Nobody types."""


@contextmanager
def single_keys(stdin: TextIO | None) -> Iterator[Keys]:
    """Within the block keys come one by one, if `stdin` is this process's terminal, while it is the foreground job.

    A process that is suspended, or ended by a signal that nobody handles, gives the terminal back before.
    """
    keys = Keys(_terminal(stdin))

    def give_way(number: int, _frame: FrameType | None) -> None:
        keys.give_back()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        # Here it goes on after Ctrl-Z and `fg`; or at once, where there is no shell that could bring it back.
        signal.signal(number, give_way)
        keys.take()

    def go_on(_number: int, _frame: FrameType | None) -> None:
        keys.is_away = True  # nobody was asked before a SIGSTOP; whoever had the terminal since may have changed it
        keys.take()

    before = {number: signal.getsignal(number) for number in _ENDING}
    handled = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    for number in handled:
        signal.signal(number, give_way)
    continued = signal.signal(signal.SIGCONT, go_on)
    try:
        yield keys
    finally:
        signal.signal(signal.SIGCONT, continued)
        for number in handled:
            signal.signal(number, signal.SIG_DFL)
        keys.give_back()


def _terminal(stdin: TextIO | None) -> int | None:
    """The descriptor of this process's terminal, if `stdin` is that."""
    try:
        if stdin is None or not stdin.isatty():
            return None
        descriptor = stdin.fileno()
        os.tcgetpgrp(descriptor)
    except (OSError, ValueError):  # closed, not a file of the system, or not our controlling terminal
        return None
    return descriptor


def _in_foreground(descriptor: int) -> bool:
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:  # it has gone
        return False
