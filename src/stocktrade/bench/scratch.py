"""A log for a bench alone: found or refused before anything is made, and gone when the bench ends.

On the embedded log it is a folder, by default inside the log's own, so on the same disk; on Kafka it is topics, and a
group, with a prefix.

Invariant: whatever was there before is never written to, and only what was made here is removed.
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

from stocktrade.domain.values import visible
from stocktrade.errors import StocktradeError, Unavailable, UsageError
from stocktrade.settings import Target
from stocktrade.shard.node import DEFAULT_GROUP
from stocktrade.transport import connect, remove, topics
from stocktrade.transport.base import Log
from stocktrade.transport.database import explained
from stocktrade.transport.gate import FileLock
from stocktrade.transport.premises import folder_of, holds_log, look_at

FOLDER: Final = "bench"
"""Inside the folder of the embedded log: where a bench has the folder of its own."""

BYTES_PER_ORDER: Final = 2_048
"""What an order takes on the embedded log, with all that comes of it and room to spare."""

_LOCK: Final = "bench.lock"
_OWN: Final = re.compile("[0-9a-f]{8}")
_LEFT_FOR_S: Final = 60.0
_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]{1,100}", re.ASCII)


class Site(NamedTuple):
    """A log to measure on, in a form that can be told to another process."""

    url: str
    options: dict[str, str]
    client: str
    prefix: str = ""

    def connect(self) -> Log:
        """Open it."""
        return connect(self.url, settings=self.options, client=self.client, prefix=self.prefix)

    @property
    def shown(self) -> str:
        """As a person would name it."""
        return f"{self.url}, topics {self.prefix}*" if self.prefix else self.url


@contextmanager
def scratch(
    target: Target, *, folder: str | None, prefix: str | None, orders: int, warn: Callable[[str], None]
) -> Iterator[Site]:
    """A log for the block alone.

    Args:
        target: the log that was chosen; it is measured beside it, unless it holds orders.
        folder: on the embedded log, where instead; a new or an empty folder.
        prefix: on Kafka, what goes before the names of its topics instead of one that is made up.
        orders: how many there will be.
        warn: told in a sentence what could not be removed, when something else has gone wrong already.

    Raises:
        UsageError: the log is somebody's, or the place cannot be one.
        Unavailable: the log cannot be reached or made, or what was made not removed.
    """
    home = folder_of(target.url)
    if home is None:
        if folder is not None:
            raise UsageError("--folder is for the embedded log", hint="on Kafka, give --topic-prefix PREFIX")
        made = _on_kafka(target, prefix)
    else:
        if prefix is not None:
            raise UsageError("--topic-prefix is for Kafka", hint="on the embedded log, give --folder DIR")
        made = _embedded(target, home, folder, orders)
    with made as (site, remove_it):
        try:
            yield site
        except BaseException:
            try:
                remove_it()
            except StocktradeError as error:
                warn(f"{error.what}: {error.cause}. {error.hint}")
            raise
        remove_it()


# --- the embedded log ------------------------------------------------------------------------------------------


@contextmanager
def _embedded(target: Target, home: Path, wanted: str | None, orders: int) -> Iterator[tuple[Site, Callable[[], None]]]:
    if wanted is None:
        _check_unused_folder(target, home)
        _sweep(home / FOLDER)
        place = home / FOLDER / uuid4().hex[:8]
    else:
        place = _checked_folder(wanted)
    found = look_at(place)
    if not found.writable:
        raise Unavailable(
            f"{found.nearest} cannot be written to", hint="give a folder on the disk to be measured with --folder DIR"
        )
    needed = orders * BYTES_PER_ORDER
    if needed > found.free_bytes:
        raise UsageError(
            "there is not enough space for so many orders",
            cause=f"they take up to {_gib(needed)} GiB, and {_gib(found.free_bytes)} GiB are free in {found.nearest}",
            hint="ask for fewer, or name a folder on another disk with --folder DIR",
        )
    with explained(place):
        missing = [each for each in (place, *place.parents) if not each.exists()]
        for each in reversed(missing):
            each.mkdir(mode=0o700)
        lock = FileLock(place / _LOCK)
        lock.acquire()

    def remove_it() -> None:
        try:
            _empty(place)
        except OSError as error:
            raise Unavailable(
                f"what the bench made in {place} could not be removed",
                cause=str(error),
                hint="remove it by hand",
            ) from error
        with suppress(OSError):  # somebody may have put something beside it meanwhile
            for each in missing:
                each.rmdir()

    with closing(lock):
        yield Site(f"sqlite:{place}", {}, target.client), remove_it


def _empty(folder: Path) -> None:
    for each in folder.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()


def _checked_folder(wanted: str) -> Path:
    if not wanted or "\0" in wanted:
        raise UsageError(f"--folder cannot be {visible(wanted)!r}", hint="name a new folder")
    place = Path(os.path.abspath(wanted))  # noqa: PTH100 - resolve would follow links
    try:
        if os.path.lexists(place) and any(place.iterdir()):
            raise UsageError(
                f"--folder {visible(wanted)} is not empty",
                cause="what the bench makes in it is removed at the end, and nothing else shall be",
                hint="name a new folder, or an empty one",
            )
    except OSError as error:
        raise UsageError(f"--folder cannot be {visible(wanted)}", cause=error.strerror or str(error)) from error
    return place


def _check_unused_folder(target: Target, home: Path) -> None:
    if holds_log(home):
        with connect(target.url) as log:
            _check_unused(log, "give the bench a folder of its own: --folder DIR")


def _sweep(folder: Path) -> None:
    """Remove what benches have left that were killed: nobody holds its lock any more."""
    with suppress(OSError):
        for left in folder.iterdir():
            # One that is being made has no lock yet.
            if _OWN.fullmatch(left.name) and time.time() - left.stat().st_mtime > _LEFT_FOR_S:
                with closing(FileLock(left / _LOCK)) as lock:
                    if lock.acquire():
                        shutil.rmtree(left)


def _gib(count: int) -> str:
    return f"{count / 2**30:,.1f}"


# --- Kafka -----------------------------------------------------------------------------------------------------


@contextmanager
def _on_kafka(target: Target, wanted: str | None) -> Iterator[tuple[Site, Callable[[], None]]]:
    if wanted is None:
        with connect(target.url, settings=target.options, client=target.client) as log:
            _check_unused(log, "give the bench topics of its own: --topic-prefix PREFIX")
        prefix = f"stocktrade-bench-{uuid4().hex[:8]}-"
    else:
        prefix = wanted
        if _PREFIX.fullmatch(prefix) is None or prefix in (".", ".."):
            raise UsageError(
                f"--topic-prefix cannot be {visible(prefix, 120)!r}",
                cause="a prefix is 1 to 100 letters, digits, dots, underscores or hyphens",
                hint="for example bench-",
            )
    site = Site(target.url, target.options, target.client, prefix)
    if wanted is not None:
        with site.connect() as log:
            there = {spec.name for spec in topics.SPECS} - {*log.missing_topics(topics.SPECS)}
        if there:
            raise UsageError(
                f"there are topics already that begin with {prefix}",
                cause=f"{prefix}{min(there)} for one; what is made is removed at the end, and nothing else shall be",
                hint="give another --topic-prefix",
            )

    def remove_it() -> None:
        try:
            remove(site.url, prefix=prefix, groups=[DEFAULT_GROUP], settings=site.options)
        except StocktradeError as error:
            raise Unavailable(
                f"the topics that begin with {prefix} could not all be removed",
                cause=f"{error.what}; {error.cause}" if error.cause else error.what,
                hint="when the cluster is back, delete them:\n"
                f"kafka-topics.sh --bootstrap-server {site.url.removeprefix('kafka:').partition(',')[0]} "
                f"--delete --topic '{re.escape(prefix)}.*'",
            ) from error

    yield site, remove_it


# --- both ------------------------------------------------------------------------------------------------------


def _check_unused(log: Log, hint: str) -> None:
    """Refuse a log that somebody uses: the load would disturb who trades there.

    Raises:
        UsageError: it holds orders, or an exchange owns a shard.
    """
    specs: list[Any] = [spec for spec in topics.SPECS if spec.name in topics.INPUTS]
    missing = log.missing_topics(specs)
    inputs = [(topic, p) for topic in topics.INPUTS if topic not in missing for p in range(log.partitions())]
    orders = 0
    if inputs:
        with closing(log.reader(dict.fromkeys(inputs, 0))) as reader:
            orders = sum(reader.ends().values())
    owners = set() if orders else {owner for owner in log.owners().values() if owner is not None}
    if not orders and not owners:
        return
    raise UsageError(
        f"{log.url} is in use",
        cause="it holds orders" if orders else f"{min(owners)} is its exchange",
        hint=f"the load would disturb who trades there; {hint}",
    )
