"""The port: what the exchange needs of a log, in plain bytes, keys and offsets.

A log holds topics; a topic has partitions; a partition is a sequence of records with rising offsets (gaps are
legal: Kafka puts transaction markers between records). Every adapter promises, and the contract tests hold it
to, that:

* a record is visible to readers only when it is committed, and from then on never changes or goes away;
* the records of one `Writer.commit` become visible together or not at all;
* of two writers that claimed one shard only the later can commit, from the moment its claim returned;
* readers see the records of a partition in the order of their offsets, each once, none left out.

Errors are of two kinds. `Unavailable`: nothing happened, a retry may help (`Unknown`, its subclass: it may have
happened). `Fenced`: a newer owner has the shard, stop owning it.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from types import MappingProxyType, TracebackType
from typing import NamedTuple, Self

TopicPartition = tuple[str, int]
Headers = tuple[tuple[str, bytes], ...]

UNBOUNDED = 2**63 - 1
"""A horizon without limit: everything that was on the log when the poll looked has been delivered."""


class TopicSpec(NamedTuple):
    """A topic as the exchange wants it.

    `append_time`: the log stamps each record when it takes it, whatever its producer says. `compacted`: a record
    replaces the ones before it with the same key, and a record without a value (a tombstone) removes them.
    """

    name: str
    append_time: bool = False
    compacted: bool = False


class NewRecord(NamedTuple):
    """A record to append. Without a partition its key chooses one (`partitioner`); without a key, partition 0.

    `time_ms` is kept as the record's time on topics that are not stamped by the log.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    time_ms: int | None = None
    headers: Headers = ()


