"""A shard's history as its journal tells it: which entries count, and the exchange that they make.

Whoever recovers, replays, audits or looks back reads it here, so all of them see the same. Invariant: nothing is
written, and an exchange that this module gave out is the one that the journal's digests stand for.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Final, NamedTuple

from stocktrade.core.exchange import Exchange
from stocktrade.core.instruments import parse_instruments
from stocktrade.core.rules import RULES, Rules
from stocktrade.domain.facts import Fact
from stocktrade.domain.messages import JournalInput, JournalRecord, SnapshotManifest
from stocktrade.errors import JournalBroken, Unavailable, UsageError
from stocktrade.shard import snapshot
from stocktrade.shard.journal import Head, body_of, decode_entry, digest_of, follows
from stocktrade.transport import topics
from stocktrade.transport.base import Log, NewRecord, Position, Reader, Record, TopicPartition
from stocktrade.transport.codec import Dead, decode_input, encode_facts

SILENCE_S: Final = 30.0
"""How long a log that has more may bring nothing."""


class Applied(NamedTuple):
    """One order of the journal, and what the exchange said to it: as facts, and as the records of the log."""

    line: JournalInput
    source: Position
    facts: list[Fact]
    outputs: list[NewRecord]


def to_the_end(
    reader: Reader,
    at_most: int | None = None,
    ends: Mapping[TopicPartition, int] | None = None,
    *,
    at_a_time: int = 1000,
    patience_s: float = SILENCE_S,
) -> Iterator[Record]:
    """What a reader's partitions hold now, to their ends, or to those that are given, and perhaps a few more.

    Args:
        reader: it is left where the last poll has brought it.
        at_most: so many records are enough.
        ends: where to end instead.
        at_a_time: how many records a poll may bring.
        patience_s: how long the log may bring nothing.

    Raises:
        Unavailable: nothing comes any more, although there is more.
    """
    ends = reader.ends() if ends is None else ends
    given = 0
    heard_at = time.monotonic()
    while not reader.caught_up(ends):
        records = reader.poll(min(1.0, patience_s), at_a_time)
        if not records and time.monotonic() - heard_at >= patience_s:
            raise Unavailable(
                "the log cannot be read to its end",
                cause=f"nothing came for {patience_s:g} s",
                hint="it may help to try again",
            )
        for record in records:
            yield record
            given += 1
            if given == at_most:
                return
        if records:
            heard_at = time.monotonic()  # what is done with them takes its time


def rerun(exchange: Exchange, shard: int, entry: JournalRecord) -> Iterator[Applied]:
    """Put the orders of an entry through an exchange, one at a time.

    Raises:
        JournalBroken: what the entry calls an order is none.
    """
    for line in entry.inputs:
        if line.kind != "order":
            continue
        source = Position(line.topic, shard, line.offset)
        decoded = decode_input(line.topic, (line.text or "").encode())
        if isinstance(decoded, Dead):
            raise JournalBroken(
                f"entry {entry.entry} of shard {shard}'s journal holds no order where it says so",
                cause=f"{source}: {decoded.detail}",
            )
        facts = exchange.apply(decoded)
        yield Applied(line, source, facts, encode_facts(facts, shard, str(source), line.time_ms))


class Replica:
    """A shard's exchange after some entry of its journal; it owns nothing.

    Attributes:
        exchange: Books, ledger and ids after that entry.
        head: The entry, and `offset` where it stands in the journal (-1: none).
        next_offsets: The positions in the input topics after it.
        epoch: How many owners there were.
        ignored: How many records were met that do not continue the chain.
        manifest: The snapshot from which it began, if it did.
    """

    def __init__(self, shard: int, rules: Rules) -> None:
        self.shard = shard
        self.exchange = Exchange(rules)
        self.head = Head()
        self.offset = -1
        self.next_offsets: dict[str, int] = dict.fromkeys(topics.INPUTS, 0)
        self.epoch = 0
        self.ignored = 0
        self.manifest: SnapshotManifest | None = None

    def begin_from(self, manifest: SnapshotManifest, rows: Iterable[list[object]]) -> None:
        """Take the state of a snapshot, which fits the journal."""
        self.exchange = Exchange.restore(rows, self.exchange.rules)
        self.head = Head(manifest.entry, manifest.digest)
        self.offset = manifest.journal_offset
        self.next_offsets = {**self.next_offsets, **manifest.next_offsets}
        self.epoch = manifest.epoch
        self.manifest = manifest

    def entry_of(self, record: Record) -> JournalRecord | None:
        """The entry in the next record of the journal; None if it does not count: a zombie's, or a stranger's.

        Raises:
            JournalBroken: entries are missing before it, or it cannot be read.
            UsageError: it was written under other rules.
        """
        entry = decode_entry(record)
        if not follows(entry, self.head):
            if entry.entry > self.head.entry + 1:
                raise JournalBroken(
                    f"the journal has a gap before {record.position}",
                    cause=f"entry {self.head.entry + 1} is missing, the next one is {entry.entry}",
                    hint="restore the log from a copy; nothing was written",
                )
            self.ignored += 1
            return None
        if entry.rules != self.exchange.rules.name:
            raise UsageError(
                f"the journal was written under rules {entry.rules!r}",
                cause=f"this exchange runs {self.exchange.rules.name!r}; entry {entry.entry}, {record.position}",
                hint="start the exchange with the rules of its journal (--instruments), or in an empty log",
            )
        return entry

    def take(self, entry: JournalRecord, record: Record) -> list[NewRecord]:
        """Apply an entry that counts, and check its digest; what it wrote.

        Raises:
            JournalBroken: it does not replay to its digest.
        """
        outputs = [output for applied in rerun(self.exchange, self.shard, entry) for output in applied.outputs]
        self.seal(entry, record, outputs)
        return outputs

    def seal(self, entry: JournalRecord, record: Record, outputs: list[NewRecord]) -> None:
        """End an entry whose orders were put through the exchange and gave `outputs`.

        Raises:
            JournalBroken: these are not what its digest says.
        """
        digest = digest_of(entry.prev, body_of(record.value or b""), outputs)
        if digest != entry.digest:
            raise JournalBroken(
                f"the journal does not replay to its digest at {record.position}",
                cause=f"entry {entry.entry} says {entry.digest[:16]}…, its replay gives {digest[:16]}…",
                hint="restore the log from a copy; nothing was written",
            )
        self.head = Head(entry.entry, entry.digest)
        self.offset = record.offset
        self.next_offsets = {**self.next_offsets, **entry.next_offsets}
        self.epoch = entry.epoch


def snapshots_of(log: Log, shard: int) -> snapshot.Snapshots:
    """What the shard's snapshot topic holds."""
    stored = snapshot.Snapshots()
    with closing(log.reader({(topics.SNAPSHOTS, shard): 0})) as reader:
        stored.feed(to_the_end(reader))
    return stored


