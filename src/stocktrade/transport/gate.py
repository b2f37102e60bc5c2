"""Locks between processes: the lock of one file, and the gate through which all writes of a log go.

Invariant: a lock is the kernel's (`flock`), so it ends with its holder, however that ends: there is no stale lock
to clean up. What the file says (the holder's process id) is for people; only the lock itself decides.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from weakref import WeakSet

from stocktrade.errors import Unavailable
from stocktrade.failpoints import hit

_SHORTEST_WAIT_S: Final = 0.0002
_LONGEST_WAIT_S: Final = 0.001


class FileLock:
    """An exclusive lock on a file, held by at most one instance on this machine.

    Two instances exclude each other in one process, too: the kernel ties the lock to the open file, not to the
    process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.held = False
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        _open_locks.add(self)

    def acquire(self) -> bool:
        """Take the lock if it is free now; False if it is not."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self.held = True
        with suppress(OSError):  # a full disk must not keep anybody from a lock
            os.pwrite(self._file, b"%-19d\n" % os.getpid(), 0)
        return True

    def release(self) -> None:
        """Give the lock back. Safe to call twice."""
        if self.held:
            self.held = False
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def is_free(self) -> bool:
        """Whether nobody holds the lock now.

        Looks by taking a shared lock for a moment: two onlookers do not meet, but one may make an `acquire` of
        the same moment fail.
        """
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(self._file, fcntl.LOCK_UN)
        return True

    def holder(self) -> int | None:
        """The process that took the lock last, or None if it did not say."""
        try:
            return int(os.pread(self._file, 20, 0))
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """Release the lock and the file. Safe to call twice."""
        if self._file >= 0:
            os.close(self._file)  # the kernel releases the lock with it
            self._file = -1
            self.held = False


# A child made by a plain fork shares the open files: the lock of a parent that dies would live on in it.
# Closing the child's copy takes nothing from the parent.
_open_locks: WeakSet[FileLock] = WeakSet()


def _close_inherited() -> None:
    for lock in list(_open_locks):
        lock.close()


os.register_at_fork(after_in_child=_close_inherited)


def name_of(pid: int | None, unknown: str = "another process") -> str:
    """A process as errors call it, `unknown` where its id is not known."""
    return unknown if pid is None else f"pid {pid}"


class Gate:
    """One writer at a time, in roughly the order in which they came.

    Whoever merely tries until a single lock is free starves where others take it again at once. So there are two
    locks, a turnstile: with the first a writer queues for the second, and lets go of the first only when it has
    the second. Whoever leaves the gate finds the queue taken and waits like everybody else.
    """

    def __init__(self, folder: Path, timeout_s: float) -> None:
        self._folder = folder
        self._timeout_s = timeout_s
        self._queue = FileLock(folder / "queue.lock")
        self._gate = FileLock(folder / "gate.lock")

    @contextmanager
    def held(self, timeout_s: float | None = None) -> Iterator[None]:
        """Hold the gate for the body of a `with`.

        Raises:
            Unavailable: somebody else held it for `timeout_s` seconds (default: the gate's own limit).
        """
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + limit_s
        if not _acquire(self._queue, deadline):
            raise self._occupied(limit_s)
        try:
            if not _acquire(self._gate, deadline):
                raise self._occupied(limit_s)
        finally:
            self._queue.release()
        try:
            hit("sqlite.gate.held")
            yield
        finally:
            self._gate.release()

    def close(self) -> None:
        """Release the files. Safe to call twice."""
        self._gate.close()
        self._queue.close()

    def _occupied(self, waited_s: float) -> Unavailable:
        # A process can be stopped between the two locks; then the gate is free and the queue is what it holds.
        pid = (self._queue if self._gate.is_free() else self._gate).holder()
        number = "PID" if pid is None else pid
        return Unavailable(
            f"{name_of(pid)} has held the write gate of {self._folder} for {waited_s:g} s",
            cause="one process writes at a time, and that one does not finish: stopped, or waiting for its disk",
            hint=f"look at it with `ps -o pid,stat,args -p {number}`; `kill -CONT {number}` lets a stopped one go"
            f" on, `kill -9 {number}` ends it, which frees the gate at once. Nothing was written: try again then",
        )


def _acquire(lock: FileLock, deadline: float) -> bool:
    """Try to take the lock until the deadline (of `time.monotonic`)."""
    wait_s = _SHORTEST_WAIT_S
    while not lock.acquire():
        if time.monotonic() >= deadline:
            return False
        time.sleep(wait_s)
        wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
    return True