class Position(NamedTuple):
    """Where a record stands: printed as `topic@partition:offset`."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}@{self.partition}:{self.offset}"


class Record(NamedTuple):
    """A committed record.

    `time_ms` is in milliseconds since 1970 (UTC). `arrival` orders records of different topics of one log as
    they were taken in: exact on the embedded log, to the millisecond on Kafka.
    """

    topic: str
    partition: int
    offset: int
    arrival: int
    time_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def position(self) -> Position:
        """Where the record stands."""
        return Position(self.topic, self.partition, self.offset)


class Reader(ABC):
    """Follows a fixed set of partitions from given offsets on."""

    @abstractmethod
    def poll(self, timeout_s: float = 0.0, max_records: int = 1000) -> list[Record]:
        """The next committed records, in order of arrival across the partitions as far as it is known.

        Waits at most `timeout_s` seconds for the first one, without busy waiting; an empty list means that
        nothing came.
        """

    @abstractmethod
    def position(self, topic: str, partition: int) -> int:
        """The offset after the last record that `poll` returned."""

    @abstractmethod
    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Go on from another offset of one of the reader's partitions, back or ahead."""

    @abstractmethod
    def ends(self) -> dict[TopicPartition, int]:
        """For each partition the offset after its last committed record, now."""

    def starts(self) -> dict[TopicPartition, int]:
        """For each partition the offset before which nothing is kept any more; 0 for one that keeps everything."""
        return {}

    def written_ends(self) -> dict[TopicPartition, int]:
        """For each partition the offset after its last written record, now, in open transactions too."""
        return self.ends()

    def held_back(self) -> dict[TopicPartition, float]:
        """The partitions on which an open transaction hides what was written after it, and for how many seconds now.

        Records are not lost by it: they come when the transaction is ended, by its owner or by its timeout. A log
        without open transactions has none.
        """
        return {}

    def caught_up(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether everything before `ends` has been polled."""
        return all(self.position(*partition) >= end for partition, end in ends.items())

    @abstractmethod
    def close(self) -> None:
        """Release the reader's resources. Safe to call twice."""


class Writer(ABC):
    """The one owner of a shard; made by `Log.claim`.

    `epoch` rises with every claim of the shard.
    """

    shard: int
    epoch: int

    @abstractmethod
    def commit(self, records: Sequence[NewRecord], *, anchor: bytes | None = None) -> list[Position]:
        """Append all the records, or none; durable when it returns, and visible to whoever asks for `Reader.ends`.

        `anchor` replaces the shard's anchor (see `anchor`) after the records are durable and before this
        returns; a crash in between leaves the older one.

        Raises:
            Fenced: a later claim owns the shard; nothing was written.
            Unavailable: nothing was written (`Unknown`: it may have been). The writer is of no further use.
        """

    def begin_commit(self, records: Sequence[NewRecord], *, anchor: bytes | None = None) -> Future[list[Position]]:
        """Begin a commit whose end is waited for later; what `commit` returns or raises is in the future.

        Commits of one writer are done one after the other, in the order in which they were begun; once one failed,
        those behind it fail, too. A log that has nothing to wait for, as here, does it at once.
        """
        done: Future[list[Position]] = Future()
        try:
            done.set_result(self.commit(records, anchor=anchor))
        except BaseException as error:  # noqa: BLE001 - whoever asks for the result is to see it
            done.set_exception(error)
        return done

    @abstractmethod
    def anchor(self) -> bytes | None:
        """The shard's anchor: a few bytes kept apart from the log, so that a log that lost its end is noticed.

        None where the log needs none (a replicated one), or none was written yet.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the shard up. Safe to call twice."""


class Poll(NamedTuple):
    """What one `Member.poll` brought.

    `records` are of started shards only. For each of these, every record that arrived before `horizons[shard]`
    has now been delivered: what arrived later may still be preceded by something. `assigned` are the shards that
    this member should own now; `waiting_for` says of the others who owns them, as far as that is known (a process
    id or a member's name). `lost` are the shards of which `Member.lose` was said and that were not assigned anew since.
    `held_back` is as of `Reader.held_back`, for the inputs of started shards.
    """

    records: list[Record]
    horizons: dict[int, int]
    assigned: frozenset[int]
    waiting_for: dict[int, str]
    lost: frozenset[int] = frozenset()
    held_back: Mapping[TopicPartition, float] = MappingProxyType({})


class Member(ABC):
    """One process's part in a group that shares out the shards. Assignment is data, never a callback.

    The group only assigns: that there is one writer is kept by `claim` alone.
    """

    @abstractmethod
    def poll(self, timeout_s: float, max_records: int = 1000) -> Poll:
        """The next input records of the started shards, and the assignment.

        Waits at most `timeout_s` seconds for a record or a change of the assignment.
        """

    @abstractmethod
    def start(self, shard: int, offsets: Mapping[str, int]) -> None:
        """Deliver the records of an assigned shard, of each topic from the given offset on."""

    @abstractmethod
    def stop(self, shard: int) -> None:
        """Deliver no more records of a shard; those not yet polled are forgotten."""

    @abstractmethod
    def lose(self, shard: int) -> None:
        """Stop a shard of which a newer owner was met, and have it assigned no more until it is assigned anew.

        If that has happened since it was started, it stays assigned.
        Two members that both believe to own a shard would otherwise take it from each other for ever.
        """

    @abstractmethod
    def note_progress(self, shard: int, offsets: Mapping[str, int]) -> None:
        """Tell the log how far a shard has come, so that its standard tools show the lag. Best effort."""

    @abstractmethod
    def close(self) -> None:
        """Leave the group. Safe to call twice."""


class Log(ABC):
    """A log, embedded or remote. One instance belongs to one thread and is not carried across a fork."""

    url: str
    """The log as a user would name it, without secrets."""

    warnings: Sequence[str] = ()
    """What its user should know before relying on it, a sentence each."""

    remote: bool
    """Whether the log is on other machines: it may go away and come back, and whoever runs for long waits for it."""

    client: str = ""
    """Which library carries the records, with its version; empty if there is none between us and the log."""

    @abstractmethod
    def about(self) -> str:
        """What keeps the log, in a few words for its user: which program of which version, and on how many machines.

        Raises:
            Unavailable: the log cannot be reached.
        """

    @abstractmethod
    def missing_topics(self, specs: Sequence[TopicSpec]) -> list[str]:
        """Which of the topics are not there. Makes nothing.

        Raises:
            UsageError: a topic exists with other settings or another number of partitions.
            Unavailable: the log cannot be reached.
        """

    @abstractmethod
    def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Make the topics that are missing, all with the log's number of partitions.

        Raises:
            UsageError: a topic exists with other settings or another number of partitions.
            Unavailable: the log cannot be reached.
        """

    @abstractmethod
    def partitions(self) -> int:
        """How many partitions each topic of the exchange has: the number of shards."""

    @abstractmethod
    def append(self, records: Sequence[NewRecord]) -> list[Position]:
        """Append records for a client; durable when it returns. Not atomic across records, but in their order.

        Raises:
            Unavailable: nothing was written. `Unknown`: some or all may have been.
        """

    @abstractmethod
    def reader(self, starts: Mapping[TopicPartition, int | None]) -> Reader:
        """A reader of the given partitions from the given offsets on; None stands for the present end."""

    @abstractmethod
    def claim(self, shard: int) -> Writer:
        """Become the owner of a shard.

        When it returns, no earlier writer of the shard can commit and what one left open is resolved: a read to
        the end of any of its partitions sees everything that it ever will have written.

        Raises:
            Occupied: the log lets a live owner keep its shard, and there is one.
            Hanging: a transaction stays open on one of the partitions that the shard writes.
            Unavailable: the log cannot be reached.
        """

    def anchor(self, shard: int) -> bytes | None:
        """The anchor of a shard (`Writer.anchor`), for whoever only reads; None where there is none."""
        del shard
        return None

    @abstractmethod
    def member(self, group: str, topics: Collection[str]) -> Member:
        """Join the group that shares out the shards; its polls deliver the records of `topics`."""

    @abstractmethod
    def owners(self) -> dict[int, str | None]:
        """Who owns each shard now (a process id or a member's name), None where nobody does."""

    @abstractmethod
    def close(self) -> None:
        """Release everything that was opened through this log. Safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