def fits(log: Log, manifest: SnapshotManifest) -> bool:
    """Whether the journal holds at a snapshot's place the entry with its digest."""
    with closing(log.reader({(topics.JOURNAL, manifest.shard): manifest.journal_offset})) as reader:
        for record in to_the_end(reader, at_most=1):
            entry = decode_entry(record)
            return (record.offset, entry.entry, entry.digest) == (
                manifest.journal_offset,
                manifest.entry,
                manifest.digest,
            )
    return False


def replica_from_snapshot(
    log: Log, shard: int, rules: Rules, stored: snapshot.Snapshots, *, before_seq: int | None = None
) -> Replica:
    """The state of the newest snapshot that is whole and fits; the empty state before the first entry if none does.

    Args:
        log: where the journal is.
        shard: whose state.
        rules: those of the journal; a snapshot under others is not used.
        stored: the shard's snapshots.
        before_seq: pass over snapshots of a later exchange sequence than this.
    """
    replica = Replica(shard, rules)
    for manifest in stored.manifests():
        if manifest.rules != rules.name or (before_seq is not None and manifest.seq > before_seq):
            continue
        rows = stored.rows(manifest) if fits(log, manifest) else None
        if rows is not None:
            replica.begin_from(manifest, rows)
            break
    return replica


def rules_of(log: Log, shard: int) -> Rules:
    """The rules that a journal was written under: its first entry has the instruments, if there are any.

    Raises:
        UsageError: this version of stocktrade does not know them.
        JournalBroken: the first entry cannot be read.
    """
    with closing(log.reader({(topics.JOURNAL, shard): 0})) as reader:
        for record in to_the_end(reader, at_most=1):
            return rules_in(decode_entry(record), record.position)
    return RULES


def rules_in(entry: JournalRecord, position: Position) -> Rules:
    """The rules that a journal's first entry names; the same errors as `rules_of`."""
    rules = RULES
    if entry.instruments is not None:
        rules = parse_instruments(entry.instruments.encode(), source=str(position))
    if rules.name != entry.rules:
        raise UsageError(
            f"the journal was written under rules {entry.rules!r}",
            cause=f"this version of stocktrade makes {rules.name!r} of what stands at {position}",
            hint="use the version of stocktrade that wrote it",
        )
    return rules
