"""Commits that are done later: when somebody waits for them, or when a test says so.

Invariant: they are done in the order in which they were begun, as `Writer.begin_commit` promises.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from stocktrade.transport.base import NewRecord, Position


class Later(Future[list[Position]]):
    """A commit that goes on when it is waited for; `look` is called when somebody asks whether it is done."""

    def __init__(self, go_on: Callable[[], None], look: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._go_on = go_on
        self._look = look

    def done(self) -> bool:
        if not super().done():
            self._look()
        return super().done()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._wait()
        return super().exception(timeout)

    def result(self, timeout: float | None = None) -> list[Position]:
        self._wait()
        return super().result(timeout)

    def _wait(self) -> None:
        while not super().done():
            self._go_on()


class Begun:
    """The commits that one writer was asked to begin.

    Args:
        commit: the writer's `commit`.
        look: see `Later`.
    """

    def __init__(self, commit: Callable[..., list[Position]], look: Callable[[], None] = lambda: None) -> None:
        self._commit = commit
        self._look = look
        self._waiting: deque[tuple[Later, Sequence[NewRecord], dict[str, Any]]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, records: Sequence[NewRecord], **more: Any) -> Later:
        """As `Writer.begin_commit`."""
        later = Later(self.go_on, self._look)
        self._waiting.append((later, records, more))
        return later

    def go_on(self) -> None:
        """Do the oldest of them."""
        later, records, more = self._waiting.popleft()
        try:
            later.set_result(self._commit(records, **more))
        except Exception as error:  # noqa: BLE001 - whoever asks for the result is to see it
            later.set_exception(error)
