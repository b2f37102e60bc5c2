"""The doorbell: whoever has committed wakes those who wait for records, in about a millisecond.

Each waiting log binds a datagram socket in the folder `bells/`, and a writer sends one byte to every socket that
it finds there. The kernel does the rest: a waiting process sleeps, a dead one's socket refuses and is removed.

Invariant: a bell carries no information and may be lost. Whoever waits listens first, looks for records second,
waits third, and looks again now and then even if nothing rang (`patience_s`).
"""

import itertools
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_SUFFIX: Final = ".bell"
# The kernel's limit on a socket's path: 108 bytes on Linux, 104 on macOS, with the closing zero.
_LONGEST_PATH: Final = 103
_counter = itertools.count()


class Doorbell:
    """One waiting process's bell, and the means to ring everybody else's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = f"{os.getpid()}-{next(_counter)}-{os.urandom(4).hex()}{_SUFFIX}"
        self._prefix: str | None = f"{folder}/"
        self._descriptor = -1
        if len(os.fsencode(folder / self._name)) > _LONGEST_PATH:
            self._prefix = self._short_prefix()
        self._ringer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ringer.setblocking(False)
        self._bell: socket.socket | None = None
        self._listening = False

    def _short_prefix(self) -> str | None:
        """Another way to name the folder, for paths that are too long for a socket; None if there is none."""
        self._descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        short = f"/proc/self/fd/{self._descriptor}"
        return f"{short}/" if os.path.isdir(short) else None  # noqa: PTH112 - not a path of ours

    @property
    def patience_s(self) -> float:
        """How long to wait at most before looking for records although nothing rang."""
        return 0.25 if self._bell is not None else 0.01

    def listen(self) -> None:
        """From now on a ring is noticed. Where the file system has no sockets, `patience_s` becomes short."""
        if self._listening:
            return
        self._listening = True
        if self._prefix is None:
            return
        bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            bell.bind(self._prefix + self._name)
        except OSError:
            bell.close()
        else:
            self._bell = bell

    def wait(self, timeout_s: float) -> bool:
        """Sleep until somebody rings, at most `timeout_s` seconds; whether somebody did."""
        if self._bell is None:
            time.sleep(timeout_s)
            return False
        try:
            self._bell.settimeout(timeout_s)
            self._bell.recv(1)
        except (TimeoutError, BlockingIOError):
            return False
        with suppress(BlockingIOError):  # ten rings are one reason to look
            self._bell.setblocking(False)
            while True:
                self._bell.recv(1)
        return True

    def ring(self) -> None:
        """Wake everybody else who waits. Never fails, never blocks: a lost ring only delays."""
        if self._prefix is None:
            return
        try:
            names = os.listdir(self._folder)  # noqa: PTH208 - names are all that is needed, at every commit
        except OSError:
            return
        for name in names:
            if name == self._name or not name.endswith(_SUFFIX):
                continue
            try:
                self._ringer.sendto(b"!", self._prefix + name)
            except ConnectionRefusedError:
                with suppress(OSError):  # its owner is dead, or another writer was faster
                    (self._folder / name).unlink()
            except OSError:
                pass  # full: it has rung already; gone: nobody waits

    def close(self) -> None:
        """Take the bell down. Safe to call twice."""
        if self._bell is not None:
            self._bell.close()
            self._bell = None
            with suppress(OSError):
                (self._folder / self._name).unlink()
        self._ringer.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
