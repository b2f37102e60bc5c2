"""Makes the pictures in screenshots/ by running the commands: `python docs/screenshots.py`.

The market is the demo's, so it is always the same; times and durations are those of the run.
"""

import io
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from rich.console import Console

from stocktrade.flow import WATCHED, Flow
from stocktrade.listing import Form
from stocktrade.ranges import NOW
from stocktrade.roles import audit, book, demo, orders
from stocktrade.roles.question import Question
from stocktrade.shard.history import to_the_end
from stocktrade.tables import FlowView
from stocktrade.transport import connect
from stocktrade.transport.base import Log

FOLDER: Final = Path(__file__).with_name("screenshots")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def watch(log: Log, console: Console, folder: Path) -> None:
    """The live view at the end of the market."""
    del folder
    flow = Flow()
    partitions = {(topic, shard): 0 for topic in WATCHED for shard in range(log.partitions())}
    with closing(log.reader(partitions)) as reader:
        for record in to_the_end(reader):
            flow.feed(record, now_ms=_now_ms(), live=False)
    console.print(FlowView(flow, _now_ms(), "stocktrade watch", height=22))


def depth(log: Log, console: Console, folder: Path) -> None:
    """A book."""
    del folder
    out = io.StringIO()
    book.run(log, "INFY", levels=5, orders=False, moment=NOW, form=Form.TABLE, console=console, out=out)


def trace(log: Log, console: Console, folder: Path) -> None:
    """An order from the append to both legs."""
    question = Question(NOW, folder, Form.TABLE, console, Console(file=io.StringIO()), io.StringIO())
    orders.show(log, "demo-1", participant=None, question=question)


def rules(log: Log, console: Console, folder: Path) -> None:
    """Every rule."""
    del folder
    quiet = Console(file=io.StringIO())
    audit.run(log, expected=(), as_json=False, console=console, progress=quiet, out=io.StringIO())


PICTURES: Final[dict[str, tuple[str, int, Callable[[Log, Console, Path], None]]]] = {
    "watch": ("stocktrade watch", 110, watch),
    "book": ("stocktrade book INFY", 60, depth),
    "order": ("stocktrade orders show demo-1", 110, trace),
    "audit": ("stocktrade audit", 110, rules),
}
"""By the name of the file: the command, how many columns wide, and what shows it."""


def main(pictures: Path = FOLDER) -> None:
    """Trade, and take the pictures."""
    pictures.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, connect(f"sqlite:{folder}/market") as log:
        quiet = Console(file=io.StringIO())
        demo.run(log, demo.Plan(885, 200, 1), console=quiet, now_ms=_now_ms, stop=lambda: False)
        log.url = "sqlite:/home/you/.stocktrade"
        for name, (title, width, show) in PICTURES.items():
            console = Console(record=True, width=width, force_terminal=True, file=io.StringIO(), highlight=False)
            show(log, console, Path(folder) / "views")
            console.save_svg(str(pictures / f"{name}.svg"), title=title, unique_id=name)


if __name__ == "__main__":
    main()
