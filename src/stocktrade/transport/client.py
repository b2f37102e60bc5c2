"""What the log on Kafka asks of a client library that carries its records; there are two of them.

Everything else (topics, metadata, groups, errors, what is asked now and then) is one library's work whichever of the
two carries the records, so that a shard is assigned, claimed, noticed as lost and reported in one and the same way.

Invariant: nothing here and nothing in `kafka` depends on which library it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from kafka import TopicPartition as Place

from stocktrade.errors import StocktradeError, Unavailable, Unknown, forget_frames
from stocktrade.transport.base import Headers, NewRecord, Record

Placed = tuple[NewRecord, str, int]
"""A record with its topic and partition on the cluster."""

UNREADABLE_MS: Final = 0
"""The time of a record of which nothing can be read but where it stands: its batch cannot be unpacked, and brokers do
not look so closely. It has neither key nor value, so an input of that kind is a dead letter."""


class Fetcher(ABC):
    """Brings committed records. Where it stands is its user's to keep: it goes where it is sent."""

    @abstractmethod
    def fetch(self, timeout_s: float, max_records: int) -> Mapping[Place, Sequence[Record]]:
        """What came within the time, of each partition in the order of its offsets; returns as soon as there is any.

        Raises:
            StocktradeError: it cannot be read.
        """

    @abstractmethod
    def seek(self, place: Place, offset: int) -> None:
        """Go on here, also with a partition that was paused. What was fetched of it before does not come any more."""

    @abstractmethod
    def pause(self, place: Place) -> None:
        """Bring nothing of a partition until it is sent to a place of it."""

    @abstractmethod
    def position(self, place: Place) -> int:
        """The offset after what was brought and after the ends of transactions that were passed; 0 if unknown."""

    @abstractmethod
    def written_end(self, place: Place) -> int | None:
        """The end of what is written, open transactions included, as the last fetch said. No request."""

    @abstractmethod
    def stable_ends(self, places: Collection[Place], *, within_s: float) -> Mapping[Place, int]:
        """Ask the brokers for the last stable offset of each partition: what can be fetched of it now.

        Raises:
            StocktradeError: no answer within the time.
        """

    @abstractmethod
    def close(self) -> None:
        """Give it up, in a bounded time."""


class Appender(ABC):
    """Writes records outside of transactions. One that failed is of no further use."""

    @abstractmethod
    def append(self, placed: Sequence[Placed]) -> list[int]:
        """Write all of them; their offsets.

        Raises:
            Unavailable, UsageError: nothing was written; `Unknown`: some may have been.
        """

    @abstractmethod
    def close(self) -> None:
        """Throw it away, whatever it has pending."""


class Transactions(ABC):
    """The transactions of one transactional id. Making it takes the next epoch and fences the one before.

    Whatever else than a commit that returned ends the last of them: its producer is of no further use.
    """

    def __init__(self) -> None:
        self._over: StocktradeError | None = None

    @property
    @abstractmethod
    def epoch(self) -> int:
        """Rises with each taking of the transactional id; see `epoch_of`."""

    def commit(self, records: Sequence[Placed]) -> list[int]:
        """Write all the records or none; their offsets.

        Raises:
            Fenced: the transactional id was taken over.
            Unavailable: nothing was written; `Unknown`: it may have been. After each of them this is over.
        """
        if self._over is not None:
            raise self._over
        if not records:
            return []
        try:
            return self._commit(records)
        except StocktradeError as error:
            forget_frames(error)  # which hold the producer, and it its threads
            self._end(error)
            raise
        except BaseException:
            self._end(Unknown("a commit was interrupted"))
            raise

    def close(self) -> None:
        """Give the producer up. Safe to call twice."""
        self._end(Unavailable("this writer is closed", hint="claim the shard again"))

    def _end(self, over: StocktradeError) -> None:
        if self._over is None:
            self._over = over
            self._discard()

    @abstractmethod
    def _commit(self, records: Sequence[Placed]) -> list[int]:
        """The commit itself, of at least one record."""

    @abstractmethod
    def _discard(self) -> None:
        """Throw the producer away. Called once."""


def headers_of(found: Iterable[tuple[str, bytes | None]] | None) -> Headers:
    """Headers as a client library gives them. On Kafka one may have no value; here it has an empty one."""
    return tuple([(name, value or b"") for name, value in found]) if found else ()


def epoch_of(producer_id: int, producer_epoch: int) -> int:
    """One number for how often a transactional id was taken: the producer's id, then its epoch, plus one."""
    return (producer_id << 16 | producer_epoch) + 1


class Client(ABC):
    """One of the libraries."""

    version: str
    """Its name and version, for people."""

    @abstractmethod
    def fetcher(self, starts: Mapping[Place, int]) -> Fetcher:
        """A fetcher of these partitions, from these offsets on."""

    @abstractmethod
    def member_fetcher(self, group: Any) -> Fetcher:
        """A fetcher of what is assigned to a member of a group, all of it paused.

        Args:
            group: the member's consumer, of the library that does the rest. Each `fetch` lets it do its part in the
                group. What it is assigned is its own; closing the fetcher leaves it open.
        """

    @abstractmethod
    def appender(self) -> Appender:
        """An appender."""

    @abstractmethod
    def transactions(self, transactional_id: str, topics: Collection[str]) -> Transactions:
        """Take over a transactional id; `topics` are what will be written to.

        Raises:
            Unavailable: what the one before left open could not be ended in time.
        """
