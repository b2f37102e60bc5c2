"""Fail points: named places where a test makes this process die or freeze, by an environment variable.

    STOCKTRADE_FAILPOINTS="sqlite.commit.mid=kill@3,sqlite.gate.held=stop"

kills this process (SIGKILL, so nothing is cleaned up) the third time it comes to the first place, and freezes it
(SIGSTOP, until somebody sends SIGCONT) the first time it comes to the second.

Invariant: the thread that comes to such a place does nothing behind it; without the variable a fail point does nothing
and costs one comparison.
"""

import os
import re
import signal
import threading
from dataclasses import dataclass
from typing import Final

from stocktrade.errors import UsageError

VARIABLE: Final = "STOCKTRADE_FAILPOINTS"

_ACTIONS: Final = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
_ENTRY = re.compile(r"(?P<name>[\w.-]+)=(?P<action>\w+)(?:@(?P<count>[1-9]\d*))?", re.ASCII)


@dataclass(slots=True)
class _Armed:
    """An armed place: `signal` is sent to this process when `left` more hits have come."""

    signal: signal.Signals
    left: int


# Read from the environment at the first hit, not at import: a mistake in it is then an error like any other.
_armed: dict[str, _Armed] | None = None


def hit(name: str) -> None:
    """Pass the place `name`: die or freeze here if the environment says so, else do nothing.

    Raises:
        UsageError: the environment variable cannot be read.
    """
    global _armed  # noqa: PLW0603 - the arming is the process's, as its environment is
    if _armed is None:
        _armed = parse(os.environ.get(VARIABLE, ""))
    if not _armed:
        return
    armed = _armed.get(name)
    if armed is not None:
        armed.left -= 1
        if armed.left == 0:
            # To this thread: sent to the process, another may get it, and this one would go on until that one ran.
            signal.pthread_kill(threading.get_ident(), armed.signal)


def parse(text: str) -> dict[str, _Armed]:
    """The armed places in `text`: entries `name=action` or `name=action@n`, separated by commas.

    Raises:
        UsageError: an entry is malformed or names an unknown action.
    """
    armed = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        match = _ENTRY.fullmatch(entry)
        if match is None or match["action"] not in _ACTIONS:
            raise UsageError(
                f"{VARIABLE} has an entry that cannot be read: {entry!r}",
                hint=f"write NAME=ACTION or NAME=ACTION@N with an action of {', '.join(_ACTIONS)}",
            )
        armed[match["name"]] = _Armed(_ACTIONS[match["action"]], int(match["count"] or 1))
    return armed
