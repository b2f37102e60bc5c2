"""A view that fills a terminal: when it is drawn, how it is paused and ended by keys, how the screen is given back.

Invariant: it is drawn only when there is something new, and at most once in REDRAW_S; nothing is drawn while the
terminal is somebody else's.
"""

import math
import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TextIO

from rich.console import Console, RenderableType
from rich.control import Control
from rich.screen import Screen as WholeScreen

from stocktrade.keys import Keys

REDRAW_S: Final = 0.1

_ENTER: Final = b"\x1b[?1049h\x1b[?25l"
_LEAVE: Final = b"\x1b[?25h\x1b[?1049l"
"""The alternate screen without a cursor, and the way back. They go past the console: a signal comes at any moment."""


def is_deaf(out: TextIO) -> bool:
    """Whether nobody reads any more what is written to `out`, as in `watch | head`."""
    try:
        descriptor = out.fileno()
    except (OSError, ValueError):  # not a file of the system
        return False
    poller = select.poll()
    poller.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poller.poll(0))


class Screen:
    """The alternate screen of a terminal, from the first drawing until `close`.

    Args:
        console: the terminal.
        keys: what is typed meanwhile: `p` or a space pauses and goes on, `q` ends.
        seconds: a clock that is never set, in seconds.

    Attributes:
        draws: How often it was drawn.
        is_paused: Whether the user wants it to stand still.
        is_over: Whether the user wants it to end.
    """

    def __init__(self, console: Console, keys: Keys, *, seconds: Callable[[], float] = time.monotonic) -> None:
        self.draws = 0
        self.is_paused = self.is_over = False
        self._console = console
        self._keys = keys
        self._seconds = seconds
        self._drawn_at = -math.inf
        self._drawn: object = None
        self._is_open = False
        keys.leave, keys.back = self._leave, self._return

    def obey(self) -> None:
        """Do what was typed."""
        for key in self._keys.pressed().lower():
            self.is_over = self.is_over or key == "q"
            if key in "p ":
                self.is_paused = not self.is_paused
                self._forget()

    def draw(self, state: object, view: Callable[[], RenderableType]) -> None:
        """Draw what `view` gives, if `state` is another one than it was, as soon as that may be."""
        if self._keys.is_away or self._seconds() < self._drawn_at + REDRAW_S:
            return
        state = self._sized(state)
        if state == self._drawn:
            return
        if not self._is_open:
            self._is_open = True
            self._console.set_alt_screen(True)
            self._console.show_cursor(False)
        self._drawn, self._drawn_at = state, self._seconds()
        self.draws += 1
        self._console.print(Control.home(), WholeScreen(view()), end="")

    def patience_s(self, state: object, idle_s: float) -> float:
        """How long to wait for something new: what could not be drawn yet is drawn as soon as it may be."""
        soon = self._drawn_at + REDRAW_S - self._seconds()
        return idle_s if self._sized(state) == self._drawn else max(0.0, min(idle_s, soon))

    def close(self) -> None:
        """Give the user's screen back. Safe to call twice."""
        if self._is_open and not self._keys.is_away:
            self._console.set_alt_screen(False)
            self._console.show_cursor(True)
        self._is_open = False

    def _sized(self, state: object) -> object:
        return state, self._console.size

    def _forget(self) -> None:
        self._drawn, self._drawn_at = None, -math.inf

    def _leave(self) -> None:
        self._pass(_LEAVE)

    def _return(self) -> None:
        self._pass(_ENTER)
        self._forget()

    def _pass(self, control: bytes) -> None:
        if self._is_open:
            with suppress(OSError, ValueError):  # not a file of the system, or gone
                os.write(self._console.file.fileno(), control)
