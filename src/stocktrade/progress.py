"""A bar for what takes longer than a second, on a terminal; elsewhere nothing.

Invariant: it is on stderr and gone when the work is done.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

AFTER_S: Final = 1.0


@contextmanager
def bar(console: Console, what: str, unit: str) -> Iterator[Callable[[int, int | None], None]]:
    """A function that is told how much is done, of how much (None: nobody knows).

    Args:
        console: that of stderr.
        what: the word before the bar.
        unit: what is counted, behind it.
    """
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    began = time.monotonic()
    with ExitStack() as open_bar:
        shown: Progress | None = None

        def show(done: int, total: int | None) -> None:
            nonlocal shown
            if shown is None:
                if not console.is_terminal or time.monotonic() - began < AFTER_S:
                    return
                shown = open_bar.enter_context(Progress(*columns, console=console, transient=True))
                shown.add_task(what)
            shown.update(shown.task_ids[0], completed=done, total=total)

        yield show
