"""`python sabotaged.py nse …`: stocktrade whose commits are not atomic, so that the kill test can be seen to fail.

The journal's record is committed first, in a transaction of its own, and what it caused in a second one. The next
owner would write again what is missing, so that is switched off, too. Started by `test_kill`; nothing else of the
exchange differs.
"""

from collections.abc import Sequence

from stocktrade.cli import main
from stocktrade.shard import repair
from stocktrade.transport.base import NewRecord, Position
from stocktrade.transport.sqlite import SqliteWriter

_atomic = SqliteWriter.commit


def _torn(self: SqliteWriter, records: Sequence[NewRecord], *, anchor: bytes | None = None) -> list[Position]:
    positions = _atomic(self, records[:1], anchor=anchor)
    return positions + (_atomic(self, records[1:]) if records[1:] else [])


if __name__ == "__main__":
    SqliteWriter.commit = _torn  # type: ignore[method-assign]
    repair.missing = lambda *_: []
    main()
