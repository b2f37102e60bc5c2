"""A question to the views, and how its answer is written: what `orders`, `trades`, `holdings` and `funds` share.

Invariant: it only reads, and a moment that could mean two states is refused before anything is read.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO, TypeVar

from rich.console import Console

from stocktrade.errors import UsageError
from stocktrade.listing import Form, Listing, RowT, write
from stocktrade.progress import bar
from stocktrade.ranges import Moment
from stocktrade.transport.base import Log
from stocktrade.views.follow import View, ready

_ViewT = TypeVar("_ViewT", bound=View)


class Question(NamedTuple):
    """As of when it is asked, and where the answer goes.

    Attributes:
        moment: as of when.
        folder: where views are kept.
        form: how rows are written.
        console: where a table for people goes.
        progress: where the progress is shown.
        out: where anything else goes.
    """

    moment: Moment
    folder: Path
    form: Form
    console: Console
    progress: Console
    out: TextIO

    @contextmanager
    def view(self, kind: type[_ViewT], log: Log, unit: str = "records") -> Iterator[_ViewT]:
        """The view that answers it; `unit` is what the progress counts.

        Raises:
            UsageError: the moment is an exchange sequence, and the log has several shards.
            Unavailable: the log cannot be read, or another command is writing to the view.
        """
        if self.moment.seq is not None and log.partitions() > 1:
            raise UsageError(
                "--at needs a time here",
                cause=f"{log.url} has {log.partitions()} shards, and each counts its own sequence",
                hint="for example --at @-10m or --at @2026-11-23T09:15",
            )
        with (
            bar(self.progress, "reading", unit) as shown,
            ready(kind, log, self.folder, self.moment, shown) as view,
        ):
            yield view

    def answer(self, listing: Listing[RowT], rows: Iterable[RowT]) -> None:
        """Write the rows."""
        write(listing, rows, self.form, console=self.console, out=self.out)
