"""The log behind the exchange: one port (`base`), its adapters, and `connect`, which picks one.

Invariant: only this module knows which adapters exist, and only an adapter imports its client library.
"""

from pathlib import Path

from stocktrade.errors import UsageError
from stocktrade.transport.base import Log


def connect(url: str, *, partitions: int = 1) -> Log:
    """Open a log.

    `sqlite:FOLDER` is the embedded log in that folder, made when it is missing; `partitions` then says into how
    many shards a new one is divided.

    Raises:
        UsageError: no such kind of log.
        Unavailable: the log cannot be opened.
        LogDamaged: the file is foreign, truncated, or of another version.
    """
    kind, _, rest = url.partition(":")
    if kind == "sqlite" and rest:
        from stocktrade.transport.sqlite import SqliteLog  # noqa: PLC0415 - an adapter is imported when chosen

        return SqliteLog(Path(rest), partitions=partitions)
    raise UsageError(f"unknown kind of log: {url!r}", hint="use sqlite:FOLDER")
