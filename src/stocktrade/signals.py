"""How a long-running command is asked to stop.

Invariant: the first SIGINT or SIGTERM asks for a clean stop, the second one ends the process at once. Ending at
once is safe: what is committed is committed, and the next start recovers.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from stocktrade.errors import ExitCode


def _nothing() -> None:
    pass


class Stop:
    """Whether somebody asked for a stop.

    Attributes:
        at_once: Called before the process ends at once: what must not be left as it is.
    """

    def __init__(self) -> None:
        self.asked = False
        self.at_once: Callable[[], None] = _nothing

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self.asked

    def ask(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """Ask for a clean stop; asked twice, end at once."""
        if self.asked:
            self.at_once()
            os._exit(ExitCode.INTERRUPTED)
        self.asked = True


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Within the block SIGINT and SIGTERM are answered by the `Stop` that it yields."""
    stop = Stop()
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
